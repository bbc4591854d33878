"""Runs kept in a folder of files where no store can be reached, and `sync`, which brings them in later."""

import dataclasses
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from rnnstudy.run import Run
from rnnstudy.spec import SpecError
from rnnstudy.store.decimation import Point
from rnnstudy.store.description import NOTE
from rnnstudy.store.open_run import OpenRun, ending_tags, write_arrays
from rnnstudy.store.run_description import Description, SweepInfo, describe
from rnnstudy.store.stored_run import COMPLETE, StoredRun, attempts_of, failures_of, require_folder, state_of
from rnnstudy.store.system_metrics import Sample
from rnnstudy.store.tracker import Failures
from rnnstudy.training.records import Record, RunState

if TYPE_CHECKING:
    pass


class OfflineFolder:
    """A folder of runs in files, for where no store can be reached (see `tracker.RunIndex`).

    `<folder>/<key>/`: `run.json` describes the run, `points.jsonl` gets a line for each record, `readings.npz` and
    `weights.npz` come at the end, `ending.json` last. Needs neither MLflow nor pandas. `sync` copies the runs into a
    store. Raises `StoreError` for a folder that cannot be written.
    """

    def __init__(self, path: Path) -> None:
        require_folder(path)
        self.path = path

    def runs(self) -> list[StoredRun]:
        return [stored_offline(folder) for folder in run_folders(self.path)]

    def finished(self) -> dict[str, StoredRun]:
        return {run.key: run for run in self.runs() if run.state in COMPLETE}

    def failures(self) -> dict[str, Failures]:
        return failures_of(self.runs())

    def states(self, keys: Iterable[str]) -> dict[str, RunState]:
        known = {run.key: run.state for run in self.runs()}
        return {key: known.get(key, "absent") for key in keys}

    def forget(self, keys: Iterable[str]) -> int:
        folders = [folder for folder in (self.path / key for key in set(keys)) if (folder / "run.json").exists()]
        for folder in folders:
            (folder / "run.json").unlink()
            shutil.rmtree(folder)
        return len(folders)

    def mark_interrupted(self) -> int:
        """Nothing to do: a folder without `ending.json` is an interrupted run."""
        return 0


class OfflineTracker:
    """Writes the records of a sweep to files, one folder for each run (see `tracker.Tracker`)."""

    def __init__(self, folder: OfflineFolder, info: SweepInfo) -> None:
        self.folder = folder
        self.info = info
        self._tags = info.tags()
        self._open: dict[str, OpenRun] = {}

    def begin(self, run: Run, name: str, tags: Mapping[str, str] = MappingProxyType({})) -> None:
        folder = self.folder.path / run.key
        if ending_of(folder).get("rnnstudy.outcome") in COMPLETE:
            self.folder.forget([run.key])
        folder.mkdir(parents=True, exist_ok=True)
        described = describe(run, name, self.info.experiment, {**self._tags, **tags}, self.info.hypothesis)
        failed = attempts_of(stored_offline(folder).tags) if (folder / "run.json").exists() else 0
        if failed:
            described.tags["rnnstudy.attempts"] = str(failed)
        (folder / "ending.json").unlink(missing_ok=True)
        opened = OpenRun(described, str(folder), attempts=failed)
        whole = points_in(folder)
        opened.fresh(whole)
        # Rewritten without the line that a kill may have cut.
        _write_text(folder / "points.jsonl", "".join(_line([point]) for point in whole))
        _write_text(folder / "run.json", json.dumps(dataclasses.asdict(opened.description), indent=1))
        self._open[run.key] = opened

    def write(self, record: Record) -> None:
        opened = self._open[record.key]
        folder = Path(opened.identity)
        _append(folder, opened.points(record))
        if record.outcome is not None:
            write_arrays(folder, opened.description, record)
            ending = {"tags": ending_tags(record.outcome, opened.attempts), "time": record.time}
            _write_text(folder / "ending.json", json.dumps(ending, indent=1))
            del self._open[record.key]

    def sampled(self, sample: Sample, seconds: float) -> None:
        for opened in self._open.values():
            _append(Path(opened.identity), opened.sampled(sample, seconds))

    def interrupt(self, key: str) -> None:
        """A run without `ending.json` counts as interrupted."""
        self._open.pop(key, None)

    def close(self) -> None:
        """Nothing to do: each record is in its file at once."""


def _append(folder: Path, points: Sequence[Point]) -> None:
    if points:
        with (folder / "points.jsonl").open("a", encoding="utf-8") as file:
            file.write(_line(points))


def _line(points: Sequence[Point]) -> str:
    return json.dumps([list(point) for point in points]) + "\n"


def points_in(folder: Path) -> list[Point]:
    """The points of a run that was tracked offline; a last line that was cut by a kill is left out."""
    path = folder / "points.jsonl"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [Point(metric, step, value, time) for line in lines for metric, step, value, time in json.loads(line)]


def _write_text(path: Path, text: str) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


def ending_of(folder: Path) -> dict[str, str]:
    """The tags that a run tracked offline ended with; none when it has not."""
    path = folder / "ending.json"
    return json.loads(path.read_text(encoding="utf-8"))["tags"] if path.exists() else {}


def run_folders(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("*/run.json"))


def description_in(folder: Path) -> Description:
    try:
        return Description(**json.loads((folder / "run.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise SpecError(f"{folder / 'run.json'} is not a run that was tracked offline ({error})") from None


def stored_offline(folder: Path) -> StoredRun:
    described = description_in(folder)
    again = {name: value for name, value in described.tags.items() if name != NOTE}
    tags = {**again, "rnnstudy.outcome": "interrupted", **ending_of(folder)}
    return StoredRun(described.key, described.name, described.experiment, state_of(tags), tags, str(folder))
