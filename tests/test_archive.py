"""What is exported comes back value for value, and nothing else is kept."""

from pathlib import Path

import numpy as np
import pytest

from rnnstudy.cells import LSTM, Elman
from rnnstudy.probes import GradientThroughTime
from rnnstudy.results import Results, from_records, load
from rnnstudy.results.archive import Archive, ExportedExperiment, ReadingRequest, write_archive
from rnnstudy.results.source import MissingRuns
from rnnstudy.results.together import Together
from rnnstudy.run import Run, Training
from rnnstudy.spec import RequestError
from rnnstudy.store.errors import DamagedFile
from rnnstudy.tasks import TemporalOrder
from rnnstudy.training.loop import train


@pytest.fixture(scope="module")
def results() -> Results:
    training = Training(steps=4, batch=2, check_every=2, validation_sequences=4, test_sequences=4)
    probes = (GradientThroughTime(every=2, sequences=3),)
    cells = (Elman(width=3), LSTM(width=3))
    runs = [Run(task=TemporalOrder(length=10), cell=cell, training=training, probes=probes) for cell in cells]
    return from_records(train(runs, device="cpu", engine="reference"), runs)


@pytest.fixture
def folder(results: Results, tmp_path: Path) -> Path:
    keys = tuple(results.runs.index)
    asked = [
        ReadingRequest("toy", "profile/h_initial", 0.5, keys),
        ReadingRequest("toy", "through_time/h", None, keys[:1]),
        ReadingRequest("toy", "learning/loss", None, keys),
        ReadingRequest("toy", "profile/c_initial", 0.1, keys),
    ]
    write_archive(tmp_path, {"toy": ExportedExperiment("rnnstudy sweep experiments/toy.py", results)}, asked)
    return tmp_path


def test_what_was_asked_for_comes_back_value_for_value(results: Results, folder: Path) -> None:
    back = load(experiment="toy", archive=folder)
    assert back.names == ["learning/loss", "profile/c_initial", "profile/h_initial", "through_time/h"]
    for name, quantile in (("profile/h_initial", 0.5), ("profile/c_initial", 0.1), ("learning/loss", None)):
        then, now = results.readings(name, quantile=quantile), back.readings(name, quantile=quantile)
        assert sorted(map(tuple, then.astype({"key": str}).to_numpy())) == sorted(
            map(tuple, now.astype({"key": str}).to_numpy())
        )
    one = results.runs.index[0]
    kept = back.readings("through_time/h")
    assert set(kept["key"]) == {one}
    np.testing.assert_array_equal(kept["value"], results.readings("through_time/h", keys=[one])["value"])


def test_runs_are_found_that_were_exported_for_another_experiment(results: Results, folder: Path) -> None:
    keys = list(results.runs.index)
    back = Archive.open(folder).load(keys, experiment="other")
    assert list(back.runs.index) == keys
    assert back.names == ["learning/loss", "profile/c_initial", "profile/h_initial", "through_time/h"]


def test_the_table_of_runs_comes_back(results: Results, folder: Path) -> None:
    back = load(list(results.runs.index), archive=folder)
    assert back.runs.drop(columns="seconds").equals(results.runs.drop(columns="seconds"))


def test_quantiles_and_runs_that_were_not_asked_for_are_not_there(folder: Path) -> None:
    back = load(experiment="toy", archive=folder)
    with pytest.raises(RequestError, match=r"quantile 0.9 was not stored; there are 0.5"):
        back.readings("profile/h_initial", quantile=0.9)
    with pytest.raises(RequestError, match="no reading is called 'profile/h_final'"):
        back.readings("profile/h_final")


def test_the_same_runs_give_the_same_bytes(results: Results, folder: Path, tmp_path: Path) -> None:
    asked = [ReadingRequest("toy", "learning/loss", None, tuple(results.runs.index))]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_archive(tmp_path / name, {"toy": ExportedExperiment("", results)}, asked)
    for path in (tmp_path / "one").iterdir():
        if path.name != "manifest.json":
            assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_a_folder_that_is_no_archive_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"holds no results of a study \(manifest.json is not there\)"):
        Archive.open(tmp_path / "nowhere")
    with pytest.raises(
        MissingRuns, match=r"holds no run of other \(it holds: toy\); run `rnnstudy sweep experiments/other"
    ):
        load(experiment="other", archive=folder)
    (folder / "runs.parquet").write_bytes(b"not a table")
    with pytest.raises(DamagedFile, match="cannot be read"):
        Archive.open(folder)
    (folder / "manifest.json").write_text('{"format": 99}')
    with pytest.raises(DamagedFile, match="has format 99; this version reads format 1"):
        Archive.open(folder)


def test_what_other_reports_need_stays_when_one_is_exported(results: Results, folder: Path) -> None:
    keys = tuple(results.runs.index)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    other = {"other": ExportedExperiment("rnnstudy sweep experiments/other.py", results)}
    write_archive(folder, other, [ReadingRequest("other", "learning/loss", None, keys[:1])], add=True)
    assert (folder / "toy.parquet").read_bytes() == before["toy.parquet"]
    assert load(experiment="other", archive=folder).names == ["learning/loss"]
    # The same experiment, exported for another report: what was asked for earlier is still asked for.
    toy = {"toy": ExportedExperiment("rnnstudy sweep experiments/toy.py", results)}
    write_archive(
        folder,
        toy,
        [ReadingRequest("toy", "learning/error", None, keys), ReadingRequest("toy", "profile/h_initial", 0.9, keys)],
        add=True,
    )
    back = load(experiment="toy", archive=folder)
    assert back.names == ["learning/error", "learning/loss", "profile/c_initial", "profile/h_initial", "through_time/h"]
    for quantile in (0.5, 0.9):
        then, now = (one.readings("profile/h_initial", quantile=quantile) for one in (results, back))
        np.testing.assert_array_equal(np.sort(then["value"]), np.sort(now["value"]))
    assert sorted(Archive.open(folder).experiments) == ["other", "toy"]
    # All reports at once: nothing is kept that none of them asked for.
    write_archive(folder, toy, [ReadingRequest("toy", "learning/loss", None, keys)])
    assert not (folder / "other.parquet").exists()
    assert load(experiment="toy", archive=folder).names == ["learning/loss"]


def test_a_run_of_two_experiments_stays_while_one_of_them_has_it(results: Results, folder: Path) -> None:
    other = {"other": ExportedExperiment("rnnstudy sweep experiments/other.py", results)}
    write_archive(folder, other, [], add=True)
    assert len(load(experiment="toy", archive=folder).runs) == len(results.runs)
    assert len(Archive.open(folder).headers) == len(results.runs)


def test_two_folders_together_are_the_study_that_they_are_parts_of(results: Results, tmp_path: Path) -> None:
    keys = list(results.runs.index)
    for run in results.per_run:
        key = run.header["key"]
        asked = [ReadingRequest("toy", "learning/loss", None, [key])]
        write_archive(tmp_path / key, {"toy": ExportedExperiment("", Results([run]))}, asked)
    both = Together([Archive.open(tmp_path / key) for key in keys])
    assert sorted(both.complete_keys()) == sorted(keys)
    for order in (keys, keys[::-1]):
        whole = both.load(order)
        assert list(whole.runs.index) == order
        then, now = (one.readings("learning/loss", keys=keys) for one in (results, whole))
        for key in keys:
            np.testing.assert_array_equal(now[now["key"] == key]["value"], then[then["key"] == key]["value"])
    assert both.load(keys, experiment="toy").names == ["learning/loss"]
    with pytest.raises(MissingRuns, match="1 of 1 runs are not complete: 000000000000"):
        both.load(["000000000000"])
    # A run that both have is that of the first.
    write_archive(tmp_path / "all", {"toy": ExportedExperiment("", results)}, [])
    first = Together([Archive.open(tmp_path / "all"), Archive.open(tmp_path / keys[0])])
    assert first.load(keys, experiment="toy").names == []
    assert not len(both.search_trials("a search", "smoke").trials)
