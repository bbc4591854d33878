"""Multi-lag regression: the target term by term from the inputs, chance in closed form, and each lag's gain."""

import numpy as np
import pytest
import torch

from rnnstudy.spec import SpecError
from rnnstudy.tasks import MultiLagRegression

TASK = MultiLagRegression(length=40, channels=3, lags=(2, 7, 19), coefficients=(0.9, -0.6, 0.5), noise=0.3)
PUBLISHED = MultiLagRegression(length=1024, channels=16, lags=(32, 64, 128, 192, 256))


def drawn(task, batch, seed=0):
    return task.sample(batch, torch.Generator().manual_seed(seed))


def measured(task, batch, outputs):
    """The mean over sequences of every measure, of outputs (time, batch)."""
    found = task.measures(outputs[:, None, :, None], batch.targets.unsqueeze(1), batch.mask.unsqueeze(1))
    return {name: (values.double().mean().item(), values.double().std().item()) for name, values in found.items()}


def test_every_target_is_the_sum_over_the_lags_read_from_the_inputs_alone():
    batch, noises = drawn(TASK, 300), []
    inputs, targets = batch.inputs.double().numpy(), batch.targets.double().numpy()
    for b in range(300):
        along = [row.sum() / 3**0.5 for row in inputs[:, b]]
        for t in range(40):
            terms = [along[t - lag] if t >= lag else 0.0 for lag in TASK.lags]
            signal = 0.9 * terms[0] - 0.6 * terms[1] + 0.5 * terms[2]
            np.testing.assert_allclose(targets[t, b, 1:], [signal, *terms], atol=1e-6)
            noises.append(targets[t, b, 0] - signal)
    assert np.mean(noises) == pytest.approx(0, abs=5 * 0.3 / len(noises) ** 0.5)
    assert np.std(noises) == pytest.approx(0.3, rel=5 / (2 * len(noises)) ** 0.5)
    assert np.var(inputs) == pytest.approx(1, rel=5 * (2 / inputs.size) ** 0.5), "white, of variance 1"
    neighbours = [inputs[1:, b, 0] @ inputs[:-1, b, 0] / 39 for b in range(300)]
    assert np.mean(neighbours) == pytest.approx(0, abs=5 / (39 * 300) ** 0.5)


def test_the_informative_steps_are_those_that_a_later_target_reads():
    batch = drawn(TASK, 2)
    assert batch.mask.all()
    for step in range(40):
        read = any(step + lag < 40 for lag in TASK.lags)
        assert batch.informative[step].tolist() == [read, read]


def test_chance_is_the_variance_of_the_target():
    batch = drawn(TASK, 20_000, seed=1)
    squares = batch.targets[..., 0].double().square().mean(0)
    assert TASK.chance.loss == pytest.approx(0.09 + 0.81 * 38 / 40 + 0.36 * 33 / 40 + 0.25 * 21 / 40)
    assert squares.mean().item() == pytest.approx(TASK.chance.loss, abs=5 * squares.std().item() / 20_000**0.5)
    assert PUBLISHED.coefficients == (0.6, 0.5, 0.4, 0.32, 0.26)
    assert PUBLISHED.noise == 0.3


def test_the_gain_of_a_lag_is_the_coefficient_that_the_outputs_give_it():
    """An output that halves one term, keeps another, forgets the third, and adds what has nothing to do with them."""
    batch = drawn(TASK, 4000, seed=2)
    past = batch.targets[..., 2:]
    other = torch.randn(40, 4000, generator=torch.Generator().manual_seed(3))
    outputs = 0.5 * 0.9 * past[..., 0] - 0.6 * past[..., 1] + 0.4 * other
    found = measured(TASK, batch, outputs)
    for lag, gain in ((2, 0.5), (7, 1.0), (19, 0.0)):
        mean, deviation = found[f"gain_at_lag_{lag}"]
        assert mean == pytest.approx(gain, abs=5 * deviation / 4000**0.5)
        assert deviation / 4000**0.5 < 0.02, "a test that can fail"
    # E (output − signal)² = (c/2)² and c² of the two lags in the steps where they occur, and 0.4² of the rest.
    left = (0.25 * 0.81 * 38 / 40 + 0.25 * 21 / 40 + 0.16) / TASK.signal_variance
    mean, deviation = found["error"]
    assert mean == pytest.approx(left, abs=5 * deviation / 4000**0.5)


def test_lags_learned_one_by_one_add_up_to_the_error():
    """For outputs that are sums of the terms alone: error = Σ_k (1 − gain_k)² c_k² (T − ℓ_k)/T over the variance."""
    batch = drawn(TASK, 20_000, seed=4)
    gains = (1.0, 0.3, 0.7)
    outputs = sum(
        gain * c * batch.targets[..., 2 + k] for k, (gain, c) in enumerate(zip(gains, TASK.coefficients, strict=True))
    )
    parts = zip(gains, TASK.coefficients, TASK.lags, strict=True)
    expected = sum((1 - gain) ** 2 * c**2 * (40 - lag) / 40 for gain, c, lag in parts) / TASK.signal_variance
    mean, deviation = measured(TASK, batch, outputs)["error"]
    assert mean == pytest.approx(expected, abs=5 * deviation / 20_000**0.5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"length": 32}, r"length is 32; it must be at least 33, so that the longest lag occurs"),
        ({"length": 50, "lags": (3, 3), "coefficients": (1.0, 1.0)}, "none twice"),
        ({"length": 50, "lags": (), "coefficients": ()}, "at least one lag"),
        ({"length": 50, "lags": (3, 4)}, "5 numbers for 2 lags"),
        ({"length": 50, "lags": (3,), "coefficients": (0.0,)}, "coefficient 0"),
        ({"length": 50, "lags": (0,), "coefficients": (1.0,)}, "at least 1"),
    ],
)
def test_an_impossible_task_is_refused_in_one_line(fields, message):
    with pytest.raises(SpecError, match=message) as caught:
        MultiLagRegression(**fields)
    assert "\n" not in str(caught.value)
