import contextlib
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


STOPPING = tuple(signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if name in signal.Signals.__members__)
"""What asks a command to end in good order: Ctrl-C, a kill, a closed terminal (which Windows does not tell)."""


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM, and SIGHUP when the terminal is closed, end as Ctrl-C does.

    The first signal alone is heard: a second one (a shell passes the terminal's SIGHUP on) must not keep the server
    from being ended. A signal that this process was started to ignore, as by nohup, stays ignored.
    """
    heard = False

    def interrupt(number: int, frame: object) -> None:
        nonlocal heard
        if not heard:
            heard = True
            raise KeyboardInterrupt

    previous = {number: signal.getsignal(number) for number in STOPPING}
    for number, handler in previous.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
