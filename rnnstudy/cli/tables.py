"""Tables for the terminal: what would run, how a sweep came out, how searches progress. `run_page.py` shows one run."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from rnnstudy.cli.common import make_table
from rnnstudy.run import runs_in_words
from rnnstudy.store.project import Project
from rnnstudy.sweep.plan import Plan, duration
from rnnstudy.sweep.summary import SweepSummary
from rnnstudy.training.cost import cost
from rnnstudy.training.population import Population
from rnnstudy.training.records import RunState

if TYPE_CHECKING:
    from rnnstudy.search.studies import StudyStatus


def list_table(plan: Plan, states: Mapping[str, RunState]) -> Table:
    """What a sweep would run: a row for each run, with its state in the store and upper estimates of its cost.

    The task is a column where the runs have several.
    """
    several = len({type(run.task) for run in plan.runs}) > 1
    tasks = ["task"] if several else []
    table = make_table(
        ["key", "name", *tasks, "state", "time", "disk"], ["key", "name", "task", "state"], whole=["key", "disk"]
    )
    for row in list_rows(plan, states):
        task = [row["task"]] if several else []
        table.add_row(row["key"], row["name"], *task, row["state"], duration(row["seconds"]), size(row["bytes"]))
    return table


def list_rows(plan: Plan, states: Mapping[str, RunState]) -> list[dict[str, Any]]:
    """The rows of `list_table` as plain values."""
    rows = []
    for run in plan.runs:
        alone = cost(Population((run,)))
        described = {"key": run.key, "name": plan.names[run.key], **run.short_parameters, "state": states[run.key]}
        rows.append(described | {"seconds": alone.seconds, "bytes": alone.bytes})
    return rows


def outcomes(summary: SweepSummary) -> Iterator[Table | str]:
    """What is printed at the end of a sweep: the table of outcomes, or where the runs are."""
    if summary.offline:
        yield f"{runs_in_words(len(summary.ended))} ended; rnnstudy sync {summary.offline} brings them into the store"
    elif has_table(summary):
        yield outcomes_table(summary.table)


def has_table(summary: SweepSummary) -> bool:
    """Whether the store holds some of the sweep's runs."""
    in_store = summary.offline is None and not summary.fell_back_to_files
    return in_store and len(summary.failed) + len(summary.given_up) < len(summary.runs)


def troubles(summary: SweepSummary) -> Iterator[str]:
    """A line for each thing that went wrong in a sweep."""
    for key, failures in summary.given_up.items():
        yield (
            f"given up after {failures.attempts} failed attempts: {summary.names[key]} ({failures.reason}); "
            f"rnnstudy forget {key}, or --rerun, tries it again"
        )
    if summary.failed:
        names = ", ".join(summary.names.get(key, key) for key in summary.failed)
        yield f"{runs_in_words(len(summary.failed))} failed: {names}; the same command tries them again"


def summary_document(summary: SweepSummary) -> dict[str, Any]:
    """How a sweep ended, with the rows of `outcomes_table`, as plain values."""
    ended = {
        key: {"status": outcome.status, "solved": outcome.solved, "step": outcome.step, "reason": outcome.reason}
        for key, outcome in summary.ended.items()
    }
    return {
        "runs": len(summary.runs),
        "complete_before": sorted(summary.complete),
        "ended": ended,
        "given_up": {key: failures.reason for key, failures in summary.given_up.items()},
        "interrupted": summary.interrupted,
        "offline": summary.offline,
        "table": summary.table.to_dict("records") if has_table(summary) and not summary.interrupted else [],
    }


def next_steps(experiment: str, summary: SweepSummary) -> str:
    """The commands that show the runs of a sweep that has ended; empty where the store holds none."""
    project = summary.project
    if project is None or not has_table(summary):
        return ""
    mentioned = re.compile(rf"^#\s+experiments:.*\b{re.escape(experiment)}\b", re.MULTILINE)
    reports = [
        source.stem
        for source in sorted(project.reports.glob("*.py"))
        if source.stem == experiment or mentioned.search(source.read_text(encoding="utf-8"))
    ]
    shown = next(run.key for run in summary.runs if run.key not in {*summary.failed, *summary.given_up})
    # The experiment's own report, or the first that uses its runs.
    report = [f"rnnstudy report {sorted(reports, key=lambda name: name != experiment)[0]}"] if reports else []
    return "next: " + "  ·  ".join(["rnnstudy ui", *report, f"rnnstudy show {shown}"])


def outcomes_table(frame: Any) -> Table:
    """The data frame of `results.outcomes.outcome_table` for the terminal; a dash for what a row does not have."""
    settings = list(frame.columns[: list(frame.columns).index("runs")])
    shown = [name.rpartition(".")[2].replace("_", " ") for name in settings]
    measures = ["solved", "diverged", "steps to solve", "error", "log10 ratio before", "and after"]
    texts = [heading for name, heading in zip(settings, shown, strict=True) if frame[name].map(type).eq(str).any()]
    table = make_table([*shown, *measures], ["cell"], whole=texts, vertical="bottom")
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


def studies_table(statuses: "Sequence[StudyStatus]", project: Project) -> Table:
    """The progress of searches. The last columns are the winner's results on fresh seeds, which no search has seen.

    With some parameters it is wider than 80 columns: `studies_lines` says the same there.
    """
    parameters = list(dict.fromkeys(name for status in statuses for name in status.params))
    shown = [name.replace("_", " ") for name in parameters]
    headings = ["study", "trials", "complete", "pruned", "failed", "best", *shown, "fresh: solved", "test error"]
    narrow = [heading.replace(" ", "\n") for heading in headings]
    table = make_table(narrow, ["study"], whole=["study"], vertical="bottom")
    for status in statuses:
        row = _fresh(status, project)
        table.add_row(
            status.name,
            f"{status.judged} of {status.planned}" + (f", {status.running} open" if status.running else ""),
            str(status.complete),
            str(status.pruned),
            str(status.failed),
            _text(status.best.value if status.best else None, ".3g"),
            *(_text(status.params.get(name), ".3g") for name in parameters),
            f"{row['fresh_solved']} of {row['fresh_runs']}" if row["fresh_runs"] else "–",
            _text(row["fresh_error"], ".3g"),
        )
    return table


def studies_shown(statuses: "Sequence[StudyStatus]", project: Project, console: Console) -> list[Table | str]:
    """The table of searches, or, where it is wider than the console, the lines."""
    table = studies_table(statuses, project)
    unbounded = console.options.update(width=1000)
    if console.measure(table, options=unbounded).maximum <= console.width:
        return [table]
    return [*studies_lines(statuses, project)]


def studies_lines(statuses: "Sequence[StudyStatus]", project: Project) -> Iterator[str]:
    """What `studies_table` says, a few lines for each search."""
    for status in statuses:
        row = _fresh(status, project)
        trials = f"{status.judged} of {status.planned} trials" + (f", {status.running} open" if status.running else "")
        yield status.name
        yield f"  {trials}: {status.complete} complete, {status.pruned} pruned, {status.failed} failed"
        if status.best:
            at = ", ".join(f"{name.replace('_', ' ')} {_text(value, '.3g')}" for name, value in status.params.items())
            yield f"  best {_text(status.best.value, '.3g')}" + (f": {at}" if at else "")
        if row["fresh_runs"]:
            solved = f"{row['fresh_solved']} of {row['fresh_runs']} solved"
            yield f"  fresh seeds: {solved}, test error {_text(row['fresh_error'], '.3g')}"


def studies_rows(statuses: "Sequence[StudyStatus]", project: Project) -> list[dict[str, Any]]:
    """The rows of `studies_table` as plain values."""
    return [
        {
            "study": status.name,
            "planned": status.planned,
            "complete": status.complete,
            "pruned": status.pruned,
            "failed": status.failed,
            "running": status.running,
            "best_error": status.best.value if status.best else None,
            "parameters": dict(status.params),
            **_fresh(status, project),
        }
        for status in statuses
    ]


def _fresh(status: "StudyStatus", project: Project) -> dict[str, Any]:
    """How many of the winner's runs on fresh seeds are complete, how many solved, and their median test error."""
    from rnnstudy import results
    from rnnstudy.results.outcomes import median, solved_count

    complete = results.complete_keys(project=project)
    keys = [key for key in status.fresh_keys if key in complete]
    runs = results.load(keys, project=project).runs if keys else None
    return {
        "fresh_runs": len(keys),
        "fresh_solved": solved_count(runs) if keys else 0,
        "fresh_error": median(runs, "error") if keys else None,
    }


def size(count: float) -> str:
    """`320 B`, `12 kB`, `3.1 MB`, `1.2 GB`."""
    for unit, digits in (("B", 0), ("kB", 0), ("MB", 1)):
        if count < 999.5:
            return f"{count:.{digits}f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
