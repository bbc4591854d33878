"""The command line. Thin: each command imports what it needs and calls it, so that --help answers at once."""

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import click

from rnnstudy.cli.catalogue import Kind, catalogue_lines, catalogue_rows, catalogue_table, make_probe
from rnnstudy.cli.common import (
    BAD_INPUT,
    FOLDER,
    INTERRUPTED,
    SOME_FAILED,
    as_json,
    make_console,
    print_json,
    print_parts,
    say,
    say_damaged,
    storage_option,
    which_runs,
)
from rnnstudy.cli.completion import PROGRAM, Shell, complete_key, complete_report, completion_script
from rnnstudy.errors import RequestError, RnnstudyError, without_passwords
from rnnstudy.store.project import find_project


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="rnnstudy", message="%(prog)s %(version)s")
def app() -> None:
    """A laboratory for gradients through time.

    Train recurrent networks on tasks whose answer depends on something seen long ago, watch every gradient on its way
    back, keep each run in MLflow, and redraw the figures.

    \b
    rnnstudy sweep experiments/quickstart.py
    rnnstudy report quickstart
    rnnstudy ui
    """


@app.command("list", short_help="Show what a sweep would run, and how long it takes.")
@click.argument("file", type=FOLDER, required=False)
@click.option("--tasks", "kind", flag_value="tasks", help="What tasks there are; with FILE, also its own.")
@click.option("--cells", "kind", flag_value="cells", help="What recurrences there are.")
@click.option("--probes", "kind", flag_value="probes", help="What can be measured.")
@which_runs
@as_json
def list_(
    file: Path | None, kind: Kind | None, scale: str, settings: tuple[str, ...], only: tuple[str, ...], json_: bool
) -> None:
    """Show what a sweep would run: key, name, state in the store, estimates of time and disk.

    Or, with --tasks, --cells or --probes, what there is to build runs from, one line each with its source.
    """
    from rnnstudy.sweep.experiment import load_experiment, run_names, select_runs

    if kind is not None:
        if file is not None:
            load_experiment(file)
        if json_:
            print_json(catalogue_rows(kind))
            return
        console = make_console()
        if console.is_terminal:
            console.print(catalogue_table(kind))
        else:
            click.echo("\n".join(catalogue_lines(kind)))
        return
    if file is None:
        raise click.UsageError("Missing argument 'FILE': an experiment file, or --tasks, --cells or --probes.")
    from rnnstudy.cli.tables import list_rows, list_table, size
    from rnnstudy.run import runs_in_words
    from rnnstudy.store.mlflow_store import Store
    from rnnstudy.sweep.grids import Scale
    from rnnstudy.sweep.plan import duration, make_plan

    experiment, chosen = load_experiment(file), Scale(scale)
    runs = select_runs(experiment, chosen, settings, only)
    names = run_names(experiment, chosen, settings) if only else None
    project = find_project(experiment.path)
    store = Store(project)
    planned = make_plan(runs, store, project.checkpoints, workers=1, names=names)
    states, cost = store.states([run.key for run in runs]), planned.cost
    say_damaged(store, states)
    if json_:
        totals = {"complete": len(planned.complete), "to_train": planned.run_count}
        totals |= {"seconds": cost.seconds, "bytes": cost.bytes}
        print_json({"experiment": experiment.name, "scale": scale, **totals, "runs": list_rows(planned, states)})
        return
    make_console().print(list_table(planned, states))
    estimate = f": together at most about {duration(cost.seconds)} on one CPU thread, {size(cost.bytes)} on disk"
    say(
        f"{runs_in_words(len(runs))}, {len(planned.complete)} already in the store, {planned.run_count} to train"
        + (estimate if planned.run_count else "")
    )


@app.command("studies", short_help="Show how the searches stand.")
@storage_option
@as_json
def studies_(storage: str | None, json_: bool) -> None:
    """Show how the searches stand: trials, best value and parameters, and the winner's result on fresh seeds."""
    from rnnstudy.cli.tables import studies_rows, studies_shown
    from rnnstudy.search.studies import storage_url, study_statuses
    from rnnstudy.store.mlflow_store import Store

    project = find_project()
    found = study_statuses(project, storage)
    say_damaged(Store(project), [key for status in found for key in status.fresh_keys])
    if json_:
        print_json(studies_rows(found, project))
        return
    if not found:
        where = without_passwords(storage_url(project, storage))
        say(f"no studies in {where}; `rnnstudy sweep` of an experiment file with a search makes some")
        return
    print_parts(*studies_shown(found, project, make_console()))


@app.command(short_help="Show a run, and the command that repeats it.")
@click.argument("key", shell_complete=complete_key)
@as_json
def show(key: str, json_: bool) -> None:
    """Show a run: outcome, specification, readings, and the command that repeats it. KEY may be a beginning."""
    from rnnstudy.cli.run_page import RunPage

    page = RunPage.of(key, find_project())
    if json_:
        print_json(page.document())
    else:
        make_console().print(page.view())


@app.command(short_help="Measure something more on a finished run.")
@click.argument("key", shell_complete=complete_key)
@click.argument("probe")
@click.option("--set", "settings", metavar="FIELD=VALUE", multiple=True, help="Set a field of the probe. Repeatable.")
@click.option("--file", type=FOLDER, help="The experiment file that defines the run's task or cell, or the probe.")
def probe(key: str, probe: str, settings: tuple[str, ...], file: Path | None) -> None:
    """Read one probe on a finished run's kept weights, and show its readings. KEY may be a beginning.

    \b
    rnnstudy list --probes
    rnnstudy probe 3f2a LyapunovExponents --set sequences=8
    """
    from rnnstudy.cli.readings import reading_tables
    from rnnstudy.results.trained import read_probe
    from rnnstudy.sweep.experiment import load_experiment

    if file is not None:
        load_experiment(file)
    wanted, console = make_probe(probe, settings), make_console()
    found = read_probe(key, wanted, project=find_project(file))
    for table in reading_tables(found):
        console.print(table)
    if not found:
        say(f"{wanted!r} reads nothing of a network that is not being trained")


@app.command(short_help="Delete runs, so that they are trained again.")
@click.argument("keys", nargs=-1, required=True, shell_complete=complete_key)
def forget(keys: Sequence[str]) -> None:
    """Delete runs from the store, so that they are trained again. KEYS may be beginnings."""
    from rnnstudy import results
    from rnnstudy.run import runs_in_words
    from rnnstudy.store.mlflow_store import Store
    from rnnstudy.sweep.claims import Claims

    project = find_project()
    whole = [results.find_key(key, project=project) for key in keys]
    Claims(project.claims).require_free(whole)
    count = Store(project).forget(whole)
    say(f"forgotten: {runs_in_words(count)} ({', '.join(whole)})")


@app.command(short_help="Open MLflow's UI over the store.")
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="Port on loopback.")
@click.option("--no-browser", is_flag=True, help="Print the links alone.")
@click.option("--no-pictures", is_flag=True, help="Do not draw the pictures that runs still lack.")
def ui(port: int, no_browser: bool, no_pictures: bool) -> None:
    """Serve MLflow's own UI over the store, on loopback, until Ctrl-C.

    Prints a link for each experiment that opens it at its charts, and opens the newest in the browser. Pictures of
    single runs are drawn in the background and appear in the runs' pages.
    """
    from rnnstudy.report.mlflow_pages.server import serve

    sys.exit(serve(find_project(), port, browser=not no_browser, pictures=not no_pictures))


@app.command(short_help="Build reports and figures from the runs.")
@click.argument("names", nargs=-1, shell_complete=complete_report)
@click.option("--from", "archive", type=FOLDER, metavar="DIR", help="Read committed results, not the store.")
@click.option(
    "--export",
    "folder",
    type=FOLDER,
    metavar="DIR",
    help="Redraw the committed reports, and write the results that they are drawn from into DIR.",
)
@click.option("--replace", is_flag=True, help="With --export: replace a published study even by a smaller one.")
@click.option("--published", type=FOLDER, metavar="DIR", help="Draw the committed runs in DIR beside the store's.")
def report(
    names: Sequence[str], archive: Path | None, folder: Path | None, replace: bool, published: Path | None
) -> None:
    """Build reports from their notebooks: .ipynb with outputs, .html, figures as PNG, SVG, CSV and JSON.

    Without NAMES, all reports. They are written to build/reports, which git ignores; with --export, to reports. A
    published study is not replaced by one of a smaller scale or with fewer runs, unless --replace is given.

    \b
    rnnstudy report quickstart               # from the runs in the store
    rnnstudy report --from reports/data      # every figure, from the committed results, without training
    rnnstudy report --export reports/data    # redraw the committed reports, and export their results
    rnnstudy report fair_comparison --published reports/data --export reports/data    # add to what is committed
    rnnstudy report course                   # the course, or course/1_sequences: notebooks that need no runs
    rnnstudy report explore                  # the page whose network a reader moves; it needs no runs either
    """
    from rnnstudy.report.build import build_reports, export
    from rnnstudy.report.outline import known_reports

    if replace and folder is None:
        raise RequestError("--replace belongs to --export; without --export, no published study is touched")
    if published is not None and archive is not None:
        raise RequestError("--from reads committed results alone, --published beside the store; give one of them")
    from rnnstudy.report.course import build_course, of_course
    from rnnstudy.report.explore import build_explore, takes_page

    project = find_project()
    course, others = of_course(names)
    explore, others = takes_page(others, project, every=not names)
    if course:
        *_, index = build_course(course, project, committed=folder is not None)
        click.echo(f"open {_from_here(index)}")
    if explore and names:
        page, *_ = build_explore(project, committed=folder is not None)
        click.echo(f"open {_from_here(page)}")
    if names and not others:
        return
    names = others
    wanted = list(names) or known_reports(project)
    if not wanted:
        raise RequestError(f"there are no reports in {project.reports}")
    if archive is None:
        from rnnstudy.store.mlflow_store import Store

        say_damaged(Store(project))
    written = (
        export(wanted, project, folder, archive, replace=replace, published=published)
        if folder
        else build_reports(wanted, project, archive, published)
    )
    if explore and not names:
        written += build_explore(project, committed=folder is not None)[:1]
    pages = project.reports if folder else project.built_reports
    page = pages / (f"{wanted[0]}.html" if len(wanted) == 1 else "index.html")
    click.echo("\n".join(str(_from_here(path)) for path in written))
    click.echo(f"open {_from_here(page)}")


def _from_here(path: Path) -> Path:
    """The path as seen from the current folder, where it is below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


@app.command(short_help="Copy runs that were written offline into the store.")
@click.argument("folders", nargs=-1, required=True, type=FOLDER)
def sync(folders: Sequence[Path]) -> None:
    """Copy runs that were written with --offline into the store. Doing it twice changes nothing."""
    from rnnstudy.run import runs_in_words
    from rnnstudy.store.mlflow_store import Store
    from rnnstudy.store.sync import sync as bring_in

    done = bring_in(folders, Store(find_project()))
    say(f"{runs_in_words(len(done.added))} added, {len(done.updated)} brought further, {len(done.unchanged)} unchanged")
    for key, reason in done.refused.items():
        click.echo(f"rnnstudy: {key} was not copied: {reason}", err=True)
    if done.refused:
        sys.exit(1)


@app.command(short_help="Say what this machine has, and what is wrong.")
@as_json
def doctor(json_: bool) -> None:
    """Say what this machine has, and what is wrong with it or with the store, each with its remedy.

    Exit code 1 when something is wrong.
    """
    from rnnstudy.cli.doctor import documents, examine, findings_table

    findings = list(examine(find_project()))
    if json_:
        print_json(documents(findings))
    else:
        make_console().print(findings_table(findings))
        wrong = [finding.about for finding in findings if finding.verdict == "wrong"]
        say(f"wrong: {', '.join(wrong)}" if wrong else "nothing is wrong")
    if any(finding.verdict == "wrong" for finding in findings):
        sys.exit(SOME_FAILED)


@app.command(short_help="Print what completes commands and keys in a shell.")
@click.argument("shell", type=click.Choice(get_args(Shell)))
def completion(shell: Shell) -> None:
    """Print the script that completes commands, options, run keys and reports in a shell.

    \b
    eval "$(rnnstudy completion bash)"       # in ~/.bashrc; likewise zsh in ~/.zshrc
    rnnstudy completion fish > ~/.config/fish/completions/rnnstudy.fish
    """
    click.echo(completion_script(app, shell))


def main() -> None:
    """Run the command line. Bad input gives one line and exit code 2."""
    # In an ASCII locale, as batch systems have, a character that cannot be printed must not end a finished sweep.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app(prog_name=PROGRAM, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
    except click.UsageError as error:
        _refuse(f"{error.format_message()}{_where_to_look(error)}")
    except click.ClickException as error:
        _refuse(error.format_message())
    except RnnstudyError as error:
        _refuse(str(error))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # Whoever reads has seen enough; the interpreter would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(SOME_FAILED)
    except OSError as error:
        from rnnstudy.store.errors import DiskFull, disk_is_full

        _refuse(str(DiskFull.caused_by(error)) if disk_is_full(error) else f"the system refuses: {error}")


def _where_to_look(error: click.UsageError) -> str:
    """Which help says more, for what is missing and for a command that resembles none."""
    asked = error.ctx.command_path if error.ctx is not None else PROGRAM
    if isinstance(error, click.MissingParameter):
        return f" `{asked} --help` shows what is expected."
    unknown = error.format_message().startswith("No such command") and "Did you mean" not in error.format_message()
    return f" `{asked} --help` lists the commands." if unknown else ""


def _refuse(message: str) -> None:
    words = without_passwords(" ".join(message.split()))
    # Part of it may come from other people: no escape sequences for the terminal.
    printable = "".join(character if character.isprintable() else "�" for character in words)
    click.echo(f"rnnstudy: {printable}", err=True)
    sys.exit(BAD_INPUT)
