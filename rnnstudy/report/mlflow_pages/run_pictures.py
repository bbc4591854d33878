"""Pictures of single runs, drawn when someone is about to look: kept among the run's artifacts, shown in its page.

MLflow's page shows a run's description, and a description may hold pictures: theirs are fetched from the run's own
artifacts. A tag says that a run has its pictures.

`rnnstudy ui` draws those that are missing. Reports do not: their figures are drawn from the readings, they show none of
these, and they may be built from committed results where there is no store to keep a picture in. The page of a run that
a report names is opened by `rnnstudy ui`, which has drawn its pictures then.
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from threading import Event
from urllib.parse import urlencode

from rnnstudy import figures, results
from rnnstudy.figures import Picture
from rnnstudy.results.results import Results
from rnnstudy.spec import SpecError
from rnnstudy.store.arrays import READINGS
from rnnstudy.store.description import NOTE
from rnnstudy.store.mlflow_store import Store
from rnnstudy.store.stored_run import COMPLETE, StoredRun, newest_complete

FOLDER = "pictures"
DRAWN = "rnnstudy.pictures"
"""The tag of a run whose pictures have been drawn; its value is `STYLE` of the time."""

STYLE = "2"
"""Raised when the pictures change: those of all runs are then drawn again."""

HEADING = "### Pictures"

DOTS_PER_INCH = 90
"""MLflow's page shows a picture at its own size: all of a run's are to fit on a screen or two."""


def kinds(states: tuple[str, ...]) -> dict[str, Callable[[Results], Picture]]:
    """File name to what draws it, for a run whose network has these states."""
    by_lag = partial(figures.gradient_by_lag, states=states)
    return {
        "gradient_by_lag_initial": by_lag,
        "gradient_by_lag_final": partial(by_lag, stage="final", normalised=True),
        "gradient_heat_map": partial(figures.gradient_heat_map, state=states[-1]),
    }


WORDS = {
    "gradient_by_lag_initial": "Before training: the gradient of the last step's loss with respect to the state, by "
    "how long ago the state was. A straight line that falls is exponential decay.",
    "gradient_by_lag_final": "After training, relative to the gradient at the step of the loss.",
    "gradient_heat_map": "During training: the gradient at each time step (across) as training goes on (upwards).",
}


def missing(store: Store) -> list[StoredRun]:
    """The complete runs whose pictures have not been drawn, newest first."""
    runs = newest_complete(store.runs()).values()
    return [run for run in runs if run.state in COMPLETE and run.tags.get(DRAWN) != STYLE]


def draw(found: Results) -> Iterator[tuple[str, bytes]]:
    """(name, PNG) of each picture that the readings of one run allow."""
    names = (name.removeprefix("profile/") for name in found.names if name.startswith("profile/"))
    # `c` before `h`, as in a step of an LSTM: the last one is the output state.
    states = tuple(sorted(name.removesuffix("_initial") for name in names if name.endswith("_initial")))
    for name, drawn in kinds(states or ("h",)).items():
        try:
            picture = drawn(found)
        except SpecError:
            # A run without this reading: it has no such picture.
            continue
        content = BytesIO()
        picture.figure.savefig(content, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
        yield name, content.getvalue()


def add(store: Store, run: StoredRun) -> list[str]:
    """Draw the pictures of one complete run, keep them as its artifacts, show them in its description; gives names."""
    found = results.from_files([store.artifact(run, READINGS)])
    with tempfile.TemporaryDirectory(prefix="rnnstudy-") as folder:
        files = []
        for name, content in draw(found):
            files.append(Path(folder) / f"{name}.png")
            files[-1].write_bytes(content)
        names = [file.stem for file in files]
        store.keep(run, FOLDER, files, {NOTE: described(run, names), DRAWN: STYLE})
    return names


def described(run: StoredRun, names: list[str]) -> str:
    """The run's description, as it is, with its pictures below."""
    text = run.tags.get(NOTE, "").partition(HEADING)[0].rstrip()
    shown = [f"{WORDS[name]}\n\n![{name}]({address(run.identity, name)})" for name in names]
    return "\n\n".join([text, *([HEADING, *shown] if shown else [])])


def address(identity: str, name: str) -> str:
    """Where MLflow's server has a picture, relative to its own page."""
    return f"get-artifact?{urlencode({'path': f'{FOLDER}/{name}.png', 'run_uuid': identity})}"


def add_missing(store: Store, stop: Event, said: Callable[[str], None]) -> int:
    """Draw what is missing until all is there or `stop` is set; gives for how many runs.

    A run that cannot be drawn (its file is gone) is told and left out: the others go on.
    """
    waiting, done = missing(store), 0
    for run in waiting:
        if stop.is_set():
            break
        try:
            add(store, run)
            done += 1
        except SpecError as error:
            said(f"no pictures of {run.name}: {error}")
    return done
