"""A whole search as one function: `launch`, which the command line, notebooks and tests call."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from rnnstudy.search.definition import searches_of
from rnnstudy.search.queue import SearchQueue, claim_studies
from rnnstudy.search.studies import StudyStatus, connect_storage, study_status, without_password
from rnnstudy.store.mlflow_tracker import MlflowTracker
from rnnstudy.store.project import find_project
from rnnstudy.sweep.claims import Claims
from rnnstudy.sweep.experiment import Experiment, load_experiment
from rnnstudy.sweep.grids import Scale
from rnnstudy.sweep.session import Resources, mark_interrupted, project_store, sweep_info, train_queue
from rnnstudy.sweep.summary import ProgressListener, Silent, SweepSummary


@dataclass(frozen=True)
class SearchSummary:
    """How a search ended: its runs, as for a sweep, and the status of each of its studies."""

    sweep: SweepSummary
    studies: list[StudyStatus]


def launch(
    experiment: Experiment | Path | str,
    *,
    scale: Scale = Scale.DESK,
    storage: str | None = None,
    resources: Resources | None = None,
    listener: ProgressListener | None = None,
) -> SearchSummary:
    """Run the searches of an experiment file until all trials are judged; a later call continues.

    `storage`: the URL of Optuna's storage; None for `mlruns/optuna.db`. The other arguments are those of
    `sweep.launch`. Raises an `RnnstudyError` for an experiment, storage or store that cannot be used, and for a study
    that another process is searching.
    """
    resources, listener = resources or Resources(), listener or Silent()
    experiment = experiment if isinstance(experiment, Experiment) else load_experiment(Path(experiment))
    definitions = searches_of(experiment, scale)
    project = find_project(experiment.path)
    pool = resources.pool(experiment.path, project)
    connected = connect_storage(project, storage)
    info = sweep_info(experiment, scale, resources, ["--storage", without_password(storage)] if storage else [])
    store = project_store(project, listener)
    tracker = MlflowTracker(store, info)
    with contextlib.closing(Claims(project.claims)) as claims:
        # Before the studies are opened: trials that look as if a dead process had left them may be another launcher's.
        claim_studies(claims, connected, [definition.name for definition in definitions])
        mark_interrupted(store, listener)
        work = SearchQueue(definitions, connected, store, project, workers=pool.count)
        trials = sum(study.trials_left for study in work.studies)
        listener.message(f"{len(definitions)} studies: {trials} trials to go, at most {work.runs_left} runs")
        listener.planned([], work.runs_left)
        fallback = project.offline / info.sweep
        summary = train_queue(work, store, tracker, claims, pool, project, info, fallback, resources, listener)
    return SearchSummary(summary, [study_status(study.study) for study in work.studies])
