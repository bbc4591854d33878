"""The process that owns a run or a claim, and whether it is still alive."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

TOLERANCE_SECONDS = 2.0
"""How far apart two readings of one process's start time may be."""


@dataclass(frozen=True)
class Owner:
    """A process of a machine. Its start time distinguishes it from a later process with the same number.

    Attributes:
        host: name of the machine.
        pid: number of the process there.
        started: when it started, seconds since 1970.
    """

    host: str
    pid: int
    started: float

    @staticmethod
    def this() -> "Owner":
        """The current process."""
        import psutil

        return Owner(socket.gethostname(), os.getpid(), round(psutil.Process().create_time(), 2))

    @staticmethod
    def tagged(tags: Mapping[str, str]) -> "Owner | None":
        """The process in the tags of a stored run, or None."""
        try:
            return Owner(
                tags["rnnstudy.host"], int(tags["rnnstudy.pid"]), float(tags.get("rnnstudy.pid_started", "nan"))
            )
        except (KeyError, ValueError):
            return None

    def tags(self) -> dict[str, str]:
        """The tags of a run that this process writes, so that a later process can see whether it is still alive."""
        return {
            "rnnstudy.host": self.host,
            "rnnstudy.pid": str(self.pid),
            "rnnstudy.pid_started": f"{self.started:.2f}",
        }

    @property
    def here(self) -> bool:
        """Whether it is a process of this machine."""
        return self.host == socket.gethostname()

    @property
    def alive(self) -> bool:
        """Whether a process of this machine is alive."""
        import psutil

        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < TOLERANCE_SECONDS
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return True

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"
