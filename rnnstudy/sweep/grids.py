"""Grids of runs, scales, and fields set from the command line."""

import ast
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, TypeVar

from rnnstudy.run import Run
from rnnstudy.spec import SpecError, assign

Value = TypeVar("Value")


MOST_RUNS = 100_000
"""The most runs of a sweep. More would be a mistake: a generator that does not end, or a product of many lists."""


def at_most(most: int, items: Iterable[Value], what: str) -> list[Value]:
    """A list of `items`. Raises `SpecError` when there are more than `most`, perhaps without an end."""
    listed = list(itertools.islice(items, most + 1))
    if len(listed) > most:
        raise SpecError(f"{what} are more than {most}; do they end?")
    return listed


class Scale(Enum):
    """How much of an experiment is run: seconds (in tests), minutes on a laptop, or the published sizes."""

    SMOKE = "smoke"
    DESK = "desk"
    PAPER = "paper"

    def pick(self, *, smoke: Value, desk: Value, paper: Value) -> Value:
        """The value for this scale."""
        return {Scale.SMOKE: smoke, Scale.DESK: desk, Scale.PAPER: paper}[self]


def grid(
    base: Run, vary: Mapping[str | tuple[str, ...], Sequence[Any]], seeds: Iterable[int] | None = None
) -> list[Run]:
    """Every combination of the values in `vary`, for every seed.

    A key is a dotted field of `Run`; a tuple of fields varies together, each value then being a tuple as well. The
    first key varies slowest, seeds fastest. Raises `SpecError` for a field that is not there or an impossible value.

    >>> from rnnstudy.cells import LSTM, Elman
    >>> from rnnstudy.tasks import TemporalOrder
    >>> base = Run(task=TemporalOrder(length=50), cell=LSTM())
    >>> runs = grid(base, {"cell": [Elman(), LSTM()], "task.length": [50, 100]}, seeds=range(2))
    >>> [run.name for run in runs[:3]]
    ['Elman T=50 lr 0.001 s0', 'Elman T=50 lr 0.001 s1', 'Elman T=100 lr 0.001 s0']
    """
    axes: dict[str | tuple[str, ...], Sequence[Any]] = {
        field: at_most(MOST_RUNS, values, f"grid: the values of {field}") for field, values in vary.items()
    }
    if seeds is not None:
        axes["seed"] = at_most(MOST_RUNS, seeds, "grid: the seeds")
    if (count := math.prod(map(len, axes.values()))) > MOST_RUNS:
        raise SpecError(f"grid: {count} combinations; a sweep has at most {MOST_RUNS} runs")
    runs = []
    for combination in itertools.product(*axes.values()):
        run = base
        for fields, value in zip(axes, combination, strict=True):
            if isinstance(fields, str):
                run = assign(run, fields, value)
                continue
            if len(value) != len(fields):
                raise SpecError(f"grid: {fields} vary together and need {len(fields)} values, not {value!r}")
            # Together: the first alone may be impossible next to the old value of the second.
            roots = {field: part for field, part in zip(fields, value, strict=True) if "." not in field}
            run = run.replace(**roots)
            for field, part in zip(fields, value, strict=True):
                run = run if field in roots else assign(run, field, part)
        runs.append(run)
    return runs


def override(runs: Sequence[Run], settings: Sequence[str]) -> list[Run]:
    """`runs` with fields set from texts such as `training.steps=500`; runs that become equal are kept once.

    Values are Python literals; anything else is a text. Raises `SpecError` for a field that is not there, a
    specification as a whole, or an impossible value.
    """
    for setting in settings:
        field, value = parsed(setting)
        try:
            runs = [assign(run, field, value) for run in runs]
        except SpecError as error:
            if not isinstance(value, str) or not value[:1].isupper() or "did you mean" in str(error):
                raise
            # What looks like a class stayed a text.
            hint = "a cell or another object is written in the experiment file, --set takes numbers and texts"
            raise SpecError(f"{error}; {hint}") from None
    return list({run.key: run for run in runs}.values())


def parsed(setting: str) -> tuple[str, Any]:
    """Field and value of a text such as `training.steps=500`. Raises `SpecError` for a text of another form."""
    field, equals, text = setting.partition("=")
    if not equals or not field:
        raise SpecError(f"--set takes FIELD=VALUE, for example training.steps=500; not '{setting}'")
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        # The last three: what Python's parser says about {[]: 1} and about texts that nest deeply.
        value = text
    return field.strip(), value
