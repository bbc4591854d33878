"""The command `sweep`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click
from click.core import ParameterSource

from rnnstudy.cli.commands import app, list_
from rnnstudy.cli.common import (
    FOLDER,
    INTERRUPTED,
    SOME_FAILED,
    as_json,
    make_console,
    print_json,
    print_parts,
    storage_option,
    which_runs,
)
from rnnstudy.engines import ENGINE_NAMES, EngineName
from rnnstudy.spec import RequestError
from rnnstudy.store.project import find_project

if TYPE_CHECKING:
    from rnnstudy.sweep.summary import SweepSummary


@app.command(short_help="Train the runs of an experiment file.")
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
@click.option("--published", type=FOLDER, metavar="DIR", help="Do not train what the committed results in DIR have.")
@storage_option
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="Train on a Ray cluster: auto (the one this machine belongs to), local, or an address. Needs rnnstudy[ray].",
)
@click.option("--gpus-per-worker", type=float, default=0.0, help="With --ray: GPUs for each worker, such as 0.25.")
@click.option("--system-metrics", is_flag=True, help="Log CPU, memory and GPU use to each run, every 10 s.")
@click.option("--quiet", is_flag=True, help="Print nothing but what went wrong.")
@as_json
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
    published: Path | None,
    storage: str | None,
    ray: str | None,
    gpus_per_worker: float,
    system_metrics: bool,
    quiet: bool,
    json_: bool,
) -> None:
    """Train the runs of an experiment file that the store does not hold yet, or continue its searches.

    Ctrl-C is safe: checkpoints are saved, and the same command continues from there. Started several times at once,
    each sweep trains what the others do not.
    """
    from rnnstudy.cli.progress import SweepDisplay
    from rnnstudy.cli.tables import next_steps, outcomes, studies_rows, studies_shown, summary_document
    from rnnstudy.sweep import Resources, Scale, launch, load_experiment
    from rnnstudy.sweep.experiment import select_runs
    from rnnstudy.sweep.summary import SweepSummary

    resources = Resources(workers, device, engine, ray, gpus_per_worker, system_metrics)
    experiment, chosen = load_experiment(file), Scale(scale)
    # With --json, standard output holds the document alone.
    display = SweepDisplay(make_console(stderr=json_), quiet=quiet)
    project = find_project(experiment.path)
    if experiment.searches_here:
        options = {"--set": settings, "--only": only, "--shard": shard, "--published": published}
        options |= {"--dry-run": dry_run, "--rerun": rerun, "--offline": offline}
        if refused := [name for name, value in options.items() if value]:
            raise RequestError(
                f"{' and '.join(refused)} cannot be given: {file} defines a search, which chooses its own runs"
            )
        from rnnstudy.search.session import launch_search

        with display:
            search = launch_search(experiment, scale=chosen, storage=storage, resources=resources, listener=display)
        if json_:
            print_json(summary_document(search.sweep) | {"studies": studies_rows(search.studies, project)})
        elif not quiet and not search.sweep.interrupted:
            stand = studies_shown(search.studies, project, make_console())
            print_parts(*stand, "next: rnnstudy studies  ·  rnnstudy ui")
        _finish(search.sweep, stderr=json_ or quiet)
    named = click.get_current_context().get_parameter_source("storage")
    if storage is not None and named is not ParameterSource.ENVIRONMENT:
        raise RequestError(f"--storage is where searches are stored, and {file} defines none")
    if shard or published is not None:
        runs = select_runs(experiment, chosen, settings, only, shard)
        if not runs:
            display.message(f"shard {shard} has nothing to do: the sweep has fewer populations than shards")
        elif published is not None:
            from rnnstudy.results.archive import Archive

            there, wanted = Archive.open(published).complete_keys(), len(runs)
            runs = [run for run in runs if run.key not in there]
            display.message(f"{wanted - len(runs)} of {wanted} runs are in {published}, and are not trained again")
        if not runs:
            if json_:
                print_json(summary_document(SweepSummary()))
            return
        # From here on by key: a part of these would be another one.
        only = tuple(run.key for run in runs)
    if dry_run:
        click.get_current_context().invoke(list_, file=file, scale=scale, settings=settings, only=only, json_=json_)
        return
    with display:
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
    if json_:
        print_json(summary_document(summary))
    elif not quiet and not summary.interrupted:
        print_parts(*outcomes(summary), next_steps(experiment.name, summary))
    _finish(summary, stderr=json_ or quiet)


def _finish(summary: "SweepSummary", *, stderr: bool) -> NoReturn:
    """Say what went wrong in a sweep or a search, and exit with its code."""
    from rnnstudy.cli.tables import troubles
    from rnnstudy.run import runs_in_words

    if summary.interrupted:
        click.echo(f"interrupted: {runs_in_words(len(summary.ended))} ended; the same command continues", err=stderr)
        sys.exit(INTERRUPTED)
    for line in troubles(summary):
        click.echo(line, err=stderr)
    sys.exit(SOME_FAILED if summary.failed or summary.given_up or summary.fell_back_to_files else 0)
