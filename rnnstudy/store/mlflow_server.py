"""An MLflow server as the store: whether it answers, its answers page by page, and its refusals."""

import re
from collections.abc import Callable
from typing import Any

from rnnstudy.errors import LONGEST, message_of
from rnnstudy.store.errors import StoreError

TRACKING_URI = "MLFLOW_TRACKING_URI"

REFUSALS = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "INVALID_STATE", "PERMISSION_DENIED", "BAD_REQUEST")
"""MLflow's error codes for a request that will never succeed; any other may succeed later."""


def check_server(uri: str) -> None:
    """Raises `StoreError` when no server answers: MLflow's own client would retry for minutes."""
    # What MLflow's client uses: it understands http://user:password@host, netrc and proxies alike.
    import requests

    remedy = f"start it, or unset {TRACKING_URI} to use the project's own store"
    try:
        status = requests.get(f"{uri.rstrip('/')}/health", timeout=10).status_code
    except (OSError, ValueError) as error:
        # The system's own words, where there are some: the libraries between wrap them in several sentences.
        reason = re.search(r"\[Errno -?\d+\] ([^'\")]+)", str(error))
        shown = reason[1] if reason else message_of(error)[:LONGEST]
        raise StoreError(f"the MLflow server {uri} cannot be reached ({shown}); {remedy}") from None
    # Any answer will do, since not every server has this page; these codes come from a gateway before it.
    if status in (502, 503, 504):
        raise StoreError(f"the MLflow server {uri} cannot be reached (status {status}); {remedy}")


def all_pages(search: Callable[..., Any]) -> list[Any]:
    """All entities of a paged search."""
    page = search()
    entities = list(page)
    while page.token:
        page = search(page_token=page.token)
        entities += page
    return entities
