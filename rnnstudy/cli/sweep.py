import contextlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rnnstudy.cli.commands import app, list_
from rnnstudy.cli.common import FOLDER, INTERRUPTED, SOME_FAILED, make_console, repeated, say, selected_runs, which_runs

if TYPE_CHECKING:
    from rich.console import Console

    from rnnstudy.engines.choice import Wanted
    from rnnstudy.store.mlflow_tracker import MlflowTracker
    from rnnstudy.store.project import Project
    from rnnstudy.store.run_description import SweepInfo
    from rnnstudy.sweep.workers import WorkerPool


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
    from rnnstudy.cli.progress import SweepDisplay
    from rnnstudy.cli.tables import duration, set_aside_lines, summary_table
    from rnnstudy.engines.choice import require
    from rnnstudy.spec import SpecError
    from rnnstudy.store.offline import OfflineTracker
    from rnnstudy.store.project import find_project
    from rnnstudy.store.run_description import SweepInfo
    from rnnstudy.store.system_metrics import Machine
    from rnnstudy.store.writer import FallbackTracker
    from rnnstudy.sweep.claims import Claims
    from rnnstudy.sweep.experiment import load_experiment
    from rnnstudy.sweep.launcher import Launcher
    from rnnstudy.sweep.plan import make_plan
    from rnnstudy.sweep.shards import Shard
    from rnnstudy.sweep.workers import require_workers
    from rnnstudy.training.devices import default_workers, resolve_device

    if workers is not None:
        require_workers(workers)
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
    experiment, runs = selected_runs(file, scale, settings, only)
    if part is not None:
        runs = part.of(runs)
        only = tuple(run.key for run in runs)
        if not runs:
            say(make_console(), f"shard {shard} has nothing to do: the sweep has fewer populations than shards")
            return
    if dry_run:
        click.get_current_context().invoke(list_, file=file, scale=scale, settings=settings, only=only)
        return
    project, console = find_project(experiment.path), make_console()
    crew = ray_pool(ray, gpus_per_worker, workers, experiment.path, device, engine, project.logs)
    count = crew.count if crew else workers or default_workers(device)
    command = shlex.join(["rnnstudy", "sweep", str(file), "--scale", scale, *repeated("--set", settings)])
    info = SweepInfo(
        experiment.name, experiment_file=str(file), command=command, engine=engine, hypothesis=experiment.hypothesis
    )
    tracker = OfflineTracker(offline, info) if offline else _open_store(project, info, console)
    if mended := tracker.mend():
        say(console, f"{mended} runs that a dead process had left as running are now marked interrupted")
    # Before the store is looked at, so that no run can end unnoticed in between.
    claims = Claims(project.claims)
    if rerun:
        claims.require_free(run.key for run in runs)
        tracker.forget([run.key for run in runs])
    here = "cpu" if crew else device
    planned = make_plan(runs, tracker, project.checkpoints, count, rerun, here)
    for line in planned.warnings:
        say(console, line)
    waiting = sum(len(task.runs) for task in planned.tasks)
    side_by_side = max(1, min(count, len(planned.tasks)))
    estimate = f", at most about {duration(planned.cost.seconds / side_by_side)}" if waiting else ""
    say(console, f"{len(runs)} runs: {len(planned.served)} in the store, {waiting} to train{estimate}")
    refuge = project.offline / info.sweep
    with SweepDisplay(planned.tasks, console) as display:
        launcher = Launcher(
            planned.supply(),
            tracker,
            project,
            experiment=experiment.path,
            device=device,
            engine=engine,
            workers=count,
            watcher=display,
            claims=claims,
            replan=lambda free: make_plan(free, tracker, project.checkpoints, count, device=device),
            refuge=None if offline else FallbackTracker(str(refuge), lambda: OfflineTracker(refuge, info)),
            crew=crew,
            machine=Machine() if system_metrics else None,
        )
        summary = launcher.run()
    if summary.interrupted:
        say(console, f"interrupted: {len(summary.ended)} runs ended; the same command goes on")
        sys.exit(INTERRUPTED)
    if offline:
        say(console, f"{len(summary.ended)} runs ended; rnnstudy sync {offline} brings them into the store")
    elif not summary.in_files:
        missing = {*summary.failed, *planned.set_aside}
        if ended := [run for run in runs if run.key not in missing]:
            console.print(summary_table(ended, project))
    for line in set_aside_lines(planned):
        say(console, line)
    if summary.failed:
        say(console, f"{len(summary.failed)} runs failed: {', '.join(planned.names[key] for key in summary.failed)}")
    if summary.failed or planned.set_aside:
        sys.exit(SOME_FAILED)


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
    from rnnstudy.cli.progress import SweepDisplay
    from rnnstudy.cli.tables import studies_table
    from rnnstudy.search.queue import SearchQueue, claim_studies
    from rnnstudy.search.studies import connect_storage, study_status, without_password
    from rnnstudy.spec import SpecError
    from rnnstudy.store.offline import OfflineTracker
    from rnnstudy.store.project import find_project
    from rnnstudy.store.run_description import SweepInfo
    from rnnstudy.store.system_metrics import Machine
    from rnnstudy.store.writer import FallbackTracker
    from rnnstudy.sweep.claims import Claims
    from rnnstudy.sweep.experiment import load_experiment
    from rnnstudy.sweep.grids import Scale
    from rnnstudy.sweep.launcher import Launcher
    from rnnstudy.sweep.plan import make_plan
    from rnnstudy.training.devices import default_workers

    if refused:
        raise SpecError(f"{' and '.join(refused)} cannot be given: {file} defines a search, which chooses its own runs")
    experiment = load_experiment(file)
    searches = experiment.searches(Scale(scale))
    project, console = find_project(experiment.path), make_console()
    crew = ray_pool(ray, gpus_per_worker, workers, experiment.path, device, engine, project.logs)
    count = crew.count if crew else workers or default_workers(device)
    named = ["--storage", without_password(storage)] if storage else []
    command = shlex.join(["rnnstudy", "sweep", str(file), "--scale", scale, *named])
    kept = connect_storage(project, storage)
    info = SweepInfo(
        experiment.name, experiment_file=str(file), command=command, engine=engine, hypothesis=experiment.hypothesis
    )
    tracker = _open_store(project, info, console)
    with contextlib.closing(Claims(project.claims)) as claims:
        # Before the studies are opened: what looks like left by a dead process may be another launcher's.
        claim_studies(claims, kept, [name for name, _, _ in searches])
        if mended := tracker.mend():
            say(console, f"{mended} runs that a dead process had left as running are now marked interrupted")
        supply = SearchQueue(searches, kept, tracker, project, scale=Scale(scale), path=experiment.path, workers=count)
        trials = sum(one.left for one in supply.studies)
        say(console, f"{len(searches)} studies: {trials} trials to go, at most {supply.runs_left} runs")
        refuge = project.offline / info.sweep
        with SweepDisplay([], console, most=supply.runs_left) as display:
            summary = Launcher(
                supply,
                tracker,
                project,
                experiment=experiment.path,
                device=device,
                engine=engine,
                workers=count,
                watcher=display,
                claims=claims,
                replan=lambda free: make_plan(free, tracker, project.checkpoints, count, device=device),
                refuge=FallbackTracker(str(refuge), lambda: OfflineTracker(refuge, info)),
                crew=crew,
                machine=Machine() if system_metrics else None,
            ).run()
    if summary.interrupted:
        say(console, f"interrupted: {len(summary.ended)} runs ended; the same command goes on")
        sys.exit(INTERRUPTED)
    console.print(studies_table([study_status(one.study) for one in supply.studies], project))
    if summary.failed:
        say(console, f"{len(summary.failed)} runs failed: {', '.join(summary.failed)}")
        sys.exit(SOME_FAILED)


def _open_store(project: "Project", info: "SweepInfo", console: "Console") -> "MlflowTracker":
    """The project's store, named where it is new."""
    from rnnstudy.store.mlflow_store import Store
    from rnnstudy.store.mlflow_tracker import open_store

    new = not Store(project).exists
    tracker = open_store(project, info)
    if new:
        say(console, f"a new store: {tracker.store.database}")
    return tracker


def ray_pool(
    ray: str | None, gpus: float, workers: int | None, experiment: Path, device: str, engine: "Wanted", logs: Path
) -> "WorkerPool | None":
    """The workers of a Ray cluster where one is asked for; otherwise None: processes of this machine."""
    if ray is None:
        return None
    from rnnstudy.sweep.ray_workers import RayPool

    return RayPool(ray, gpus, experiment=experiment, device=device, engine=engine, logs=logs, count=workers)
