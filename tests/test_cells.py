"""Every cell fulfils the contract; Elman and LSTM equal torch.nn; initial weights are as their sources describe."""

import dataclasses
import math
import typing

import numpy as np
import pytest
import torch
from scipy import stats

import rnnstudy.cells  # noqa: F401  (its cells are found below)
from rnnstudy.cells import LMU, LSTM, Elman, Jordan
from rnnstudy.cells.cell import VECTORS, Cell
from rnnstudy.cells.initialisation import (
    Chrono,
    ForgetBias,
    GateBias,
    Gaussian,
    Identity,
    Initialisation,
    Orthogonal,
    Published,
    PyTorchDefault,
    SmartTanh,
    spectral_radius,
)
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.spec import Spec, SpecError, concrete
from rnnstudy.training.model import Model
from rnnstudy.training.randomness import generator

FEATURES, OUTPUTS, REPLICAS, BATCH, TIME = 3, 2, 2, 4, 7


def smallest(cls: type[Spec], **given) -> Spec:
    """A specification of `cls` with a value for every field that has no default."""
    hints = typing.get_type_hints(cls)
    needed = {f.name: hints[f.name](9) for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING}
    return cls(**{**needed, **given})


def own(base):
    return [cls for cls in concrete(base) if cls.__module__.startswith("rnnstudy.")]


def variants(cls) -> list[Cell]:
    """One cell for each value of each field that offers a choice, the other fields at their default."""
    hints = typing.get_type_hints(cls)
    choices = {f.name: typing.get_args(hints[f.name]) for f in dataclasses.fields(cls)}
    few = {"width": 5} | ({"state_size": 2} if "state_size" in hints else {})
    found = [cls(**few), *(cls(**few, **{name: option}) for name, options in choices.items() for option in options)]
    return list(dict.fromkeys(found))


CELLS = [cell for cls in own(Cell) for cell in variants(cls)]
RECURRENT = ("W_hh", "W_oo", "W_yh", "W_zh", "W_zy")
SAME_FOR_ALL = {("SLSTM", "b_h"), ("S4D", "log_A"), ("S4D", "A_im"), ("S6", "log_A"), ("S6", "D")}
"""Parameters whose published values no generator draws."""

SHIFTS = {("MLSTM", "n"): 30.0}
"""By how much a state is changed to be seen in the output, if not by 0.1: n acts where |n · q| exceeds exp(−m)."""

INITIALISATIONS = [smallest(cls) for cls in own(Initialisation)]


def weights(model, seeds=range(REPLICAS), initialisation=None, dtype=torch.float64):
    """Drawn parameters (replica, …), one seed for each replica."""
    drawn = [model.draw(initialisation or PyTorchDefault(), generator(seed, "initialisation")) for seed in seeds]
    return {name: torch.stack([values[name] for values in drawn]).to(dtype) for name in drawn[0]}


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_step(cell, parameters, x, state, observe=lambda _, value: value):
    return cell.step(cell.prepared(parameters), cell.project(parameters, x), state, observe)


@pytest.mark.parametrize("cell", CELLS, ids=repr)
class TestContract:
    def layer(self, cell):
        model = Model(cell=cell, layers=1, features=FEATURES, outputs=OUTPUTS)
        parameters = {name: value for name, value in weights(model).items() if name in model.layer_parameters(0)}
        state = {name: 0.5 * noise(REPLICAS, BATCH, width, seed=9) for name, width in model.widths.items()}
        return parameters, state

    def test_a_step_returns_every_state_and_observes_each_once_in_order(self, cell):
        parameters, state = self.layer(cell)
        shown = []

        def observe(name, value):
            shown.append(name)
            return value

        after = one_step(cell, parameters, noise(REPLICAS, BATCH, FEATURES), state, observe)
        assert tuple(shown) == cell.states
        assert set(after) == set(cell.states)
        assert cell.output in cell.states
        assert {name: value.shape for name, value in after.items()} == {name: v.shape for name, v in state.items()}

    def test_a_step_continues_with_what_observe_returns(self, cell):
        parameters, state = self.layer(cell)
        x = noise(REPLICAS, BATCH, FEATURES)
        plain = one_step(cell, parameters, x, state)
        for shifted in cell.states:
            by = SHIFTS.get((type(cell).__name__, shifted), 0.1)
            after = one_step(
                cell, parameters, x, state, lambda name, value, at=shifted, by=by: value + by if name == at else value
            )
            torch.testing.assert_close(after[shifted], plain[shifted] + by)
            if shifted in cell.redundant:
                torch.testing.assert_close(after[cell.output], plain[cell.output])
                assert any(not torch.allclose(after[name], plain[name]) for name in cell.states if name != shifted)
            else:
                # The output is computed last and reads what was observed before it.
                assert not torch.allclose(after[cell.output], plain[cell.output])

    def test_the_derivative_is_correct(self, cell):
        parameters, state = self.layer(cell)
        names, states = list(parameters), list(state)
        x = noise(REPLICAS, BATCH, FEATURES)

        def step(x, *values):
            after = one_step(
                cell, dict(zip(names, values[: len(names)], strict=True)), x,
                dict(zip(states, values[len(names) :], strict=True)),
            )  # fmt: skip
            return tuple(after[name] for name in states)

        arguments = [value.clone().requires_grad_() for value in (x, *parameters.values(), *state.values())]
        assert torch.autograd.gradcheck(step, arguments)

    def test_replicas_are_independent(self, cell):
        parameters, state = self.layer(cell)
        x = noise(REPLICAS, BATCH, FEATURES)
        together = one_step(cell, parameters, x, state)
        for replica in range(REPLICAS):
            part = slice(replica, replica + 1)
            alone = one_step(
                cell,
                {name: value[part] for name, value in parameters.items()},
                x[part],
                {name: value[part] for name, value in state.items()},
            )
            for name in cell.states:
                torch.testing.assert_close(together[name][part], alone[name], rtol=0, atol=1e-14)

    def test_projecting_all_steps_at_once_equals_projecting_each(self, cell):
        parameters, _ = self.layer(cell)
        rows = noise(REPLICAS, 6, FEATURES)
        together = cell.project(parameters, rows)
        for row in range(6):
            alone = cell.project(parameters, rows[:, row : row + 1])
            torch.testing.assert_close(together[:, row : row + 1], alone, rtol=0, atol=1e-14)

    def test_parameters_are_divided_into_equal_blocks(self, cell):
        for parameter in cell.parameters(FEATURES, OUTPUTS).values():
            assert parameter.shape[-1] % len(parameter.blocks) == 0
            assert len(parameter.shape) == (1 if parameter.role in VECTORS else 2)
            assert set(parameter.published) <= set(parameter.blocks)

    def test_the_label_is_a_lower_case_word(self, cell):
        assert cell.label().isidentifier()
        assert cell.label() == cell.label().lower()

    @pytest.mark.parametrize("initialisation", INITIALISATIONS, ids=repr)
    def test_every_initialisation_draws_what_it_declares(self, cell, initialisation):
        model = Model(cell=cell, layers=2, features=FEATURES, outputs=OUTPUTS)
        try:
            initialisation.check_compatible(cell)
        except SpecError:
            assert initialisation.square
            recurrent = [one.shape for one in cell.parameters(5, 6).values() if one.role == "recurrent"]
            assert isinstance(cell, Jordan | LMU) or not recurrent
            return
        layer = model.layer_parameters(1)
        first, again, other = (model.draw(initialisation, generator(seed, "initialisation")) for seed in (0, 0, 1))
        for name, value in first.items():
            assert value.isfinite().all()
            assert value.dtype == torch.float32
            assert torch.equal(value, again[name])
            same_for_all = (initialisation == Identity() and name.startswith(RECURRENT)) or (
                (type(cell).__name__, name.partition("_layer")[0]) in SAME_FOR_ALL
                and (initialisation == Published() or layer[name.partition("_layer")[0]].role == "diagonal")
            )
            assert not value.any() or same_for_all or not torch.equal(value, other[name])
        suffix = "_layer2"
        assert {name: first[f"{name}{suffix}"].shape for name in layer} == {name: p.shape for name, p in layer.items()}
        assert first["W_ho_layer2" if cell.owns_readout else "W_ho"].shape == (5, OUTPUTS)


TORCH_ORDER = {"i": 0, "f": 1, "C̃": 2, "o": 3}


def to_torch(cell, weight):
    """Our row-vector matrix or bias of one replica in torch.nn's layout."""
    if isinstance(cell, LSTM):
        blocks = dict(zip(("f", "i", "o", "C̃"), weight.chunk(4, dim=-1), strict=True))
        weight = torch.cat([blocks[gate] for gate in sorted(TORCH_ORDER, key=TORCH_ORDER.get)], dim=-1)
    return weight.mT if weight.dim() == 2 else weight


def library_network(cell, layers):
    if isinstance(cell, LSTM):
        return torch.nn.LSTM(FEATURES, cell.width, layers, dtype=torch.float64)
    return torch.nn.RNN(FEATURES, cell.width, layers, nonlinearity=cell.activation, dtype=torch.float64)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(
    "cell", [Elman(width=5), Elman(width=5, activation="relu"), LSTM(width=5)], ids=lambda cell: repr(cell)
)
def test_forward_and_every_gradient_equal_torch_nn(cell, layers):
    model = Model(cell=cell, layers=layers, features=FEATURES, outputs=OUTPUTS)
    ours = {name: value.requires_grad_() for name, value in weights(model).items()}
    inputs = noise(TIME, REPLICAS, BATCH, FEATURES).requires_grad_()
    actual, trajectories = model.forward(ReferenceEngine(), ours, inputs, steps=tuple(range(TIME)), observed=False)
    loss_weights = noise(TIME, REPLICAS, BATCH, OUTPUTS, seed=1)
    (actual * loss_weights).sum().backward()
    close = {"rtol": 0, "atol": 1e-10}

    for replica in range(REPLICAS):
        network, readout = library_network(cell, layers), torch.nn.Linear(5, OUTPUTS, dtype=torch.float64)
        names = {
            f"{theirs}_l{layer}": name if layers == 1 else f"{name}_layer{layer + 1}"
            for layer in range(layers)
            for theirs, name in (("weight_ih", "W_xh"), ("weight_hh", "W_hh"), ("bias_ih", "b_h"), ("bias_hh", "b_h"))
        }
        with torch.no_grad():
            for theirs, name in names.items():
                # The sum of the two biases of torch.nn is ours: a third plus two thirds.
                share = {"bias_ih": 1 / 3, "bias_hh": 2 / 3}.get(theirs[:-3], 1.0)
                getattr(network, theirs).copy_(share * to_torch(cell, ours[name][replica]))
            readout.weight.copy_(ours["W_ho"][replica].mT)
            readout.bias.copy_(ours["b_o"][replica])
        theirs_in = inputs.detach()[:, replica].clone().requires_grad_()
        hidden, _ = network(theirs_in)
        outputs = readout(hidden)
        (outputs * loss_weights[:, replica]).sum().backward()

        torch.testing.assert_close(trajectories[-1].outputs[:, replica], hidden, **close)
        torch.testing.assert_close(actual[:, replica], outputs, **close)
        torch.testing.assert_close(inputs.grad[:, replica], theirs_in.grad, **close)
        for theirs, name in names.items():
            torch.testing.assert_close(to_torch(cell, ours[name].grad[replica]), getattr(network, theirs).grad, **close)
        torch.testing.assert_close(ours["W_ho"].grad[replica].mT, readout.weight.grad, **close)
        torch.testing.assert_close(ours["b_o"].grad[replica], readout.bias.grad, **close)


@pytest.mark.parametrize(
    ("activation", "function"), [("sigmoid", lambda a: 1 / (1 + np.exp(-a))), ("linear", lambda a: a)]
)
def test_the_activations_that_torch_nn_lacks(activation, function):
    cell = Elman(width=5, activation=activation)
    model = Model(cell=cell, layers=1, features=FEATURES, outputs=OUTPUTS)
    parameters, inputs = weights(model, [3]), noise(TIME, 1, BATCH, FEATURES)
    trajectory = ReferenceEngine().unroll(cell, parameters, inputs, widths=model.widths, observed=False)
    w_xh, w_hh, b_h = (parameters[name][0].numpy() for name in ("W_xh", "W_hh", "b_h"))
    h = np.zeros((BATCH, 5))
    for t in range(TIME):
        h = function(inputs[t, 0].numpy() @ w_xh + h @ w_hh + b_h)
        np.testing.assert_allclose(trajectory.outputs[t, 0].numpy(), h, rtol=0, atol=1e-12)


@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid", "linear"])
def test_the_largest_slope_is_the_largest_derivative(activation):
    cell = Elman(width=1, activation=activation)
    a = torch.linspace(-4, 4, 8001, dtype=torch.float64).view(1, -1, 1).requires_grad_()
    none = torch.zeros(1, 1, 1, dtype=torch.float64)
    state = {"h": torch.zeros(1, 8001, 1, dtype=torch.float64)}
    cell.step({"W_hh": none}, a, state, lambda _, value: value)["h"].sum().backward()
    assert a.grad.max().item() == pytest.approx(cell.largest_slope, abs=1e-12)


def lstm_biases(gate_bias, width=4000):
    cell = LSTM(width=width)
    parameter = cell.parameters(1, 1)["b_h"]
    drawn = PyTorchDefault(gate_bias=gate_bias).draw({"b_h": parameter}, width, generator(0, "initialisation"))["b_h"]
    return dict(zip(("f", "i", "o", "C̃"), drawn.chunk(4), strict=True))


def test_pytorchs_default_has_the_distribution_of_torch_nn():
    width, model = 60, Model(cell=LSTM(width=60), layers=1, features=5, outputs=40)
    drawn = model.draw(PyTorchDefault(), generator(0, "initialisation"))
    torch.manual_seed(0)
    network, readout = torch.nn.LSTM(5, width), torch.nn.Linear(width, 40)
    pairs = {
        "W_xh": network.weight_ih_l0,
        "W_hh": network.weight_hh_l0,
        "b_h": network.bias_ih_l0 + network.bias_hh_l0,
        "W_ho": readout.weight,
        "b_o": readout.bias,
    }
    for name, theirs in pairs.items():
        ours = drawn[name].flatten().numpy()
        assert stats.ks_2samp(ours, theirs.detach().flatten().numpy()).pvalue > 1e-3, name
        assert np.abs(ours).max() <= (2 if name == "b_h" else 1) / math.sqrt(width)


@pytest.mark.parametrize("gain", [1.0, 0.9])
def test_orthogonal_recurrent_matrices_are_orthogonal_in_every_gate(gain):
    drawn = Model(cell=LSTM(width=20), layers=1, features=3, outputs=2).draw(Orthogonal(gain=gain), generator(0, "x"))
    for block in drawn["W_hh"].double().chunk(4, dim=-1):
        torch.testing.assert_close(block.mT @ block, gain**2 * torch.eye(20, dtype=torch.float64), atol=1e-6, rtol=0)
    assert drawn["W_xh"].abs().max() <= 1 / math.sqrt(20)


def test_orthogonal_matrices_are_uniform():
    """Under the Haar measure an entry has mean 0 and variance 1/n; QR without its sign correction has neither sign."""
    cell = Elman(width=6)
    parameter = {"W_hh": cell.parameters(1, 1)["W_hh"]}
    drawn = torch.stack([Orthogonal().draw(parameter, 6, generator(seed, "x"))["W_hh"] for seed in range(400)])
    assert (drawn.mean(0).abs() <= 5 * math.sqrt(1 / 6 / 400)).all()
    determinants = torch.linalg.det(drawn.double())
    assert abs((determinants > 0).double().mean() - 0.5) <= 5 * 0.5 / math.sqrt(400)


def test_gaussian_weights_and_no_biases():
    drawn = Model(cell=LSTM(width=50), layers=1, features=6, outputs=4).draw(Gaussian(std=0.1), generator(0, "x"))
    assert not drawn["b_h"].any()
    assert not drawn["b_o"].any()
    for name in ("W_xh", "W_hh", "W_ho"):
        assert stats.kstest(drawn[name].flatten().numpy(), "norm", args=(0, 0.1)).pvalue > 1e-3, name


def test_smart_tanh_keeps_15_entries_in_a_row_and_the_radius():
    drawn = Model(cell=Elman(width=50), layers=1, features=6, outputs=4).draw(SmartTanh(), generator(0, "x"))
    matrix = drawn["W_hh"].numpy()
    assert (np.count_nonzero(matrix, axis=1) == 15).all()
    assert np.abs(np.linalg.eigvals(matrix.astype(float))).max() == pytest.approx(0.95, abs=1e-5)
    assert not drawn["b_h"].any()
    assert stats.kstest(drawn["W_xh"].flatten().numpy(), "norm", args=(0, 0.01)).pvalue > 1e-3
    narrow = SmartTanh(radius=1.2, connections=3)
    few = Model(cell=Elman(width=50), layers=1, features=6, outputs=4).draw(narrow, generator(0, "x"))["W_hh"]
    assert (few.count_nonzero(dim=1) == 3).all()
    assert spectral_radius(few) == pytest.approx(1.2, abs=1e-5)


def test_forget_bias_sets_only_the_forget_gate():
    plain, biased = lstm_biases(None), lstm_biases(ForgetBias(value=2.5))
    assert (biased["f"] == 2.5).all()
    for gate in ("i", "o", "C̃"):
        assert torch.equal(biased[gate], plain[gate])


def test_chrono_spreads_forgetting_times():
    plain, biased = lstm_biases(None), lstm_biases(Chrono(longest=100))
    assert stats.kstest(biased["f"].exp().numpy(), "uniform", args=(1, 98)).pvalue > 1e-3
    assert torch.equal(biased["i"], -biased["f"])
    assert torch.equal(biased["o"], plain["o"])
    assert torch.equal(biased["C̃"], plain["C̃"])


def test_the_gate_bias_does_not_change_the_bias_of_the_readout():
    drawn = Model(cell=LSTM(width=5), layers=1, features=3, outputs=4).draw(
        PyTorchDefault(gate_bias=ForgetBias(value=9)), generator(0, "x")
    )
    assert (drawn["b_h"][:5] == 9).all()
    assert (drawn["b_o"] < 9).all()


@pytest.mark.parametrize("gate_bias", [smallest(cls) for cls in own(GateBias)], ids=repr)
@pytest.mark.parametrize("initialisation", INITIALISATIONS, ids=repr)
def test_a_gate_bias_needs_gates(initialisation, gate_bias):
    given = initialisation.replace(gate_bias=gate_bias)
    given.check_compatible(LSTM())
    [gate] = gate_bias.needs
    with pytest.raises(SpecError, match=rf"Elman\(\) has no {gate} gate for .*; leave gate_bias out"):
        given.check_compatible(Elman())
