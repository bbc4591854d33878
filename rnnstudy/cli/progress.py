"""The progress of a sweep, drawn in the terminal."""

import math
import time
from collections import deque
from collections.abc import Sequence
from typing import final

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from rnnstudy.run import Run
from rnnstudy.sweep.messages import Assignment
from rnnstudy.sweep.plan import duration
from rnnstudy.sweep.summary import ProgressListener
from rnnstudy.training.cost import cost
from rnnstudy.training.population import Population
from rnnstudy.training.records import Phase, TrainingProgress

STARTING = "worker starts"

PHASES: dict[Phase, str] = {
    "compiling": "compiling kernels (once, half a minute)",
    "measuring": "measuring before training",
    "testing": "testing, measuring after training",
}
"""What stands in place of loss and error while a population is not training."""

SECONDS_OF_THROUGHPUT = 10.0
"""The throughput shown is that of so many seconds."""


class SweepDisplay(ProgressListener):
    """Draws a sweep while it runs: a bar for each population in training, and one for all runs with the time left.

    It takes as many columns as the terminal has, and nothing of it remains at the end. Where the output is no terminal,
    it prints a line when a population starts or ends; with `quiet`, nothing at all.
    """

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console, self._quiet = console, quiet
        self._all_known = True
        self._costs: dict[str, float] = {}
        self._shares: dict[str, float] = {}
        self._steps: dict[int, int] = {}
        self._recent: deque[tuple[float, int]] = deque()
        self._began: float | None = None
        self._share_at_first = 0.0
        self._all = Progress(
            _text("[bold]all runs"),
            BarColumn(None, table_column=Column(ratio=1, min_width=6)),
            _text("{task.completed:.0f}/{task.total:.0f}"),
            ShortenedColumn("{task.fields[state]}", table_column=Column()),
            console=console,
            expand=True,
        )
        self._each = Progress(
            _text("{task.description}"),
            BarColumn(None, table_column=Column(ratio=1, min_width=4)),
            _text("{task.fields[steps]}"),
            ShortenedColumn("{task.fields[state]}", table_column=Column()),
            console=console,
            expand=True,
        )
        self._bars: dict[int, TaskID] = {}
        self._overall: TaskID | None = None
        self._live = Live(Group(self._each, self._all), console=console, refresh_per_second=4, transient=True)

    def planned(self, assignments: Sequence[Assignment], most_runs: int | None = None) -> None:
        """Start the bars. A search says only how many runs there will be at most: then no time left is shown."""
        self._all_known = most_runs is None
        for assignment in assignments:
            seconds = cost(Population(assignment.runs)).seconds / len(assignment.runs)
            self._costs |= dict.fromkeys((run.key for run in assignment.runs), seconds)
        count = len(self._costs) if most_runs is None else most_runs
        self._overall = self._all.add_task("", total=count, state="")
        if self._draws:
            self._live.start()

    @property
    def _draws(self) -> bool:
        return self._console.is_terminal and not self._quiet

    @property
    def view(self) -> Group:
        """What is drawn at the moment."""
        return Group(self._each, self._all)

    def __enter__(self) -> "SweepDisplay":
        return self

    def __exit__(self, *_: object) -> None:
        if self._draws:
            self._live.stop()

    def started(self, assignment: Assignment) -> None:
        steps = assignment.runs[0].training.steps
        label = population_label(assignment.runs)
        self._bars[id(assignment)] = self._each.add_task(label, total=steps, steps="", state=STARTING)
        self._refresh()
        if not self._console.is_terminal:
            self.message(f"training {label}, at most {steps} updates")

    def progressed(self, assignment: Assignment, progress: TrainingProgress) -> None:
        now, runs = time.monotonic(), assignment.runs
        counted = progress.phase in ("training", "testing")
        self._each.update(
            self._bars[id(assignment)],
            completed=progress.step,
            steps=f"{progress.step}/{progress.steps}" if counted else "",
            state=PHASES.get(progress.phase) or _state(progress, len(runs)),
        )
        made = progress.step - self._steps.get(id(assignment), progress.step)
        self._steps[id(assignment)] = progress.step
        self._recent.append((now, made * max(progress.active, 1)))
        self._shares |= dict.fromkeys((run.key for run in runs), progress.step / progress.steps)
        if self._began is None and progress.phase == "training":
            # What was done by an earlier sweep, and the start of the workers, say nothing about the pace.
            self._began, self._share_at_first = now, self._done()
        self._refresh()

    def ended(self, assignment: Assignment, message: str) -> None:
        self._each.remove_task(self._bars.pop(id(assignment)))
        self._steps.pop(id(assignment), None)
        over = message in ("", "failed")
        if over:
            self._shares |= dict.fromkeys((run.key for run in assignment.runs), 1.0)
            if self._overall is not None:
                self._all.advance(self._overall, len(assignment.runs))
        self._refresh()
        if not self._console.is_terminal:
            outlook = self._time_left() or ("all done" if self._done() >= 1 else "")
            about = f" ({outlook})" if outlook and self._all_known else ""
            self.message(f"{message or 'done'}: {population_label(assignment.runs)}{about}")

    def message(self, line: str) -> None:
        if not self._quiet:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _refresh(self) -> None:
        """Bring the line of all runs up to date: workers, throughput, time left."""
        if self._overall is None:
            return
        workers = len(self._bars)
        # None any more: all runs have ended, and the store is being written.
        at_work = f"{workers} worker{'' if workers == 1 else 's'}" if workers else ""
        parts = [at_work, self._throughput(), self._time_left()]
        self._all.update(self._overall, state=" · ".join(part for part in parts if part))

    def _throughput(self) -> str:
        """Updates of single runs per second, over the last seconds."""
        now = time.monotonic()
        while self._recent and now - self._recent[0][0] > SECONDS_OF_THROUGHPUT:
            self._recent.popleft()
        seconds = now - self._recent[0][0] if self._recent else 0.0
        # What the first report counts was done before it.
        updates = sum(made for _, made in list(self._recent)[1:])
        return f"{updates / seconds:,.0f} updates/s" if seconds > 1 and updates else ""

    def _done(self) -> float:
        """The share of the whole cost that is done."""
        total = sum(self._costs.values())
        return sum(self._costs.get(key, 0.0) * share for key, share in self._shares.items()) / total if total else 1.0

    def _time_left(self) -> str:
        if not self._all_known or self._began is None:
            return ""
        done, seconds = self._done(), time.monotonic() - self._began
        pace = (done - self._share_at_first) / seconds if seconds > 0 else 0.0
        return f"about {duration((1 - done) / pace)} left" if pace > 0 and done < 1 else ""


@final
class ShortenedColumn(TextColumn):
    """A text that is cut, before all other columns, where the terminal is too narrow."""

    def render(self, task: Task) -> Text:
        text = super().render(task)
        # The column may shrink, since it could wrap; the text in it does not wrap.
        text.no_wrap, text.overflow = True, "ellipsis"
        return text


def _text(form: str) -> TextColumn:
    return TextColumn(form, table_column=Column(no_wrap=True, overflow="ellipsis"))


def _state(progress: TrainingProgress, count: int) -> str:
    """Loss and error of the last check, and how many of `count` runs still train."""
    if progress.active == 0:
        return "all runs have stopped"
    measured = [("loss", progress.loss), ("best error", progress.error)]
    parts = [f"{name} {value:.3g}" for name, value in measured if math.isfinite(value)]
    return "  ".join([*parts, *([f"{progress.active}/{count} train"] if progress.active < count else [])])


def population_label(runs: Sequence[Run]) -> str:
    """`12 × Elman T=50`: the label of runs that train together."""
    return f"{len(runs)} × {type(runs[0].cell).__name__} T={runs[0].task.length}"
