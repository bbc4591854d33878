"""One run for the terminal, or as plain values: outcome, readings with values, the whole specification."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from rnnstudy.cli.common import make_table
from rnnstudy.probes.reading import QUANTILES
from rnnstudy.results.results import FIRST, Results, RunReadings
from rnnstudy.spec import NOT_IDENTITY, RnnstudyError, flatten
from rnnstudy.store.errors import DamagedFile
from rnnstudy.store.project import Project
from rnnstudy.store.run_description import repeating
from rnnstudy.store.stored_run import COMPLETE, StoredRun
from rnnstudy.sweep.plan import duration

COUNTS = ("_zeros", "_nonfinite")
"""The readings beside a profile that count what it leaves out."""

PROMISE = "equal bits on this kind of machine, agreement within the spread over seeds on others"
"""What is promised of a run that is repeated."""


@dataclass(frozen=True)
class RunPage:
    """A run in the store, whatever its state.

    Attributes:
        run: as it is stored.
        results: its results, if it is complete.
        project: whose store it is in.
    """

    run: StoredRun
    results: Results | None
    project: Project

    @staticmethod
    def of(prefix: str, project: Project) -> "RunPage":
        """The run whose key begins so. Raises `RequestError` when there is none, or several; `DamagedFile` where its
        tags are damaged."""
        from rnnstudy import results

        run = results.stored_run(prefix, project=project)
        if run.state == "damaged":
            raise DamagedFile(run.damage)
        found = results.load([run.key], project=project) if run.state in COMPLETE else None
        return RunPage(run, found, project)

    @property
    def fields(self) -> list[tuple[str, Any, bool]]:
        """(dotted name, value, whether it is the default) of each field, in the order of declaration.

        Of a run whose classes cannot be imported here, only the fields that are not the default are known.
        """
        from rnnstudy.results.trained import specification

        stated = dict(_stated(json.loads(self.run.tags["rnnstudy.spec"])))
        try:
            flat = flatten(specification(self.run, self.project), leave_out=frozenset({NOT_IDENTITY}))
        except RnnstudyError:
            return [(name, value, False) for name, value in stated.items()]
        return [(name, value, name not in stated) for name, value in flat.items()]

    @property
    def command(self) -> str:
        """The command that repeats the run."""
        return repeating(self.run.key, self.run.tags.get("rnnstudy.command", "rnnstudy sweep …"))

    @property
    def outcome(self) -> dict[str, Any]:
        """How the run ended, and its summary; empty unless it is complete."""
        if self.results is None:
            return {}
        header = self.results.per_run[0].header
        names = ("status", "solved", "step", "steps_to_solve", "seconds", "engine")
        return {name: header["outcome"][name] for name in names} | dict(header["summary"])

    @property
    def readings(self) -> list[dict[str, Any]]:
        """Each reading: name, unit, axes, the update at which it was made last, and values.

        Of a reading with quantiles, the median. First and last are the values at both ends of its axis when it was made
        last; of a reading without one, those at its first and last moment. Largest is the largest of all its values.
        """
        return [] if self.results is None else [_reading(self.results.per_run[0], name) for name in self.results.names]

    @property
    def machine(self) -> str:
        """The kind of machine that trained the run, as far as bits depend on it."""
        from rnnstudy.store.documents import ENVIRONMENT
        from rnnstudy.store.mlflow_store import Store

        try:
            found = json.loads(Store(self.project).artifact(self.run, ENVIRONMENT).read_text(encoding="utf-8"))
            kind = f"{found['machine']} {found.get('instructions', '')}".strip()
            return f"{kind}, torch {found['packages']['torch']}, numba {found['packages']['numba']}"
        except (RnnstudyError, OSError, ValueError, TypeError, KeyError):
            # An older version did not write it, or the file is damaged.
            return "an unknown kind of machine"

    def document(self) -> dict[str, Any]:
        """All of it, for JSON."""
        run = self.run
        return {
            "key": run.key,
            "name": run.name,
            "experiment": run.experiment,
            "state": run.state,
            "outcome": self.outcome,
            "specification": {name: value for name, value, _ in self.fields},
            "readings": self.readings,
            "machine": self.machine,
            "command": self.command,
        }

    def view(self) -> Group:
        """All of it, for the terminal."""
        run, outcome = self.run, self.outcome
        facts = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        facts.add_column(style="bold", no_wrap=True)
        facts.add_column(overflow="fold")
        facts.add_row("run", f"{run.name}  {run.key}  ({run.experiment})")
        facts.add_row("state", " ".join(filter(None, [run.state, run.tags.get("rnnstudy.reason", "")])))
        if outcome:
            solved = {True: "yes", False: "no"}.get(outcome["solved"], "not judged")
            after = f", after {outcome['steps_to_solve']} updates" if outcome["steps_to_solve"] else ""
            facts.add_row("solved", solved + after)
            facts.add_row("test error", _number(outcome.get("error")))
            facts.add_row("updates", f"{outcome['step']} in {duration(outcome['seconds'])}, engine {outcome['engine']}")
            facts.add_row("trained on", f"{self.machine}\n({PROMISE})")
        facts.add_row("to repeat it", self.command)
        return Group(facts, *self._parts(outcome))

    def _parts(self, outcome: Mapping[str, Any]) -> Iterator[Any]:
        fields = make_table(["field", "value", ""], ["field", "value", ""], whole=["field"])
        for name, value, default in self.fields:
            fields.add_row(name, _worded(value), "default" if default else "", style="dim" if default else "")
        yield _headed("specification", fields)
        shown = ("status", "solved", "step", "steps_to_solve", "seconds", "engine", "error")
        if summary := {name: value for name, value in outcome.items() if name not in shown}:
            table = make_table(["summary", "value"], ["summary"], whole=["summary"])
            for name, value in summary.items():
                table.add_row(name, _number(value))
            yield _headed("summary", table)
        if readings := self.readings:
            words = ["reading", "unit", "along"]
            table = make_table(["reading", "first", "last", "unit", "along"], words, whole=["reading", "first", "last"])
            for row in readings:
                if row["name"].endswith(COUNTS) and row["largest"] == 0:
                    # Nothing was zero or not finite.
                    continue
                table.add_row(row["name"], _number(row["first"]), _number(row["last"]), row["unit"], row["along"])
            yield _headed("readings (median over sequences; of each the latest)", table)


def _headed(heading: str, table: Table) -> Group:
    return Group(Text(f"\n{heading}", style="bold"), Padding(table, (0, 0, 0, 2), expand=False))


def _stated(described: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values in a canonical specification, which leaves out defaults."""
    for name, value in {**described["fields"], **described.get("located", {})}.items():
        inner = isinstance(value, Mapping)
        yield f"{prefix}{name}", value["class"].rpartition(":")[2] if inner else value
        if inner:
            yield from _stated(value, f"{prefix}{name}.")


def _reading(run: RunReadings, name: str) -> dict[str, Any]:
    series = run.series(name)
    values, axes = np.asarray(series.values, float), list(series.axes)
    if "quantile" in axes:
        stored = series.coordinates.get("quantile", QUANTILES)
        values = np.take(values, list(stored).index(0.5), axis=1 + axes.index("quantile"))
        axes.remove("quantile")
    along = axes[0] if len(axes) == 1 else ""
    if along:
        first, last = values[-1, 0], values[-1, -1]
        begin = series.coordinates[along][0] if along in series.coordinates else FIRST.get(along, 0)
        end = series.coordinates[along][-1] if along in series.coordinates else begin + values.shape[1] - 1
        shown = f"{along} {begin:g} to {end:g}"
    elif axes:
        first, last, shown = None, None, " × ".join(axes)
    else:
        # Over training: from the first moment to the last.
        first, last, shown = values[0], values[-1], "training" if len(values) > 1 else ""
    largest = np.nanmax(values) if np.isfinite(values).any() else None
    described = {"name": name, "unit": series.unit, "axes": axes, "step": int(series.steps[-1])}
    return described | {"first": first, "last": last, "largest": largest, "along": shown}


def _number(value: Any) -> str:
    return "–" if value is None or value != value else f"{value:.4g}"


def _worded(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
