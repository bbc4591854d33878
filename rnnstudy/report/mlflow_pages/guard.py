"""Runs a command, and ends it with all of its children when whoever started this program is gone.

It is started as a program of its own with a pipe to its standard input, which closes with the process that holds the
other end, also when that process is killed.
"""

import contextlib
import subprocess
import sys
import threading

import psutil


def run(command: list[str]) -> int:
    """Run `command` until it ends, or until the standard input closes. Returns its exit code."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    ending = threading.Event()

    def watch() -> None:
        while sys.stdin.buffer.read(1024):
            pass
        ending.set()
        end(process.pid)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    code = process.wait()
    if ending.is_set():
        # The command is gone before its children are: without this, the guard would leave them behind.
        watching.join()
    return code


def end(pid: int) -> None:
    """End a process and its children: MLflow's server is a child of its command, which is one of the guard."""
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(family, timeout=10)
    for process in alive:
        process.kill()


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
