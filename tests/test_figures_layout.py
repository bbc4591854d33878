"""Figures hold up where their numbers are extreme, absent or many."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest

from rnnstudy import figures
from rnnstudy.spec import SpecError


@dataclass(frozen=True)
class Planted:
    """Results whose numbers are known."""

    runs: pd.DataFrame
    frames: dict[str, pd.DataFrame] = field(default_factory=dict)

    def readings(self, name: str, *, quantile: float | None = None, keys: Iterable[str] | None = None) -> pd.DataFrame:
        if name not in self.frames:
            raise SpecError(f"no reading is called '{name}'")
        frame = self.frames[name]
        return frame if keys is None else frame[frame["key"].isin(list(keys))]


@pytest.mark.parametrize("finite", [True, False])
def test_clipping_draws_a_diverged_run_that_never_had_a_finite_norm(finite: bool) -> None:
    rows, frames = [], []
    for clip in (False, True):
        for seed in range(3):
            key, diverged = f"{clip}-{seed}", not clip and seed == 0
            rows.append(
                {
                    "key": key, "cell": "Elman", "length": 50, "learning_rate": 0.1, "seed": seed,
                    "status": "diverged" if diverged else "finished",
                    "training.clip.threshold": 1.0 if clip else np.nan,
                }
            )  # fmt: skip
            norms = np.full(8, np.inf if diverged or not finite else 0.5)
            frames.append(pd.DataFrame({"key": key, "step": np.arange(8), "value": norms}))
    results = Planted(pd.DataFrame(rows).set_index("key"), {"gradient/global_before": pd.concat(frames)})
    picture = figures.clipping(results, learning_rate=0.1)
    left = picture.figure.axes[0]
    crosses = [line for line in left.lines if line.get_marker() == "X"]
    assert [list(line.get_xdata()) for line in crosses] == [[7]]
    assert left.get_ylim()[0] < crosses[0].get_ydata()[0] < left.get_ylim()[1]
    assert left.get_title() == "without clipping: 1 of 3 diverge"
