"""A whole search as one function: `launch_search`, which the command line, notebooks and tests call."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from rnnstudy.errors import without_passwords
from rnnstudy.search.definition import searches_of
from rnnstudy.search.queue import SearchQueue, claim_studies
from rnnstudy.search.storage_file import require_writable_file
from rnnstudy.search.studies import StudyStatus, connect_storage, storage_errors, study_status
from rnnstudy.store.mlflow_database import sqlite_file
from rnnstudy.sweep.claims import Claims
from rnnstudy.sweep.experiment import Experiment, load_experiment
from rnnstudy.sweep.grids import Scale
from rnnstudy.sweep.session import Resources, Session
from rnnstudy.sweep.summary import ProgressListener, Silent, SweepSummary


@dataclass(frozen=True)
class SearchSummary:
    """How a search ended: its runs, as for a sweep, and the status of each of its studies."""

    sweep: SweepSummary
    studies: list[StudyStatus]


def launch_search(
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
    options = ["--storage", without_passwords(storage)] if storage else []
    session = Session(experiment, scale, options, resources, listener)
    connected = connect_storage(session.project, storage)
    if (file := sqlite_file(connected.url)) is not None:
        require_writable_file(file)
    store = session.open_store()
    with contextlib.closing(Claims(session.project.claims)) as claims:
        # Before the studies are opened: trials that look as if a dead process had left them may be another launcher's.
        claim_studies(claims, connected, [definition.name for definition in definitions])
        session.mark_interrupted(store)
        work = SearchQueue(definitions, connected, store, session.project, workers=session.pool.count)
        trials = sum(study.trials_left for study in work.studies)
        listener.message(f"{len(definitions)} studies: {trials} trials to go, at most {work.runs_left} runs")
        listener.planned([], work.runs_left)
        summary = session.train(work, store, claims)
        with storage_errors(connected.url):
            for line in (line for study in work.studies for line in study.remarks()):
                listener.message(line)
    return SearchSummary(summary, [study_status(study.study) for study in work.studies])
