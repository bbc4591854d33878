"""The estimate of disk space that `list` and `sweep --dry-run` show, against what a stored run really takes."""

import shutil
from pathlib import Path

import pytest

from rnnstudy.cells import LSTM, Cell, Elman
from rnnstudy.probes import GradientThroughTime, ParameterGradients
from rnnstudy.run import Run, Training
from rnnstudy.store.decimation import MOST_POINTS
from rnnstudy.store.project import Project
from rnnstudy.tasks import TemporalOrder
from rnnstudy.training.cost import POINTS_PER_CURVE, cost
from rnnstudy.training.loop import train
from rnnstudy.training.population import Population
from tests.test_malformed_stores import write


def used(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("cell", [Elman(width=20), LSTM(width=20)])
def test_a_run_takes_no_more_room_than_estimated(tmp_path: Path, empty_database: Path, cell: Cell) -> None:
    """It took up to twice as much: arrays are not compressed, and curves are more than ten."""
    project = Project(tmp_path)
    project.mlruns.mkdir()
    shutil.copy(empty_database, project.database)
    training = Training(steps=100, batch=2, check_every=50, validation_sequences=4, test_sequences=4)
    probes = (ParameterGradients(every=1), GradientThroughTime(every=5, sequences=4))
    run = Run(task=TemporalOrder(length=20), cell=cell, training=training, probes=probes)
    before = used(project.mlruns)
    write(project, run, list(train(run, device="cpu", engine="reference")))
    estimate = cost(Population((run,))).bytes
    assert used(project.mlruns) - before <= estimate < 3 * (used(project.mlruns) - before)


def test_the_estimate_counts_the_points_that_are_kept() -> None:
    assert POINTS_PER_CURVE == MOST_POINTS
