"""Runs that are in the store by a key that they had before what a key depends on was changed."""

import json
from collections.abc import Iterable

from rnnstudy.run import Run
from rnnstudy.store.mlflow_store import Store
from rnnstudy.store.stored_run import FORMER_KEY


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
