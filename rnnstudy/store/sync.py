"""Copying runs from offline folders into a store."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rnnstudy.spec import RequestError
from rnnstudy.store.arrays import READINGS, WEIGHTS
from rnnstudy.store.decimation import Point
from rnnstudy.store.errors import StoreError, StoreUnavailable
from rnnstudy.store.mlflow_store import Store
from rnnstudy.store.mlflow_tracker import experiment_tags
from rnnstudy.store.offline import description_in, ending_of, final_tags, points_in, run_folders
from rnnstudy.store.owner import Owner
from rnnstudy.store.run_description import Description
from rnnstudy.store.stored_run import COMPLETE, state_of

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun


@dataclasses.dataclass(frozen=True)
class SyncReport:
    """What `sync` did, by run key.

    Attributes:
        added: runs that were not in the store.
        updated: runs of which the store had less.
        unchanged: runs that the store already had.
        refused: runs that the store refuses, with its reason; nothing of them was written.
    """

    added: tuple[str, ...]
    updated: tuple[str, ...]
    unchanged: tuple[str, ...]
    refused: Mapping[str, str]


def sync(folders: Iterable[Path], store: Store) -> SyncReport:
    """Copy runs from offline folders into `store`. A second time changes nothing.

    Runs that have not ended arrive as interrupted. Runs that are complete in the store with the same probes, and runs
    that another process is writing at this moment, are left alone. Where the store refuses a run, the others are copied
    all the same. Raises `RequestError` for a folder that holds no runs.
    """
    descriptions = []
    for folder in folders:
        runs = run_folders(folder)
        if not runs:
            raise RequestError(f"{folder} holds no runs; name the folder that the offline sweep wrote")
        descriptions += [(run, description_in(run)) for run in runs]
    store.require_writable()
    store.mark_interrupted()
    done: dict[str, list[str]] = {"added": [], "updated": [], "unchanged": []}
    refused: dict[str, str] = {}
    for run_folder, described in descriptions:
        try:
            done[_sync_run(store, run_folder, described)].append(described.key)
        except StoreUnavailable:
            raise
        except StoreError as error:
            refused[described.key] = str(error)
    return SyncReport(**{how: tuple(keys) for how, keys in done.items()}, refused=refused)


def _sync_run(store: Store, folder: Path, described: Description) -> str:
    ending, points = ending_of(folder), points_in(folder)
    for known in store.runs(described.key):
        covered = all(probe in known.probes for probe in json.loads(described.tags["rnnstudy.probes"]))
        # A sweep that has given up the store writes files alone: its own runs are not being written any more.
        written = known.state == "running" and Owner.tagged(known.tags) != Owner.tagged(described.tags)
        if written or (known.state in COMPLETE and covered):
            return "unchanged"
    present = store.unfinished(described)
    if present is not None and not _adds(store, present, ending, points):
        return "unchanged"
    # While it is copied, the run belongs to this process, so that a kill leaves an interrupted run; then it gets the
    # tags of the process that trained it.
    borrowed = dataclasses.replace(described, tags={**described.tags, **Owner.this().tags()})
    # The files do not say when a run began: its first record is the earliest time that is known.
    times = [point.time / 1000 for point in points]
    tags = experiment_tags(described.tags.get("mlflow.source.name", ""), described.hypothesis)
    opened = store.start(borrowed, store.experiment(described.experiment, tags), min(times, default=None))
    opened.buffer += opened.new_points(points)
    files = [path for path in (folder / READINGS, folder / WEIGHTS) if ending and path.exists()]
    store.end(opened, final_tags(described, ending), files, max(times, default=None))
    return "added" if present is None else "updated"


def _adds(store: Store, present: "MlflowRun", ending: Mapping[str, str], points: Sequence[Point]) -> bool:
    """Whether an offline run has an ending or points that the store's run has not."""
    if ending and ending.get("rnnstudy.outcome") != state_of(present.data.tags):
        return True
    sent = store.sent(present)
    return any(point.step not in sent.get(point.metric, ()) for point in points)
