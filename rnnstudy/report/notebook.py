"""What a report notebook needs: the runs of its experiments, and showing figures so that they are kept.

here = Notebook("sequence_length")
study = here.study("sequence_length")
here.show(figures.gradient_by_lag(study.results), "by_lag", title="The gradient fades", see="What to see in it.")
"""

import json
import os
from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from rnnstudy import results
from rnnstudy.figures import Picture
from rnnstudy.report.kept_figures import Provenance, Story, save
from rnnstudy.results.results import Listener, Results
from rnnstudy.run import Run
from rnnstudy.search.trials import SearchBudget, SearchTrials, search_trials
from rnnstudy.spec import SpecError
from rnnstudy.store.git import checked_out_commit
from rnnstudy.store.project import Project, find_project
from rnnstudy.sweep.experiment import Experiment, load_experiment
from rnnstudy.sweep.grids import Scale

FIGURES = "RNNSTUDY_FIGURES"
"""Environment variable: where a notebook that is being built puts its figures until all of it has succeeded."""

ARCHIVE = "RNNSTUDY_ARCHIVE"
"""Environment variable: the folder of committed results that notebooks read instead of the store."""

ASKED = "RNNSTUDY_ASKED"
"""Environment variable: a file to which a notebook adds a line for every reading that it asks for."""


NOT_RUN = "not run"
"""What a text says where it wants a number of runs that are not there."""


def in_words(values: pd.Series, place: Hashable, form: str = "{:.1f}") -> str:
    """The value at a place of a table, formatted; `NOT_RUN` where the table has no such place, or no value at it."""
    value = values[place] if place in values.index else None
    return NOT_RUN if value is None or bool(pd.isna(value)) else form.format(value).replace("-", "−")


def power_of_ten(decades: float, digits: int = 1) -> str:
    """10 with a superscript, for Markdown; `NOT_RUN` for NaN."""
    return NOT_RUN if np.isnan(decades) else f"10<sup>{decades:.{digits}f}</sup>".replace("-", "−")


@dataclass(frozen=True)
class Study:
    """The runs of an experiment that are in the store.

    Attributes:
        experiment: its name.
        scale: the scale they belong to; None when they belong to none (fields were set by hand).
        planned: how many runs the scale has; of an experiment that searches, at most.
        results: those of them that are in the store.
        searched: how its searches went, where it searches.
        missing: the runs of the scale that are not there, in words; empty when all are there, and for searches.
    """

    experiment: str
    scale: Scale | None
    planned: int
    results: Results
    searched: SearchTrials | None = None
    missing: str = ""

    @property
    def command(self) -> str:
        """What launches, or completes, these runs."""
        scale = f" --scale {self.scale.value}" if self.scale else ""
        return f"rnnstudy sweep experiments/{self.experiment}.py{scale}"

    @property
    def lack(self) -> str:
        """What is missing of an incomplete study, and what brings it, in one line; empty when it is complete."""
        there = len(self.results.runs)
        if there >= self.planned:
            return ""
        told = f"{there} of the {self.planned} runs of experiments/{self.experiment}.py are there"
        return f"{told}{f', without {self.missing}' if self.missing else ''}; `{self.command}` brings the rest"

    @property
    def words(self) -> str:
        """One paragraph in Markdown: how many runs of which scale, how they ended, and how to complete them."""
        runs = self.results.runs
        scale = f"scale `{self.scale.value}`" if self.scale else "no named scale (fields were set by hand)"
        ended = runs["status"].value_counts().sort_index().items()
        statuses = ", ".join(f"{count} {status}" for status, count in ended)
        if self.searched is not None:
            return (
                f"**Searches of `experiments/{self.experiment}.py`**, {scale}: {self.searched.words}. Of their runs "
                f"{len(runs)} ended by themselves: {statuses}. Launch or complete them with `{self.command}`."
            )
        lack = f" Missing: {self.missing}." if self.missing else ""
        return (
            f"**Runs of `experiments/{self.experiment}.py`:** {len(runs)} of the {self.planned} runs of {scale}: "
            f"{statuses}.{lack} Launch or complete them with `{self.command}`."
        )


def load_study(experiment: str, project: Project | None = None, archive: Path | None = None) -> Study:
    """The runs of an experiment in the store, or in an archive, at one scale.

    The largest scale that is complete there; if none is, the one of which the largest share is there. When there are
    runs of the experiment that belong to no scale, and no others, those. Raises `SpecError` when there are none.
    """
    project = project or find_project()
    complete = results.complete_keys(project=project, archive=archive)
    defined = load_experiment(project.root / "experiments" / f"{experiment}.py")
    if defined.searches_here:
        return _search_study(defined, project, archive, complete)
    largest, missing, wanted = 0.0, "", [key for key, made_by in complete.items() if made_by == experiment]
    scale, count = None, len(wanted)
    for one in (Scale.PAPER, Scale.DESK, Scale.SMOKE):
        planned = list({run.key: run for run in defined.runs(one)}.values())
        there = [run.key for run in planned if run.key in complete]
        if len(there) / len(planned) > largest:
            largest, scale, wanted, count = len(there) / len(planned), one, there, len(planned)
            missing = _summed_up([run for run in planned if run.key not in complete])
    if not wanted:
        # Says what to launch.
        results.load(experiment=experiment, project=project, archive=archive)
    loaded = results.load(
        sorted(wanted), experiment=experiment, project=project, archive=archive, asked=_listener(experiment)
    )
    return Study(experiment, scale, count, loaded, missing=missing)


def _summed_up(runs: Sequence[Run]) -> str:
    """How many of each cell and length."""
    counts = Counter(f"{type(run.cell).__name__} T = {run.task.length}" for run in runs)
    return ", ".join(f"{count} × {what}" for what, count in counts.items())


def _search_study(defined: Experiment, project: Project, archive: Path | None, complete: Mapping[str, str]) -> Study:
    """The same for an experiment that searches; which runs are its own, its studies say."""
    best, scale, found = 0.0, None, None
    for one in (Scale.PAPER, Scale.DESK, Scale.SMOKE):
        there = search_trials(defined.name, one, project, archive)
        share = SearchBudget.of(defined, one).share(there)
        if share > best and not complete.keys().isdisjoint(there.keys):
            best, scale, found = share, one, there
    if scale is None or found is None:
        raise SpecError(
            f"there are no searches of {defined.name} with complete runs; "
            f"run `rnnstudy sweep experiments/{defined.name}.py` first"
        )
    wanted = sorted(set(found.keys) & complete.keys())
    loaded = results.load(
        wanted, experiment=defined.name, project=project, archive=archive, asked=_listener(defined.name)
    )
    return Study(defined.name, scale, SearchBudget.of(defined, scale).runs, loaded, found)


def _listener(experiment: str) -> Listener | None:
    """Writes down what a notebook asks of an experiment's results, when someone wants to know."""
    file = os.environ.get(ASKED)
    if not file:
        return None

    def note(name: str, quantile: float | None, keys: Sequence[str]) -> None:
        with Path(file).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps([experiment, name, quantile, list(keys)]) + "\n")

    return note


@dataclass
class Notebook:
    """The report `name`, seen from within its notebook.

    Figures go to `reports/figures/<name>/`, as PNG, SVG, CSV and JSON. Those with a title and a paragraph are shown on
    the index page, in the order in which they were shown here.
    """

    name: str
    _studies: dict[str, Study] = field(default_factory=dict, init=False, repr=False)
    _shown: int = field(default=0, init=False, repr=False)

    def study(self, experiment: str | None = None) -> Study:
        """The runs of an experiment (that of the report's own name when None); see `study`."""
        wanted = experiment or self.name
        if wanted not in self._studies:
            archive = os.environ.get(ARCHIVE)
            self._studies[wanted] = load_study(wanted, archive=Path(archive) if archive else None)
        return self._studies[wanted]

    def searched(self, experiment: str | None = None) -> SearchTrials:
        """How the searches of an experiment went. Raises `SpecError` for one that searches nothing."""
        found = self.study(experiment)
        if found.searched is None:
            raise SpecError(f"experiments/{found.experiment}.py defines no search")
        return found.searched

    def show(self, picture: Picture, name: str, *, title: str = "", see: str = "") -> None:
        """Keep a figure and display it with its story and caption; the caption ends with the settings of its runs.

        Args:
            name: of its files.
            title: one line, for the index page.
            see: a paragraph in Markdown that says what to see in it, written from what the data show.
        """
        from IPython.display import display

        picture = replace(picture, caption=f"{picture.caption} {self._settings(picture.keys)}".strip())
        self._shown += 1
        story = Story(title, " ".join(see.split()), self._shown) if title and see else None
        save(picture, self.figures, name, self.provenance(picture.keys), story)
        display(picture)
        if story is not None:
            self.say(story.see)
        self.say(f"*{picture.caption}*")

    def say(self, markdown: str) -> None:
        """Display a text."""
        from IPython.display import Markdown, display

        display(Markdown(markdown))

    def table(self, frame: pd.DataFrame) -> None:
        """Display a table; headings in words, so that they can be wrapped."""
        from IPython.display import HTML, display

        worded = frame.rename(columns=lambda name: str(name).replace("_", " "))
        display(HTML(worded.to_html(index=False, float_format="{:.4g}".format, na_rep="none")))

    @property
    def figures(self) -> Path:
        """Where the figures go: aside while the report is being built."""
        aside = os.environ.get(FIGURES)
        return Path(aside) if aside else find_project().reports / "figures" / self.name

    def provenance(self, keys: Sequence[str] = ()) -> Provenance:
        """Of a figure made from the runs `keys`: the experiments they belong to, and what builds the report."""
        wanted = set(keys)
        drawn = [one for one in self._studies.values() if wanted & set(one.results.runs.index)]
        command = " && ".join([*(one.command for one in drawn), f"rnnstudy report {self.name}"])
        return Provenance.of(
            [f"experiments/{one.experiment}.py" for one in drawn], command, checked_out_commit(find_project().root)
        )

    def _settings(self, keys: Sequence[str]) -> str:
        """Width, updates, batch, seeds and scale of the runs `keys`, in a sentence; nothing for no runs."""
        told = []
        for one in self._studies.values():
            own = [key for key in keys if key in one.results.runs.index]
            if own:
                runs = one.results.runs.loc[own]
                told.append(
                    f"Width {_range(set(runs['width']))}, at most {_range(set(runs['training.steps']), ' update')} of "
                    f"{_range(set(runs['training.batch']), ' sequence')}, {_range([len(set(runs['seed']))], ' seed')}, "
                    f"{f'scale {one.scale.value}' if one.scale else 'no named scale'}."
                )
        return " ".join(told)


def _range(values: Collection[int], unit: str = "") -> str:
    """From the least to the largest, with the unit in the plural where it is not one."""
    low, high = min(values), max(values)
    plural = "s" if unit and high != 1 else ""
    return f"{low:g}{unit}{plural}" if low == high else f"{low:g} to {high:g}{unit}{plural}"
