from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from rnnstudy.results.results import Listener, Results, RunReadings
from rnnstudy.spec import SpecError, nearest
from rnnstudy.store.arrays import READINGS, read_manifest, read_series
from rnnstudy.store.mlflow_store import Store
from rnnstudy.store.project import Project, find_project
from rnnstudy.store.stored_run import COMPLETE, StoredRun
from rnnstudy.training.records import Series


def from_files(paths: Iterable[Path]) -> Results:
    """The runs whose `readings.npz` these are. Raises `SpecError` for a file that is gone or is not one."""
    return Results([_from_file(path) for path in paths])


def _from_file(path: Path) -> RunReadings:
    manifest = read_manifest(path)
    return RunReadings(
        header=manifest["run"],
        units={name: described["unit"] for name, described in manifest["series"].items()},
        series=partial(_fetched, path, manifest),
    )


def _fetched(path: Path, manifest: Mapping[str, Any], name: str) -> Series:
    return read_series(path, name, manifest)


def load(
    keys: Iterable[str] | None = None,
    *,
    experiment: str | None = None,
    project: Project | None = None,
    archive: Path | None = None,
    asked: Listener | None = None,
) -> Results:
    """Complete runs (finished or diverged) from the store of `project` (that of the working directory when None).

    With `keys`, those, in that order; otherwise all of `experiment` (a name, or the path of its file); otherwise all.
    With `archive`, a folder that `archive.write_archive` wrote, from there instead. Raises `SpecError` naming the
    runs that are missing, and the sweep that makes them.
    """
    name = Path(experiment).stem if experiment else None
    if archive is not None:
        from rnnstudy.results.archive import Archive

        return Archive.open(archive).load(name, None if keys is None else list(keys), asked)
    store = Store(project or find_project())
    known = store.runs()
    complete = _complete(known)
    if keys is None:
        wanted = [key for key, run in complete.items() if name in (None, run.experiment)]
    else:
        wanted = list(dict.fromkeys(keys))
    missing = [key for key in wanted if key not in complete]
    if missing or not wanted:
        raise SpecError(_missing(missing, len(wanted), known, name))
    return Results([_from_file(store.artifact(complete[key], READINGS)) for key in wanted], asked)


def complete_keys(*, project: Project | None = None, archive: Path | None = None) -> dict[str, str]:
    """Every complete run of the store, or of an archive: key to the experiment that made it."""
    if archive is not None:
        from rnnstudy.results.archive import Archive

        return {key: header["experiment"] for key, header in Archive.open(archive).headers.items()}
    return {key: run.experiment for key, run in _complete(Store(project or find_project()).runs()).items()}


def runs_table(experiment: str | None = None, *, project: Project | None = None) -> pd.DataFrame:
    """Every run in the store, whatever its state: `key`, `name`, `experiment`, `state`; of one experiment if named."""
    name = Path(experiment).stem if experiment else None
    rows = [
        {"key": run.key, "name": run.name, "experiment": run.experiment, "state": run.state}
        for run in Store(project or find_project()).runs()[::-1]
        if name in (None, run.experiment)
    ]
    return pd.DataFrame(rows, columns=["key", "name", "experiment", "state"])


def find_key(prefix: str, *, project: Project | None = None) -> str:
    """The key in the store that begins with `prefix`. Raises `SpecError` when there is none, or more than one."""
    known = {run.key: run.name for run in reversed(Store(project or find_project()).runs())}
    matching = [key for key in known if key.startswith(prefix)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        shown = ", ".join(f"{key} ({known[key]})" for key in matching[:5])
        more = f" and {len(matching) - 5} more" if len(matching) > 5 else ""
        raise SpecError(f"'{prefix}' is the beginning of {len(matching)} keys: {shown}{more}; type more of it")
    hint = nearest(prefix, known) or "; `rnnstudy list` shows the keys of an experiment"
    raise SpecError(f"no run in the store has a key that begins with '{prefix}'{hint}")


def stored_run(key: str, *, project: Project | None = None) -> StoredRun:
    """How the run `key` (or a unique beginning of it) stands in the store: the complete one, else the newest."""
    project = project or find_project()
    whole = find_key(key, project=project)
    of_key = Store(project).runs(whole)
    return next((run for run in of_key if run.state in COMPLETE), of_key[0])


def artifact_file(key: str, name: str, *, project: Project | None = None) -> Path:
    """A local file with the artifact `name` (`readings.npz`, `weights.npz`) of the complete run `key`.

    Raises `SpecError` when there is no such run, or its file is gone.
    """
    store = Store(project or find_project())
    known = store.runs()
    complete = _complete(known)
    if key not in complete:
        raise SpecError(_missing([key], 1, known, None))
    return store.artifact(complete[key], name)


def _complete(newest_first: Sequence[StoredRun]) -> dict[str, StoredRun]:
    """The newest complete run of each key, in the order in which they were begun."""
    return {run.key: run for run in reversed(newest_first) if run.state in COMPLETE}


def _missing(missing: Sequence[str], wanted: int, known: Sequence[StoredRun], experiment: str | None) -> str:
    """What to say about runs that are not complete in the store."""
    newest = {run.key: run for run in reversed(known)}
    described = [f"{key} ({newest[key].name}, {newest[key].state})" if key in newest else key for key in missing]
    shown = ", ".join(described[:5]) + (f" and {len(described) - 5} more" if len(described) > 5 else "")
    experiments = {experiment} if experiment else {newest[key].experiment for key in missing if key in newest}
    sweeps = " and ".join(f"`rnnstudy sweep experiments/{name}.py`" for name in sorted(experiments))
    remedy = f"run {sweeps or 'the sweep that holds them'} first"
    if not missing:
        return f"the store has no complete run{f' of {experiment}' if experiment else ''}; {remedy}"
    return f"{len(missing)} of {wanted} runs are not complete in the store: {shown}; {remedy}"
