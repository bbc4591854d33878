"""The signals by which a command is asked to stop, and what it does about them."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

STOP_SIGNALS = tuple(
    signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if name in signal.Signals.__members__
)
"""Ctrl-C, a kill, and a closed terminal (which Windows does not report)."""


@contextlib.contextmanager
def handled(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Within the block, `handler` takes every stop signal, except those that this process was started to ignore, as by
    nohup. Does nothing outside the main thread, where Python allows no handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


@contextlib.contextmanager
def stop_twice(stop: Callable[[], None], stopping: Callable[[], bool]) -> Iterator[Callable[[], bool]]:
    """Within the block, the first stop signal calls `stop`; a second Ctrl-C or kill while `stopping` raises
    `KeyboardInterrupt`. Yields a function that says whether the second has come.

    A closed terminal may be reported twice, by the system and by the shell; that is not a second request.
    """
    received: list[int] = []

    def receive(number: int, frame: object) -> None:
        if received and number not in (signal.SIGINT, signal.SIGTERM):
            return
        received.append(number)
        if stopping() and len(received) == 2:
            raise KeyboardInterrupt
        stop()

    with handled(receive):
        yield lambda: len(received) > 1


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within the block, every stop signal raises `KeyboardInterrupt`, once.

    Later signals are ignored: a second one (a shell passes the terminal's SIGHUP on) must not interrupt the clean-up.
    """
    received = False

    def interrupt(number: int, frame: object) -> None:
        nonlocal received
        if not received:
            received = True
            raise KeyboardInterrupt

    with handled(interrupt):
        yield
