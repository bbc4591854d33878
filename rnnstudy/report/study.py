"""The runs of an experiment that a report draws: which scale, how complete, and what is missing."""

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rnnstudy.results.archive import Archive
from rnnstudy.results.loading import StoreSource
from rnnstudy.results.results import Listener, Results
from rnnstudy.results.search_trials import SearchTrials
from rnnstudy.results.source import MissingRuns, ResultsSource
from rnnstudy.results.together import Together
from rnnstudy.run import Run, runs_in_words
from rnnstudy.search.trials import most_runs, search_trials, share_done
from rnnstudy.spec import RnnstudyError
from rnnstudy.store.mlflow_store import Store
from rnnstudy.store.project import Project
from rnnstudy.sweep.experiment import Experiment, load_experiment
from rnnstudy.sweep.grids import Scale

LARGEST_FIRST = (Scale.PAPER, Scale.DESK, Scale.SMOKE)


class ReportError(RnnstudyError):
    """A report that cannot be built: its notebook stopped, or its header is wrong."""


@dataclass(frozen=True)
class Study:
    """The complete runs of an experiment.

    Attributes:
        definition: the experiment; what its file defines is in `definition.module`.
        scale: the scale of the runs; None when they belong to no scale (fields were set by hand).
        planned: how many runs the scale has; for an experiment that searches, at most.
        results: those of them that are complete.
        searches: the searches, for an experiment that searches.
        missing: a description of the runs of the scale that are not complete; empty when all are, and for searches.
    """

    definition: Experiment
    scale: Scale | None
    planned: int
    results: Results
    searches: SearchTrials | None = None
    missing: str = ""

    @property
    def experiment(self) -> str:
        """The name of the experiment."""
        return self.definition.name

    @property
    def command(self) -> str:
        """The command that launches or completes these runs."""
        scale = f" --scale {self.scale.value}" if self.scale else ""
        return f"rnnstudy sweep experiments/{self.experiment}.py{scale}"

    @property
    def size(self) -> tuple[int, int]:
        """Sorts studies of one experiment: by scale, where none is the smallest, then by the number of runs."""
        rank = len(LARGEST_FIRST) - LARGEST_FIRST.index(self.scale) if self.scale else 0
        return rank, len(self.results.runs)

    @property
    def words(self) -> str:
        """`240 runs of scale desk`."""
        scale = f"scale {self.scale.value}" if self.scale else "no named scale"
        return f"{runs_in_words(len(self.results.runs))} of {scale}"

    @property
    def missing_message(self) -> str:
        """What is missing of an incomplete study, and the command that completes it; empty when it is complete."""
        count = len(self.results.runs)
        if count >= self.planned:
            return ""
        without = f", without {self.missing}" if self.missing else ""
        complete = f"{count} of the {self.planned} runs of experiments/{self.experiment}.py are complete"
        return f"{complete}{without}; `{self.command}` trains the rest"

    @property
    def summary(self) -> str:
        """One paragraph in Markdown: how many runs of which scale, how they ended, and how to complete them."""
        runs = self.results.runs
        scale = f"scale `{self.scale.value}`" if self.scale else "no named scale (fields were set by hand)"
        ended = runs["status"].value_counts().sort_index().items()
        statuses = ", ".join(f"{count} {status}" for status, count in ended)
        if self.searches is not None:
            return (
                f"**Searches of `experiments/{self.experiment}.py`**, {scale}: {self.searches.summary}. {len(runs)} of "
                f"their runs were not stopped early: {statuses}. Launch or complete them with `{self.command}`."
            )
        missing = f" Missing: {self.missing}." if self.missing else ""
        return (
            f"**Runs of `experiments/{self.experiment}.py`:** {len(runs)} of the {self.planned} runs of {scale}: "
            f"{statuses}.{missing} Launch or complete them with `{self.command}`."
        )


def open_source(project: Project, archive: Path | None, published: Path | None = None) -> ResultsSource:
    """The committed results in the folder `archive`, or the store of the project when it is None; together with those
    of the folder `published`, if there is one."""
    if archive is not None:
        source = Archive.open(archive)
    else:
        source = StoreSource(Store(project), functools.partial(search_trials, project))
    return source if published is None else Together([source, Archive.open(published)])


def load_study(experiment: str, project: Project, source: ResultsSource, listener: Listener | None = None) -> Study:
    """The complete runs of an experiment at one scale.

    The scale is the largest that is complete; if none is, the one with the largest share of complete runs. If the
    experiment has only runs that belong to no scale, those are taken. Raises `MissingRuns` when it has none.
    """
    complete = source.complete_keys()
    file = project.root / "experiments" / f"{experiment}.py"
    definition = _definition(file, file.stat().st_mtime_ns if file.is_file() else 0)
    if definition.searches_here:
        return _search_study(definition, source, listener)
    largest, missing, wanted = 0.0, "", [key for key, made_by in complete.items() if made_by == experiment]
    scale, count = None, len(wanted)
    for candidate in LARGEST_FIRST:
        planned = _planned(definition, candidate)
        done = [run.key for run in planned if run.key in complete]
        if len(done) / len(planned) > largest:
            largest, scale, wanted, count = len(done) / len(planned), candidate, done, len(planned)
            missing = _counted([run for run in planned if run.key not in complete])
    # Without any run, the source raises the error that names the sweep.
    results = source.load(sorted(wanted) if wanted else None, experiment=experiment, listener=listener)
    return Study(definition, scale, count, results, missing=missing)


@functools.lru_cache(maxsize=32)
def _definition(file: Path, changed: int) -> Experiment:
    """The experiment of a file, read once for all that a report asks of it, and again when the file has `changed`."""
    return load_experiment(file)


@functools.lru_cache(maxsize=64)
def _planned(definition: Experiment, scale: Scale) -> tuple[Run, ...]:
    return tuple(definition.runs(scale))


def _counted(runs: Sequence[Run]) -> str:
    """How many runs of each cell and length, or of each task and length where there are several tasks."""
    several = len({type(run.task) for run in runs}) > 1
    counts = Counter(f"{type(run.task if several else run.cell).__name__} T = {run.task.length}" for run in runs)
    return ", ".join(f"{count} × {setting}" for setting, count in counts.items())


def _search_study(definition: Experiment, source: ResultsSource, listener: Listener | None) -> Study:
    """`load_study` for an experiment that searches: its studies say which runs are its own."""
    complete = source.complete_keys().keys()
    largest, scale, trials = 0.0, None, None
    for candidate in LARGEST_FIRST:
        found = source.search_trials(definition.name, candidate.value)
        share = share_done(definition, candidate, found)
        if share > largest and not complete.isdisjoint(found.keys):
            largest, scale, trials = share, candidate, found
    if scale is None or trials is None:
        raise MissingRuns(
            f"there are no searches of {definition.name} with complete runs; "
            f"run `rnnstudy sweep experiments/{definition.name}.py` first"
        )
    results = source.load(sorted(complete & set(trials.keys)), experiment=definition.name, listener=listener)
    return Study(definition, scale, most_runs(definition, scale), results, trials)
