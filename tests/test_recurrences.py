"""Every recurrence against a loop written by hand, over complete sequences: values, gradients, through time too."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from rnnstudy.cells import (
    CIFG,
    GRU,
    JANET,
    LEM,
    LMU,
    LSTM,
    MGU,
    MLSTM,
    SLSTM,
    AntisymmetricRNN,
    CoRNN,
    Elman,
    ExpRNN,
    IndRNN,
    Jordan,
    OutputRecurrent,
    PeepholeLSTM,
)
from rnnstudy.cells.initialisation import (
    Chrono,
    ForgetBias,
    Gaussian,
    Glorot,
    Identity,
    InputBias,
    Orthogonal,
    PyTorchDefault,
    SmartTanh,
    SpectralRadius,
    spectral_radius,
)
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.run import Run, Training
from rnnstudy.spec import SpecError
from rnnstudy.tasks import Adding, TemporalOrder
from rnnstudy.training.loop import train
from rnnstudy.training.model import Model
from rnnstudy.training.randomness import generator

FEATURES, OUTPUTS, REPLICAS, BATCH, TIME, WIDTH = 3, 2, 2, 4, 7, 5
ACTIVATIONS = {
    "tanh": np.tanh,
    "relu": lambda a: np.maximum(a, 0),
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "linear": lambda a: a,
    "softmax": lambda a: np.exp(a) / np.exp(a).sum(-1, keepdims=True),
}
CELLS = [
    Elman(width=WIDTH),
    LSTM(width=WIDTH),
    LSTM(width=WIDTH, variant="no forget gate"),
    LSTM(width=WIDTH, variant="1997"),
    GRU(width=WIDTH),
    Jordan(width=WIDTH, feedback="softmax"),
    OutputRecurrent(width=WIDTH, feedback="tanh"),
]
SINCE_1997 = [
    *(kind(width=WIDTH) for kind in (CIFG, JANET, LEM, MGU, SLSTM, PeepholeLSTM)),
    IndRNN(width=WIDTH, activation="tanh"),
    CoRNN(width=WIDTH, step_size=0.3, frequency=1.0, damping=1.5),
    AntisymmetricRNN(width=WIDTH, step_size=0.5),
    AntisymmetricRNN(width=WIDTH, step_size=0.5, variant="gated"),
    ExpRNN(width=WIDTH),
    MLSTM(width=WIDTH),
    LMU(width=WIDTH, order=3, window=5.0),
]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def weights(model, initialisation=None):
    """Drawn parameters (replica, …) in float64, one seed for each replica; three times as large as PyTorch's."""
    drawn = [model.draw(initialisation or PyTorchDefault(), generator(seed, "x")) for seed in range(REPLICAS)]
    return {name: 3 * torch.stack([values[name] for values in drawn]).double() for name in drawn[0]}


def outputs_of(cell, parameters, inputs, layers=1, observed=False):
    """Outputs at all steps, and the trajectories."""
    model = Model(cell=cell, layers=layers, features=FEATURES, outputs=OUTPUTS)
    return model.forward(ReferenceEngine(), parameters, inputs, steps=range(len(inputs)), observed=observed)


def drawn_for(cell, layers=1, initialisation=None):
    return weights(Model(cell=cell, layers=layers, features=FEATURES, outputs=OUTPUTS), initialisation)


def by_hand(cell, p, x):
    """Outputs (time, outputs) for one sequence x (time, features) of one replica: one step at a time, in numpy."""
    p = {name: value.numpy() for name, value in p.items()}
    h, c, o, actual = np.zeros(WIDTH), np.zeros(WIDTH), np.zeros(OUTPUTS), []
    sigmoid = ACTIVATIONS["sigmoid"]
    for x_t in x.numpy():
        if type(cell) is Jordan:
            h = ACTIVATIONS[cell.activation](x_t @ p["W_xh"] + ACTIVATIONS[cell.feedback](o) @ p["W_oh"] + p["b_h"])
            o = h @ p["W_ho"] + p["b_o"]
        elif type(cell) is OutputRecurrent:
            h = ACTIVATIONS[cell.activation](x_t @ p["W_xh"] + p["b_h"])
            o = h @ p["W_ho"] + ACTIVATIONS[cell.feedback](o) @ p["W_oo"] + p["b_o"]
        else:
            i, show, candidate = np.split(x_t @ p["W_xh"] + h @ p["W_hh"] + p["b_h"], 3)
            if cell.variant == "1997":
                c = c + sigmoid(i) * (4 * sigmoid(candidate) - 2)
                h = sigmoid(show) * (2 * sigmoid(c) - 1)
            else:
                c = c + sigmoid(i) * np.tanh(candidate)
                h = sigmoid(show) * np.tanh(c)
            o = h @ p["W_ho"] + p["b_o"]
        actual.append(o)
    return np.array(actual)


@pytest.mark.parametrize(
    "cell",
    [
        *(Jordan(width=WIDTH, activation=activation) for activation in ("tanh", "relu", "sigmoid", "linear")),
        *(Jordan(width=WIDTH, feedback=feedback) for feedback in ("tanh", "sigmoid", "softmax")),
        *(OutputRecurrent(width=WIDTH, activation=activation) for activation in ("tanh", "relu", "sigmoid", "linear")),
        *(OutputRecurrent(width=WIDTH, feedback=feedback) for feedback in ("tanh", "sigmoid", "softmax")),
        LSTM(width=WIDTH, variant="no forget gate"),
        LSTM(width=WIDTH, variant="1997"),
    ],
    ids=repr,
)
def test_outputs_equal_a_loop_written_by_hand(cell):
    parameters, inputs = drawn_for(cell), noise(TIME, REPLICAS, BATCH, FEATURES)
    actual, _ = outputs_of(cell, parameters, inputs)
    for r in range(REPLICAS):
        own = {name: value[r] for name, value in parameters.items()}
        for b in range(BATCH):
            np.testing.assert_allclose(actual[:, r, b].numpy(), by_hand(cell, own, inputs[:, r, b]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("layers", [1, 2])
def test_gru_forward_and_every_gradient_equal_torch_nn(layers):
    cell = GRU(width=WIDTH)
    ours = {name: value.requires_grad_() for name, value in drawn_for(cell, layers).items()}
    inputs = noise(TIME, REPLICAS, BATCH, FEATURES).requires_grad_()
    actual, _ = outputs_of(cell, ours, inputs, layers)
    loss_weights = noise(TIME, REPLICAS, BATCH, OUTPUTS, seed=1)
    (actual * loss_weights).sum().backward()
    close = {"rtol": 0, "atol": 1e-10}
    gates, candidate = slice(0, 2 * WIDTH), slice(2 * WIDTH, None)
    for r in range(REPLICAS):
        network = torch.nn.GRU(FEATURES, WIDTH, layers, dtype=torch.float64)
        with torch.no_grad():
            for layer in range(layers):
                own = {
                    n: ours[n if layers == 1 else f"{n}_layer{layer + 1}"][r] for n in ("W_xh", "W_hh", "b_h", "b_hn")
                }
                getattr(network, f"weight_ih_l{layer}").copy_(own["W_xh"].T)
                getattr(network, f"weight_hh_l{layer}").copy_(own["W_hh"].T)
                # For the gates, the sum of the two biases is ours; for the candidate, both are ours.
                inner = torch.cat([own["b_h"][gates] / 3, own["b_hn"]])
                getattr(network, f"bias_hh_l{layer}").copy_(inner)
                outer = torch.cat([own["b_h"][gates] * 2 / 3, own["b_h"][candidate]])
                getattr(network, f"bias_ih_l{layer}").copy_(outer)
        x = inputs.detach()[:, r].clone().requires_grad_()
        outputs = network(x)[0] @ ours["W_ho"].detach()[r] + ours["b_o"].detach()[r]
        (outputs * loss_weights[:, r]).sum().backward()
        torch.testing.assert_close(actual[:, r], outputs, **close)
        torch.testing.assert_close(inputs.grad[:, r], x.grad, **close)
        for layer in range(layers):
            grad = {
                n: ours[n if layers == 1 else f"{n}_layer{layer + 1}"].grad[r] for n in ("W_xh", "W_hh", "b_h", "b_hn")
            }
            theirs = {
                name: getattr(network, f"{name}_l{layer}").grad
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            }
            torch.testing.assert_close(grad["W_xh"].T, theirs["weight_ih"], **close)
            torch.testing.assert_close(grad["W_hh"].T, theirs["weight_hh"], **close)
            torch.testing.assert_close(grad["b_h"], theirs["bias_ih"], **close)
            torch.testing.assert_close(grad["b_h"][gates], theirs["bias_hh"][gates], **close)
            torch.testing.assert_close(grad["b_hn"], theirs["bias_hh"][candidate], **close)


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_the_gradient_of_a_complete_sequence_is_correct(cell):
    parameters = {name: value[:1] for name, value in drawn_for(cell.replace(width=3)).items()}
    names = list(parameters)
    inputs = noise(4, 1, 2, FEATURES)

    def outputs(inputs, *values):
        return outputs_of(cell.replace(width=3), dict(zip(names, values, strict=True)), inputs)[0]

    arguments = [value.clone().requires_grad_() for value in (inputs, *parameters.values())]
    assert torch.autograd.gradcheck(outputs, arguments)


@pytest.mark.parametrize("cell", [*CELLS, *SINCE_1997], ids=repr)
def test_the_gradient_through_time_equals_central_differences(cell):
    """dL/ds_t by central differences: an observer changes the state where it is computed."""
    parameters, inputs = drawn_for(cell), noise(TIME, REPLICAS, BATCH, FEATURES)
    model = Model(cell=cell, layers=1, features=FEATURES, outputs=OUTPUTS)
    loss_weights = noise(TIME, REPLICAS, BATCH, OUTPUTS, seed=1)
    actual, [trajectory] = outputs_of(
        cell, {n: v.clone().requires_grad_() for n, v in parameters.items()}, inputs, 1, True
    )
    (actual * loss_weights).sum().backward()

    def objective(at, changed, direction):
        state = {name: torch.zeros(REPLICAS, BATCH, width, dtype=torch.float64) for name, width in model.widths.items()}
        total = 0.0
        for t in range(TIME):
            state = cell.step(
                cell.prepared(parameters),
                cell.project(parameters, inputs[t]),
                state,
                lambda name, value, t=t: value + direction if (t, name) == (at, changed) else value,
            )
            o = state[cell.output]
            o = o if cell.owns_readout else o @ parameters["W_ho"] + parameters["b_o"][:, None]
            total += (o * loss_weights[t]).sum().item()
        return total

    for name in cell.states:
        gradient = trajectory.gradient(name)
        for t in (0, TIME // 2, TIME - 1):
            direction = noise(REPLICAS, BATCH, model.widths[name], seed=t + 2)
            found = (objective(t, name, 1e-5 * direction) - objective(t, name, -1e-5 * direction)) / 2e-5
            assert found == pytest.approx((gradient[t] * direction).sum().item(), rel=1e-6, abs=1e-8), (name, t)


@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid", "linear"])
def test_one_matrix_for_concatenated_input_and_state_is_the_same_network(activation):
    """h_t = φ([x_t, h_{t-1}] W_h + b_h) with W_h = [W_xh; W_hh]: equal outputs, and dL/dW_h = [dL/dW_xh; dL/dW_hh]."""
    cell = Elman(width=WIDTH, activation=activation)
    parameters = {name: value.requires_grad_() for name, value in drawn_for(cell).items()}
    inputs, loss_weights = noise(TIME, REPLICAS, BATCH, FEATURES), noise(TIME, REPLICAS, BATCH, OUTPUTS, seed=1)
    actual, _ = outputs_of(cell, parameters, inputs)
    (actual * loss_weights).sum().backward()
    for r in range(REPLICAS):
        own = {name: value.detach()[r] for name, value in parameters.items()}
        w_h = torch.cat([own["W_xh"], own["W_hh"]]).requires_grad_()
        h, total = torch.zeros(BATCH, WIDTH, dtype=torch.float64), 0.0
        function = {"tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid, "linear": torch.clone}[activation]
        for t in range(TIME):
            h = function(torch.cat([inputs[t, r], h], dim=-1) @ w_h + own["b_h"])
            o = h @ own["W_ho"] + own["b_o"]
            torch.testing.assert_close(o, actual[t, r], rtol=0, atol=1e-12)
            total = total + (o * loss_weights[t, r]).sum()
        total.backward()
        together = torch.cat([parameters["W_xh"].grad[r], parameters["W_hh"].grad[r]])
        torch.testing.assert_close(w_h.grad, together, rtol=0, atol=1e-11)


def test_the_jacobian_of_a_jordan_network_has_the_rank_of_its_outputs():
    cell = Jordan(width=WIDTH)
    own = {name: value[0] for name, value in drawn_for(cell).items()}
    x = noise(FEATURES)

    def next_hidden(h):
        o = h @ own["W_ho"] + own["b_o"]
        state = {"h": h.view(1, 1, -1), "o": o.view(1, 1, -1)}
        single = {name: value[None] for name, value in own.items()}
        return cell.step(single, cell.project(single, x.view(1, 1, -1)), state, lambda _, value: value)["h"].flatten()

    h = noise(WIDTH, seed=3).tanh()
    jacobian = torch.func.jacrev(next_hidden)(h)
    slope = 1 - next_hidden(h).square()
    torch.testing.assert_close(jacobian.T, own["W_ho"] @ own["W_oh"] * slope, rtol=0, atol=1e-12)
    assert torch.linalg.matrix_rank(jacobian) == OUTPUTS < WIDTH


def test_a_fully_open_gate_leaves_the_gradient_unchanged():
    """z = 1 in a GRU and c_t = c_{t-1} + … in an LSTM without forget gate: dL/ds_t is the same at every lag."""
    gru = GRU(width=WIDTH)
    parameters = {name: torch.zeros_like(value) for name, value in drawn_for(gru).items()}
    parameters["b_h"][:, WIDTH : 2 * WIDTH] = 50.0
    parameters["W_ho"] = noise(REPLICAS, WIDTH, OUTPUTS)
    actual, [trajectory] = outputs_of(gru, parameters, noise(TIME, REPLICAS, BATCH, FEATURES), observed=True)
    actual[-1].sum().backward()
    torch.testing.assert_close(trajectory.gradient("h"), trajectory.gradient("h")[-1:].expand(TIME, -1, -1, -1))

    lstm = LSTM(width=WIDTH, variant="no forget gate")
    parameters = drawn_for(lstm)
    parameters["W_hh"].zero_()
    actual, [trajectory] = outputs_of(lstm, parameters, noise(TIME, REPLICAS, BATCH, FEATURES), observed=True)
    actual[-1].sum().backward()
    torch.testing.assert_close(trajectory.gradient("c"), trajectory.gradient("c")[-1:].expand(TIME, -1, -1, -1))


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_each_layer_is_a_network_that_reads_the_outputs_of_the_layer_below(cell):
    parameters, inputs = drawn_for(cell, layers=3), noise(TIME, REPLICAS, BATCH, FEATURES)
    actual, _ = outputs_of(cell, parameters, inputs, layers=3)
    below = inputs
    for layer in (1, 2, 3):
        own = {n.removesuffix(f"_layer{layer}"): v for n, v in parameters.items() if n.endswith(f"_layer{layer}")}
        widths = {state: cell.state_width(state, OUTPUTS) for state in cell.states}
        below = ReferenceEngine().unroll(cell, own, below, widths=widths, observed=False).outputs
    if not cell.owns_readout:
        below = below @ parameters["W_ho"] + parameters["b_o"][:, None]
    torch.testing.assert_close(actual, below, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "cell", [*CELLS, *(pytest.param(cell, marks=pytest.mark.slow) for cell in SINCE_1997)], ids=repr
)
def test_every_recurrence_learns_and_its_gradients_are_read(cell):
    training = Training(steps=30, batch=8, learning_rate=1e-2, validation_sequences=16, test_sequences=16)
    *_, last = train(Run(task=Adding(length=10, variant="pascanu"), cell=cell, training=training), device="cpu")
    assert last.outcome.status == "finished"
    loss = last.series["learning/loss"].values
    assert loss[-10:].mean() < loss[:10].mean()
    assert {f"through_time/{state}" for state in cell.read_states} <= set(last.series)
    assert not {f"through_time/{state}" for state in cell.redundant} & set(last.series)


def draw(cell, initialisation, seed=0, features=6, outputs=4):
    return Model(cell=cell, layers=1, features=features, outputs=outputs).draw(initialisation, generator(seed, "x"))


def test_a_gru_has_the_initial_distribution_of_torch_nn():
    width = 60
    drawn = draw(GRU(width=width), PyTorchDefault(), features=5, outputs=40)
    torch.manual_seed(0)
    network = torch.nn.GRU(5, width)
    sums = (network.bias_ih_l0 + network.bias_hh_l0).detach()[: 2 * width]
    pairs = {
        "W_xh": (drawn["W_xh"], network.weight_ih_l0),
        "W_hh": (drawn["W_hh"], network.weight_hh_l0),
        "b_r and b_z": (drawn["b_h"][: 2 * width], sums),
        "b_h̃": (drawn["b_h"][2 * width :], network.bias_ih_l0[2 * width :]),
        "b_hn": (drawn["b_hn"], network.bias_hh_l0[2 * width :]),
    }
    for name, (ours, theirs) in pairs.items():
        assert stats.ks_2samp(ours.flatten().numpy(), theirs.detach().flatten().numpy()).pvalue > 1e-3, name
        bound = (2 if name == "b_r and b_z" else 1) / math.sqrt(width)
        assert bound * 0.6 < ours.abs().max() <= bound, name


def test_glorot_is_uniform_in_every_gate_with_the_variance_of_its_fans():
    drawn = draw(LSTM(width=50), Glorot())
    assert not drawn["b_h"].any()
    assert not drawn["b_o"].any()
    for name, fans in (("W_xh", 6 + 50), ("W_hh", 100), ("W_ho", 54)):
        bound = math.sqrt(6 / fans)
        for block in drawn[name].chunk(4 if name != "W_ho" else 1, dim=-1):
            values = block.flatten().numpy()
            assert stats.kstest(values, "uniform", args=(-bound, 2 * bound)).pvalue > 1e-3, name


def test_identity_initialisation():
    drawn = draw(Elman(width=50, activation="relu"), Identity())
    assert torch.equal(drawn["W_hh"], torch.eye(50))
    assert not drawn["b_h"].any()
    assert stats.kstest(drawn["W_xh"].flatten().numpy(), "norm", args=(0, 0.001)).pvalue > 1e-3
    for block in draw(GRU(width=9), Identity(gain=0.3))["W_hh"].chunk(3, dim=-1):
        assert torch.equal(block, 0.3 * torch.eye(9))


@pytest.mark.parametrize("radius", [0.5, 1.0, 1.7])
def test_every_gate_has_the_given_spectral_radius(radius):
    for cell, gates in ((Elman(width=30), 1), (LSTM(width=30), 4), (GRU(width=30), 3)):
        drawn = draw(cell, SpectralRadius(radius=radius))
        for block in drawn["W_hh"].chunk(gates, dim=-1):
            assert np.abs(np.linalg.eigvals(block.double().numpy())).max() == pytest.approx(radius, rel=1e-5)
            assert torch.linalg.svdvals(block).max() > 1.2 * radius, "not normal"
        assert drawn["W_xh"].abs().max() <= 1 / math.sqrt(30)
    assert spectral_radius(draw(OutputRecurrent(width=9), SpectralRadius(radius=radius))["W_oo"]) == pytest.approx(
        radius
    )


@pytest.mark.parametrize("initialisation", [SpectralRadius(), Identity(), SmartTanh()], ids=repr)
def test_a_rule_for_square_matrices_refuses_a_jordan_network(initialisation):
    with pytest.raises(SpecError, match=r"needs square recurrent matrices, and W_oh of Jordan is not"):
        Run(task=TemporalOrder(length=10), cell=Jordan(width=4), initialisation=initialisation)
    Run(task=TemporalOrder(length=10), cell=OutputRecurrent(width=4), initialisation=initialisation)


def test_orthogonal_rows_where_there_are_fewer_outputs_than_units():
    w_oh = draw(Jordan(width=20), Orthogonal(gain=0.7))["W_oh"].double()
    torch.testing.assert_close(w_oh @ w_oh.T, 0.49 * torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-6)


def test_gate_biases_of_a_gru_are_those_of_gate_z():
    width = 4000
    plain, constant, chrono = (draw_bias(width, rule) for rule in (None, ForgetBias(value=2.5), Chrono(longest=100)))
    assert (constant["z"] == 2.5).all()
    assert stats.kstest(chrono["z"].exp().numpy(), "uniform", args=(1, 98)).pvalue > 1e-3
    for gate in ("r", "h̃"):
        assert torch.equal(constant[gate], plain[gate])
        assert torch.equal(chrono[gate], plain[gate])


def draw_bias(width, rule):
    """The blocks of a GRU's b_h."""
    parameter = GRU(width=width).parameters(1, 1)["b_h"]
    drawn = PyTorchDefault(gate_bias=rule).draw({"b_h": parameter}, width, generator(0, "x"))["b_h"]
    return dict(zip(("r", "z", "h̃"), drawn.chunk(3), strict=True))


@pytest.mark.parametrize(("cell", "gates"), [(LSTM(width=6), "fioC"), (LSTM(width=6, variant="1997"), "ioC")], ids=repr)
def test_input_biases_are_distributed_over_the_units(cell, gates):
    plain, biased = (
        draw(cell, Gaussian(std=0.1, gate_bias=rule))["b_h"] for rule in (None, InputBias(values=(-2, -4, -6)))
    )
    blocks = dict(zip(gates, biased.chunk(len(gates)), strict=True))
    assert blocks.pop("i").tolist() == [-2, -2, -4, -4, -6, -6]
    assert not plain.any()
    assert not any(block.any() for block in blocks.values())


def test_a_rule_for_a_missing_gate_is_refused():
    for cell, rule, gate in (
        (GRU(), InputBias(), "input"),
        (LSTM(variant="1997"), ForgetBias(), "forget"),
        (LSTM(variant="no forget gate"), Chrono(longest=9), "forget"),
        (Jordan(), ForgetBias(), "forget"),
    ):
        with pytest.raises(SpecError, match=f"has no {gate} gate for"):
            Run(task=TemporalOrder(length=10), cell=cell, initialisation=PyTorchDefault(gate_bias=rule))
    with pytest.raises(SpecError, match=r"InputBias.values is empty"):
        InputBias(values=())
