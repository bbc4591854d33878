from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from rich.console import Group
from rich.table import Table

from rnnstudy.run import Run, telling_fields
from rnnstudy.search.studies import StudyStatus
from rnnstudy.store.project import Project
from rnnstudy.store.run_description import repeating
from rnnstudy.sweep.plan import Plan
from rnnstudy.training.cost import cost
from rnnstudy.training.population import Population
from rnnstudy.training.records import RunState

if TYPE_CHECKING:
    import pandas as pd


def list_table(plan: Plan, states: Mapping[str, RunState]) -> Table:
    """What would run."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading, side in [
        ("key", "left"), ("name", "left"), ("task", "left"), ("cell", "left"), ("T", "right"), ("seed", "right"),
        ("state", "left"), ("time", "right"), ("disk", "right"),
    ]:  # fmt: skip
        table.add_column(heading, justify="right" if side == "right" else "left", no_wrap=True)
    for run in plan.runs:
        alone = cost(Population((run,)))
        table.add_row(
            run.key, plan.names[run.key], type(run.task).__name__, type(run.cell).__name__, str(run.task.length),
            str(run.seed), states[run.key], duration(alone.seconds), size(alone.bytes),
        )  # fmt: skip
    return table


def set_aside_lines(plan: Plan) -> Iterator[str]:
    """What there is to be said about runs that are not tried any more."""
    for key, failures in plan.set_aside.items():
        yield (
            f"set aside after {failures.attempts} failed attempts: {plan.names[key]} ({failures.reason}); "
            f"rnnstudy forget {key}, or --rerun, has it tried again"
        )


def summary_table(runs: Sequence[Run], project: Project) -> Table:
    """How a sweep came out: for each cell, length and whatever else differed but the seed, what share was solved.

    The log10 ratios compare the gradient at the first step with that at the last supervised one, in decades, before and
    after training; medians over the runs of a row.
    """
    from rnnstudy import results

    frame = results.load([run.key for run in runs], project=project).runs
    varied = [name for name in telling_fields(runs) if name != "data_seed" and name in frame.columns]
    by = ["cell", "length", *varied]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in [*(name.rpartition(".")[2].replace("_", " ") for name in by), "solved", "diverged"]:
        table.add_column(heading, justify="left" if heading == "cell" else "right")
    for heading in ["steps to solve", "error", "log10 ratio before", "and after"]:
        table.add_column(heading, justify="right")
    for row, group in frame.groupby(by, dropna=False, sort=True):
        outcomes = [
            ("steps_to_solve", ".0f"),
            ("error", ".3g"),
            ("log10_ratio_initial", ".1f"),
            ("log10_ratio_final", ".1f"),
        ]
        medians = [_number(group[name].median() if name in group else None, form) for name, form in outcomes]
        table.add_row(
            *(_setting(value) for value in cast(tuple[Any, ...], row)),
            _solved(group, len(group)),
            str(int(group["status"].eq("diverged").sum()) or ""),
            *medians,
        )
    return table


def _setting(value: Any) -> str:
    """A field's value; a dash where a run has no such field: no clipping, for example, and so no threshold."""
    import pandas as pd

    return "–" if pd.isna(value) else f"{value:g}" if isinstance(value, float) else str(value)


def _solved(runs: "pd.DataFrame", count: int) -> str:
    # A diverged run was not judged: neither true nor false.
    return f"{int(runs['solved'].eq(True).fillna(False).sum())} of {count}"


def studies_table(standings: Sequence[StudyStatus], project: Project) -> Table:
    """How searches stand. The last columns are the winner's on fresh seeds, which the search has not seen."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("study", no_wrap=True)
    parameters = list(dict.fromkeys(name for one in standings for name in one.params))
    shown = [name.replace("_", " ") for name in parameters]
    for heading in ("trials", "complete", "pruned", "failed", "best", *shown, "fresh: solved", "test error"):
        table.add_column(heading, justify="right")
    for one in standings:
        table.add_row(
            one.name,
            f"{one.complete + one.pruned} of {one.planned}" + (f", {one.running} open" if one.running else ""),
            str(one.complete),
            str(one.pruned),
            str(one.failed),
            "–" if one.best is None else f"{one.best.value:.3g}",
            *(_shown(one.params.get(name, "–")) for name in parameters),
            *_fresh(one, project),
        )
    return table


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _fresh(standing: StudyStatus, project: Project) -> tuple[str, str]:
    """Share solved and median test error of the winner's fresh runs that are complete in the store."""
    from rnnstudy import results
    from rnnstudy.store.mlflow_store import Store

    complete = Store(project).finished().keys()
    keys = [key for key in standing.fresh_keys if key in complete]
    if not keys:
        return "–", "–"
    runs = results.load(keys, project=project).runs
    errors = runs.get("error")
    return _solved(runs, len(keys)), _number(None if errors is None else errors.median(), ".3g")


def _number(value: Any, form: str) -> str:
    import pandas as pd

    return "–" if value is None or pd.isna(value) else format(value, form)


def run_page(prefix: str, project: Project) -> Group:
    """All about one run in the store."""
    import json

    from rnnstudy import results

    run = results.stored_run(prefix, project=project)
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column(style="bold")
    facts.add_column()
    facts.add_row("run", f"{run.name}  {run.key}  ({run.experiment})")
    facts.add_row("state", run.state)
    if run.state in ("finished", "diverged"):
        loaded = results.load([run.key], project=project)
        row = loaded.runs.loc[run.key]
        facts.add_row("solved", f"{row['solved']}, steps to solve {_number(row['steps_to_solve'], '.0f')}")
        facts.add_row("updates", f"{row['step']} in {duration(row['seconds'])}, engine {row['engine']}")
        facts.add_row("readings", "\n".join(f"{name} ({loaded.units[name]})" for name in loaded.names))
    described = json.loads(run.tags["rnnstudy.spec"])
    facts.add_row("specification", "\n".join(_specification(described)))
    facts.add_row("to repeat it", repeating(run.key, run.tags.get("rnnstudy.command", "rnnstudy sweep …")))
    return Group(facts)


def _specification(described: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """A canonical specification, a field to a line; fields that are not shown have their default."""
    for name, value in described["fields"].items():
        inner = isinstance(value, Mapping)
        yield f"{indent}{name}: {value['class'].rpartition(':')[2] if inner else value}"
        if inner:
            yield from _specification(value, indent + "  ")


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(count: float) -> str:
    """`3.1 MB`."""
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"
