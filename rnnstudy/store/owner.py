"""The process that owns a run or a claim, and whether it is still alive."""

import functools
import hashlib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TOLERANCE_SECONDS = 2.0
"""How far apart two readings of one process's start time may be, where it depends on the clock."""

INITIAL_PID_NAMESPACE = "pid:[4026531836]"
"""Linux's name of the process numbers of the machine itself: outside any container."""


@dataclass(frozen=True)
class Owner:
    """A process of a machine. Its start time distinguishes it from a later process with the same number.

    Two containers often share a host name and the numbers of their processes; `space` tells them apart. Neither it nor
    the start time beside it changes when the clock is set.

    Attributes:
        host: name of the machine.
        pid: number of the process there.
        started: when it started, in seconds: since the machine's boot where there is a `space`, otherwise since 1970.
        space: where the number means something: Linux's boot id, its process namespace, and a name of the machine that
            stays when it starts again (`-` in a container). Empty on other systems and for older versions.
    """

    host: str
    pid: int
    started: float
    space: str = ""

    @staticmethod
    def this() -> "Owner":
        """The current process."""
        space, pid = this_space(), os.getpid()
        started = _start_since_boot(pid) if space else None
        if started is None:
            import psutil

            return Owner(socket.gethostname(), pid, round(psutil.Process().create_time(), 2))
        return Owner(socket.gethostname(), pid, started, space)

    @staticmethod
    def tagged(tags: Mapping[str, str]) -> "Owner | None":
        """The process in the tags of a stored run, or None."""
        try:
            pid, started = int(tags["rnnstudy.pid"]), float(tags.get("rnnstudy.pid_started", "nan"))
            return Owner(tags["rnnstudy.host"], pid, started, tags.get("rnnstudy.pid_space", ""))
        except (KeyError, ValueError):
            return None

    def tags(self) -> dict[str, str]:
        """The tags of a run that this process writes, so that a later process can see whether it is still alive."""
        tags = {
            "rnnstudy.host": self.host,
            "rnnstudy.pid": str(self.pid),
            "rnnstudy.pid_started": f"{self.started:.2f}",
            "rnnstudy.pid_space": self.space,
        }
        return {name: value for name, value in tags.items() if value}

    @property
    def alive(self) -> bool | None:
        """Whether the process is alive; None where that cannot be seen from here: another machine or container."""
        if not self.space:
            return self._alive_by_name() if self.host == socket.gethostname() else None
        here = this_space()
        if self.space != here:
            return False if self._before_restart(here) else None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except (PermissionError, OverflowError):
            """Another user's, or no number of a process; the start time decides."""
        started = _start_since_boot(self.pid)
        # A system may hide the processes of other users.
        return None if started is None else started == self.started

    def _before_restart(self, here: str) -> bool:
        """Whether this machine has started again since: nothing that ran before is left."""
        (boot, *same), (boot_here, *same_here) = f"{self.space} ".split(" "), f"{here} ".split(" ")
        return boot != boot_here and same == same_here and "-" not in same and self.host == socket.gethostname()

    def _alive_by_name(self) -> bool:
        """The same by host name and clock, for systems and older versions that tell no more."""
        import psutil

        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < TOLERANCE_SECONDS
            return same and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.NoSuchProcess, ValueError, OverflowError):
            return False
        except psutil.AccessDenied:
            return True

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@functools.cache
def this_space() -> str:
    """The `space` of the current process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except (OSError, ValueError):
        return ""
    return f"{boot} {namespace} {_machine() if namespace == INITIAL_PID_NAMESPACE else '-'}"


def _machine() -> str:
    """A name of this machine that stays the same; `-` where the system has none."""
    try:
        identity = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return "-"
    # The id itself is confidential; a name that is made from it is not.
    return hashlib.sha256(f"rnnstudy {identity}".encode()).hexdigest()[:16] if len(identity) == 32 else "-"


def _start_since_boot(pid: int) -> float | None:
    """When a process started, in seconds after the boot; −1 for one that has ended, None where Linux does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        # Beyond its number and name: the state first, the start in clock ticks as the twentieth.
        return -1.0 if fields[0] in "ZX" else round(int(fields[19]) / os.sysconf("SC_CLK_TCK"), 2)
    except (OSError, ValueError, IndexError):
        return None
