"""The scaled engine: closed forms far beyond the float range, and the reference engine everywhere else."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import rnnstudy.cells  # noqa: F401  (its cells are found below)
from rnnstudy.cells import LSTM, Elman
from rnnstudy.cells.cell import Cell
from rnnstudy.cells.initialisation import PyTorchDefault
from rnnstudy.engines.block_float import ZERO_EXPONENT, BlockFloat, power_of_two
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.engines.scaled import ScaledEngine
from rnnstudy.spec import concrete
from rnnstudy.training.model import Model
from rnnstudy.training.randomness import generator

FEATURES, OUTPUTS, REPLICAS, BATCH, TIME, WIDTH = 3, 2, 3, 4, 9, 5
CELLS = [
    *(Elman(width=WIDTH, activation=activation) for activation in ("relu", "sigmoid", "linear")),
    *(
        cls(width=WIDTH, **({"state_size": 2} if "state_size" in cls.__dataclass_fields__ else {}))
        for cls in concrete(Cell)
        if cls.__module__.startswith("rnnstudy.")
    ),
]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def passed_on(name, value):
    return value


def is_denormal(values):
    return ((values != 0) & (values.abs() < torch.finfo(values.dtype).tiny)).any()


class Denormals(TorchDispatchMode):
    """Counts the operations that return a denormal number."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for one in result if isinstance(result, tuple | list) else [result]:
            if (
                isinstance(one, torch.Tensor)
                and one.is_floating_point()
                and func is not torch.ops.aten.empty.memory_format
            ):
                self.count += int(is_denormal(one))
        return result


def linear_network(steps, dtype, engine, radii=(0.5, 1.5)):
    """Trajectory of h_t = h_{t−1} ρQ from zero inputs, after the backward pass of a unit dL/dh_T."""
    orthogonal = torch.linalg.qr(noise(WIDTH, WIDTH)).Q
    parameters = {
        "W_xh": torch.zeros(len(radii), 1, WIDTH, dtype=dtype),
        "W_hh": torch.stack([radius * orthogonal for radius in radii]).to(dtype),
        "b_h": torch.zeros(len(radii), WIDTH, dtype=dtype),
    }
    inputs = torch.zeros(steps, len(radii), 1, 1, dtype=dtype)
    cell = Elman(width=WIDTH, activation="linear")
    trajectory = engine.unroll(cell, parameters, inputs, widths={"h": WIDTH}, observed=True, steps=(steps - 1,))
    unit = torch.zeros_like(trajectory.outputs)
    unit[..., 0] = 1
    trajectory.outputs.backward(unit)
    return trajectory


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_ten_thousand_steps_equal_their_closed_form(dtype):
    trajectory = linear_network(10_000, dtype, ScaledEngine())
    expected = [10_000 * math.log10(0.5), 10_000 * math.log10(1.5)]
    assert expected == pytest.approx([-3010.30, 1760.91], abs=0.005)
    assert trajectory.unroll.initial.log_norms().flatten().tolist() == pytest.approx(expected, abs=0.01)
    by_time = trajectory.log_norms("h")[..., 0]
    lags = torch.arange(9999, -1, -1, dtype=torch.float64)[:, None]
    torch.testing.assert_close(by_time, lags * torch.tensor([0.5, 1.5], dtype=torch.float64).log10(), rtol=0, atol=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_there_is_no_denormal_arithmetic(dtype):
    steps = {torch.float32: 100, torch.float64: 650}[dtype]
    with Denormals() as found:
        linear_network(steps, dtype, ScaledEngine(), radii=(0.4, 0.3))
    assert found.count == 0
    with Denormals() as found:
        linear_network(steps, dtype, ReferenceEngine(), radii=(0.4, 0.3))
    assert found.count > 0, "the reference engine does meet them, so the count can see them"


def passed(engine, cell, layers, judge, gain=1.0, steps=TIME, dtype=torch.float64):
    """Parameters, inputs, outputs and trajectories after the backward pass of Σ judge ⊙ outputs²."""
    model = Model(cell=cell, layers=layers, features=FEATURES, outputs=OUTPUTS)
    drawn = [model.draw(PyTorchDefault(), generator(seed, "initialisation")) for seed in range(REPLICAS)]
    parameters = {
        name: (gain * torch.stack([one[name] for one in drawn])).to(dtype).requires_grad_() for name in drawn[0]
    }
    inputs = noise(steps, REPLICAS, BATCH, FEATURES).to(dtype).requires_grad_()
    wanted = tuple(judge.flatten(1).any(1).nonzero().flatten().tolist())
    outputs, trajectories = model.forward(engine, parameters, inputs, steps=wanted, observed=True)
    (outputs.square() * judge[list(wanted)].to(dtype)).sum().backward()
    return parameters, inputs, outputs, trajectories


def judged(steps, *last):
    """Weights of the loss: at steps up to each sequence's own end, over fifty decades if there are several steps."""
    judge = torch.zeros(steps, REPLICAS, BATCH, OUTPUTS, dtype=torch.float64)
    for step in last:
        judge[step] = 10 ** (10 * noise(REPLICAS, BATCH, 1, seed=step)) * noise(REPLICAS, BATCH, OUTPUTS, seed=step)
    ends = torch.arange(REPLICAS * BATCH).view(REPLICAS, BATCH) % 4 + steps - 4
    return judge * (torch.arange(steps)[:, None, None] <= ends)[..., None]


CASES = [(TIME, (TIME - 4,)), (TIME, tuple(range(TIME))), (TIME, (2, 5, TIME - 1))]


@pytest.mark.parametrize(("steps", "last"), CASES, ids=str)
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_equals_the_reference_where_nothing_leaves_the_range(cell, layers, steps, last):
    judge = judged(steps, *last)
    known, inputs, outputs, trajectories = passed(ReferenceEngine(), cell, layers, judge)
    found, own_inputs, own_outputs, own = passed(ScaledEngine(), cell, layers, judge)
    assert torch.equal(own_outputs, outputs)
    for name, value in known.items():
        size = value.grad.abs().amax(tuple(range(1, value.ndim)), keepdim=True)
        torch.testing.assert_close(found[name].grad / size, value.grad / size, rtol=0, atol=1e-12)
    torch.testing.assert_close(own_inputs.grad, inputs.grad, rtol=1e-9, atol=0)
    torch.testing.assert_close(own[0].input_log_norms(), plain_log_norms(inputs.grad), rtol=0, atol=1e-10)
    for ours, theirs in zip(own, trajectories, strict=True):
        for state in cell.redundant:
            # Zero but for rounding, beside the gradient of the state that follows it.
            size = theirs.gradient(cell.read_states[0]).abs().amax()
            assert max(ours.gradient(state).abs().max(), theirs.gradient(state).abs().max()) < 1e-13 * size
        for state in cell.read_states:
            torch.testing.assert_close(ours.log_norms(state), theirs.log_norms(state), rtol=0, atol=1e-10)
            torch.testing.assert_close(ours.gradient(state), theirs.gradient(state), rtol=1e-9, atol=0)


def plain_log_norms(values):
    return torch.linalg.vector_norm(values, dim=-1).log10()


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", [Elman(width=WIDTH), LSTM(width=WIDTH)], ids=repr)
def test_float32_equals_float64_far_below_its_own_range(cell, layers):
    """A gradient that falls far below 10⁻⁴⁵: float32 by the scaled engine against float64 by the reference engine."""
    steps = {"Elman": 200, "LSTM": 300}[type(cell).__name__]
    judge = torch.zeros(steps, REPLICAS, BATCH, OUTPUTS, dtype=torch.float64)
    judge[-1] = 1
    _, _, _, known = passed(ReferenceEngine(), cell, layers, judge, gain=0.3, steps=steps)
    _, _, _, found = passed(ScaledEngine(), cell, layers, judge, gain=0.3, steps=steps, dtype=torch.float32)
    for state, layer in itertools.product(cell.states, range(layers)):
        by_reference = known[layer].log_norms(state)
        assert by_reference.min() < -60
        readable = by_reference > -280
        torch.testing.assert_close(found[layer].log_norms(state)[readable], by_reference[readable], rtol=0, atol=2e-3)
        assert found[layer].log_norms(state).isfinite().all()


def test_layers_pass_each_other_gradients_beyond_the_range_of_floats():
    """Two linear layers, h² = W² over h¹: below float64's range, the lower layer still has the exact value."""
    steps, rate = 600, 0.2
    cell = Elman(width=1, activation="linear")
    model = Model(cell=cell, layers=2, features=1, outputs=1)
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    parameters = {
        "W_xh_layer1": one, "W_hh_layer1": rate * one, "b_h_layer1": 0 * one[0],
        "W_xh_layer2": one, "W_hh_layer2": rate * one, "b_h_layer2": 0 * one[0],
        "W_ho": one, "b_o": 0 * one[0],
    }  # fmt: skip
    inputs = torch.zeros(steps, 1, 1, 1, dtype=torch.float64)
    outputs, [lower, upper] = model.forward(ScaledEngine(), parameters, inputs, steps=(steps - 1,), observed=True)
    outputs.sum().backward()
    lags = torch.arange(steps - 1, -1, -1, dtype=torch.float64)
    torch.testing.assert_close(upper.log_norms("h").flatten(), lags * math.log10(rate), rtol=0, atol=1e-8)
    # dL/dh¹_t = Σ_{k=0}^{lag} ρ^{lag−k} ρ^k = (lag + 1) ρ^lag.
    expected = (lags + 1).log10() + lags * math.log10(rate)
    torch.testing.assert_close(lower.log_norms("h").flatten(), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("rate", [0.05, 3.0])
def test_parameter_gradients_leave_the_range_only_where_their_true_value_does(rate):
    """h_t = ρ h_{t−1} + b at b = 0: dL/dρ = 0 and dL/db = Σ_t ρ^t, while dL/dh_1 is 10⁻⁹⁰⁹ or 10³³³."""
    steps = 700
    cell, gradients = Elman(width=1, activation="linear"), []
    for engine in (ScaledEngine(), ReferenceEngine()):
        parameters = {
            "W_xh": torch.zeros(1, 1, 1, dtype=torch.float64, requires_grad=True),
            "W_hh": torch.full((1, 1, 1), rate, dtype=torch.float64, requires_grad=True),
            "b_h": torch.zeros(1, 1, dtype=torch.float64, requires_grad=True),
        }
        inputs = torch.zeros(steps, 1, 1, 1, dtype=torch.float64)
        trajectory = engine.unroll(cell, parameters, inputs, widths={"h": 1}, observed=True, steps=(steps - 1,))
        trajectory.outputs.sum().backward()
        first = trajectory.log_norms("h")[0].item()
        gradients.append((first, parameters["W_hh"].grad.item(), parameters["b_h"].grad.item()))
    [(first, by_rate, by_bias), (_, reference_by_rate, _)] = gradients
    assert first == pytest.approx((steps - 1) * math.log10(rate), abs=1e-8)
    assert by_rate == 0
    assert math.isnan(reference_by_rate) == (rate > 1), "zero times infinity"
    assert by_bias == (math.inf if rate > 1 else pytest.approx(1 / (1 - rate), rel=1e-12))


def test_a_gradient_that_is_not_finite_is_reported():
    judge = judged(TIME, TIME - 4)
    judge[TIME - 4, 1, 2] = torch.inf
    _, _, _, [trajectory] = passed(ScaledEngine(), Elman(width=WIDTH), 1, judge)
    log_norms = trajectory.log_norms("h")
    assert not (log_norms[: TIME - 3, 1, 2] < torch.inf).any()
    others = torch.ones(REPLICAS, BATCH, dtype=torch.bool)
    others[1, 2] = False
    assert log_norms[: TIME - 3, others].isfinite().all()
    assert (log_norms[TIME - 3 :] == -torch.inf).all()


def test_a_gradient_not_observed_or_not_yet_computed_is_refused():
    cell = Elman(width=WIDTH)
    model = Model(cell=cell, layers=1, features=FEATURES, outputs=OUTPUTS)
    parameters = {name: value[None].double() for name, value in model.draw(PyTorchDefault(), generator(0, "x")).items()}
    inputs = noise(TIME, 1, BATCH, FEATURES)
    unseen = ScaledEngine().unroll(cell, parameters, inputs, widths=model.widths, observed=False)
    with pytest.raises(RuntimeError, match="state 'h' was not observed; observed: none"):
        unseen.log_norms("h")
    seen = ScaledEngine().unroll(cell, parameters, inputs, widths=model.widths, observed=True)
    with pytest.raises(RuntimeError, match="only after the backward pass"):
        seen.log_norms("h")
    with torch.no_grad():
        judged_only = ScaledEngine().unroll(cell, parameters, inputs, widths=model.widths, observed=False)
    assert not judged_only.outputs.requires_grad
    assert torch.equal(judged_only.outputs, seen.outputs)


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_jacobians_are_those_of_jacrev(cell):
    _, inputs, _, [trajectory] = passed(ScaledEngine(), cell, 1, judged(TIME, TIME - 4))
    widths = trajectory.widths
    unroll = trajectory.unroll
    for t, jacobian in enumerate(trajectory.jacobians()):
        for r, b in itertools.product(range(REPLICAS), range(BATCH)):
            own = {name: value[r : r + 1].detach() for name, value in unroll.parameters.items()}

            prepared = cell.prepared(own)

            def step(joined, own=own, prepared=prepared, t=t, r=r, b=b):
                before = {n: v.view(1, 1, -1) for n, v in zip(widths, joined.split(list(widths.values())), strict=True)}
                projected = cell.project(own, inputs[t, r : r + 1, b : b + 1].detach())
                after = cell.step(prepared, projected, before, passed_on)
                return torch.cat([after[name].flatten() for name in widths])

            before = torch.cat([trajectory.states(name)[t, r, b] for name in widths])
            torch.testing.assert_close(jacobian[r, b], torch.func.jacrev(step)(before), rtol=1e-10, atol=1e-14)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.floats(-1e300, 1e300), st.integers(-5000, 5000)), min_size=2, max_size=6))
def test_sums_of_block_floats_are_exact_within_rounding(terms):
    """Against exact arithmetic in Python's fractions."""
    from fractions import Fraction

    total = BlockFloat.of(torch.zeros(1, 1, dtype=torch.float64), 1)
    exact, largest = Fraction(0), Fraction(0)
    for value, exponent in terms:
        one = BlockFloat(torch.tensor([[value]], dtype=torch.float64), torch.tensor([exponent])).normalised()
        total = total.plus(one).normalised()
        exact += Fraction(value) * Fraction(2) ** exponent
        largest = max(largest, abs(exact), abs(Fraction(value) * Fraction(2) ** exponent))
    found = Fraction(total.mantissa.item()) * (Fraction(2) ** total.exponent.item() if total.mantissa.item() else 1)
    assert abs(found - exact) <= largest * Fraction(2) ** -48


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_powers_of_two_are_exact_and_never_denormal(dtype):
    exponent = torch.arange(-1100, 1100)
    found = power_of_two(exponent, dtype)
    for power, value in zip(exponent.tolist(), found.tolist(), strict=True):
        low, high = (-126, 127) if dtype == torch.float32 else (-1022, 1023)
        assert value == (0.0 if power < low else math.inf if power > high else 2.0**power)
    assert BlockFloat.of(torch.zeros(2, 3), 1).exponent.tolist() == [ZERO_EXPONENT, ZERO_EXPONENT]
