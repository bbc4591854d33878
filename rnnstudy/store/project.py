"""The folders of a project, found from its experiment file, whatever the working directory."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Project:
    """The folders of one project. Nothing is created before something is written.

    Attributes:
        root: the first folder at or above a starting point that holds `pyproject.toml` or `mlruns`.
    """

    root: Path

    @property
    def mlruns(self) -> Path:
        return self.root / "mlruns"

    @property
    def database(self) -> Path:
        """MLflow's sqlite database."""
        return self.mlruns / "mlflow.db"

    @property
    def artifacts(self) -> Path:
        """MLflow's artifacts."""
        return self.mlruns / "artifacts"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints of unfinished populations."""
        return self.mlruns / "checkpoints"

    @property
    def claims(self) -> Path:
        """Which launcher trains which run (see `rnnstudy.sweep.claims`)."""
        return self.mlruns / "claims"

    @property
    def offline(self) -> Path:
        """Runs that an unavailable store could not take: a folder for each sweep, for `rnnstudy sync`."""
        return self.mlruns / "offline"

    @property
    def logs(self) -> Path:
        """One log file for each worker."""
        return self.mlruns / "logs"

    @property
    def reports(self) -> Path:
        """The sources of the reports, and the committed reports."""
        return self.root / "reports"

    @property
    def built_reports(self) -> Path:
        """The reports that `rnnstudy report` builds; ignored by git."""
        return self.root / "build" / "reports"


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
