"""Pictures of single runs: stored among the run's artifacts, and shown in the run's page by its description.

`rnnstudy ui` draws the pictures that are missing. A tag marks the runs that have theirs. Reports do not use them.
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Event
from urllib.parse import urlencode

from rnnstudy import figures, results
from rnnstudy.figures.picture import Picture, rendered
from rnnstudy.results.results import Results
from rnnstudy.spec import RnnstudyError
from rnnstudy.store.arrays import READINGS
from rnnstudy.store.documents import NOTE
from rnnstudy.store.mlflow_store import Store
from rnnstudy.store.stored_run import COMPLETE, StoredRun, newest_complete

FOLDER = "pictures"
DRAWN = "rnnstudy.pictures"
"""The tag of a run whose pictures have been drawn; its value is the `STYLE` they were drawn with."""

STYLE = "2"
"""The version of the pictures: when it is raised, the pictures of all runs are drawn again."""

HEADING = "### Pictures"

DOTS_PER_INCH = 90
"""MLflow's page shows a picture at its own size: all pictures of a run should fit on a screen or two."""


CAPTIONS = {
    "gradient_by_lag_initial": "Before training: the gradient of the last step's loss with respect to the state, by "
    "lag. A straight line that falls is exponential decay.",
    "gradient_by_lag_final": "After training, relative to the gradient at the step of the loss.",
    "gradient_heat_map": "During training: the gradient at each time step (across) as training goes on (upwards).",
}


def runs_without_pictures(store: Store) -> list[StoredRun]:
    """The complete runs whose pictures have not been drawn, newest first."""
    runs = newest_complete(store.runs()).values()
    return [run for run in runs if run.state in COMPLETE and run.tags.get(DRAWN) != STYLE]


def draw(run: Results) -> Iterator[tuple[str, bytes]]:
    """(name, PNG) of each picture for which one run has the readings."""
    names = (name.removeprefix("profile/") for name in run.names if name.startswith("profile/"))
    # `c` before `h`, as in a step of an LSTM: the last one is the output state.
    states = tuple(sorted(name.removesuffix("_initial") for name in names if name.endswith("_initial")))
    states = states or ("h",)
    by_lag = partial(figures.gradient_by_lag, run, states=states)
    drawing: dict[str, Callable[[], Picture]] = {
        "gradient_by_lag_initial": by_lag,
        "gradient_by_lag_final": partial(by_lag, stage="final", normalised=True),
        "gradient_heat_map": partial(figures.gradient_heat_map, run, state=states[-1]),
    }
    for name, drawn in drawing.items():
        try:
            picture = drawn()
        except RnnstudyError:
            # The run does not have the reading for this picture.
            continue
        yield name, rendered(picture.figure, "png", dots_per_inch=DOTS_PER_INCH)


def add_pictures(store: Store, run: StoredRun) -> None:
    """Draw the pictures of one complete run, store them as its artifacts, and show them in its description."""
    readings = results.from_files([store.artifact(run, READINGS)])
    with tempfile.TemporaryDirectory(prefix="rnnstudy-") as folder:
        files = []
        for name, content in draw(readings):
            files.append(Path(folder) / f"{name}.png")
            files[-1].write_bytes(content)
        tags = {NOTE: description_with_pictures(run, [file.stem for file in files]), DRAWN: STYLE}
        store.add_artifacts(run, FOLDER, files, tags)


def description_with_pictures(run: StoredRun, names: list[str]) -> str:
    """The run's description with these pictures at its end, in place of any that it has."""
    text = run.tags.get(NOTE, "").partition(HEADING)[0].rstrip()
    shown = [f"{CAPTIONS[name]}\n\n![{name}]({picture_url(run.identity, name)})" for name in names]
    return "\n\n".join([text, *([HEADING, *shown] if shown else [])])


def picture_url(identity: str, name: str) -> str:
    """The address of a picture on MLflow's server, relative to its own page."""
    return f"get-artifact?{urlencode({'path': f'{FOLDER}/{name}.png', 'run_uuid': identity})}"


def add_missing_pictures(store: Store, stop: Event, say: Callable[[str], None]) -> int:
    """Draw the missing pictures until all are there or `stop` is set. Returns for how many runs they were drawn.

    A run that cannot be drawn, because its file is gone for example, is reported to `say` and skipped.
    """
    count = 0
    for run in runs_without_pictures(store):
        if stop.is_set():
            break
        try:
            add_pictures(store, run)
            count += 1
        except RnnstudyError as error:
            say(f"no pictures of {run.name}: {error}")
    return count
