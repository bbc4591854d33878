"""Learnability by lag: the statistic against autograd, tails against stable laws, samples against simulated means."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

import rnnstudy.cells  # noqa: F401  (its cells are found below)
from rnnstudy.cells import GRU, LRU, LSTM, Block, Elman, ExpRNN, MinGRU
from rnnstudy.cells.cell import Cell
from rnnstudy.errors import RequestError
from rnnstudy.probes import LearnabilityWindow
from rnnstudy.probes.learnability_window import (
    QUARTILE_RANGES,
    SPREAD_RATIOS,
    TAIL_INDICES,
    along_other_half,
    concentration,
    longest_within,
    stable_by_quantiles,
    statistics,
)
from rnnstudy.probes.probe import Moment
from rnnstudy.run import Run
from rnnstudy.spec import SpecError, concrete
from rnnstudy.tasks import Adding, MultiLagRegression
from rnnstudy.training.evaluation import side_batch
from rnnstudy.training.learner import Learner
from rnnstudy.training.population import Population
from rnnstudy.training.randomness import generator

CPU, WIDTH = torch.device("cpu"), 4
TASK = MultiLagRegression(length=9, channels=2, lags=(2, 5), coefficients=(1.0, 0.5))
CELLS = [
    cls(width=WIDTH, **({"state_size": 2} if "state_size" in cls.__dataclass_fields__ else {}))
    for cls in concrete(Cell)
    if cls.__module__.startswith("rnnstudy.") and cls is not ExpRNN
]


def laboratory(cell, task=TASK, **fields):
    population = Population(tuple(Run(task=task, cell=cell, seed=seed, **fields) for seed in range(2)))
    parameters = {name: value.detach().double() for name, value in Learner.begin(population, CPU).parameters.items()}
    return population, parameters, lambda sequences: side_batch(population, parameters, sequences, CPU)


def read(probe, cell, stage="final", **fields):
    _, parameters, side = laboratory(cell, **fields)
    return {one.name: one for one in probe.read(Moment(stage, 0, parameters, {}, {}, None, side, cell))}


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_the_lags_add_up_to_the_derivative_along_the_direction(cell):
    """Σ_ℓ G_tᵀ (∂⁺s_t/∂θ) w = w · dℓ_b/dθ, in every cell and for sequences of different lengths."""
    _, _, side = laboratory(cell, Adding(length=12, variant="pascanu"))
    batch = side(6)
    [layer] = batch.layers
    source = torch.Generator().manual_seed(0)
    parameters = layer.unroll.parameters
    direction = {name: torch.randn(one.shape, generator=source, dtype=one.dtype) for name, one in parameters.items()}
    steps = [layer.gradients_along(direction, torch.full_like(batch.last, t)).values() for t in range(batch.time)]
    gradients = layer.parameter_gradients()
    whole = sum((gradients[name].values() * direction[name]).flatten(1).sum(1) for name in direction)
    torch.testing.assert_close(sum(steps).sum(1), whole, rtol=1e-10, atol=1e-13)


def contribution(population, parameters, replica, b, step, batch):
    """C_{ℓ,b}: the gradient of one sequence's last loss by the parameters that one step alone uses, by autograd."""
    own = {name: value[replica : replica + 1].clone().requires_grad_() for name, value in parameters.items()}
    at_step = {name: value.detach().clone().requires_grad_() for name, value in own.items()}
    cell = population.model.cell
    state = {name: torch.zeros(1, 1, cell.state_width(name, 1), dtype=torch.float64) for name in cell.states}
    for t in range(batch.inputs.shape[0]):
        used = at_step if t == step else {name: value.detach() for name, value in own.items()}
        projected = cell.project(used, batch.inputs[t : t + 1, b : b + 1].double())
        state = cell.step(cell.prepared(used), projected, state, lambda _, value: value)
    output = state["h"][0] @ own["W_ho"][0].detach() + own["b_o"][0].detach()
    loss = TASK.loss(output.view(1, 1, 1, 1), batch.targets[-1:, None, b : b + 1].double()).sum()
    names = [name for name in at_step if name in cell.parameters(2, 1)]
    found = torch.autograd.grad(loss, [at_step[name] for name in names], materialize_grads=True)
    return torch.cat([one.flatten() for one in found]).numpy()


@pytest.mark.parametrize("cell", [Elman(width=WIDTH), GRU(width=WIDTH), LSTM(width=WIDTH), LRU(width=3)], ids=repr)
def test_the_statistic_is_the_gradient_along_that_of_the_other_half(cell):
    population, parameters, side = laboratory(cell)
    sides = side(8)
    for lag in (0, 1, 4, 7):
        values, shift, complete = along_other_half(sides.layers[0], sides.last, lag)
        assert complete.all()
        for replica in range(2):
            drawn = TASK.sample(8, generator(population.runs[replica].seed, "probe"))
            parts = np.array([contribution(population, parameters, replica, b, 8 - lag, drawn) for b in range(8)])
            for half, other in ((slice(0, 4), slice(4, 8)), (slice(4, 8), slice(0, 4))):
                mean = parts[other].sum(0)
                expected = parts[half] @ mean / np.linalg.norm(mean)
                found = values[replica, half].numpy() * 10 ** shift[replica].item()
                np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12 * np.abs(expected).max())


def test_the_table_is_that_of_stable_laws():
    for alpha, ratio, quartiles in zip(TAIL_INDICES, SPREAD_RATIOS, QUARTILE_RANGES, strict=True):
        law = stats.levy_stable(alpha, 0)
        assert law.cdf(quartiles / 2) == pytest.approx(0.75, abs=2e-5)
        assert law.cdf(ratio * quartiles / 2) == pytest.approx(0.95, abs=2e-5)


@pytest.mark.parametrize("alpha", [1.0, 1.25, 1.5, 1.75, 2.0])
def test_tail_index_scale_and_concentration_of_stable_laws(alpha):
    """20 samples of 4,096: their means are within 4 standard errors of the truth."""
    drawn = stats.levy_stable.rvs(alpha, 0, scale=3.0, size=(20, 4096), random_state=7)
    drawn = torch.from_numpy(drawn)
    indices, scales = stable_by_quantiles(drawn)
    slopes = concentration(drawn)
    # An estimate above 2 counts as 2, and one below 1 as 1: at the ends of the table the mean lies inside.
    inside = 0.03 if alpha in (1.0, 2.0) else 0.005
    for found, truth, within in ((indices, alpha, inside), (scales, 3.0, 0.03), (slopes, 1 - 1 / alpha, 0.01)):
        error = found.std().item() / 20**0.5
        assert error < 0.03, "a test that can fail"
        assert found.mean().item() == pytest.approx(truth, abs=4 * error + within)


def test_a_tail_index_below_2_does_not_mean_that_the_variance_is_infinite():
    """Products of two normal numbers: all moments exist, means concentrate as a square root, and α is about 1.2."""
    source = torch.Generator().manual_seed(3)
    drawn = torch.randn(20, 8192, generator=source).double() * torch.randn(20, 8192, generator=source).double()
    indices, _ = stable_by_quantiles(drawn)
    # From the density K₀(|x|)/π: q₉₅/q₇₅ = 4.3681, and the table between 1.2 and 1.3.
    expected = 1.2 + 0.1 * (4.4509 - 4.3681) / (4.4509 - 3.8865)
    assert indices.mean().item() == pytest.approx(expected, abs=4 * indices.std().item() / 20**0.5)
    measured = concentration(drawn).mean().item()
    assert measured - (1 - 1 / expected) > 0.2 > 2 * abs(measured - 0.5)


def test_signal_noise_and_samples_of_normal_numbers():
    """ψ ~ N(0.5, 2²): α = 2, σ = 2/√2, and (s/m)² = 16 sequences by either rule up to the factor 2 of σ² = s²/2."""
    drawn = 0.5 + 2 * torch.randn(1, 200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = statistics(drawn, torch.tensor([3.0]), torch.tensor([True]))
    assert 10 ** found.signal.item() == pytest.approx(500, rel=0.05)
    assert 10 ** found.noise.item() == pytest.approx(2000 / 2**0.5, rel=0.02)
    assert 10 ** found.deviation.item() == pytest.approx(2000, rel=0.01)
    assert found.tail_index.item() == pytest.approx(2, abs=0.03)
    assert all(one.isnan().all() for one in statistics(drawn, torch.tensor([3.0]), torch.tensor([False])))
    assert all(one.isnan().all() for one in statistics(torch.ones(1, 64), torch.zeros(1), torch.tensor([True])))
    assert statistics(-drawn, torch.zeros(1), torch.tensor([True])).signal.isnan()


def test_readings_follow_from_the_statistics():
    probe = LearnabilityWindow(sequences=128, ratio=0.5, budget=300, lags=(1, 2, 5, 30))
    found = read(probe, LSTM(width=WIDTH), stage="initial")
    signal = found["learnability/signal_initial"]
    assert (signal.axes, signal.coordinates) == (("lag",), {"lag": (1.0, 2.0, 5.0)})
    assert len(found) == 7
    alpha = found["learnability/tail_index_initial"].values
    assert ((alpha >= 1) & (alpha <= 2)).all()
    noise, samples = found["learnability/noise_initial"].values, found["learnability/samples_initial"].values
    windows = found["summary/learnability_window_initial"].values
    for replica in range(2):
        within = [0.0]
        for index, lag in enumerate((1, 2, 5)):
            a, m, s = (float(one[replica, index]) for one in (alpha, signal.values, noise))
            needed = (0.5 * 10 ** (s - m)) ** (a / (a - 1)) if a > 1 else math.nan
            assert 10 ** float(samples[replica, index]) == pytest.approx(needed, rel=1e-6, nan_ok=True)
            within += [lag] if needed <= 300 else []
        assert windows[replica].item() == max(within)


def test_a_tail_index_of_1_needs_no_finite_number_of_sequences():
    """Where the ratio of noise and signal is below 1, its infinite power is not a small number of sequences."""
    source = torch.Generator().manual_seed(0)
    heavy = torch.randn(1, 128, generator=source) / torch.randn(1, 128, generator=source).abs() ** 3 + 1000
    found = statistics(heavy, torch.zeros(1), torch.tensor([True]))
    assert found.tail_index.item() == 1.0
    assert found.noise.item() < found.signal.item()


def test_the_longest_lag_need_not_have_shorter_ones_below_it():
    samples = torch.tensor([[1.0, math.nan, 2.0, 9.0], [5.0, 6.0, math.inf, 4.0]])
    assert longest_within(samples, [1, 2, 4, 8], 3.0).tolist() == [4.0, 0.0]


def test_lags_that_not_every_sequence_has_are_absent():
    found = read(LearnabilityWindow(sequences=128), GRU(width=WIDTH), task=Adding(length=20, variant="pascanu"))
    signal = found["learnability/tail_index_final"]
    lags = torch.tensor(signal.coordinates["lag"])
    assert signal.values[:, lags <= 19].isfinite().all()
    assert signal.values[:, lags > 19].isnan().all()
    assert (lags > 19).any()


def test_more_layers_and_a_cell_without_forward_derivatives():
    found = read(LearnabilityWindow(sequences=128, lags=(1, 3)), MinGRU(width=WIDTH), layers=2, block=Block(norm="rms"))
    assert {"learnability/signal_layer1_final", "learnability/signal_layer2_final"} <= found.keys()
    with pytest.raises(RequestError, match=r"ExpRNN.* has a function without a forward derivative") as caught:
        read(LearnabilityWindow(sequences=128), ExpRNN(width=WIDTH))
    assert "\n" not in str(caught.value)
    with pytest.raises(SpecError, match="at least 128"):
        LearnabilityWindow(sequences=10)
