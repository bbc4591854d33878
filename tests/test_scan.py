"""The scan engine against the reference engine in float64, beyond the range of floats, and over long sequences."""

import logging
import math
import time

import pytest
import torch

from benchmarks.agreement import DIAGONAL, JUDGED, Case, Constant, against_reference, stays_in_its_replica
from rnnstudy.cells import LRU, LSTM, S4D, S6, SRU, MinGRU, MinLSTM
from rnnstudy.engines import scan
from rnnstudy.engines.choice import choose
from rnnstudy.engines.scan import ScanEngine
from rnnstudy.run import Run, Training
from rnnstudy.spec import RequestError
from rnnstudy.tasks import Adding
from rnnstudy.training.loop import train

CPU = torch.device("cpu")
CELLS = [cell.replace(width=5 if isinstance(cell, S4D | S6) else 13) for cell in DIAGONAL]


class Turning(Constant):
    """h_t = a ⊙ h_{t-1} + x_t W_xh with complex numbers."""

    complex_state = True


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unrolled(cell, parameters, inputs, steps=None, observed=True):
    own = {name: value.clone().requires_grad_() for name, value in parameters.items()}
    widths = {state: cell.state_width(state, 2) for state in cell.states}
    return own, ScanEngine().unroll(cell, own, inputs, widths=widths, observed=observed, steps=steps)


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(scan, "NUMBERS_IN_PIECE", 300)


@pytest.mark.parametrize("judged", JUDGED)
@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_outputs_gradients_and_norms_in_one_piece(cell, judged):
    assert not against_reference(ScanEngine(), Case(cell, judged), CPU)


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_several_layers_in_many_pieces(cell, small_pieces):
    assert not against_reference(ScanEngine(), Case(cell, JUDGED[2], time=23, layers=2), CPU)
    assert not against_reference(ScanEngine(), Case(cell, JUDGED[1], time=23, gain=0.1), CPU)


def test_angles_of_more_than_a_radian_keep_their_digits():
    """At full size, where an angle rounded in float32 would turn the states by 1e-5 in sixty steps."""
    assert against_reference(ScanEngine(), Case(LRU(width=100), "some steps", 60, 20, 3), CPU) == ""


def test_pieces_do_not_change_results_but_for_rounding(monkeypatch):
    cell, inputs = MinLSTM(width=6), noise(50, 2, 3, 4)
    parameters = {name: noise(2, *one.shape, seed=3) for name, one in cell.parameters(4, 2).items()}
    found = []
    for numbers in (1, 100, 10**6):
        monkeypatch.setattr(scan, "NUMBERS_IN_PIECE", numbers)
        own, trajectory = unrolled(cell, parameters, inputs, steps=(7, 31, 49))
        trajectory.outputs.sum().backward()
        found.append((trajectory.outputs, trajectory.log_norms("h"), *(value.grad for value in own.values())))
    for one in found[1:]:
        for mine, theirs in zip(one, found[0], strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


# Beyond the range of floats.


@pytest.mark.parametrize("kind", [Constant, Turning])
def test_ten_thousand_steps_equal_their_closed_form(kind, monkeypatch):
    """dL/dh_1 = a^9999 dL/dh_T: from 10^−3010 (a = ½) to 10^3010 (a = 2); with h = 0, no float overflows on the way."""
    monkeypatch.setattr(scan, "NUMBERS_IN_PIECE", 2**14)
    factors, steps, cell = torch.tensor([0.5, 1.0, 1.5, 2.0]), 10_000, kind(width=8)
    a = factors[:, None].expand(-1, 8).clone()
    if kind is Turning:
        angles = torch.tensor([0.1, 1.0, 2.0, 3.0])
        a = torch.cat([factors[:, None] * angles.cos(), factors[:, None] * angles.sin()], -1)
    _, trajectory = unrolled(
        cell, {"W_xh": torch.zeros(4, 1, 8), "a": a}, torch.zeros(steps, 4, 2, 1), steps=(steps - 1,)
    )
    trajectory.outputs.sum().backward()
    norms = trajectory.log_norms("h")
    lags = torch.arange(steps - 1, -1, -1, dtype=torch.float64)[:, None, None]
    expected = norms[-1] + lags * factors.double().log10()[None, :, None]
    torch.testing.assert_close(norms, expected, rtol=0, atol=0.01)
    assert norms[0, 0, 0].item() == pytest.approx(-3010, abs=1)
    assert norms[0, 3, 0].item() == pytest.approx(3010, abs=1)


def test_weight_gradients_come_from_steps_whose_gradient_a_float_cannot_hold(small_pieces):
    """h_T = Σ a^(T−t) x_t w: dh_T/dx_1 ~ 1.5^300 leaves float32, dh_T/dw with x_1 = 10^−25 does not."""
    time, cell = 300, Constant(width=4)
    parameters = {"W_xh": torch.ones(1, 1, 4), "a": torch.full((1, 4), 1.5)}
    inputs = torch.zeros(time, 1, 2, 1)
    inputs[0] = 1e-25
    inputs.requires_grad_()
    own, trajectory = unrolled(cell, parameters, inputs, steps=(time - 1,))
    trajectory.outputs.sum().backward()
    exact = 2 * 1e-25 * 1.5**299
    torch.testing.assert_close(own["W_xh"].grad.double(), torch.full((1, 1, 4), exact).double(), rtol=1e-4, atol=0)
    torch.testing.assert_close(
        own["a"].grad.double(), torch.full((1, 4), 299 * exact / 1.5).double(), rtol=1e-4, atol=0
    )
    # What leaves float32's range becomes infinite, and nothing is lost at the other end.
    assert inputs.grad[0].isinf().all()
    torch.testing.assert_close(inputs.grad[-3:, 0, :, 0], torch.tensor([[9.0], [6.0], [4.0]]).expand(-1, 2))


# On its own.


@pytest.mark.parametrize("cell", [MinGRU(width=13), LRU(width=13)], ids=repr)
def test_a_replica_has_the_same_bits_alone_and_among_others(cell):
    parameters = {name: 0.3 * noise(4, *one.shape) for name, one in cell.parameters(3, 2).items()}
    inputs, judge = noise(30, 4, 5, 3), noise(30, 4, 5, 13, seed=1)

    def bits(replicas):
        own, trajectory = unrolled(
            cell, {name: value[replicas] for name, value in parameters.items()}, inputs[:, replicas]
        )
        (trajectory.outputs * judge[:, replicas]).sum().backward()
        return [trajectory.outputs.transpose(0, 1), trajectory.log_norms("h").transpose(0, 1)] + [
            value.grad for value in own.values()
        ]

    together = bits(slice(0, 4))
    for replica in range(4):
        for alone, among in zip(bits(slice(replica, replica + 1)), together, strict=True):
            assert torch.equal(alone[0], among[replica])


def test_numbers_that_are_not_finite_stay_in_their_replica():
    assert not stays_in_its_replica(ScanEngine(), Case(SRU(width=13), JUDGED[1], replicas=3), CPU)


def test_time_grows_linearly_to_a_hundred_thousand_steps():
    """Ten times as many steps take about ten times as long, and the gradient at the first step is right."""
    cell, spent = Constant(width=16), []
    for steps in (10_000, 100_000):
        parameters = {"W_xh": torch.ones(1, 1, 16), "a": torch.full((1, 16), 0.9999)}
        begin = time.process_time()
        _, trajectory = unrolled(cell, parameters, torch.zeros(steps, 1, 4, 1), steps=(steps - 1,))
        trajectory.outputs.sum().backward()
        spent.append(time.process_time() - begin)
    norms = trajectory.log_norms("h")
    assert norms[0, 0, 0].item() == pytest.approx(norms[-1, 0, 0].item() + 99_999 * math.log10(0.9999), abs=0.05)
    # Quadratic growth would be a factor of 100.
    assert spent[1] < 40 * spent[0]


def test_what_it_does_not_do():
    cell, inputs = MinGRU(width=4), noise(6, 1, 2, 3)
    parameters = {name: noise(1, *one.shape) for name, one in cell.parameters(3, 2).items()}
    _, unseen = unrolled(cell, parameters, inputs, observed=False)
    with pytest.raises(RuntimeError, match="state 'h' was not observed; observed: none"):
        unseen.log_norms("h")
    _, seen = unrolled(cell, parameters, inputs)
    with pytest.raises(RuntimeError, match="only after the backward pass"):
        seen.log_norms("h")
    with pytest.raises(RuntimeError, match="no scan for LSTM"):
        ScanEngine().unroll(LSTM(width=4), parameters, inputs, widths={"c": 4, "h": 4}, observed=False)
    with pytest.raises(RuntimeError, match="takes float32 on the CPU"):
        ScanEngine().unroll(cell, parameters, inputs.double(), widths={"h": 4}, observed=False)
    with pytest.raises(RequestError, match="the scan engine trains on the CPU, not on cuda"):
        choose(cell, frozenset(), torch.device("cuda"), "scan")


def test_the_choice():
    for cell in CELLS:
        assert choose(cell, frozenset(), CPU).name == "scan"
        assert choose(cell, frozenset(), CPU, "scan").name == "scan"
        assert choose(cell, frozenset(), CPU, "compiled").name == "reference"
        assert choose(cell, frozenset({"cuts"}), CPU).name == "reference"
    assert choose(LSTM(), frozenset(), CPU).name == "compiled"
    assert choose(LSTM(), frozenset(), CPU, "scan").name == "reference"


@pytest.mark.parametrize("cell", [LRU(width=6), MinGRU(width=6)], ids=repr)
def test_a_run_trains_by_scans_and_its_gradients_are_read(cell, caplog):
    training = Training(steps=30, batch=8, learning_rate=1e-2, validation_sequences=16, test_sequences=16)
    with caplog.at_level(logging.WARNING, "rnnstudy"):
        *_, last = train(Run(task=Adding(length=10, variant="pascanu"), cell=cell, training=training), device="cpu")
    assert (last.outcome.status, last.outcome.engine) == ("finished", "scan")
    loss = last.series["learning/loss"].values
    assert loss[-10:].mean() < loss[:10].mean()
    assert {f"through_time/{state}" for state in cell.states} <= set(last.series)
