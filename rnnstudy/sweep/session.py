"""A whole sweep as one function: `launch`, which the command line, notebooks and tests call."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rnnstudy.engines import EngineName
from rnnstudy.engines.choice import require
from rnnstudy.run import Run, runs_in_words
from rnnstudy.spec import RequestError, RnnstudyError
from rnnstudy.store import mlflow_store, mlflow_tracker, system_metrics, writer
from rnnstudy.store.offline import OfflineFolder, OfflineTracker, run_folders
from rnnstudy.store.project import Project, find_project
from rnnstudy.store.recognised import adopt, share
from rnnstudy.store.run_description import SweepInfo
from rnnstudy.store.stored_run import RunIndex
from rnnstudy.store.sync import sync
from rnnstudy.sweep.claims import Claims
from rnnstudy.sweep.experiment import Experiment, load_experiment, run_names, select_runs
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

        return RayPool(self.ray, self, experiment, project.logs)


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
    options = [part for setting in settings for part in ("--set", setting)]
    session = Session(experiment, scale, options, resources, listener)
    project, pool = session.project, session.pool
    index = OfflineFolder(offline) if offline else session.open_store()
    if isinstance(index, mlflow_store.Store) and (count := adopt(index, runs)):
        listener.message(
            f"a new key for {runs_in_words(count)} of the store: where the texts lie is no part of it any more"
        )
    session.mark_interrupted(index)
    # Made before the plan, so that no run can end unnoticed in between.
    claims = Claims(project.claims)
    if rerun:
        claims.require_free(run.key for run in runs)
        index.forget([run.key for run in runs])
    # A run has one name, whichever part of its experiment is launched.
    names = run_names(experiment, scale, settings) if only or shard else None
    plan = make_plan(runs, index, project.checkpoints, pool.count, rerun, pool.planning_device, names)
    if isinstance(index, mlflow_store.Store) and (count := share(index, plan.complete, session.info.experiment)):
        listener.message(f"{count} of these runs were trained by another experiment, and belong to both from now on")
    damaged = index.damaged([run.key for run in runs]).values()
    for line in [*damaged, *plan.warnings, plan.headline(pool.count, pool.engine, pool.planning_device)]:
        listener.message(line)
    listener.planned(plan.assignments)
    summary = session.train(plan.queue(), index, claims)
    summary.runs, summary.names, summary.given_up = runs, plan.names, plan.given_up
    summary.project, summary.offline = project, offline
    return summary


class Session:
    """What a sweep or a search is launched with: its project and workers, and what its runs have in common.

    `options` follow the experiment file and its scale in the command that launches it.
    """

    def __init__(
        self,
        experiment: Experiment,
        scale: Scale,
        options: Sequence[str],
        resources: Resources,
        listener: ProgressListener,
    ) -> None:
        self.project = find_project(experiment.path)
        self.pool = resources.pool(experiment.path, self.project)
        self.info = SweepInfo(
            experiment.name,
            experiment_file=str(experiment.file),
            command=shlex.join(["rnnstudy", "sweep", str(experiment.file), "--scale", scale.value, *options]),
            engine=resources.engine,
            hypothesis=experiment.hypothesis,
        )
        self._resources, self._listener = resources, listener

    def open_store(self) -> mlflow_store.Store:
        """The project's store, ready to be written. The listener is told where a new one lies."""
        new = not mlflow_store.Store(self.project).exists
        store = mlflow_store.open_store(self.project)
        if new:
            self._listener.message(f"a new store: {store.database or store.uri}")
        return store

    def mark_interrupted(self, index: RunIndex) -> None:
        """Mark the runs that a dead process left as running, and tell the listener how many there were."""
        if count := index.mark_interrupted():
            self._listener.message(
                f"marked interrupted: {runs_in_words(count)} that a dead process had left as running"
            )

    def train(self, work: WorkQueue, index: mlflow_store.Store | OfflineFolder, claims: Claims) -> SweepSummary:
        """Train what a work queue hands out. If the store stays away, records go to the project's offline folder."""
        project, info, pool = self.project, self.info, self.pool

        def replan(free: Sequence[Run]) -> Plan:
            return make_plan(free, index, project.checkpoints, pool.count, device=pool.planning_device)

        if isinstance(index, OfflineFolder):
            tracker, files = OfflineTracker(index, info), None
        else:
            folder = project.offline / info.sweep
            tracker = mlflow_tracker.MlflowTracker(index, info)
            files = writer.FallbackTracker(str(folder), lambda: OfflineTracker(OfflineFolder(folder), info))
        machine = system_metrics.Machine() if self._resources.system_metrics else None
        sharing = Sharing(claims, index, replan)
        written = writer.Writer(tracker, files, may_write=claims.confirm)
        summary = Launcher(work, pool, written, sharing, project, self._listener, machine).run()
        if summary.fell_back_to_files and isinstance(index, mlflow_store.Store):
            summary.fell_back_to_files = not self._brought_back(project.offline / info.sweep, index)
        return summary

    def _brought_back(self, folder: Path, store: mlflow_store.Store) -> bool:
        """Copy what went to files into a store that may be back by now. Returns whether nothing is left to copy."""
        if not run_folders(folder):
            return True
        remedy = f"when the store is back, run: rnnstudy sync {folder}"
        try:
            report = sync([folder], store)
        except RnnstudyError as error:
            self._listener.message(f"{error}; {runs_in_words(len(run_folders(folder)))} in files: {remedy}")
            return False
        for key, reason in report.refused.items():
            self._listener.message(f"{key} is in files alone: {reason}; {remedy}")
        copied = len(report.added) + len(report.updated)
        self._listener.message(f"the store is back: {runs_in_words(copied)} copied into it from {folder}")
        return not report.refused
