"""Runs in a folder of files, for where no store can be reached. `sync` copies them into a store later."""

import dataclasses
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from rnnstudy.run import Run
from rnnstudy.store.decimation import Point
from rnnstudy.store.documents import NOTE
from rnnstudy.store.errors import DamagedFile
from rnnstudy.store.open_run import OpenRun
from rnnstudy.store.run_description import Description, SweepInfo
from rnnstudy.store.stored_run import COMPLETE, RunIndex, StoredRun, attempts_of, require_folder, state_of
from rnnstudy.store.system_metrics import Sample
from rnnstudy.training.atomic import write_all
from rnnstudy.training.records import Record

DESCRIPTION, POINTS, ENDING = "run.json", "points.jsonl", "ending.json"


class OfflineFolder(RunIndex):
    """A folder of runs in files. Needs neither MLflow nor pandas.

    `<folder>/<key>/`: `run.json` describes the run, `points.jsonl` gets a line for each record, `readings.npz` and
    `weights.npz` come at the end, `ending.json` last. Raises `StoreError` for a folder that cannot be written.
    """

    def __init__(self, path: Path) -> None:
        require_folder(path)
        self.path = path

    def runs(self) -> list[StoredRun]:
        return [stored_offline(folder) for folder in run_folders(self.path)]

    def forget(self, keys: Iterable[str]) -> int:
        folders = [folder for folder in (self.path / key for key in set(keys)) if (folder / DESCRIPTION).exists()]
        for folder in folders:
            (folder / DESCRIPTION).unlink()
            shutil.rmtree(folder)
        return len(folders)

    def mark_interrupted(self) -> int:
        """Nothing to do: a run without `ending.json` is an interrupted run."""
        return 0


class OfflineTracker:
    """Writes the records of a sweep to files at once, one folder for each run (see `tracker.Tracker`)."""

    def __init__(self, folder: OfflineFolder, info: SweepInfo) -> None:
        self.folder = folder
        self.info = info
        self._open: dict[str, OpenRun] = {}

    def begin(
        self, run: Run, name: str, tags: Mapping[str, str] = MappingProxyType({}), began: float | None = None
    ) -> None:
        folder = self.folder.path / run.key
        if ending_of(folder).get("rnnstudy.outcome") in COMPLETE:
            self.folder.forget([run.key])
        described = self.info.describe(run, name, tags)
        failed = attempts_of(stored_offline(folder).tags) if (folder / DESCRIPTION).exists() else 0
        if failed:
            described.tags["rnnstudy.attempts"] = str(failed)
        (folder / ENDING).unlink(missing_ok=True)
        opened = OpenRun(described, str(folder), attempts=failed)
        points = points_in(folder)
        opened.new_points(points)
        # Rewritten without the line that a kill may have cut.
        write_all({folder / POINTS: "".join(_line([point]) for point in points).encode()})
        write_all({folder / DESCRIPTION: json.dumps(dataclasses.asdict(described), indent=1).encode()})
        self._open[run.key] = opened

    def write(self, record: Record) -> None:
        opened = self._open[record.key]
        folder = Path(opened.identity)
        _append(folder, opened.take(record))
        if record.outcome is not None:
            opened.write_files(record, folder)
            ending = {"tags": opened.ending_tags(record.outcome), "time": record.time}
            write_all({folder / ENDING: json.dumps(ending, indent=1).encode()})
            del self._open[record.key]

    def sampled(self, sample: Sample, seconds: float) -> None:
        for opened in self._open.values():
            _append(Path(opened.identity), opened.take_sample(sample, seconds))

    def interrupt(self, key: str) -> None:
        self._open.pop(key, None)

    def drop(self, key: str) -> None:
        self._open.pop(key, None)

    def close(self) -> None:
        """Nothing to do: nothing is buffered."""


def run_folders(folder: Path) -> list[Path]:
    """The folders of the runs in an offline folder."""
    return sorted(path.parent for path in folder.glob(f"*/{DESCRIPTION}"))


def description_in(folder: Path) -> Description:
    """The description of an offline run. Raises `DamagedFile` when it cannot be read."""
    path = folder / DESCRIPTION
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        # Named so before 2026-12.
        if "papers" in fields:
            fields["documents"] = fields.pop("papers")
        return Description(**fields)
    except (OSError, ValueError, TypeError) as error:
        raise DamagedFile(f"{path} does not describe an offline run ({error})") from None


def points_in(folder: Path) -> list[Point]:
    """The points of an offline run, without those of a last line that a kill has cut."""
    path = folder / POINTS
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [Point(*point) for line in lines for point in json.loads(line)]


def ending_of(folder: Path) -> dict[str, str]:
    """The tags that an offline run ended with; none when it has not ended."""
    path = folder / ENDING
    return json.loads(path.read_text(encoding="utf-8"))["tags"] if path.exists() else {}


def final_tags(described: Description, ending: Mapping[str, str]) -> dict[str, str]:
    """The tags of an offline run in a store: without an ending, it is interrupted."""
    tags = {name: value for name, value in described.tags.items() if name != NOTE}
    return {**tags, "rnnstudy.outcome": "interrupted", **ending}


def stored_offline(folder: Path) -> StoredRun:
    described = description_in(folder)
    tags = final_tags(described, ending_of(folder))
    return StoredRun(described.key, described.name, described.experiment, state_of(tags), tags, str(folder))


def _append(folder: Path, points: Sequence[Point]) -> None:
    if points:
        with (folder / POINTS).open("a", encoding="utf-8") as file:
            file.write(_line(points))


def _line(points: Sequence[Point]) -> str:
    return json.dumps([list(point) for point in points]) + "\n"
