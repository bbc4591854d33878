"""An MLflow server as the store: whether it answers."""

from urllib.error import HTTPError
from urllib.request import Request, urlopen

from rnnstudy.store.errors import StoreError

TRACKING_URI = "MLFLOW_TRACKING_URI"


def check_server(uri: str) -> None:
    """Raises `StoreError` when no server answers: MLflow's own client would retry for minutes."""
    remedy = f"start it, or unset {TRACKING_URI} to use the project's own store"
    try:
        with urlopen(Request(f"{uri.rstrip('/')}/health"), timeout=10):
            pass
    except (OSError, ValueError) as error:
        # Any answer will do, since not every server has this page; these codes come from a gateway before it.
        if isinstance(error, HTTPError) and error.code not in (502, 503, 504):
            return
        raise StoreError(f"the MLflow server {uri} cannot be reached ({error}); {remedy}") from None
