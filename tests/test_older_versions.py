"""What the version before the wings wrote still loads: store, checkpoints, offline folder.

`data/store_before_the_wings.tar.xz` was written by commit 7d8114a, in a project with the experiment of `conftest.py`:
`rnnstudy sweep experiments/small.py --scale smoke`, the same with `--set training.steps=30 --offline offline`, a sweep
interrupted by Ctrl-C, and checkpoints of runs of 40 updates that were stopped after 25.
"""

import numpy as np
import pytest
import torch

from rnnstudy import results
from rnnstudy.results.trained import load_network
from rnnstudy.store.mlflow_store import Store
from rnnstudy.store.project import Project
from rnnstudy.store.source_hashes import EQUIVALENT
from rnnstudy.store.sync import sync
from rnnstudy.sweep import Resources, Scale, launch
from rnnstudy.sweep.summary import Silent
from rnnstudy.training.checkpoint import checkpoint_keys

ONE = Resources(workers=1, engine="reference")


class Messages(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, line: str) -> None:
        self.lines.append(line)


def test_runs_of_an_older_store_are_complete_and_served_without_a_warning(older: Project) -> None:
    messages = Messages()
    summary = launch("experiments/small.py", scale=Scale.SMOKE, resources=ONE, listener=messages)
    assert (len(summary.complete), summary.ended) == (4, {})
    assert messages.lines == ["4 runs: 4 in the store, 0 to train"]
    assert list(summary.table["runs"]) == [2, 2]
    loaded = results.load([run.key for run in summary.runs], project=older)
    by_lag = loaded.readings("profile/h_initial", quantile=0.5)
    assert by_lag["value"].notna().any()
    network = load_network(summary.runs[0].key, project=older)
    assert network.run.key == summary.runs[0].key


def test_changed_code_of_a_class_in_an_older_store_is_warned_of(
    older: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = Store(older).runs()[0].sources
    assert listed.keys() >= {"rnnstudy.tasks.temporal_order:TemporalOrder"}
    assert set(listed.values()) <= EQUIVALENT.keys()
    monkeypatch.setitem(EQUIVALENT, listed["rnnstudy.tasks.temporal_order:TemporalOrder"], "another code")
    messages = Messages()
    launch("experiments/small.py", scale=Scale.SMOKE, resources=ONE, listener=messages)
    assert sum("TemporalOrder" in line for line in messages.lines) == 4


def test_older_checkpoints_are_continued(older: Project) -> None:
    paths = list(older.checkpoints.glob("*.pt"))
    keys = {key for path in paths for key in checkpoint_keys(path)}
    assert (len(paths), len(keys)) == (2, 4)
    assert {torch.load(path, weights_only=True)["step"] for path in paths} == {25}
    settings = ["training.steps=40"]
    resumed = launch("experiments/small.py", scale=Scale.SMOKE, settings=settings, resources=ONE)
    assert {outcome.step for outcome in resumed.ended.values()} == {40}
    assert keys == resumed.ended.keys()
    assert not list(older.checkpoints.glob("*.pt"))
    ordered = [run.key for run in resumed.runs]
    before = results.load(ordered, project=older).readings("learning/loss")
    launch("experiments/small.py", scale=Scale.SMOKE, settings=settings, rerun=True, resources=ONE)
    afresh = results.load(ordered, project=older).readings("learning/loss")
    # To rounding: since then, the readout is one product for each replica.
    np.testing.assert_allclose(before["value"], afresh["value"], rtol=1e-4)


def test_an_older_offline_folder_is_synced(older: Project) -> None:
    report = sync([older.root / "offline"], Store(older))
    assert (len(report.added), report.updated, report.unchanged) == (4, (), ())
    summary = launch("experiments/small.py", scale=Scale.SMOKE, settings=["training.steps=30"], resources=ONE)
    assert (len(summary.complete), summary.ended) == (4, {})
