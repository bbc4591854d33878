"""The command `sweep`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rnnstudy.cli.commands import app, list_
from rnnstudy.cli.common import FOLDER, INTERRUPTED, SOME_FAILED, make_console, say, which_runs
from rnnstudy.engines import ENGINE_NAMES, EngineName
from rnnstudy.spec import RequestError
from rnnstudy.store.project import find_project

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console
    from rich.table import Table

    from rnnstudy.sweep.summary import SweepSummary


@app.command()
@click.argument("file", type=FOLDER)
@which_runs
@click.option("--workers", type=int, default=None, help="Worker processes. Default: one per GPU, else one per core.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--engine",
    type=click.Choice(ENGINE_NAMES),
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
    engine: EngineName,
    dry_run: bool,
    rerun: bool,
    offline: Path | None,
    shard: str | None,
    storage: str | None,
    ray: str | None,
    gpus_per_worker: float,
    system_metrics: bool,
) -> None:
    """Train the runs of an experiment file that the store does not hold yet, or continue its searches.

    Ctrl-C is safe: checkpoints are saved, and the same command continues from there. Started several times at once,
    each sweep trains what the others do not.
    """
    from rnnstudy.cli.progress import SweepDisplay
    from rnnstudy.cli.tables import outcomes, search_outcomes
    from rnnstudy.sweep import Resources, Scale, launch, load_experiment
    from rnnstudy.sweep.experiment import select_runs

    resources = Resources(workers, device, engine, ray, gpus_per_worker, system_metrics)
    experiment, chosen, console = load_experiment(file), Scale(scale), make_console()
    if experiment.searches_here:
        options = {"--set": settings, "--only": only, "--shard": shard}
        options |= {"--dry-run": dry_run, "--rerun": rerun, "--offline": offline}
        if refused := [name for name, value in options.items() if value]:
            raise RequestError(
                f"{' and '.join(refused)} cannot be given: {file} defines a search, which chooses its own runs"
            )
        from rnnstudy.search.session import launch_search

        with SweepDisplay(console) as display:
            search = launch_search(experiment, scale=chosen, storage=storage, resources=resources, listener=display)
        _finish(console, search.sweep, search_outcomes(search, find_project(experiment.path)))
        return
    if storage is not None:
        raise RequestError(f"--storage is where searches are stored, and {file} defines none")
    if shard:
        runs = select_runs(experiment, chosen, settings, only, shard)
        if not runs:
            say(f"shard {shard} has nothing to do: the sweep has fewer populations than shards")
            return
        only, shard = tuple(run.key for run in runs), None
    if dry_run:
        click.get_current_context().invoke(list_, file=file, scale=scale, settings=settings, only=only)
        return
    with SweepDisplay(console) as display:
        summary = launch(
            experiment,
            scale=chosen,
            settings=settings,
            only=only,
            rerun=rerun,
            offline=offline,
            resources=resources,
            listener=display,
        )
    _finish(console, summary, outcomes(summary))


def _finish(console: "Console", summary: "SweepSummary", parts: "Iterable[Table | str]") -> None:
    """Print how a sweep or a search ended, and exit with its code."""
    if summary.interrupted:
        say(f"interrupted: {len(summary.ended)} runs ended; the same command continues")
        sys.exit(INTERRUPTED)
    for part in parts:
        say(part) if isinstance(part, str) else console.print(part)
    if summary.failed or summary.given_up or summary.fell_back_to_files:
        sys.exit(SOME_FAILED)
