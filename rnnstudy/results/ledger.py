"""The ledger: published numbers beside those obtained, each with a rule of agreement that was stated beforehand.

The data file (`reports/ledger/rows.toml`) holds sources and rows, and explains quantities and rules at its top. Here it
is checked, the obtained values are computed from results, and the rules are applied.
"""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportReturnType=false, reportOperatorIssue=false

import functools
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd

from rnnstudy.figures.statistics import median_of, wilson
from rnnstudy.results.computed import Computed
from rnnstudy.results.outcomes import solved_count
from rnnstudy.results.results import Results
from rnnstudy.spec import RequestError, Spec, SpecError, above, at_least, build, nearest

FEWEST_RUNS = 5
"""With fewer runs, `yes` becomes `partly`."""

LAST_UPDATES = 100
"""The training loss is its mean over so many last updates."""

NONE = "none"
"""In a selection of runs: the field is absent."""

SHARES = ("share solved", "share below")

MARKS = {
    "F": "read in the source",
    "S": "after notes on the source",
    "A": "abstract read",
    "D": "worked out from the source's formula",
    "M": "from memory, unchecked",
}

Verdict = Literal["yes", "partly", "no", "not yet run", "not attempted"]

VERDICTS: tuple[Verdict, ...] = ("yes", "partly", "no", "not yet run", "not attempted")


class Row(Spec):
    """One published number or order: where it stands, what is run for it, and by what rule the two agree.

    The fields are those of the data file, which explains them.
    """

    id: str
    source: str
    where: str
    setting: str
    mark: Literal["F", "S", "A", "D", "M"]
    published: float | Literal["higher", "lower"]
    unit: str
    quantity: Literal["share solved", "sequences to solve", "median", "share below", "computed"]
    scale: Literal["full", "reduced", "not attempted"]
    rule: Literal["", "inside", "near", "factor", "at most", "at least", "order"] = ""
    tolerance: Annotated[float, above(0)] | None = None
    factor: Annotated[float, above(1)] | None = None
    slack: Annotated[float, at_least(0)] = 0.0
    published_runs: Annotated[int, at_least(1)] | None = None
    experiment: str = ""
    runs: dict | None = None
    against: dict | None = None
    column: str = ""
    reading: str = ""
    at: dict | None = None
    threshold: float | None = None
    one_minus: bool = False
    times: float = 1.0
    computed: dict | None = None
    deviations: str = ""
    corrected: str = ""
    because: str = ""

    def check(self) -> None:
        if self.scale == "not attempted":
            self._require(bool(self.because), "is not attempted; `because` must say why")
            self._require(not (self.rule or self.runs or self.computed), "is not attempted, and has a rule or runs")
            return
        self._require(bool(self.rule), "needs a rule, or the scale 'not attempted'")
        self._require(not self.because, "has `because`, which belongs to rows that are not attempted")
        trained = self.quantity != "computed"
        runs = bool(self.runs) == bool(self.experiment) == trained
        self._require(runs, "needs `experiment` and `runs`, or the quantity computed and none of them")
        self._require(trained == (self.computed is None), "needs `computed` if and only if that is its quantity")
        self._require((self.rule == "near") == (self.tolerance is not None), "needs `tolerance` for the rule near only")
        self._require((self.rule == "factor") == (self.factor is not None), "needs `factor` for the rule factor only")
        self._require(self.rule == "at least" or not self.slack, "has `slack`, which belongs to the rule at least")
        self._require((self.rule == "order") == (self.against is not None), "needs `against` for the rule order only")
        words = isinstance(self.published, str)
        self._require((self.rule == "order") == words, "needs 'higher' or 'lower' for the rule order, else a number")
        measured = self.quantity in ("median", "share below")
        self._require(measured == bool(self.column or self.reading), "needs `column` or `reading` for this quantity")
        self._require(not (self.column and self.reading), "has both `column` and `reading`; it takes one")
        self._require(bool(self.reading) or self.at is None, "has `at`, which belongs to `reading`")
        self._require(
            (self.quantity == "share below") == (self.threshold is not None), "needs `threshold` for share below only"
        )
        self._require(self.rule != "inside" or self.quantity in SHARES, "has the rule inside, which is for shares")
        self._require(
            self.rule != "factor" or float(self.published) > 0, "has the rule factor, which is for numbers above 0"
        )

    def _require(self, holds: bool, what: str) -> None:
        if not holds:
            raise SpecError(f"row '{self.id}' {what}")

    @property
    def rule_in_words(self) -> str:
        """The rule with its number."""
        match self.rule:
            case "near":
                return f"within {self.tolerance:g}"
            case "factor":
                return f"within a factor {self.factor:g}"
            case "inside":
                return "inside our 95 % interval"
            case "order":
                return "same order, intervals apart"
            case "at least":
                return f"at least, less {self.slack:g}" if self.slack else "at least"
        return self.rule


@dataclass(frozen=True)
class Ledger:
    """Sources (name to title) and rows of the data file; `why` says for some rows, by id, why the result differs."""

    sources: Mapping[str, str]
    rows: Sequence[Row]
    why: Mapping[str, str]

    @property
    def experiments(self) -> list[str]:
        """The experiments whose runs it needs."""
        return list(dict.fromkeys(row.experiment for row in self.rows if row.experiment))


@dataclass(frozen=True)
class Side:
    """A value with its 95 % interval (the range below 10 runs), from `n` runs or trials."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Obtained:
    """What was obtained for a row: the side of `runs`, for the rule order that of `against` too, verdict and keys."""

    verdict: Verdict
    side: Side | None = None
    other: Side | None = None
    keys: tuple[str, ...] = ()


def read_ledger(rows: Path, differences: Path | None = None) -> Ledger:
    """The ledger in the file `rows`, with what the file `differences` says on why results differ.

    Raises `RequestError` for a file that is missing or no TOML, and `SpecError` for unknown, missing or impossible
    fields, two rows with one id, a source that is not listed, or a difference of no row.
    """
    content = _toml(rows)
    _refuse_others(content, ("sources", "row"), rows)
    parsed = []
    for number, fields in enumerate(content.get("row", []), start=1):
        try:
            parsed.append(Row(**fields))
        except SpecError as error:
            raise SpecError(f"{rows.name}, row {number} ({fields.get('id', 'without id')}): {error}") from None
    sources, ids = content.get("sources", {}), [row.id for row in parsed]
    for row in parsed:
        if ids.count(row.id) > 1:
            raise SpecError(f"{rows.name}: two rows have the id '{row.id}'")
        if row.source not in sources:
            raise SpecError(f"{rows.name}, {row.id}: no source is called '{row.source}'{nearest(row.source, sources)}")
    why = {}
    if differences is not None:
        said = _toml(differences)
        _refuse_others(said, ("why",), differences)
        why = said.get("why", {})
        for name in why:
            if name not in ids:
                raise SpecError(f"{differences.name}: no row has the id '{name}'{nearest(name, ids)}")
    return Ledger(sources, parsed, why)


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RequestError(f"there is no file {path}") from None
    except tomllib.TOMLDecodeError as error:
        raise RequestError(f"{path} is not TOML: {error}") from None


def _refuse_others(content: Mapping[str, Any], known: Sequence[str], path: Path) -> None:
    for name in content:
        if name not in known:
            raise SpecError(f"{path.name} has '{name}'{nearest(name, known) or ';'} It takes {', '.join(known)}")


def obtain(row: Row, results: Results | None) -> Obtained:
    """What was obtained for `row` from the complete runs in `results` (those of its experiment; None: there are none).

    Raises `RequestError` when the row selects runs of more than one setting, or when its column or reading is absent.
    """
    if row.scale == "not attempted":
        return Obtained("not attempted")
    if row.computed is not None:
        computed = build(row.computed)
        if not isinstance(computed, Computed):
            raise SpecError(f"row '{row.id}': {computed!r} is not a Computed")
        side = _computed_side(computed)
        return Obtained(_judge(row, side, None), side)
    keys = [] if results is None else selected(row, row.runs or {}, results)
    others = [] if results is None or row.against is None else selected(row, row.against, results)
    if results is None or not keys or (row.against is not None and not others):
        return Obtained("not yet run")
    side = _side(row, results, keys)
    other = _side(row, results, others) if others else None
    if not side.n or (other is not None and not other.n):
        return Obtained("not yet run", keys=(*keys, *others))
    return Obtained(_judge(row, side, other), side, other, (*keys, *others))


def selected(row: Row, fields: Mapping[str, Any], results: Results) -> list[str]:
    """The keys of the runs with these fields, sorted. Raises `RequestError` when they differ in more than the seed."""
    runs = results.runs[results.runs["status"].isin(["finished", "diverged"])]
    for name, value in fields.items():
        column = runs[name] if name in runs else pd.Series(None, index=runs.index, dtype=object)
        runs = runs[column.isna() if value == NONE else column.eq(value).fillna(False).astype(bool)]
    keys = set(runs.index)
    described = [run.header["parameters"] for run in results.per_run if run.header["key"] in keys]
    names = dict.fromkeys(name for one in described for name in one)
    varying = [
        name
        for name in names
        if name not in ("seed", "data_seed")
        and not name.startswith("probes")
        and len({repr(one.get(name)) for one in described}) > 1
    ]
    if varying:
        raise RequestError(f"row '{row.id}' selects runs that differ in {', '.join(varying)}; name one value of each")
    return sorted(keys)


def _side(row: Row, results: Results, keys: Sequence[str]) -> Side:
    runs = results.runs.loc[list(keys)]
    match row.quantity:
        case "share solved":
            return _share_side(solved_count(runs), len(runs))
        case "sequences to solve":
            return _sequences_side(runs)
        case "share below":
            return _share_side(int((_measured(row, results, runs) < row.threshold).sum()), len(runs))
    return _median_side(_measured(row, results, runs).dropna().to_numpy(float))


def _share_side(count: int, n: int) -> Side:
    return Side(count / n, *wilson(count, n), n)


def _sequences_side(runs: pd.DataFrame) -> Side:
    """Median sequences until solved. A run that did not solve its task counts as more than its budget."""
    solved = runs["solved"].eq(True).fillna(False).astype(bool) & runs["steps_to_solve"].notna()
    sequences = (runs["steps_to_solve"].astype(float) * runs["training.batch"]).where(solved)
    at_least_budget = sequences.fillna(runs["training.steps"].astype(float) * runs["training.batch"]).to_numpy(float)
    side = _median_side(sequences.fillna(np.inf).to_numpy(float))
    return Side(side.value, _median_side(at_least_budget).low, side.high, len(runs))


@functools.cache
def _computed_side(computed: Computed) -> Side:
    """Computed once, also where several rows ask for the same."""
    return _median_side(np.array(computed.values(), dtype=float))


def _median_side(values: np.ndarray) -> Side:
    """The median and its interval; infinite values rank above all numbers."""
    if not len(values):
        return Side(math.nan, math.nan, math.nan, 0)
    # `median_of` ranks −inf below all numbers, and gives NaN in its place.
    median, high, low = (math.inf if math.isnan(part) else -part for part in median_of(-values))
    return Side(median, low, high, len(values))


def _measured(row: Row, results: Results, runs: pd.DataFrame) -> pd.Series:
    """One number for each run: the row's column or last reading; NaN where a run has none."""
    if row.column:
        if row.column not in runs:
            raise RequestError(f"row '{row.id}': runs have no column '{row.column}'{nearest(row.column, runs.columns)}")
        values = runs[row.column].astype(float)
    else:
        values = _last_reading(row, results, runs).reindex(runs.index).astype(float)
    return row.times * (1 - values if row.one_minus else values)


def _last_reading(row: Row, results: Results, runs: pd.DataFrame) -> pd.Series:
    at = dict(row.at or {})
    frame = results.readings(row.reading, quantile=at.pop("quantile", None), keys=runs.index)
    for axis, position in at.items():
        if axis not in frame:
            raise RequestError(f"row '{row.id}': {row.reading} has no axis '{axis}'{nearest(axis, frame.columns)}")
        frame = frame[frame[axis] == position]
    last = frame.groupby("key", observed=True)["step"].transform("max")
    since = last - LAST_UPDATES if row.reading == "learning/loss" else last - 1
    return frame[frame["step"] > since].groupby("key", observed=True)["value"].mean()


def _judge(row: Row, side: Side, other: Side | None) -> Verdict:
    """The verdict of the row's rule."""
    verdict = _apply_rule(row, side, other)
    few = row.computed is None and min(side.n, side.n if other is None else other.n) < FEWEST_RUNS
    return "partly" if verdict == "yes" and few else verdict


def _apply_rule(row: Row, side: Side, other: Side | None) -> Verdict:
    value, low, high = side.value, side.low, side.high
    if other is not None:
        first, second = (side, other) if row.published == "higher" else (other, side)
        return _graded(first.low > second.high, first.high >= second.low)
    published, rounding = float(row.published), 1e-12
    match row.rule:
        case "inside":
            inside = low - rounding <= published <= high + rounding
            return _graded(inside, (published - 0.5) * (value - 0.5) > 0)
        case "near":
            assert row.tolerance is not None
            tolerance = row.tolerance + rounding
            return _graded(abs(value - published) <= tolerance, low - tolerance <= published <= high + tolerance)
        case "factor":
            assert row.factor is not None
            least, most = published / row.factor, published * row.factor
            return _graded(least <= value <= most, low <= most and high >= least)
        case "at most":
            return _graded(high <= published, low <= published)
    return _graded(low >= published - row.slack, high >= published - row.slack)


def _graded(agrees: bool, cannot_be_excluded: bool) -> Verdict:
    return "yes" if agrees else "partly" if cannot_be_excluded else "no"


def ledger_table(ledger: Ledger, results: Mapping[str, Results]) -> pd.DataFrame:
    """One row for each row of the ledger, in its order; `results` by experiment.

    Columns: id, where, setting, quantity, unit, scale, mark, published_runs, source, published, value, low, high, runs,
    other, other_low, other_high, rule, deviations, corrected, why (or why it was not attempted), verdict, solved (how
    many of the runs of both sides solved their task; NaN without runs), most_updates (the largest budget of these runs;
    NaN without runs), keys (joined by spaces).
    """
    lines = []
    for row in ledger.rows:
        found = obtain(row, results.get(row.experiment))
        side, other = (one or Side(math.nan, math.nan, math.nan, 0) for one in (found.side, found.other))
        own = {
            name: getattr(row, name)
            for name in ("id", "where", "setting", "quantity", "unit", "scale", "mark", "published_runs")
        }
        numbers = {"value": side.value, "low": side.low, "high": side.high, "runs": side.n}
        numbers |= {"other": other.value, "other_low": other.low, "other_high": other.high}
        said = {"rule": row.rule_in_words, "deviations": row.deviations, "corrected": row.corrected}
        why = ledger.why.get(row.id, row.because)
        lines.append(
            {**own, "source": ledger.sources[row.source], "published": row.published, **numbers, **said, "why": why}
            | {"verdict": found.verdict, **_training(results.get(row.experiment), found.keys)}
            | {"keys": " ".join(found.keys)}
        )
    return pd.DataFrame(lines)


def _training(results: Results | None, keys: Sequence[str]) -> dict[str, float]:
    """How many of the runs solved their task, and the largest number of updates that one was given."""
    if results is None or not keys:
        return {"solved": math.nan, "most_updates": math.nan}
    runs = results.runs.loc[list(keys)]
    return {"solved": solved_count(runs), "most_updates": runs["training.steps"].max()}
