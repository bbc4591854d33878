"""The command line. Thin: each command imports what it needs and calls it, so that --help answers at once."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from rnnstudy.cli.catalogue import Kind, catalogue_lines, make_probe
from rnnstudy.cli.common import BAD_INPUT, FOLDER, INTERRUPTED, make_console, say, which_runs
from rnnstudy.spec import RequestError, RnnstudyError
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


@app.command("list")
@click.argument("file", type=FOLDER, required=False)
@click.option("--tasks", "kind", flag_value="tasks", help="What tasks there are; with FILE, also its own.")
@click.option("--cells", "kind", flag_value="cells", help="What recurrences there are.")
@click.option("--probes", "kind", flag_value="probes", help="What can be measured.")
@which_runs
def list_(file: Path | None, kind: Kind | None, scale: str, settings: tuple[str, ...], only: tuple[str, ...]) -> None:
    """Show what a sweep would run: key, name, state in the store, estimates of time and disk.

    Or, with --tasks, --cells or --probes, what there is to build runs from, one line each with its source.
    """
    from rnnstudy.sweep.experiment import load_experiment, select_runs

    if kind is not None:
        if file is not None:
            load_experiment(file)
        for line in catalogue_lines(kind):
            click.echo(line)
        return
    if file is None:
        raise click.UsageError("Missing argument 'FILE': an experiment file, or --tasks, --cells or --probes.")
    from rnnstudy.cli.tables import list_table, size
    from rnnstudy.store.mlflow_store import Store
    from rnnstudy.sweep.grids import Scale
    from rnnstudy.sweep.plan import duration, make_plan

    experiment = load_experiment(file)
    runs = select_runs(experiment, Scale(scale), settings, only)
    project = find_project(experiment.path)
    store = Store(project)
    planned = make_plan(runs, store, project.checkpoints, workers=1)
    make_console().print(list_table(planned, store.states([run.key for run in runs])))
    cost = planned.cost
    say(
        f"{len(runs)} runs, {len(planned.complete)} already in the store, {planned.run_count} to train: "
        f"together at most about {duration(cost.seconds)} on one CPU thread, {size(cost.bytes)} on disk"
    )


@app.command("studies")
@click.option("--storage", metavar="URL", help="Where the studies are kept. Default: mlruns/optuna.db.")
def studies_(storage: str | None) -> None:
    """Show how the searches stand: trials, best value and parameters, and the winner's result on fresh seeds."""
    from rnnstudy.cli.tables import studies_table
    from rnnstudy.search.studies import storage_url, study_statuses, without_password

    project = find_project()
    found = study_statuses(project, storage)
    if not found:
        where = without_password(storage_url(project, storage))
        say(f"no studies in {where}; `rnnstudy sweep experiments/tuned_comparison.py` makes some")
        return
    make_console().print(studies_table(found, project))


@app.command()
@click.argument("key")
def show(key: str) -> None:
    """Show a run: its specification, outcome, readings, and the command that repeats it. KEY may be a beginning."""
    from rnnstudy.cli.tables import run_page

    make_console().print(run_page(key, find_project()))


@app.command()
@click.argument("key")
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


@app.command()
@click.argument("keys", nargs=-1, required=True)
def forget(keys: Sequence[str]) -> None:
    """Delete runs from the store, so that they are trained again. KEYS may be beginnings."""
    from rnnstudy import results
    from rnnstudy.store.mlflow_store import Store
    from rnnstudy.sweep.claims import Claims

    project = find_project()
    whole = [results.find_key(key, project=project) for key in keys]
    Claims(project.claims).require_free(whole)
    count = Store(project).forget(whole)
    say(f"forgotten: {count} runs ({', '.join(whole)})")


@app.command()
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


@app.command()
@click.argument("names", nargs=-1)
@click.option("--from", "archive", type=FOLDER, metavar="DIR", help="Read committed results, not the store.")
@click.option(
    "--export",
    "folder",
    type=FOLDER,
    metavar="DIR",
    help="Redraw the committed reports, and write the results that they are drawn from into DIR.",
)
def report(names: Sequence[str], archive: Path | None, folder: Path | None) -> None:
    """Build reports from their notebooks: .ipynb with outputs, .html, figures as PNG, SVG, CSV and JSON.

    Without NAMES, all reports. They are written to build/reports, which git ignores; with --export, to reports.

    \b
    rnnstudy report quickstart               # from the runs in the store
    rnnstudy report --from reports/data      # every figure, from the committed results, without training
    rnnstudy report --export reports/data    # redraw the committed reports, and export their results
    rnnstudy report course                   # the course, or course/1_sequences: notebooks that need no runs
    """
    from rnnstudy.report.build import build_reports, export, known_reports

    project = find_project()
    from rnnstudy.report.course import build_course, of_course

    course, others = of_course(names)
    if course:
        *_, index = build_course(course, project, committed=folder is not None)
        click.echo(f"open {index.relative_to(Path.cwd()) if index.is_relative_to(Path.cwd()) else index}")
        if not others:
            return
    names = others
    wanted = list(names) or known_reports(project)
    if not wanted:
        raise RequestError(f"there are no reports in {project.reports}")
    written = export(wanted, project, folder, archive) if folder else build_reports(wanted, project, archive)
    pages = project.reports if folder else project.built_reports
    page = pages / (f"{wanted[0]}.html" if len(wanted) == 1 else "index.html")
    shown = [path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path for path in (*written, page)]
    click.echo("\n".join(map(str, shown[:-1])))
    click.echo(f"open {shown[-1]}")


@app.command()
@click.argument("folders", nargs=-1, required=True, type=FOLDER)
def sync(folders: Sequence[Path]) -> None:
    """Copy runs that were written with --offline into the store. Doing it twice changes nothing."""
    from rnnstudy.store.mlflow_store import Store
    from rnnstudy.store.sync import sync as bring_in

    done = bring_in(folders, Store(find_project()))
    say(f"{len(done.added)} runs added, {len(done.updated)} brought further, {len(done.unchanged)} unchanged")
    for key, reason in done.refused.items():
        click.echo(f"rnnstudy: {key} was not copied: {reason}", err=True)
    if done.refused:
        sys.exit(1)


def main() -> None:
    """Run the command line. Bad input gives one line and exit code 2."""
    try:
        app(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
    except click.ClickException as error:
        _refuse(error.format_message())
    except RnnstudyError as error:
        _refuse(str(error))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)


def _refuse(message: str) -> None:
    click.echo("rnnstudy: " + " ".join(message.split()), err=True)
    sys.exit(BAD_INPUT)
