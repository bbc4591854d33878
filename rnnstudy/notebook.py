"""What a report notebook needs: the runs of its experiments, and showing figures so that they are kept.

here = Notebook("sequence_length")
study = here.study("sequence_length")
here.show(figures.gradient_by_lag(study.results), "by_lag", title="The gradient fades", see="What to see in it.")
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from rnnstudy import figures, home, results
from rnnstudy.figures import Picture, Provenance, Story
from rnnstudy.home import Home
from rnnstudy.results import Results
from rnnstudy.sweep import Scale, load_experiment
from rnnstudy.versions import commit

FIGURES = "RNNSTUDY_FIGURES"
"""Environment variable: where a notebook that is being built puts its figures until all of it has succeeded."""


@dataclass(frozen=True)
class Study:
    """The runs of an experiment that are in the store.

    Attributes:
        experiment: its name.
        scale: the scale they belong to; None when they belong to none (fields were set by hand).
        planned: how many runs the scale has.
        results: those of them that are in the store.
    """

    experiment: str
    scale: Scale | None
    planned: int
    results: Results

    @property
    def command(self) -> str:
        """What launches, or completes, these runs."""
        scale = f" --scale {self.scale.value}" if self.scale else ""
        return f"rnnstudy sweep experiments/{self.experiment}.py{scale}"

    @property
    def words(self) -> str:
        """One paragraph in Markdown: how many runs of which scale, how they ended, and how to complete them."""
        runs = self.results.runs
        scale = f"scale `{self.scale.value}`" if self.scale else "no named scale (fields were set by hand)"
        ended = runs["status"].value_counts().sort_index().items()
        statuses = ", ".join(f"{count} {status}" for status, count in ended)
        return (
            f"**Runs of `experiments/{self.experiment}.py`:** {len(runs)} of the {self.planned} runs of {scale}: "
            f"{statuses}. Launch or complete them with `{self.command}`."
        )


def study(experiment: str, home_folder: Home | None = None) -> Study:
    """The runs of an experiment in the store, at one scale.

    The largest scale that is complete in the store; if none is, the one of which the largest share is there. When the
    store has runs of the experiment that belong to no scale, and no others, those. Raises `SpecError` when it has none.
    """
    place = home_folder or home.find()
    present = stored_keys(experiment, place)
    defined = load_experiment(place.root / "experiments" / f"{experiment}.py")
    best: tuple[float, Scale | None, list[str], int] = (0.0, None, sorted(present), len(present))
    for scale in (Scale.PAPER, Scale.DESK, Scale.SMOKE):
        planned = [run.key for run in defined.runs(scale)]
        there = sorted(present & set(planned))
        if len(there) / len(planned) > best[0]:
            best = (len(there) / len(planned), scale, there, len(planned))
    return Study(experiment, best[1], best[3], results.load(best[2], home=place))


def stored_keys(experiment: str, place: Home) -> set[str]:
    """Keys of the experiment's complete runs in the store, at whatever scale. Raises `SpecError` when it has none."""
    return set(results.load(experiment=experiment, home=place).runs.index)


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
            self._studies[wanted] = study(wanted)
        return self._studies[wanted]

    def show(self, picture: Picture, name: str, *, title: str = "", see: str = "") -> None:
        """Keep a figure and display it with its story and caption.

        Args:
            name: of its files.
            title: one line, for the index page.
            see: a paragraph in Markdown that says what to see in it, written from what the data show.
        """
        from IPython.display import display

        self._shown += 1
        story = Story(title, " ".join(see.split()), self._shown) if title and see else None
        figures.save(picture, self.figures, name, self.provenance(picture.keys), story)
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
        return Path(aside) if aside else home.find().reports / "figures" / self.name

    def provenance(self, keys: Sequence[str] = ()) -> Provenance:
        """Of a figure made from the runs `keys`: the experiments they belong to, and what builds the report."""
        wanted = set(keys)
        experiments = [
            f"experiments/{name}.py" for name, one in self._studies.items() if wanted & set(one.results.runs.index)
        ]
        return Provenance.of(experiments, f"rnnstudy report {self.name}", commit(home.find().root))
