"""What a report notebook uses: the runs of its experiments, and a function that shows figures and saves them.

here = Notebook("sequence_length")
study = here.study()
here.show(figures.gradient_by_lag(study.results), "by_lag", title="The gradient fades", takeaway="What to see in it.")
"""

import json
import os
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown, display
from matplotlib.figure import Figure

from rnnstudy.figures.picture import Picture
from rnnstudy.report.figure_files import save
from rnnstudy.report.study import Study, load_study, open_source
from rnnstudy.results.results import Listener
from rnnstudy.results.search_trials import SearchTrials
from rnnstudy.spec import RequestError
from rnnstudy.store.git import checked_out_commit
from rnnstudy.store.project import find_project
from rnnstudy.sweep.grids import Scale

FIGURES = "RNNSTUDY_FIGURES"
"""Environment variable: the folder in which a notebook saves its figures while it is being built."""

ARCHIVE = "RNNSTUDY_ARCHIVE"
"""Environment variable: the folder of committed results that notebooks read instead of the store."""

PUBLISHED = "RNNSTUDY_PUBLISHED"
"""Environment variable: a folder of committed results whose runs are read beside those of the store."""

REQUESTS = "RNNSTUDY_REQUESTS"
"""Environment variable: a file to which a notebook adds a line for every reading that it uses."""

SMOKE = "smoke scale:\nshows only that the programs work"
"""Stamped on figures of runs that are too small to mean anything."""

NOT_RUN = "not run"
"""What a text says in place of a number when the runs for it are missing."""


def value_at(values: pd.Series, index: Hashable, form: str = "{:.1f}") -> str:
    """The value at an index of a series, formatted; `NOT_RUN` where it is missing."""
    value = values[index] if index in values.index else None
    return NOT_RUN if value is None or bool(pd.isna(value)) else form.format(value).replace("-", "−")


def power_of_ten(decades: float, digits: int = 1) -> str:
    """10 with a superscript, for Markdown; `NOT_RUN` for NaN."""
    return NOT_RUN if np.isnan(decades) else f"10<sup>{decades:.{digits}f}</sup>".replace("-", "−")


def stamp(figure: Figure, words: str) -> None:
    """Write words across a figure, large, in translucent red; what is below stays visible."""
    size = 3.4 * min(figure.get_size_inches())
    figure.text(0.5, 0.5, words, color="#c00000", alpha=0.35, fontsize=size + 6, rotation=18, ha="center", va="center")


def _request_log(experiment: str) -> Listener | None:
    """Writes every access to the readings of an experiment to the file `REQUESTS`, if that is set."""
    file = os.environ.get(REQUESTS)
    if not file:
        return None

    def log(name: str, quantile: float | None, keys: Sequence[str]) -> None:
        with Path(file).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps([experiment, name, quantile, list(keys)]) + "\n")

    return log


@dataclass
class Notebook:
    """The report `name`, as its own notebook uses it.

    Figures are saved as PNG, SVG, CSV and JSON. Those with a title and a takeaway appear on the index page, in the
    order in which the notebook shows them.
    """

    name: str
    _studies: dict[str, Study] = field(default_factory=dict, init=False, repr=False)
    _shown: int = field(default=0, init=False, repr=False)

    def study(self, experiment: str | None = None) -> Study:
        """The complete runs of an experiment (the one with the report's own name when None); see `load_study`."""
        name = experiment or self.name
        if name not in self._studies:
            project = find_project()
            folders = (os.environ.get(name) for name in (ARCHIVE, PUBLISHED))
            source = open_source(project, *(Path(folder) if folder else None for folder in folders))
            self._studies[name] = load_study(name, project, source, _request_log(name))
        return self._studies[name]

    def searches(self, experiment: str | None = None) -> SearchTrials:
        """The searches of an experiment. Raises `RequestError` for one that searches nothing."""
        study = self.study(experiment)
        if study.searches is None:
            raise RequestError(f"experiments/{study.experiment}.py defines no search")
        return study.searches

    def show(self, picture: Picture, name: str, *, title: str = "", takeaway: str = "") -> None:
        """Save a figure as `name`, and display it with its takeaway and caption, which the settings of its runs end.

        `title` is the message of the figure in one line, for the index page and above the takeaway (in a part of a
        series, as the course, headings say it), `takeaway` a paragraph in Markdown that says what to see in the figure,
        computed from its data.
        """
        picture = replace(picture, caption=f"{picture.caption} {self._settings(picture.keys)}".strip())
        self._shown += 1
        story = {"title": title, "takeaway": " ".join(takeaway.split()), "place": self._shown}
        story = story if title and takeaway else {}
        drawn = [study for study in self._studies.values() if set(picture.keys) & set(study.results.runs.index)]
        experiments = [f"experiments/{study.experiment}.py" for study in drawn]
        command = " && ".join([*(study.command for study in drawn), f"rnnstudy report {self.name}"])
        if any(study.scale is Scale.SMOKE for study in drawn):
            stamp(picture.figure, SMOKE)
        commit = checked_out_commit(find_project().root)
        provenance = {"experiments": experiments, "command": command, "commit": commit}
        save(picture, self.figures, name, provenance, story)
        display(picture)
        if picture.moving is not None:
            self.say(f"[The same as a moving picture](figures/{self.name}/{name}.gif)")
        if story:
            self.say(story["takeaway"] if "/" in self.name else f"**{title}.** {story['takeaway']}")
        self.say(f"*{picture.caption}*")

    def say(self, markdown: str) -> None:
        """Display a text."""
        display(Markdown(markdown))

    def table(self, frame: pd.DataFrame) -> None:
        """Display a table; underscores in its headings become spaces, so that they can be wrapped."""
        spaced = frame.rename(columns=lambda name: str(name).replace("_", " "))
        display(HTML(spaced.to_html(index=False, float_format="{:.4g}".format, na_rep="none")))

    @property
    def figures(self) -> Path:
        """Where the figures are saved: in a temporary folder while the report is being built."""
        temporary = os.environ.get(FIGURES)
        return Path(temporary) if temporary else find_project().built_reports / "figures" / self.name

    def _settings(self, keys: Sequence[str]) -> str:
        """A sentence with width, updates, batch, seeds and scale of the runs `keys`; empty without runs."""
        sentences = []
        for study in self._studies.values():
            runs = study.results.runs[study.results.runs.index.isin(list(keys))]
            if len(runs):
                sentences.append(
                    f"Width {_range(set(runs['width']))}, at most {_range(set(runs['training.steps']), ' update')} of "
                    f"{_range(set(runs['training.batch']), ' sequence')}, {_range([len(set(runs['seed']))], ' seed')}, "
                    f"{f'scale {study.scale.value}' if study.scale else 'no named scale'}."
                )
        # Experiments that are compared often have the same settings.
        return " ".join(dict.fromkeys(sentences))


def _range(values: Collection[int], unit: str = "") -> str:
    """From the least to the largest, with the unit in the plural unless it is one."""
    low, high = min(values), max(values)
    plural = "s" if unit and high != 1 else ""
    return f"{low:g}{unit}{plural}" if low == high else f"{low:g} to {high:g}{unit}{plural}"
