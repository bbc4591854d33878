"""Runs in a folder of files, for where no store can be reached. `sync` copies them into a store later."""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from rnnstudy.run import Run
from rnnstudy.store import arrays, foreign
from rnnstudy.store.decimation import Point
from rnnstudy.store.documents import NOTE
from rnnstudy.store.errors import DamagedFile
from rnnstudy.store.open_run import OpenRun
from rnnstudy.store.run_description import Description, SweepInfo
from rnnstudy.store.stored_run import COMPLETE, RunIndex, StoredRun, attempts_of, require_folder, state_of
from rnnstudy.store.system_metrics import Sample
from rnnstudy.training.atomic import naming, write_all
from rnnstudy.training.records import Record

DESCRIPTION, POINTS, ENDING = "run.json", "points.jsonl", "ending.json"


class OfflineFolder(RunIndex):
    """A folder of runs in files. Needs neither MLflow nor pandas.

    `<folder>/<key>/`: `run.json` describes the run, `points.jsonl` gets a line for each record, `readings.npz` and
    `weights.npz` come at the end, `ending.json` last. Raises `StoreError` for a folder that cannot be written.
    """

    def __init__(self, path: Path) -> None:
        require_folder(path, "name another folder for the files")
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
    """The description of an offline run. Raises `DamagedFile` when it cannot be read, or is that of another run."""
    what = f"{folder / DESCRIPTION} does not describe an offline run"
    fields = foreign.parsed(_bytes(folder, DESCRIPTION, foreign.LARGEST_DOCUMENT), foreign.DescriptionShape, what)
    foreign.require_own_key(fields, what)
    if fields["key"] != folder.name:
        raise DamagedFile(f"{what}: its key is {fields['key']}, and its folder has another name")
    return Description(**fields)


def points_in(folder: Path) -> list[Point]:
    """The points of an offline run, without those of a last line that a kill has cut. Raises `DamagedFile`."""
    what, content = f"{folder / POINTS}, line", _bytes(folder, POINTS, foreign.LARGEST_TABLE)
    lines = content.split(b"\n")[:-1]
    parts = (foreign.parsed(line, list[foreign.PointShape], f"{what} {one}") for one, line in enumerate(lines, 1))
    return [Point(*point) for points in parts for point in points]


def ending_of(folder: Path) -> dict[str, str]:
    """The tags that an offline run ended with; none when it has not ended. Raises `DamagedFile`."""
    content = _bytes(folder, ENDING, foreign.LARGEST_DOCUMENT)
    what = f"{folder / ENDING} does not say how a run ended"
    return foreign.parsed(content, foreign.EndingShape, what)["tags"] if content else {}


def arrays_in(folder: Path, described: Description) -> list[Path]:
    """The array files of an offline run that has ended, each checked whole. Raises `DamagedFile`."""
    checks = {
        arrays.READINGS: lambda path: arrays.check_readings(path, described.key, described.steps),
        arrays.WEIGHTS: arrays.check_weights,
    }
    files = []
    for name, check in checks.items():
        with contextlib.suppress(FileNotFoundError):
            files.append(foreign.regular_file(folder, name))
            check(files[-1])
    return files


def _bytes(folder: Path, name: str, largest: int) -> bytes:
    """The content of a file of an offline run; empty where there is none, or an empty one."""
    try:
        return foreign.regular_file(folder, name, largest).read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise DamagedFile(f"{folder / name} cannot be read ({error.strerror or error})") from None


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
        with naming(folder / POINTS), (folder / POINTS).open("a", encoding="utf-8") as file:
            file.write(_line(points))


def _line(points: Sequence[Point]) -> str:
    return json.dumps([list(point) for point in points]) + "\n"
