"""Copying runs from offline folders into a store."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rnnstudy.spec import RequestError
from rnnstudy.store.decimation import Point
from rnnstudy.store.documents import NOTE
from rnnstudy.store.errors import DamagedFile, StoreError, StoreUnavailable
from rnnstudy.store.foreign import inert_markdown
from rnnstudy.store.mlflow_store import Store
from rnnstudy.store.mlflow_tracker import experiment_tags
from rnnstudy.store.offline import arrays_in, description_in, ending_of, final_tags, points_in, run_folders
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
        refused: runs that are damaged or that the store refuses, with the reason; nothing of them was written.
    """

    added: tuple[str, ...]
    updated: tuple[str, ...]
    unchanged: tuple[str, ...]
    refused: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class OfflineRun:
    """A run in an offline folder: everything that is copied of it, checked whole."""

    described: Description
    ending: Mapping[str, str]
    points: Sequence[Point]
    files: Sequence[Path]

    @staticmethod
    def read(folder: Path) -> "OfflineRun":
        """Raises `DamagedFile` for anything in it that no offline sweep writes."""
        described, ending = description_in(folder), ending_of(folder)
        note = {NOTE: inert_markdown(described.tags[NOTE])} if NOTE in described.tags else {}
        hypothesis = inert_markdown(described.hypothesis)
        described = dataclasses.replace(described, tags={**described.tags, **note}, hypothesis=hypothesis)
        return OfflineRun(described, ending, points_in(folder), arrays_in(folder, described) if ending else [])


def sync(folders: Iterable[Path], store: Store) -> SyncReport:
    """Copy runs from offline folders into `store`. A second time changes nothing.

    A folder may come from other people: every run in it is checked whole before the first is written (see `foreign`).
    Runs that have not ended arrive as interrupted. Runs that are complete in the store with the same probes, and runs
    that another process is writing at this moment, are left alone. Where a run is damaged, or the store refuses it, the
    others are copied all the same. Raises `RequestError` for a folder that holds no runs.
    """
    found: list[OfflineRun] = []
    done: dict[str, list[str]] = {"added": [], "updated": [], "unchanged": []}
    refused: dict[str, str] = {}
    for folder in folders:
        if not folder.exists():
            raise RequestError(f"there is no folder {folder}; name the one that the offline sweep wrote")
        runs = run_folders(folder)
        if not runs:
            raise RequestError(f"{folder} holds no runs; name the folder that the offline sweep wrote")
        for run in runs:
            try:
                if not run.resolve().is_relative_to(folder.resolve()):
                    raise DamagedFile(f"{run} leads out of {folder}")
                found.append(OfflineRun.read(run))
            except (DamagedFile, OSError) as error:
                refused[run.name] = str(error)
    store.require_writable()
    store.mark_interrupted()
    for run in found:
        try:
            done[_sync_run(store, run)].append(run.described.key)
        except StoreUnavailable:
            raise
        except StoreError as error:
            refused[run.described.key] = str(error)
    return SyncReport(**{how: tuple(keys) for how, keys in done.items()}, refused=refused)


def _sync_run(store: Store, run: OfflineRun) -> str:
    described, ending, points = run.described, run.ending, run.points
    for known in store.runs(described.key):
        asked = json.loads(described.tags["rnnstudy.probes"])
        # A sweep that has given up the store writes files alone: its own runs are not being written any more.
        written = known.state == "running" and Owner.tagged(known.tags) != Owner.tagged(described.tags)
        if written or (known.state in COMPLETE and all(probe in known.probes for probe in asked)):
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
    store.end(opened, final_tags(described, ending), run.files, max(times, default=None))
    return "added" if present is None else "updated"


def _adds(store: Store, present: "MlflowRun", ending: Mapping[str, str], points: Sequence[Point]) -> bool:
    """Whether an offline run has an ending or points that the store's run has not."""
    if ending and ending.get("rnnstudy.outcome") != state_of(present.data.tags):
        return True
    sent = store.sent(present)
    return any(point.step not in sent.get(point.metric, ()) for point in points)
