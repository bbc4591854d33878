"""Results of another machine: what is promised, and what is not."""

from pathlib import Path

import numpy as np
import pytest

from rnnstudy import results
from rnnstudy.figures.statistics import wilson
from rnnstudy.sweep.experiment import load_experiment
from rnnstudy.sweep.grids import Scale
from rnnstudy.training.loop import train

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["Elman", "LSTM"])
def test_runs_that_another_machine_has_trained_agree_over_seeds(cell: str):
    """What is promised between machines: not equal bits, but results that agree within the spread over seeds.

    The committed results of the quickstart were computed elsewhere; before training, only rounding differs.
    """
    experiment = load_experiment(ROOT / "experiments" / "quickstart.py")
    runs = [
        run
        for run in experiment.runs(Scale.DESK)
        if type(run.cell).__name__ == cell and run.task.length == 50 and run.training.learning_rate == 0.001
    ]
    there = results.load([run.key for run in runs], archive=ROOT / "reports" / "data").runs
    here = {record.key: record.outcome for record in train(runs, device="cpu") if record.outcome is not None}
    assert there.index.tolist() == list(here)
    for key, outcome in here.items():
        assert outcome.summary["log10_ratio_initial"] == pytest.approx(there.loc[key, "log10_ratio_initial"], abs=0.01)
    (low, high), (low_there, high_there) = (
        wilson(sum(map(bool, solved)), len(runs))
        for solved in ([outcome.solved for outcome in here.values()], there["solved"])
    )
    assert max(low, low_there) <= min(high, high_there)
    errors = np.array([outcome.summary["error"] for outcome in here.values()])
    assert np.median(errors) == pytest.approx(there["error"].median(), abs=0.05)
