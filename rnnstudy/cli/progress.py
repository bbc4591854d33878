"""The progress of a sweep, drawn in the terminal."""

import time
from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from rnnstudy.run import Run
from rnnstudy.sweep.messages import Assignment
from rnnstudy.sweep.plan import duration
from rnnstudy.training.cost import cost
from rnnstudy.training.population import Population
from rnnstudy.training.records import TrainingProgress


class SweepDisplay:
    """Draws a sweep while it runs: a bar for each population in training, and one for all runs with the time left.

    A `ProgressListener`. Where the output is no terminal, it prints a line when a population starts or ends.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._all_known = True
        self._costs: dict[str, float] = {}
        self._shares: dict[str, float] = {}
        self._began = time.monotonic()
        self._all = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self._each = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[state]}"),
        )
        self._bars: dict[int, TaskID] = {}
        self._live = Live(Group(self._each, self._all), console=console, refresh_per_second=4, transient=True)

    def planned(self, assignments: Sequence[Assignment], most_runs: int | None = None) -> None:
        """Start the bars. A search says only how many runs there will be at most: then no time left is shown."""
        self._all_known = most_runs is None
        for assignment in assignments:
            seconds = cost(Population(assignment.runs)).seconds / len(assignment.runs)
            self._costs |= dict.fromkeys((run.key for run in assignment.runs), seconds)
        self._began = time.monotonic()
        count = len(self._costs) if most_runs is None else most_runs
        self._overall = self._all.add_task("runs", total=count, left="")
        if self._console.is_terminal:
            self._live.start()

    def __enter__(self) -> "SweepDisplay":
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def started(self, assignment: Assignment) -> None:
        steps = assignment.runs[0].training.steps
        self._bars[id(assignment)] = self._each.add_task(population_label(assignment.runs), total=steps, state="")
        if not self._console.is_terminal:
            self._console.print(f"training {population_label(assignment.runs)}, {steps} steps at most")

    def progressed(self, assignment: Assignment, progress: TrainingProgress) -> None:
        checked = progress.loss == progress.loss or progress.active == 0
        state = f"loss {progress.loss:.3g}  best error {progress.error:.3g}" if checked else ""
        state += f"  {progress.active} training"
        self._each.update(self._bars[id(assignment)], completed=progress.step, state=state)
        self._shares |= dict.fromkeys((run.key for run in assignment.runs), progress.step / progress.steps)
        self._all.update(self._overall, left=self._time_left())

    def ended(self, assignment: Assignment, message: str) -> None:
        self._each.remove_task(self._bars.pop(id(assignment)))
        over = message in ("", "failed")
        if over:
            self._shares |= dict.fromkeys((run.key for run in assignment.runs), 1.0)
        self._all.update(self._overall, advance=len(assignment.runs) if over else 0, left=self._time_left())
        if not self._console.is_terminal:
            outlook = f"  ({self._time_left() or 'all done'})" if self._all_known else ""
            self._console.print(f"{message or 'done'}: {population_label(assignment.runs)}  {outlook}")

    def message(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _time_left(self) -> str:
        if not self._all_known:
            return ""
        total = sum(self._costs.values())
        done = sum(self._costs.get(key, 0.0) * share for key, share in self._shares.items()) / total if total else 1.0
        if done <= 0 or done >= 1:
            return ""
        return f"about {duration((time.monotonic() - self._began) * (1 / done - 1))} left"


def population_label(runs: Sequence[Run]) -> str:
    """`12 × elman T=50`: the label of runs that train together."""
    return f"{len(runs)} × {runs[0].cell.label()} T={runs[0].task.length}"
