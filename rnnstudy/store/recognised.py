"""Runs that a sweep finds in the store, and that were trained by another experiment or have a former key there."""

import json
from collections.abc import Collection, Iterable

from rnnstudy.run import Run
from rnnstudy.store.mlflow_store import Store
from rnnstudy.store.stored_run import ALSO_IN, FORMER_KEY


def adopt(store: Store, runs: Iterable[Run]) -> int:
    """Give the complete runs that the store knows by a former key their key of today; returns how many there were.

    Their former key stays in a tag, by which they are found still. Raises `StoreError` if the store cannot be written.
    """
    by_former = {run.former_key: run for run in runs if run.former_key != run.key}
    known = (
        store.finished([key for run in by_former.values() for key in (run.key, run.former_key)]) if by_former else {}
    )
    found = {former: run for former, run in by_former.items() if former in known and run.key not in known}
    for former, run in found.items():
        tags = {"rnnstudy.key": run.key, "rnnstudy.spec": json.dumps(run.described), FORMER_KEY: former}
        store.add_artifacts(known[former], "", (), tags)
    return len(found)


def share(store: Store, keys: Collection[str], experiment: str) -> int:
    """Have the complete runs `keys` that others have trained belong to `experiment`, too; returns how many are new.

    The runs of an experiment are those that its file names, wherever they were trained, and whatever the experiment is
    called in MLflow's pages.
    """
    found = [run for run in store.finished(keys).values() if not run.belongs_to(experiment)]
    for run in found:
        names = [name for name in run.tags.get(ALSO_IN, "").split("/") if name]
        store.add_artifacts(run, "", (), {ALSO_IN: "/".join([*names, experiment])})
    return len(found)
