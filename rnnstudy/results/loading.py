"""Results as a user asks for them, from the project's store or from a folder of committed files.

Readings come from the store's array files, never from MLflow's decimated metrics. `project` is the one of the working
directory when it is None.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pandas as pd

from rnnstudy.results.archive import Archive
from rnnstudy.results.results import Listener, Results, RunReadings
from rnnstudy.results.search_trials import SearchTrials
from rnnstudy.results.source import MissingRuns, ResultsSource
from rnnstudy.spec import RequestError, nearest
from rnnstudy.store.arrays import READINGS, read_manifest, read_series
from rnnstudy.store.mlflow_store import Store
from rnnstudy.store.project import Project, find_project
from rnnstudy.store.stored_run import COMPLETE, FORMER_KEY, StoredRun, newest_complete


@dataclass(frozen=True)
class StoreSource(ResultsSource):
    """Results read from the store.

    Attributes:
        store: the store.
        searches: the function (experiment, scale) -> `SearchTrials`; by default there are no searches. The studies of
            searches are not kept in the store itself.
    """

    store: Store
    searches: Callable[[str, str], SearchTrials] = field(default=lambda experiment, scale: SearchTrials.of_rows([], []))

    def complete_keys(self) -> dict[str, str]:
        return {key: run.experiment for key, run in _complete(self.store.runs()).items()}

    def load(
        self, keys: Iterable[str] | None = None, *, experiment: str | None = None, listener: Listener | None = None
    ) -> Results:
        runs = self.complete_runs(keys, experiment)
        return Results([_from_file(self.store.artifact(run, READINGS), run.own_tags) for run in runs], listener)

    def complete_runs(self, keys: Iterable[str] | None, experiment: str | None = None) -> list[StoredRun]:
        """The runs that `load` reads. Raises `MissingRuns` when one of them is not complete, or when there is none."""
        keys = None if keys is None else list(keys)
        runs = self.store.runs() if keys is None else self.store.runs_with(keys)
        complete = _complete(runs)
        if keys is None:
            for run in newest_complete(runs).values():
                if run.state == "damaged" and run.belongs_to(experiment):
                    warnings.warn(f"left out: {run.damage}", stacklevel=4)
            keys = [key for key, run in complete.items() if run.belongs_to(experiment)]
        wanted = list(dict.fromkeys(keys))
        missing = [key for key in wanted if key not in complete]
        if missing or not wanted:
            raise MissingRuns(_missing(missing, len(wanted), runs, experiment))
        return [complete[key] for key in wanted]

    def search_trials(self, experiment: str, scale: str) -> SearchTrials:
        return self.searches(experiment, scale)


def load(
    keys: Iterable[str] | None = None,
    *,
    experiment: str | None = None,
    project: Project | None = None,
    archive: Path | None = None,
) -> Results:
    """Complete runs (finished or diverged) from the store, or from `archive`, a folder of committed results.

    With `keys`, those runs, in that order; otherwise all of `experiment` (a name, or the path of its file); otherwise
    all. Raises `MissingRuns` naming the runs that are missing, and the sweep that makes them.
    """
    return _source(project, archive).load(keys, experiment=_stem(experiment))


def complete_keys(*, project: Project | None = None, archive: Path | None = None) -> dict[str, str]:
    """Every complete run of the store, or of an archive: its key, and the experiment that made it."""
    return _source(project, archive).complete_keys()


def runs_table(experiment: str | None = None, *, project: Project | None = None) -> pd.DataFrame:
    """Every run in the store (of `experiment`, a name or the path of its file), in any state.

    Columns: `key`, `name`, `experiment`, `state`.
    """
    runs = _store(project).runs()[::-1]
    rows = [vars(run) for run in runs if run.belongs_to(_stem(experiment))]
    return pd.DataFrame(rows, columns=["key", "name", "experiment", "state"])


def find_key(prefix: str, *, project: Project | None = None) -> str:
    """The key that begins with `prefix`. Raises `RequestError` when there is none, or more than one."""
    runs = _store(project).runs()[::-1]
    run_names = {run.key: run.name for run in runs}
    formerly = {former: run.key for run in runs if (former := run.tags.get(FORMER_KEY, ""))}
    matching = [key for key in run_names if key.startswith(prefix)]
    matching = matching or [key for former, key in formerly.items() if former.startswith(prefix)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        shown = ", ".join(f"{key} ({run_names[key]})" for key in matching[:5])
        more = f" and {len(matching) - 5} more" if len(matching) > 5 else ""
        raise RequestError(f"'{prefix}' is the beginning of {len(matching)} keys: {shown}{more}; type more of it")
    hint = nearest(prefix, run_names) or "; `rnnstudy list` shows the keys of an experiment"
    raise RequestError(f"no run in the store has a key that begins with '{prefix}'{hint}")


def stored_run(prefix: str, *, project: Project | None = None) -> StoredRun:
    """The run whose key begins with `prefix`: its newest complete attempt, or else its newest attempt.

    Raises `RequestError` when there is none, or when several keys begin so.
    """
    key = find_key(prefix, project=project)
    return newest_complete(_store(project).runs(key))[key]


def artifact_file(key: str, name: str, *, project: Project | None = None) -> Path:
    """A local file with the artifact `name` (`readings.npz`, `weights.npz`) of the complete run `key`.

    Raises `MissingRuns` when there is no such run, and `DamagedFile` when its file is gone.
    """
    store = _store(project)
    (run,) = StoreSource(store).complete_runs([key])
    return store.artifact(run, name)


def from_files(paths: Iterable[Path]) -> Results:
    """The runs with these `readings.npz` files. Raises `DamagedFile` for a file that is missing or damaged."""
    return Results([_from_file(path) for path in paths])


def _from_file(path: Path, own_tags: Mapping[str, str] | None = None) -> RunReadings:
    """The readings of a file. Where the run has another key in the store today, `own_tags` are those of the store."""
    manifest = read_manifest(path)
    if own_tags and own_tags["rnnstudy.key"] != manifest["run"]["key"]:
        tags = {**manifest["run"]["tags"], **own_tags}
        manifest["run"] = {**manifest["run"], "key": own_tags["rnnstudy.key"], "tags": tags}
    units = {name: described["unit"] for name, described in manifest["series"].items()}
    return RunReadings(manifest["run"], units, partial(read_series, path, manifest=manifest))


def _store(project: Project | None) -> Store:
    return Store(project or find_project())


def _source(project: Project | None, archive: Path | None) -> ResultsSource:
    return StoreSource(_store(project)) if archive is None else Archive.open(archive)


def _stem(experiment: str | None) -> str | None:
    return Path(experiment).stem if experiment else None


def _complete(newest_first: Sequence[StoredRun]) -> dict[str, StoredRun]:
    """The newest complete run of each key, in the order in which they were started."""
    return {run.key: run for run in reversed(newest_first) if run.state in COMPLETE}


def _missing(missing: Sequence[str], wanted: int, newest_first: Sequence[StoredRun], experiment: str | None) -> str:
    """The error message for runs that are not complete in the store."""
    newest = {run.key: run for run in reversed(newest_first)}
    described = [f"{key} ({newest[key].name}, {newest[key].state})" if key in newest else key for key in missing]
    shown = ", ".join(described[:5]) + (f" and {len(described) - 5} more" if len(described) > 5 else "")
    experiments = {experiment} if experiment else {newest[key].experiment for key in missing if key in newest}
    sweeps = " and ".join(f"`rnnstudy sweep experiments/{name}.py`" for name in sorted(experiments))
    remedy = f"run {sweeps or 'the sweep that contains them'} first"
    if not missing:
        return f"the store has no complete run{f' of {experiment}' if experiment else ''}; {remedy}"
    return f"{len(missing)} of {wanted} runs are not complete in the store: {shown}; {remedy}"
