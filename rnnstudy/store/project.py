"""The folders of a project, found from its experiment file, whatever the working directory."""

import os
from pathlib import Path


class Project:
    """The folders of one project. Nothing is created before something is written.

    Attributes:
        root: the first folder at or above a starting point that holds `pyproject.toml` or `mlruns`.
        database: MLflow's sqlite database.
        artifacts: MLflow's artifacts.
        checkpoints: checkpoints of unfinished populations.
        claims: which launcher trains which run (see `rnnstudy.sweep.claims`).
        offline: runs that an unavailable store could not take: a folder for each sweep, for `rnnstudy sync`.
        logs: one log file for each worker.
        reports: the sources of the reports, and the committed reports.
        built_reports: the reports that `rnnstudy report` builds; ignored by git.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.mlruns = root / "mlruns"
        self.database = self.mlruns / "mlflow.db"
        self.artifacts = self.mlruns / "artifacts"
        self.checkpoints = self.mlruns / "checkpoints"
        self.claims = self.mlruns / "claims"
        self.offline = self.mlruns / "offline"
        self.logs = self.mlruns / "logs"
        self.reports = root / "reports"
        self.built_reports = root / "build" / "reports"

    def report_names(self) -> list[str]:
        """What `rnnstudy report` builds: reports, the page `explore`, `course` and its notebooks; in this order."""
        reports, notebooks = (
            [path.stem for path in sorted(self.reports.glob(f"{part}*.py"))] for part in ("", "course/")
        )
        course = ["course", *(f"course/{name}" for name in notebooks)] if notebooks else []
        return list(dict.fromkeys([*reports, "explore", *course]))


def find_project(start: Path | None = None) -> Project:
    """The project that `start` (a file or folder; the working directory when None) belongs to.

    `RNNSTUDY_HOME`, when set, overrides the search. Without `pyproject.toml` or `mlruns` above `start`, the root is the
    working directory if `start` lies within it, and otherwise the folder of `start`.
    """
    override = os.environ.get("RNNSTUDY_HOME")
    if override:
        return Project(Path(override).expanduser().resolve())
    path = (start or Path.cwd()).resolve()
    folder = path if path.is_dir() else path.parent
    for candidate in (folder, *folder.parents):
        if (candidate / "pyproject.toml").exists() or (candidate / "mlruns").is_dir():
            return Project(candidate)
    here = Path.cwd()
    return Project(here if folder.is_relative_to(here) else folder)
