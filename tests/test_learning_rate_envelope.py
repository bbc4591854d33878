"""Effective learning rates: against closed forms, and against products of autograd's Jacobians one step at a time."""

import itertools
import math

import numpy as np
import pytest
import torch

import rnnstudy.cells  # noqa: F401  (its cells are found below)
from rnnstudy.cells import GRU, LRU, LSTM, MLSTM, S4D, Block, Elman, ForgetBias, IndRNN, MinGRU, Published
from rnnstudy.cells.cell import Cell
from rnnstudy.cells.diagonal import DiagonalCell
from rnnstudy.probes import LearningRateEnvelope
from rnnstudy.probes.learning_rate_envelope import lags_read, log_products, self_factors, time_scales
from rnnstudy.probes.probe import Moment
from rnnstudy.run import Run
from rnnstudy.spec import SpecError, concrete
from rnnstudy.tasks import Adding
from rnnstudy.training.evaluation import side_batch
from rnnstudy.training.learner import Learner
from rnnstudy.training.population import Population

CPU, WIDTH, SEQUENCES = torch.device("cpu"), 4, 5
# Sequences of different lengths.
TASK = Adding(length=12, variant="pascanu")
CELLS = [
    cls(width=WIDTH, **({"state_size": 2} if "state_size" in cls.__dataclass_fields__ else {}))
    for cls in concrete(Cell)
    if cls.__module__.startswith("rnnstudy.")
]


def laboratory(cell, probe=None, stage="final", **fields):
    """The side batch of two runs, and what the probe reads of them."""
    fields = {"initialisation": Published(), **fields}
    population = Population(tuple(Run(task=TASK, cell=cell, seed=seed, **fields) for seed in range(2)))
    parameters = {name: value.detach().double() for name, value in Learner.begin(population, CPU).parameters.items()}
    side = lambda sequences: side_batch(population, parameters, sequences, CPU)  # noqa: E731
    probe = probe or LearningRateEnvelope(sequences=SEQUENCES)
    readings = probe.read(Moment(stage, 0, parameters, {}, {}, None, side, cell))
    return side(SEQUENCES), {reading.name: reading for reading in readings}


def slow_factors(layer, state, replica, b, t):
    """d_t of one sequence, index t from 0: the diagonal of autograd's Jacobian of one step."""
    unroll = layer.unroll
    own = {name: value[replica : replica + 1] for name, value in unroll.parameters.items()}
    projected = unroll.cell.project(own, unroll.inputs[t, replica : replica + 1, b : b + 1])
    before = {name: values[t, replica : replica + 1, b : b + 1] for name, values in (
        (name, layer.states(name)) for name in unroll.cell.states
    )}  # fmt: skip

    def step(value):
        given = {**before, state: value.view(1, 1, -1)}
        return unroll.cell.step(unroll.cell.prepared(own), projected, given, lambda _, new: new)[state].flatten()

    jacobian = torch.autograd.functional.jacobian(step, before[state].flatten())
    if isinstance(unroll.cell, DiagonalCell) and unroll.cell.complex_state:
        half = len(jacobian) // 2
        assert torch.equal(jacobian.diagonal()[:half], jacobian.diagonal()[half:])
        return torch.hypot(jacobian.diagonal()[:half], jacobian.diagonal(-half)).numpy()
    return jacobian.diagonal().numpy()


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_every_cell_as_products_of_jacobians_one_step_at_a_time(cell):
    batch, readings = laboratory(cell)
    [layer] = batch.layers
    states = cell.states[:1] if isinstance(cell, DiagonalCell) else cell.read_states
    assert {name for name in readings if name.startswith("envelope")} == {f"envelope/{one}_final" for one in states}
    lags = lags_read(batch.time, ())
    assert lags == list(range(1, batch.time)), "short sequences: every lag"
    for state, replica in itertools.product(states, range(2)):
        products = {lag: [] for lag in lags}
        for b in range(SEQUENCES):
            factors = [slow_factors(layer, state, replica, b, t) for t in range(int(batch.last[replica, b]) + 1)]
            for lag, t in itertools.product(lags, range(len(factors))):
                if t - lag >= 0:
                    products[lag].append(np.abs(np.prod(factors[t - lag + 1 : t + 1], axis=0)))
        reading = readings[f"envelope/{state}_final"]
        assert (reading.axes, reading.unit) == (("lag",), "log10")
        assert reading.coordinates["lag"] == tuple(lags)
        for index, lag in enumerate(lags):
            mean = np.mean(products[lag]) if products[lag] else 0.0
            found = reading.values[replica, index].item()
            if mean == 0:
                assert math.isnan(found)
            else:
                assert found == pytest.approx(math.log10(mean), abs=1e-9)
        read = [lag for lag in lags if products[lag]]
        of_units = np.array([np.mean(products[lag], axis=0) for lag in read])
        expected = []
        for values in of_units.T:
            if (values > 0).sum() >= 3:
                slope = np.polyfit(np.array(read)[values > 0], np.log(values[values > 0]), 1)[0]
                expected.append(-1 / slope if slope < 0 else np.inf)
            else:
                expected.append(np.nan)
        ordered = np.sort(expected)
        scales = readings[f"time_scales/{state}_final"]
        assert (scales.axes, scales.unit) == (("index",), "log10 steps")
        kept = np.where(np.isfinite(ordered), ordered, np.nan)
        np.testing.assert_allclose(10 ** scales.values[replica].numpy(), kept, rtol=1e-7)
        median = readings[f"summary/time_scale_{state}_final"].values[replica].item()
        np.testing.assert_allclose(median, kept[(len(kept) - 1) // 2], rtol=1e-7)


@pytest.mark.parametrize("cell", [LRU(width=6), S4D(width=2, state_size=3)], ids=repr)
def test_fixed_factors_have_a_closed_form(cell):
    """f(ℓ) is the mean of |λ|^ℓ, and a unit's time scale −1/ln |λ|, exactly."""
    batch, readings = laboratory(cell, stage="initial")
    moduli = cell.fixed_moduli(batch.layers[0].unroll.parameters)
    lags = torch.tensor(readings["envelope/s_initial"].coordinates["lag"])
    expected = (moduli.unsqueeze(-1) ** lags).mean(1).log10()
    torch.testing.assert_close(readings["envelope/s_initial"].values, expected, rtol=1e-10, atol=1e-12)
    expected = (-1 / moduli.log()).sort(-1).values.log10()
    torch.testing.assert_close(readings["time_scales/s_initial"].values, expected, rtol=1e-9, atol=1e-9)


def test_the_cell_state_of_an_lstm_keeps_its_forget_gates():
    batch, _ = laboratory(LSTM(width=WIDTH), initialisation=Published(gate_bias=ForgetBias()))
    [layer] = batch.layers
    own = layer.unroll.parameters
    hidden = layer.states("h")[:-1]
    pre = layer.unroll.by_time(layer.unroll.cell.project(own, layer.unroll.vectors(layer.unroll.inputs)))
    gates = torch.sigmoid(pre + torch.einsum("trbi,rij->trbj", hidden, own["W_hh"]))[..., :WIDTH]
    torch.testing.assert_close(self_factors(layer)["c"], gates, rtol=1e-12, atol=0)


def test_a_matrix_memory_is_read_by_two_products_and_agrees_with_all_of_them(monkeypatch):
    """A diagonal Jacobian is recognised as such; with one entry beside the diagonal it is not."""
    batch, _ = laboratory(MLSTM(width=3))
    calls = []
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *given, **options: calls.append(1) or grad(*given, **options))
    factors = self_factors(batch.layers[0])
    assert "C" in factors
    assert len(calls) <= 2 * len(factors) + sum(width for name, width in batch.layers[0].widths.items() if name != "C")
    calls.clear()
    batch, _ = laboratory(IndRNN(width=3))
    calls.clear()
    self_factors(batch.layers[0])
    assert len(calls) == 2
    batch, _ = laboratory(Elman(width=3))
    calls.clear()
    self_factors(batch.layers[0])
    assert len(calls) == 2 + 3


def test_every_layer_of_blocks_has_its_own_label():
    _, readings = laboratory(MinGRU(width=WIDTH), layers=2, block=Block(norm="layer", mix="glu"))
    assert {"envelope/h_layer1_final", "envelope/h_layer2_final"} <= readings.keys()


def test_products_with_a_zero_factor_count_as_zero_and_deep_ones_stay_in_range():
    factors = torch.full((9, 1, 2, 1), 1e-200, dtype=torch.float64)
    factors[4, 0, 1] = 0.0
    found = log_products(factors.log(), torch.tensor([[8, 8]]), [1, 8]) / math.log(10)
    # Of lag 1: 8 windows in each sequence, of which the one that ends at step 5 is zero in the second.
    assert found[0, 0, 0].item() == pytest.approx(-200 + math.log10(15 / 16), abs=1e-9)
    assert found[1, 0, 0].item() == pytest.approx(-1600 + math.log10(1 / 2), abs=1e-9)


def test_the_first_factor_and_steps_after_the_end_do_not_count():
    factors = torch.full((6, 1, 1, 1), 0.5, dtype=torch.float64)
    factors[0] = factors[5] = 100.0
    found = log_products(factors.log(), torch.tensor([[4]]), [1, 4, 5])
    assert found[:2, 0, 0].tolist() == pytest.approx([math.log(0.5), 4 * math.log(0.5)])
    assert not found[2].isfinite().any()


def test_a_unit_that_does_not_decay_has_no_time_scale():
    lags = [1, 2, 4, 8]
    logs = torch.tensor([[-lag / 20, 0.0, lag / 5, -lag / 3] for lag in lags], dtype=torch.float64).unsqueeze(1)
    logs[1:, 0, 3] = -torch.inf
    scales = time_scales(logs, lags)[0]
    assert scales[0].item() == pytest.approx(20)
    assert scales[1:3].tolist() == [math.inf, math.inf]
    assert scales[3].isnan(), "one lag is no line"


def test_named_lags_are_read_where_the_task_has_them():
    _, readings = laboratory(GRU(width=WIDTH), LearningRateEnvelope(sequences=SEQUENCES, lags=(7, 2, 2, 500)))
    assert readings["envelope/h_final"].coordinates == {"lag": (2.0, 7.0)}
    assert len(lags_read(5000, ())) <= 32
    assert (lags_read(5000, ())[0], lags_read(5000, ())[-1], lags_read(1, ())) == (1, 4999, [])
    with pytest.raises(SpecError, match="at least 1"):
        LearningRateEnvelope(lags=(0,))
