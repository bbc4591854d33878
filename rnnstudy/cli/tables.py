"""Tables for the terminal: what would run, how a sweep came out, how searches progress, one run."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from rnnstudy.cli.common import make_table
from rnnstudy.spec import RnnstudyError
from rnnstudy.store.project import Project
from rnnstudy.store.run_description import repeating
from rnnstudy.store.stored_run import COMPLETE, StoredRun
from rnnstudy.sweep.plan import Plan, duration
from rnnstudy.sweep.summary import SweepSummary
from rnnstudy.training.cost import cost
from rnnstudy.training.population import Population
from rnnstudy.training.records import RunState

if TYPE_CHECKING:
    from rnnstudy.search.session import SearchSummary
    from rnnstudy.search.studies import StudyStatus


def list_table(plan: Plan, states: Mapping[str, RunState]) -> Table:
    """What a sweep would run: a row for each run, with its state in the store and upper estimates of its cost."""
    texts = ("key", "name", "task", "cell", "state")
    table = make_table(["key", "name", "task", "cell", "T", "seed", "state", "time", "disk"], texts, no_wrap=True)
    for run in plan.runs:
        alone = cost(Population((run,)))
        table.add_row(
            run.key, plan.names[run.key], type(run.task).__name__, type(run.cell).__name__, str(run.task.length),
            str(run.seed), states[run.key], duration(alone.seconds), size(alone.bytes),
        )  # fmt: skip
    return table


def outcomes(summary: SweepSummary) -> Iterator[Table | str]:
    """What is printed at the end of a sweep: the table of outcomes, then a line for each thing that went wrong."""
    if summary.offline:
        yield f"{len(summary.ended)} runs ended; rnnstudy sync {summary.offline} brings them into the store"
    elif not summary.fell_back_to_files and len(summary.failed) + len(summary.given_up) < len(summary.runs):
        yield outcomes_table(summary.table)
    for key, failures in summary.given_up.items():
        yield (
            f"given up after {failures.attempts} failed attempts: {summary.names[key]} ({failures.reason}); "
            f"rnnstudy forget {key}, or --rerun, tries it again"
        )
    if summary.failed:
        yield f"{len(summary.failed)} runs failed: {', '.join(summary.names[key] for key in summary.failed)}"


def outcomes_table(frame: Any) -> Table:
    """The data frame of `results.outcomes.outcome_table` for the terminal; a dash for what a row does not have."""
    settings = list(frame.columns[: list(frame.columns).index("runs")])
    shown = [name.rpartition(".")[2].replace("_", " ") for name in settings]
    measures = ["solved", "diverged", "steps to solve", "error", "log10 ratio before", "and after"]
    table = make_table([*shown, *measures], ["cell"])
    forms = {"steps_to_solve": ".0f", "error": ".3g", "log10_ratio_initial": ".1f", "log10_ratio_final": ".1f"}
    for row in frame.to_dict("records"):
        table.add_row(
            *(_text(row[name], "g") for name in settings),
            f"{row['solved']} of {row['runs']}",
            str(row["diverged"] or ""),
            *(_text(row[name], form) for name, form in forms.items()),
        )
    return table


def _text(value: Any, form: str) -> str:
    """A number in this format, another value as it is, and a dash for None and NaN."""
    if value is None or value != value:
        return "–"
    return format(value, form) if isinstance(value, float) else str(value)


def search_outcomes(summary: "SearchSummary", project: Project) -> Iterator[Table | str]:
    """What is printed at the end of a search: the table of its studies, then the runs that failed."""
    yield studies_table(summary.studies, project)
    if failed := summary.sweep.failed:
        yield f"{len(failed)} runs failed: {', '.join(failed)}"


def studies_table(statuses: "Sequence[StudyStatus]", project: Project) -> Table:
    """The progress of searches. The last columns are the winner's results on fresh seeds, which no search has seen."""
    table = make_table(["study"], ["study"], no_wrap=True)
    parameters = list(dict.fromkeys(name for status in statuses for name in status.params))
    shown = [name.replace("_", " ") for name in parameters]
    for heading in ("trials", "complete", "pruned", "failed", "best", *shown, "fresh: solved", "test error"):
        table.add_column(heading, justify="right")
    for status in statuses:
        table.add_row(
            status.name,
            f"{status.judged} of {status.planned}" + (f", {status.running} open" if status.running else ""),
            str(status.complete),
            str(status.pruned),
            str(status.failed),
            _text(status.best.value if status.best else None, ".3g"),
            *(_text(status.params.get(name), ".3g") for name in parameters),
            *_fresh(status, project),
        )
    return table


def _fresh(status: "StudyStatus", project: Project) -> tuple[str, str]:
    """Share solved and median test error of the winner's runs on fresh seeds that are complete in the store."""
    from rnnstudy import results
    from rnnstudy.results.outcomes import median, solved_count

    complete = results.complete_keys(project=project)
    keys = [key for key in status.fresh_keys if key in complete]
    if not keys:
        return "–", "–"
    runs = results.load(keys, project=project).runs
    return f"{solved_count(runs)} of {len(keys)}", _text(median(runs, "error"), ".3g")


def run_page(prefix: str, project: Project) -> Table:
    """One run in the store: state, outcome, readings, specification, and the command that repeats it."""
    from rnnstudy import results

    run = results.stored_run(prefix, project=project)
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column(style="bold")
    facts.add_column()
    facts.add_row("run", f"{run.name}  {run.key}  ({run.experiment})")
    facts.add_row("state", run.state)
    if run.state in COMPLETE:
        loaded = results.load([run.key], project=project)
        row = loaded.runs.loc[run.key]
        # Missing where the run was not solved.
        steps = str(row["steps_to_solve"]).replace("<NA>", "–")
        facts.add_row("solved", f"{row['solved']}, steps to solve {steps}")
        facts.add_row("updates", f"{row['step']} in {duration(float(row['seconds']))}, engine {row['engine']}")
        facts.add_row("trained on", _kind_of_machine(run, project))
        facts.add_row("readings", "\n".join(f"{name} ({loaded.units[name]})" for name in loaded.names))
    described = json.loads(run.tags["rnnstudy.spec"])
    facts.add_row("specification", "\n".join(_specification(described)))
    facts.add_row("to repeat it", repeating(run.key, run.tags.get("rnnstudy.command", "rnnstudy sweep …")))
    return facts


def _kind_of_machine(run: StoredRun, project: Project) -> str:
    """Where a run was trained, and how far it repeats elsewhere."""
    from rnnstudy.store.documents import ENVIRONMENT
    from rnnstudy.store.mlflow_store import Store

    promise = "equal bits on this kind of machine, agreement within the spread over seeds on others"
    try:
        found = json.loads(Store(project).artifact(run, ENVIRONMENT).read_text(encoding="utf-8"))
        kind = f"{found['machine']} {found.get('instructions', '')}".strip()
        return f"{kind}, torch {found['packages']['torch']}, numba {found['packages']['numba']}\n({promise})"
    except (RnnstudyError, OSError, ValueError, TypeError, KeyError):
        # An older version did not write it, or the file is damaged.
        return f"an unknown kind of machine\n({promise})"


def _specification(described: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """A canonical specification, one line for each field; fields that are not shown have their default."""
    for name, value in described["fields"].items():
        inner = isinstance(value, Mapping)
        yield f"{indent}{name}: {value['class'].rpartition(':')[2] if inner else value}"
        if inner:
            yield from _specification(value, indent + "  ")


def size(count: float) -> str:
    """`3.1 MB`."""
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"
