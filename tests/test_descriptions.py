"""The description of a run in words follows its specification, and is the same through the store and offline."""

import json
import subprocess
import time
from pathlib import Path

import pytest
import torch

from rnnstudy.cells import LSTM, Chrono, Elman, Orthogonal
from rnnstudy.optimisers import SGD
from rnnstudy.run import Run, Training
from rnnstudy.store.documents import NOTE, data_set, note, paragraph, run_documents
from rnnstudy.store.mlflow_documents import data_input
from rnnstudy.store.mlflow_store import Store, open_store
from rnnstudy.store.mlflow_tracker import MlflowTracker
from rnnstudy.store.offline import OfflineFolder, OfflineTracker
from rnnstudy.store.project import Project
from rnnstudy.store.run_description import SweepInfo
from rnnstudy.store.sync import sync
from rnnstudy.tasks import Adding, AssociativeRecall, Task, TemporalOrder
from rnnstudy.training.records import Outcome, Record

RUN = Run(
    task=TemporalOrder(length=50),
    cell=LSTM(width=7),
    initialisation=Orthogonal(gate_bias=Chrono(longest=50)),
    training=Training(steps=30, batch=4, learning_rate=0.01, optimiser=SGD(), clip=None),
    seed=3,
)


def test_the_tags_of_a_sweep_name_the_commit_and_say_whether_files_differ_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*command: str) -> str:
        author = ["-c", "user.name=n", "-c", "user.email=n@example.org"]
        return subprocess.run(
            ["git", *author, *command], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    def commit_tags() -> tuple[str | None, str | None]:
        tags = SweepInfo("small", "experiments/small.py").tags
        return tags.get("mlflow.source.git.commit"), tags.get("rnnstudy.uncommitted")

    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "small.py").touch()
    (tmp_path / "shared.py").touch()
    monkeypatch.chdir(tmp_path)
    assert commit_tags() == (None, None)
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    head = git("rev-parse", "HEAD")
    assert commit_tags() == (head, None)
    # What an experiment uses may lie beside its folder.
    (tmp_path / "shared.py").write_text("changed = True\n")
    assert commit_tags() == (head, "true")


def test_the_paragraph_says_what_the_specification_says() -> None:
    words = paragraph(RUN)
    for part in (
        "One layer of LSTM (width 7)",
        "Orthogonal (gate bias Chrono (longest 50))",
        "learns temporal order at T = 50.",
        "at most 30 updates of 4 sequences by SGD at learning rate 0.01 (Constant), gradient not clipped.",
        RUN.task.criterion.words,
        "0.75",
        "Seed 3.",
    ):
        assert part in words
    assert "\n" not in words
    other = paragraph(
        RUN.replace(layers=2, cell=Elman(width=9), initialisation=Orthogonal(), data_seed=8, training=Training())
    )
    assert "2 layers of Elman (width 9)" in other
    assert "clipped (clip norm (threshold 1))" in other
    assert "Seed 3, sequences of seed 8." in other


def test_the_note_holds_the_drawing_and_the_command() -> None:
    text = note(RUN, "rnnstudy sweep x.py --only abc")
    assert "```\nedcAdedefcAfcdeecfde -> class 0\n   ^      ^\n" in text
    assert "To repeat it: `rnnstudy sweep x.py --only abc`" in text
    assert "To repeat it" not in note(RUN)


def test_a_task_without_a_docstring_is_described_too() -> None:
    class Bare(TemporalOrder):
        pass

    run = RUN.replace(task=Bare(length=50))
    assert "learns Bare at T = 50." in note(run)
    assert run_documents(run)["task.txt"].startswith("Bare (length 50)")


def test_equal_sequences_have_equal_digests() -> None:
    base = data_set(RUN)
    assert base["name"] == "temporal-order-T0050"
    assert data_set(RUN.replace(cell=Elman(), initialisation=Orthogonal()))["digest"] == base["digest"]
    assert data_set(RUN.replace(seed=5, data_seed=3))["digest"] == base["digest"]
    assert data_set(RUN.replace(seed=5))["digest"] != base["digest"]
    assert data_set(RUN.replace(task=Adding(length=50)))["digest"] != base["digest"]


@pytest.mark.parametrize("offline", [False, True])
def test_a_run_has_its_documents_through_the_store_and_offline(project_with_store: Path, offline: bool) -> None:
    project = Project(project_with_store)
    info = SweepInfo("small", "experiments/small.py", "rnnstudy sweep experiments/small.py", hypothesis="Why?\n\nSo.")
    tracker = (
        OfflineTracker(OfflineFolder(project.root / "aside"), info)
        if offline
        else MlflowTracker(open_store(project), info)
    )
    tracker.begin(RUN, RUN.name)
    tracker.write(Record(RUN.key, 30, time.time(), {}, Outcome("finished", 30, solved=False), {}))
    tracker.close()
    if offline:
        sync([project.root / "aside"], Store(project))
    store = Store(project)
    [stored] = store.runs()
    assert stored.tags[NOTE] == note(RUN, f"rnnstudy sweep experiments/small.py --only {RUN.key} --rerun")
    assert json.loads(store.artifact(stored, "spec.json").read_text())["key"] == RUN.key
    assert json.loads(store.artifact(stored, "environment.json").read_text())["packages"]["torch"]
    assert "edcAdedefcAfcdeecfde -> class 0" in store.artifact(stored, "task.txt").read_text()
    [data] = store.client.get_run(stored.identity).inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("temporal-order-T0050", data_set(RUN)["digest"])
    assert [(tag.key, tag.value) for tag in data.tags] == [("mlflow.data.context", "training")]
    experiment = store.client.get_experiment_by_name("small")
    assert experiment is not None
    assert experiment.tags[NOTE] == "Why?\n\nSo."


@pytest.mark.parametrize("task", [TemporalOrder(length=50), AssociativeRecall(length=16)])
def test_the_schema_of_a_data_set_is_that_of_its_batches(task: Task) -> None:
    stored = data_input(data_set(RUN.replace(task=task))).dataset
    inputs, outputs = json.loads(stored.schema)["mlflow_colspec"]
    drawn = task.sample(3, torch.Generator().manual_seed(0)).inputs
    assert inputs["tensor-spec"] == {
        "dtype": str(drawn.dtype).removeprefix("torch."),
        "shape": [-1, drawn.shape[0], drawn.shape[2]],
    }
    assert outputs["tensor-spec"]["shape"] == [-1, task.steps, task.outputs]


def test_a_description_that_someone_changed_stays_when_the_run_goes_on(project_with_store: Path) -> None:
    project, info = Project(project_with_store), SweepInfo("small")
    tracker = MlflowTracker(open_store(project), info)
    tracker.begin(RUN, RUN.name)
    tracker.interrupt(RUN.key)
    store = Store(project)
    [stored] = store.runs()
    store.client.set_tag(stored.identity, NOTE, "mine")
    tracker.begin(RUN, RUN.name)
    tracker.interrupt(RUN.key)
    [stored] = store.runs()
    assert stored.tags[NOTE] == "mine"
    assert len(store.client.get_run(stored.identity).inputs.dataset_inputs) == 1
