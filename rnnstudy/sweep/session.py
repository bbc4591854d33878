"""A whole sweep as one function: `launch`, which the command line, notebooks and tests call."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rnnstudy.engines import EngineName
from rnnstudy.engines.choice import require
from rnnstudy.run import Run
from rnnstudy.spec import RequestError
from rnnstudy.store.mlflow_store import Store, open_store
from rnnstudy.store.mlflow_tracker import MlflowTracker
from rnnstudy.store.offline import OfflineFolder, OfflineTracker
from rnnstudy.store.project import Project, find_project
from rnnstudy.store.run_description import SweepInfo
from rnnstudy.store.stored_run import RunIndex
from rnnstudy.store.system_metrics import Machine
from rnnstudy.store.tracker import Tracker
from rnnstudy.store.writer import FallbackTracker, Writer
from rnnstudy.sweep.claims import Claims
from rnnstudy.sweep.experiment import Experiment, load_experiment, select_runs
from rnnstudy.sweep.grids import Scale
from rnnstudy.sweep.launcher import Launcher
from rnnstudy.sweep.plan import Plan, make_plan
from rnnstudy.sweep.queue import WorkQueue
from rnnstudy.sweep.sharing import Sharing
from rnnstudy.sweep.summary import ProgressListener, Silent, SweepSummary
from rnnstudy.sweep.workers import ProcessPool, WorkerPool
from rnnstudy.training.devices import default_workers, resolve_device, worker_devices


@dataclass(frozen=True)
class Resources:
    """What trains the runs of a sweep.

    Attributes:
        workers: the most worker processes at once; None for one per GPU, else one per core.
        device: `auto`, `cpu`, `cuda` or `cuda:N`; workers are spread over all GPUs where none is named.
        engine: see `rnnstudy.engines`.
        ray: the address of a Ray cluster, `auto` or `local`; None for processes of this machine.
        gpus_per_worker: with Ray, GPUs for each worker, such as 0.25.
        system_metrics: whether the use of CPU, memory and GPU is logged to each run.
    """

    workers: int | None = None
    device: str = "auto"
    engine: EngineName = "auto"
    ray: str | None = None
    gpus_per_worker: float = 0.0
    system_metrics: bool = False

    def __post_init__(self) -> None:
        """Raises `RequestError` for what this machine does not have."""
        if self.workers is not None and self.workers < 1:
            raise RequestError(f"--workers is {self.workers}; it must be at least 1")
        if self.ray is None:
            require(self.engine, resolve_device(self.device))
            if self.gpus_per_worker:
                raise RequestError(
                    "--gpus-per-worker belongs to --ray; on one machine, --workers says how many share its GPUs"
                )
        elif self.device == "auto" and not self.gpus_per_worker:
            object.__setattr__(self, "device", "cpu")

    def pool(self, experiment: Path, project: Project) -> WorkerPool:
        """The workers. Raises `RequestError` when no Ray cluster answers, or it has no room for a worker."""
        if self.ray is None:
            count = self.workers or default_workers(self.device)
            return ProcessPool(count, worker_devices(self.device), experiment, self.engine, project.logs)
        from rnnstudy.sweep.ray_workers import RayPool

        return RayPool(
            self.ray,
            self.gpus_per_worker,
            experiment=experiment,
            device=self.device,
            engine=self.engine,
            logs=project.logs,
            count=self.workers,
        )


def launch(
    experiment: Experiment | Path | str,
    *,
    scale: Scale = Scale.DESK,
    settings: Sequence[str] = (),
    only: Sequence[str] = (),
    shard: str | None = None,
    rerun: bool = False,
    offline: Path | None = None,
    resources: Resources | None = None,
    listener: ProgressListener | None = None,
) -> SweepSummary:
    """Train the runs of an experiment file that the store does not hold yet; a later call continues.

    Args:
        experiment: the file, or what `load_experiment` returned for it.
        scale: how much of the experiment is run.
        settings: fields set in every run, for example `training.steps=500`.
        only: beginnings of keys; without any, all runs.
        shard: `3/16`: only this part of the sweep.
        rerun: forget the runs and train them again.
        offline: a folder to write to in place of the store, for `rnnstudy sync`.
        resources: what trains; without, a process for each core or GPU of this machine.
        listener: is told how the sweep goes on.

    Returns how the sweep ended, with a table of the results. Raises an `RnnstudyError`, with nothing half-written, for
    an experiment, option or store that cannot be used. A stop signal ends the sweep in order: `interrupted` is then
    True.
    """
    resources, listener = resources or Resources(), listener or Silent()
    experiment = experiment if isinstance(experiment, Experiment) else load_experiment(Path(experiment))
    runs = select_runs(experiment, scale, settings, only, shard)
    project = find_project(experiment.path)
    pool = resources.pool(experiment.path, project)
    info = sweep_info(experiment, scale, resources, [part for one in settings for part in ("--set", one)])
    index = OfflineFolder(offline) if offline else project_store(project, listener)
    tracker = OfflineTracker(index, info) if isinstance(index, OfflineFolder) else MlflowTracker(index, info)
    mark_interrupted(index, listener)
    # Made before the plan, so that no run can end unnoticed in between.
    claims = Claims(project.claims)
    if rerun:
        claims.require_free(run.key for run in runs)
        index.forget([run.key for run in runs])
    plan = make_plan(runs, index, project.checkpoints, pool.count, rerun, pool.planning_device)
    for line in [*plan.warnings, plan.headline(pool.count)]:
        listener.message(line)
    listener.planned(plan.assignments)
    fallback = None if offline else project.offline / info.sweep
    summary = train_queue(plan.queue(), index, tracker, claims, pool, project, info, fallback, resources, listener)
    summary.runs, summary.names, summary.given_up = runs, plan.names, plan.given_up
    summary.project, summary.offline = project, offline
    return summary


def train_queue(
    work: WorkQueue,
    index: RunIndex,
    tracker: Tracker,
    claims: Claims,
    pool: WorkerPool,
    project: Project,
    info: SweepInfo,
    fallback: Path | None,
    resources: Resources,
    listener: ProgressListener,
) -> SweepSummary:
    """Train what a work queue hands out. `fallback`: the folder that records go to if the store stays away."""

    def replan(free: Sequence[Run]) -> Plan:
        return make_plan(free, index, project.checkpoints, pool.count, device=pool.planning_device)

    files = fallback and FallbackTracker(str(fallback), lambda: OfflineTracker(OfflineFolder(fallback), info))
    machine = Machine() if resources.system_metrics else None
    sharing = Sharing(claims, index, replan)
    return Launcher(work, pool, Writer(tracker, files or None), sharing, project, listener, machine).run()


def sweep_info(experiment: Experiment, scale: Scale, resources: Resources, options: Sequence[str]) -> SweepInfo:
    """What the runs of a sweep have in common, among it the command that launches it."""
    return SweepInfo(
        experiment.name,
        experiment_file=str(experiment.file),
        command=shlex.join(["rnnstudy", "sweep", str(experiment.file), "--scale", scale.value, *options]),
        engine=resources.engine,
        hypothesis=experiment.hypothesis,
    )


def project_store(project: Project, listener: ProgressListener) -> Store:
    """The project's store, ready to be written. The listener is told where a new one lies."""
    new = not Store(project).exists
    store = open_store(project)
    if new:
        listener.message(f"a new store: {store.database or store.uri}")
    return store


def mark_interrupted(index: RunIndex, listener: ProgressListener) -> None:
    """Mark the runs that a dead process left as running, and tell the listener how many there were."""
    if count := index.mark_interrupted():
        listener.message(f"{count} runs that a dead process had left as running are now marked interrupted")
