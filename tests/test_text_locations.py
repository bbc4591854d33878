"""Labelled text is known by what it says, and not by where it lies: keys, paths, moved files, runs of former keys."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rnnstudy import results
from rnnstudy.cells import Elman
from rnnstudy.results.archive import ExportedExperiment, ReadingRequest, write_archive
from rnnstudy.run import Run, Training, key_of
from rnnstudy.spec import SpecError, build
from rnnstudy.store.mlflow_store import Store, open_store
from rnnstudy.store.mlflow_tracker import MlflowTracker
from rnnstudy.store.project import Project
from rnnstudy.store.run_description import SweepInfo
from rnnstudy.sweep import Resources, Scale, launch, load_experiment
from rnnstudy.tasks import LabelledText, LengthRange, locations
from rnnstudy.training.loop import train

FORMER_KEY = "30ff7e8371b0"
"""Of `run("texts.csv")`, as it was computed when the path was a part of the key."""

TRAINING = Training(steps=4, batch=2, check_every=2, validation_sequences=4, test_sequences=4)

EXPERIMENT = """
from rnnstudy.cells import Elman
from rnnstudy.run import Run, Training
from rnnstudy.tasks import LabelledText

def runs(scale):
    training = Training(steps=4, batch=2, check_every=2, validation_sequences=4, test_sequences=4)
    task = LabelledText(path="texts.csv", unit="word", length=12)
    return [Run(task=task, cell=Elman(width=4), training=training, probes=())]
"""


@pytest.fixture(autouse=True)
def no_folder_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locations, "_newest", [])
    monkeypatch.setattr(locations, "_earlier", [])


def texts(path: Path, good: str = "good") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{word} film number {n},{word}" for n in range(20) for word in (good, "bad")]
    path.write_text("\n".join(["text,label", *rows]) + "\n")
    return path


def run(path: Path | str, **fields: Any) -> Run:
    return Run(task=LabelledText(path=str(path), unit="word", length=12), cell=Elman(width=4), **fields)


def finish(project: Path, one: Run) -> None:
    tracker = MlflowTracker(open_store(Project(project)), SweepInfo("films", "experiments/films.py"))
    tracker.begin(one, one.name)
    for record in train(one, device="cpu", engine="reference"):
        tracker.write(record)


def test_equal_texts_at_two_paths_are_one_run_and_other_texts_another(tmp_path: Path) -> None:
    here, there = run(texts(tmp_path / "a.csv")), run(texts(tmp_path / "elsewhere" / "b.csv"))
    assert here.key == there.key
    assert here.structure == there.structure
    assert here.former_key != there.former_key
    assert run(texts(tmp_path / "c.csv", good="fine")).key != here.key
    ranges = [one.replace(task=LengthRange(task=one.task, length=15)) for one in (here, there)]
    assert len({one.key for one in ranges}) == 1


def test_what_is_stored_says_where_the_texts_lay_and_its_hash_is_the_key(tmp_path: Path) -> None:
    one = run(texts(tmp_path / "a.csv"))
    stored = json.loads(json.dumps(one.described))
    assert stored["fields"]["task"]["located"] == {"path": str(tmp_path / "a.csv")}
    assert key_of(stored) == one.key
    assert build(stored) == one


def test_the_former_key_is_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts(tmp_path / "texts.csv")
    monkeypatch.chdir(tmp_path)
    assert run("texts.csv").former_key == FORMER_KEY


def test_a_path_begins_at_the_experiment_file_then_at_the_project_then_where_the_command_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    (project / "mlruns").mkdir(parents=True)
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    file = project / "experiments" / "films.py"
    places = [
        (file.with_name("texts.csv"), "fine"),
        (project / "texts.csv", "nice"),
        (elsewhere / "texts.csv", "sweet"),
    ]
    for place, word in places:
        texts(place, word)
    file.write_text(EXPERIMENT)
    for place, word in places:
        (one,) = load_experiment(file).runs(Scale.SMOKE)
        assert one.task.labels == ("bad", word)
        place.unlink()
    with pytest.raises(
        Exception, match=rf"films\.py:8: there is no file or folder texts\.csv in {project}/experiments or"
    ):
        load_experiment(file).runs(Scale.SMOKE)


def test_a_stored_run_finds_texts_that_were_moved_by_their_name_and_refuses_others(tmp_path: Path) -> None:
    stored = run(texts(tmp_path / "old" / "texts.csv")).described
    shutil.move(tmp_path / "old" / "texts.csv", tmp_path / "texts.csv")
    with pytest.raises(SpecError, match="there is no file or folder"):
        build(stored)
    locations.look_in(tmp_path)
    assert build(stored).task.labels == ("bad", "good")
    texts(tmp_path / "texts.csv", good="fine")
    with pytest.raises(
        SpecError, match=r"texts\.csv has changed: .*; bring the former texts back, or make another run"
    ):
        build(stored)


@pytest.mark.parametrize("path", ["x" * 5000 + ".csv", "~nobody-of-this-name/a.csv", "a\0.csv", ""])
def test_what_is_no_path_is_refused_in_one_line(path: str) -> None:
    with pytest.raises(SpecError, match=r"is no path of a file|there is no file|is neither|has no texts") as caught:
        LabelledText(path=path, length=5)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_sweep_from_another_folder_and_one_after_the_data_moved_are_the_same(
    project_with_store: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = project_with_store / "experiments" / "films.py"
    file.write_text(EXPERIMENT)
    texts(file.with_name("texts.csv"))
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    one = Resources(workers=1, engine="reference")
    assert len(launch(file, scale=Scale.SMOKE, resources=one).ended) == 1
    file.with_name("data").mkdir()
    shutil.move(file.with_name("texts.csv"), file.with_name("data") / "texts.csv")
    file.write_text(EXPERIMENT.replace("texts.csv", "data/texts.csv"))
    again = launch(file, scale=Scale.SMOKE, resources=one)
    assert (again.ended, len(again.complete)) == ({}, 1)


def test_a_run_that_is_known_by_its_former_key_is_recognised_and_found_by_both(
    project_with_store: Path, rnnstudy: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = project_with_store
    file = project / "experiments" / "films.py"
    file.write_text(EXPERIMENT)
    texts(project / "texts.csv")
    (one,) = load_experiment(file).runs(Scale.SMOKE)
    with monkeypatch.context() as former:
        # As it was stored then.
        described = one.described
        task = described["fields"]["task"]
        task["fields"] |= task.pop("located")
        former.setattr(Run, "key", property(Run.former_key.fget))
        former.setattr(Run, "described", property(lambda _: described))
        finish(project, one)
    assert list(Store(Project(project)).finished()) == [one.former_key]
    assert rnnstudy("show", one.former_key).returncode == 0

    done = rnnstudy("sweep", "experiments/films.py", "--scale", "smoke", "--workers", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a new key for 1 run of the store" in " ".join(done.stdout.split())
    assert "1 run: 1 in the store, 0 to train" in done.stdout
    loaded = results.load([one.key], project=Project(project))
    assert loaded.runs.index.tolist() == [one.key]
    for key in (one.key, one.former_key):
        shown = rnnstudy("show", key[:8])
        assert (shown.returncode, one.key in shown.stdout, "texts.csv" in shown.stdout) == (0, True, True)
    # What is exported of it is read again: its key is the hash of its specification.
    asked = [ReadingRequest("films", name, None, (one.key,)) for name in loaded.names]
    write_archive(tmp_path / "exported", {"films": ExportedExperiment("rnnstudy sweep", loaded)}, asked)
    assert results.load(experiment="films", archive=tmp_path / "exported").runs.index.tolist() == [one.key]
