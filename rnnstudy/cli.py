"""The command line. Thin: each command imports what it needs and calls it, so that --help answers at once."""

import contextlib
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from rnnstudy.catalogue import Kind
    from rnnstudy.crew import Crew
    from rnnstudy.home import Home
    from rnnstudy.run import Run
    from rnnstudy.stored import SweepInfo
    from rnnstudy.sweep import Experiment
    from rnnstudy.tracking import MlflowTracker
    from rnnstudy.unroll.choice import Wanted

SOME_FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130

FOLDER = click.Path(path_type=Path)


def which_runs(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which runs of an experiment file are meant."""
    for option in (
        click.option("--only", metavar="KEY", multiple=True, help="Only the runs whose key begins so. Repeatable."),
        click.option(
            "--set",
            "settings",
            metavar="FIELD=VALUE",
            multiple=True,
            help="Set a field of every run, for example training.steps=500. Repeatable.",
        ),
        click.option(
            "--scale",
            type=click.Choice(["smoke", "desk", "paper"]),
            default="desk",
            show_default=True,
            help="Seconds; minutes on a laptop; the published sizes.",
        ),
    ):
        command = option(command)
    return command


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
def list_(file: Path | None, kind: "Kind | None", scale: str, settings: tuple[str, ...], only: tuple[str, ...]) -> None:
    """Show what a sweep would run: key, name, state in the store, estimates of time and disk.

    Or, with --tasks, --cells or --probes, what there is to build runs from, one line each with its source.
    """
    if kind is not None:
        _catalogue(kind, file)
        return
    if file is None:
        raise click.UsageError("Missing argument 'FILE': an experiment file, or --tasks, --cells or --probes.")
    from rnnstudy import home, launch, tracking
    from rnnstudy.display import duration, list_table, size

    experiment, runs = _runs(file, scale, settings, only)
    place = home.find(experiment.path)
    store = tracking.Store(place)
    planned = launch.plan(runs, store, place.checkpoints, workers=1)
    console = _console()
    console.print(list_table(planned, store.states([run.key for run in runs])))
    cost, waiting = planned.cost, sum(len(task.runs) for task in planned.tasks)
    _say(
        console,
        f"{len(runs)} runs, {len(planned.served)} already in the store, {waiting} to train: together at most about "
        f"{duration(cost.seconds)} on one CPU thread, {size(cost.bytes)} on disk",
    )


@app.command()
@click.argument("file", type=FOLDER)
@which_runs
@click.option("--workers", type=int, default=None, help="Worker processes. Default: one per GPU, else one per core.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--engine",
    type=click.Choice(["auto", "reference", "compiled", "graph", "triton"]),
    default="auto",
    show_default=True,
    help="What trains: auto takes compiled kernels on a CPU and a CUDA graph on a GPU; reference is plain autograd.",
)
@click.option("--dry-run", is_flag=True, help="Show what would run, and stop.")
@click.option("--rerun", is_flag=True, help="Forget the runs of this sweep and train them again.")
@click.option("--offline", type=FOLDER, metavar="DIR", help="Write to files in DIR, for rnnstudy sync.")
@click.option("--shard", metavar="PART/PARTS", help="Only this part of the sweep, for example 3/16.")
@click.option("--storage", metavar="URL", help="Where a search keeps its studies. Default: mlruns/optuna.db.")
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="Train on a Ray cluster: auto (the one this machine belongs to), local, or an address. Needs rnnstudy[ray].",
)
@click.option("--gpus-per-worker", type=float, default=0.0, help="With --ray: GPUs for each worker, such as 0.25.")
@click.option("--system-metrics", is_flag=True, help="Log CPU, memory and GPU use to each run, every 10 s.")
def sweep(
    file: Path,
    scale: str,
    settings: tuple[str, ...],
    only: tuple[str, ...],
    workers: int | None,
    device: str,
    engine: "Wanted",
    dry_run: bool,
    rerun: bool,
    offline: Path | None,
    shard: str | None,
    storage: str | None,
    ray: str | None,
    gpus_per_worker: float,
    system_metrics: bool,
) -> None:
    """Train the runs of an experiment file that the store does not hold yet, or go on with its searches.

    Ctrl-C is safe: checkpoints are saved, and the same command goes on from there. Started several times at once, each
    trains what the others do not.
    """
    from rnnstudy import home, launch
    from rnnstudy.claims import Claims
    from rnnstudy.display import SweepDisplay, duration, set_aside_lines, summary_table
    from rnnstudy.loop import resolve_device
    from rnnstudy.machine import Machine
    from rnnstudy.offline import OfflineTracker
    from rnnstudy.shards import Shard
    from rnnstudy.spec import SpecError
    from rnnstudy.stored import SweepInfo
    from rnnstudy.sweep import load_experiment
    from rnnstudy.unroll.choice import require
    from rnnstudy.writer import Refuge

    if workers is not None:
        launch.require_workers(workers)
    if ray is None:
        require(engine, resolve_device(device))
        if gpus_per_worker:
            raise SpecError(
                "--gpus-per-worker belongs to --ray; on one machine, --workers says how many share its GPUs"
            )
    elif device == "auto" and not gpus_per_worker:
        device = "cpu"
    if load_experiment(file).searches_here:
        refused = {
            "--set": settings,
            "--only": only,
            "--dry-run": dry_run,
            "--rerun": rerun,
            "--offline": offline,
            "--shard": shard,
        }
        unsuited = [name for name, given in refused.items() if given]
        _search(file, scale, workers, device, engine, storage, ray, gpus_per_worker, system_metrics, unsuited)
        return
    if storage is not None:
        raise SpecError(f"--storage is where searches are kept, and {file} defines none")
    part = Shard.parse(shard) if shard else None
    experiment, runs = _runs(file, scale, settings, only)
    if part is not None:
        runs = part.of(runs)
        only = tuple(run.key for run in runs)
        if not runs:
            _say(_console(), f"shard {shard} has nothing to do: the sweep has fewer populations than shards")
            return
    if dry_run:
        click.get_current_context().invoke(list_, file=file, scale=scale, settings=settings, only=only)
        return
    place, console = home.find(experiment.path), _console()
    crew = _crew(ray, gpus_per_worker, workers, experiment.path, device, engine, place.logs)
    count = crew.count if crew else workers or launch.default_workers(device)
    command = shlex.join(["rnnstudy", "sweep", str(file), "--scale", scale, *_repeated("--set", settings)])
    info = SweepInfo(
        experiment.name, experiment_file=str(file), command=command, engine=engine, hypothesis=experiment.hypothesis
    )
    tracker = OfflineTracker(offline, info) if offline else _open_store(place, info, console)
    if mended := tracker.mend():
        _say(console, f"{mended} runs that a dead process had left as running are now marked interrupted")
    # Before the store is looked at, so that no run can end unnoticed in between.
    claims = Claims(place.claims)
    if rerun:
        claims.require_free(run.key for run in runs)
        tracker.forget([run.key for run in runs])
    here = "cpu" if crew else device
    planned = launch.plan(runs, tracker, place.checkpoints, count, rerun, here)
    for line in planned.warnings:
        _say(console, line)
    waiting = sum(len(task.runs) for task in planned.tasks)
    side_by_side = max(1, min(count, len(planned.tasks)))
    estimate = f", at most about {duration(planned.cost.seconds / side_by_side)}" if waiting else ""
    _say(console, f"{len(runs)} runs: {len(planned.served)} in the store, {waiting} to train{estimate}")
    refuge = place.offline / info.sweep
    with SweepDisplay(planned.tasks, console) as display:
        launcher = launch.Launcher(
            planned.supply(),
            tracker,
            place,
            experiment=experiment.path,
            device=device,
            engine=engine,
            workers=count,
            watcher=display,
            claims=claims,
            replan=lambda free: launch.plan(free, tracker, place.checkpoints, count, device=device),
            refuge=None if offline else Refuge(str(refuge), lambda: OfflineTracker(refuge, info)),
            crew=crew,
            machine=Machine() if system_metrics else None,
        )
        summary = launcher.run()
    if summary.interrupted:
        _say(console, f"interrupted: {len(summary.ended)} runs ended; the same command goes on")
        sys.exit(INTERRUPTED)
    if offline:
        _say(console, f"{len(summary.ended)} runs ended; rnnstudy sync {offline} brings them into the store")
    elif not summary.in_files:
        missing = {*summary.failed, *planned.set_aside}
        if ended := [run for run in runs if run.key not in missing]:
            console.print(summary_table(ended, place))
    for line in set_aside_lines(planned):
        _say(console, line)
    if summary.failed:
        _say(console, f"{len(summary.failed)} runs failed: {', '.join(planned.names[key] for key in summary.failed)}")
    if summary.failed or planned.set_aside:
        sys.exit(SOME_FAILED)


def _open_store(place: "Home", info: "SweepInfo", console: "Console") -> "MlflowTracker":
    """The project's store, named where it is new."""
    from rnnstudy import tracking

    new = not tracking.Store(place).exists
    tracker = tracking.open_store(place, info)
    if new:
        _say(console, f"a new store: {tracker.store.database}")
    return tracker


def _search(
    file: Path,
    scale: str,
    workers: int | None,
    device: str,
    engine: "Wanted",
    storage: str | None,
    ray: str | None,
    gpus_per_worker: float,
    system_metrics: bool,
    refused: Sequence[str],
) -> None:
    """Go on with the searches of an experiment file."""
    from rnnstudy import home, launch, studies
    from rnnstudy.claims import Claims
    from rnnstudy.display import SweepDisplay, studies_table
    from rnnstudy.machine import Machine
    from rnnstudy.offline import OfflineTracker
    from rnnstudy.searching import SearchSupply
    from rnnstudy.spec import SpecError
    from rnnstudy.stored import SweepInfo
    from rnnstudy.sweep import Scale, load_experiment
    from rnnstudy.writer import Refuge

    if refused:
        raise SpecError(f"{' and '.join(refused)} cannot be given: {file} defines a search, which chooses its own runs")
    experiment = load_experiment(file)
    searches = experiment.searches(Scale(scale))
    place, console = home.find(experiment.path), _console()
    crew = _crew(ray, gpus_per_worker, workers, experiment.path, device, engine, place.logs)
    count = crew.count if crew else workers or launch.default_workers(device)
    named = ["--storage", studies.without_password(storage)] if storage else []
    command = shlex.join(["rnnstudy", "sweep", str(file), "--scale", scale, *named])
    kept = studies.connect(place, storage)
    info = SweepInfo(
        experiment.name, experiment_file=str(file), command=command, engine=engine, hypothesis=experiment.hypothesis
    )
    tracker = _open_store(place, info, console)
    with contextlib.closing(Claims(place.claims)) as claims:
        # Before the studies are opened: what looks like left by a dead process may be another launcher's.
        studies.claim(claims, kept, [name for name, _, _ in searches])
        if mended := tracker.mend():
            _say(console, f"{mended} runs that a dead process had left as running are now marked interrupted")
        supply = SearchSupply(searches, kept, tracker, place, scale=Scale(scale), path=experiment.path, workers=count)
        trials = sum(one.left for one in supply.studies)
        _say(console, f"{len(searches)} studies: {trials} trials to go, at most {supply.runs_left} runs")
        refuge = place.offline / info.sweep
        with SweepDisplay([], console, most=supply.runs_left) as display:
            summary = launch.Launcher(
                supply,
                tracker,
                place,
                experiment=experiment.path,
                device=device,
                engine=engine,
                workers=count,
                watcher=display,
                claims=claims,
                replan=lambda free: launch.plan(free, tracker, place.checkpoints, count, device=device),
                refuge=Refuge(str(refuge), lambda: OfflineTracker(refuge, info)),
                crew=crew,
                machine=Machine() if system_metrics else None,
            ).run()
    if summary.interrupted:
        _say(console, f"interrupted: {len(summary.ended)} runs ended; the same command goes on")
        sys.exit(INTERRUPTED)
    console.print(studies_table([studies.standing(one.study) for one in supply.studies], place))
    if summary.failed:
        _say(console, f"{len(summary.failed)} runs failed: {', '.join(summary.failed)}")
        sys.exit(SOME_FAILED)


@app.command("studies")
@click.option("--storage", metavar="URL", help="Where the studies are kept. Default: mlruns/optuna.db.")
def studies_(storage: str | None) -> None:
    """Show how the searches stand: trials, best value and parameters, and the winner's result on fresh seeds."""
    from rnnstudy import home, studies
    from rnnstudy.display import studies_table

    place = home.find()
    found = studies.standings(place, storage)
    if not found:
        where = studies.without_password(studies.address(place, storage))
        _say(_console(), f"no studies in {where}; `rnnstudy sweep experiments/tuned_comparison.py` makes some")
        return
    _console().print(studies_table(found, place))


@app.command()
@click.argument("key")
def show(key: str) -> None:
    """Show a run: its specification, outcome, readings, and the command that repeats it. KEY may be a beginning."""
    from rnnstudy import home
    from rnnstudy.display import run_page

    _console().print(run_page(key, home.find()))


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
    from rnnstudy import catalogue, examine, home
    from rnnstudy.sweep import load_experiment

    if file is not None:
        load_experiment(file)
    wanted, console = catalogue.probe(probe, settings), _console()
    found = examine.examine(key, wanted, home=home.find(file))
    for table in examine.tables(found):
        console.print(table)
    if not found:
        _say(console, f"{wanted!r} reads nothing of a network that is not being trained")


@app.command()
@click.argument("keys", nargs=-1, required=True)
def forget(keys: Sequence[str]) -> None:
    """Drop runs from the store, so that they run again. KEYS may be beginnings."""
    from rnnstudy import home, results, tracking
    from rnnstudy.claims import Claims

    place = home.find()
    whole = [results.find(key, home=place) for key in keys]
    Claims(place.claims).require_free(whole)
    count = tracking.Store(place).forget(whole)
    _say(_console(), f"forgotten: {count} runs ({', '.join(whole)})")


@app.command()
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="Port on loopback.")
@click.option("--no-browser", is_flag=True, help="Print the links alone.")
@click.option("--no-pictures", is_flag=True, help="Do not draw the pictures that runs still lack.")
def ui(port: int, no_browser: bool, no_pictures: bool) -> None:
    """Serve MLflow's own UI over the store, on loopback, until Ctrl-C.

    Prints a link for each experiment that opens it at its charts, and opens the newest in the browser. Pictures of
    single runs are drawn in the background and appear in the runs' pages.
    """
    from rnnstudy import home
    from rnnstudy.ui import serve

    sys.exit(serve(home.find(), port, browser=not no_browser, pictures=not no_pictures))


@app.command()
@click.argument("names", nargs=-1)
@click.option("--from", "archive", type=FOLDER, metavar="DIR", help="Read committed results, not the store.")
@click.option("--export", "folder", type=FOLDER, metavar="DIR", help="Write what the reports are drawn from into DIR.")
def report(names: Sequence[str], archive: Path | None, folder: Path | None) -> None:
    """Run report notebooks: .ipynb with outputs, .html, figures as PNG, SVG, CSV and JSON. Without a name, all.

    \b
    rnnstudy report --from reports/data      # redraw every figure from the committed results, without training
    rnnstudy report --export reports/data    # draw from the store, and commit what was drawn
    """
    from rnnstudy import home
    from rnnstudy import report as reports
    from rnnstudy.spec import SpecError

    if archive is not None and folder is not None:
        raise click.UsageError("--from reads and --export writes committed results; give one of them.")
    place = home.find()
    wanted = list(names) or reports.known(place)
    if not wanted:
        raise SpecError(f"there are no reports in {place.reports}")
    written = reports.export(wanted, place, folder) if folder else reports.build(wanted, place, archive)
    for path in written:
        click.echo(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


@app.command()
@click.argument("folders", nargs=-1, required=True, type=FOLDER)
def sync(folders: Sequence[Path]) -> None:
    """Bring runs that were written with --offline into the store. Doing it twice changes nothing."""
    from rnnstudy import home
    from rnnstudy.offline import sync as bring_in

    done = bring_in(folders, home.find())
    _say(
        _console(),
        f"{len(done.added)} runs added, {len(done.updated)} brought further, {len(done.unchanged)} unchanged",
    )


def main() -> None:
    """Run the command line. Bad input gives one line and exit code 2."""
    from rnnstudy.spec import SpecError

    try:
        app(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
    except click.ClickException as error:
        _refuse(error.format_message())
    except SpecError as error:
        _refuse(str(error))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)


def _refuse(message: str) -> None:
    click.echo("rnnstudy: " + " ".join(message.split()), err=True)
    sys.exit(BAD_INPUT)


def _runs(file: Path, scale: str, settings: Sequence[str], only: Sequence[str]) -> "tuple[Experiment, list[Run]]":
    """The experiment of a file and the runs that the options leave of it."""
    from rnnstudy.spec import SpecError, nearest
    from rnnstudy.sweep import Scale, load_experiment, override

    experiment = load_experiment(file)
    runs = override(experiment.runs(Scale(scale)), settings)
    for beginning in only:
        if not any(run.key.startswith(beginning) for run in runs):
            hint = nearest(beginning, [run.key for run in runs]) or f"; rnnstudy list {file} shows them"
            raise SpecError(f"no run of {file} at scale {scale} has a key that begins with '{beginning}'{hint}")
    return experiment, [run for run in runs if not only or run.key.startswith(tuple(only))]


def _crew(
    ray: str | None, gpus: float, workers: int | None, experiment: Path, device: str, engine: "Wanted", logs: Path
) -> "Crew | None":
    """The workers of a Ray cluster where one is asked for; otherwise None: processes of this machine."""
    if ray is None:
        return None
    from rnnstudy.ray_crew import RayCrew

    return RayCrew(ray, gpus, experiment=experiment, device=device, engine=engine, logs=logs, count=workers)


def _catalogue(kind: "Kind", file: Path | None) -> None:
    """Print what there is of a kind; what an experiment file defines, too."""
    from rnnstudy import catalogue
    from rnnstudy.sweep import load_experiment

    if file is not None:
        load_experiment(file)
    for line in catalogue.lines(kind):
        click.echo(line)


def _repeated(option: str, values: Sequence[str]) -> list[str]:
    return [part for value in values for part in (option, value)]


def _console() -> "Console":
    from rich.console import Console

    console = Console()
    # A table that does not fit is better wrapped by the terminal than cut.
    console.width = max(console.width, 120)
    return console


def _say(console: "Console", line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
