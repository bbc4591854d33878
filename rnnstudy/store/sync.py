import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rnnstudy.spec import SpecError
from rnnstudy.store.arrays import READINGS, WEIGHTS
from rnnstudy.store.decimation import Point
from rnnstudy.store.description import NOTE
from rnnstudy.store.mlflow_store import Store
from rnnstudy.store.mlflow_tracker import experiment_tags
from rnnstudy.store.offline import description_in, ending_of, run_folders, points_in
from rnnstudy.store.run_description import Description, SweepInfo, process_tags
from rnnstudy.store.stored_run import COMPLETE, state_of

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun


@dataclasses.dataclass(frozen=True)
class SyncReport:
    """What `sync` did: the keys it added, those it brought further, and those that the store already had."""

    added: tuple[str, ...]
    updated: tuple[str, ...]
    unchanged: tuple[str, ...]


def sync(folders: Iterable[Path], store: Store) -> SyncReport:
    """Bring runs that were tracked offline into `store`. A second time changes nothing.

    Runs that have not ended come in as interrupted. Runs that are complete in the store with the same probes, and runs
    that are being written at this moment, are left alone. Raises `SpecError` for a folder that holds no runs.
    """
    found = []
    for folder in folders:
        runs = run_folders(folder)
        if not runs:
            raise SpecError(f"{folder} holds no runs; name the folder that the offline sweep wrote")
        found += [(run, description_in(run)) for run in runs]
    store.require_writable()
    store.mark_interrupted()
    done: dict[str, list[str]] = {"added": [], "updated": [], "unchanged": []}
    for run_folder, described in found:
        done[_sync_one(store, run_folder, described)].append(described.key)
    return SyncReport(**{how: tuple(keys) for how, keys in done.items()})


def _sync_one(store: Store, folder: Path, described: Description) -> str:
    ending, points = ending_of(folder), points_in(folder)
    for known in store.runs(described.key):
        covered = all(probe in known.probes for probe in json.loads(described.tags["rnnstudy.probes"]))
        if known.state == "running" or (known.state in COMPLETE and covered):
            return "unchanged"
    present = store.unfinished(described)
    if present is not None and not _brings_more(store, present, ending, points):
        return "unchanged"
    info = SweepInfo(
        described.experiment, described.tags.get("mlflow.source.name", ""), hypothesis=described.hypothesis
    )
    # While it is being brought in, the run belongs to this process, so that it can be mended; then to its own again.
    borrowed = dataclasses.replace(described, tags={**described.tags, **process_tags()})
    # A run in files does not tell when it began; its first record is the first that is known of it.
    times = [point.time / 1000 for point in points]
    experiment = store.experiment(described.experiment, experiment_tags(info))
    opened = store.start(borrowed, experiment, min(times, default=None))
    opened.buffer += opened.fresh(points)
    files = [path for path in (folder / READINGS, folder / WEIGHTS) if ending and path.exists()]
    again = {name: value for name, value in described.tags.items() if name != NOTE}
    tags = {**again, "rnnstudy.outcome": "interrupted", **ending}
    store.end(opened, tags, files, max(times, default=None))
    return "added" if present is None else "updated"


def _brings_more(store: Store, present: "MlflowRun", ending: Mapping[str, str], points: Sequence[Point]) -> bool:
    """Whether an offline run has an ending or points that the store's run has not."""
    if ending and ending.get("rnnstudy.outcome") != state_of(present.data.tags):
        return True
    sent = store.sent(present)
    return any(point.step not in sent.get(point.metric, ()) for point in points)
