"""The explorable explanation `explore.html`: one page that computes a small network while a reader moves its settings.

The page needs no server and no network. Its numbers are computed in the browser, in float64, by
`templates/explore.js`; what is random in them, the weights and inputs of a few networks, is drawn here and is part of
the page.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnnstudy.report.build import build_reports
from rnnstudy.report.outline import known_reports
from rnnstudy.report.pages import rendered_page
from rnnstudy.store.project import Project
from rnnstudy.training.atomic import write_all

EXPLORE = "explore"
"""The page's name; a report of that name, `reports/explore.py`, goes before it."""

DRAWS = 3

WIDTH = 8

LONGEST = 200
"""The longest sequence, in steps."""

DIGITS = 6
"""Decimals of a weight: few enough that every machine writes the same page."""

DESCENT = {"start": [6.0, -2.8], "rate": 0.3, "updates": 300}
"""Gradient descent on the single unit's loss; start and rate are those of the report `cliff`."""


def takes_page(names: Iterable[str], project: Project, *, every: bool) -> tuple[bool, list[str]]:
    """Whether the page is to be built, because `names` has it or because `every` page is, and the other names."""
    names = list(names)
    if EXPLORE in known_reports(project):
        return False, names
    return every or EXPLORE in names, [name for name in names if name != EXPLORE]


def build_explore(project: Project, *, committed: bool = False) -> list[Path]:
    """Write `explore.html` to `build/reports`, or with `committed` to `reports`, and the index page that links it.

    Returns the files written.
    """
    part = Project(project.root)
    part.built_reports = part.reports if committed else project.built_reports
    page = part.built_reports / f"{EXPLORE}.html"
    return [*write_all({page: explore_page()}), *build_reports([], part)]


def explore_page() -> bytes:
    """The page; the same bytes each time."""
    return rendered_page(
        "explore.html.j2",
        title="Why gradients vanish and explode: move it yourself",
        draws=[network(number) for number in range(DRAWS)],
        descent=DESCENT,
        longest=LONGEST,
        width=WIDTH,
    )


def network(number: int) -> dict[str, Any]:
    """Weights and inputs of network `number`; vectors are rows, so a matrix is (from unit, to unit).

    The RNN's recurrent weights are Gaussian and scaled to spectral radius 1: the reader's gain is then the radius. The
    LSTM's are uniform in ±1/√width, as PyTorch draws them, with the gates side by side in its order (input, forget,
    candidate, output). The read-out has length 1: the gradient starts with it, so its size at the last step is 1.
    """
    random = np.random.default_rng(number)
    recurrent = random.standard_normal((WIDTH, WIDTH))
    recurrent /= np.abs(np.linalg.eigvals(recurrent)).max()
    bound = WIDTH**-0.5
    readout = random.standard_normal(WIDTH)
    return {
        "rnn": {"recurrent": _short(recurrent), "input": _short(0.3 * random.standard_normal(WIDTH))},
        "lstm": {
            "recurrent": _short(random.uniform(-bound, bound, (WIDTH, 4 * WIDTH))),
            "input": _short(random.uniform(-bound, bound, 4 * WIDTH)),
        },
        "readout": _short(readout / np.linalg.norm(readout)),
        "inputs": _short(random.standard_normal(LONGEST)),
    }


def _short(numbers: NDArray[np.float64]) -> Any:
    return np.round(numbers, DIGITS).tolist()
