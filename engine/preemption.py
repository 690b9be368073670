"""SIGTERM, which a cloud sends half a minute before it takes a machine away, and Ctrl-C.

While a stage is trained they are noticed between two steps, so that the state is saved; elsewhere
they end the program at once, for all that is written is written as a whole. No signal is lost in a
save. Of several processes, all stop at the same step.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from absl import logging

from engine import hosts, parallel

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_PAUSE = 0.05  # seconds, in which a finaliser ends
_PATIENCE = 25  # seconds from a signal to the end of the process, whatever it is doing


def install() -> None:
    """Lets signals end the program; to be called once, by programs only, in the main thread.

    The exit code is 143 after SIGTERM and 130 after SIGINT, as in a shell.
    """
    for number in _SIGNALS:
        signal.signal(number, _stop)
    # Python runs a handler when the main thread is back in Python, which a compilation can keep
    # it from for minutes. The byte that says that a signal came is written at once.
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_end_in_time, args=(reading,), daemon=True).start()


def leave_to_server() -> None:
    """Lets a server, which has handlers of its own while it runs, end by itself: undoes `install`.

    A signal that comes before or after that is passed over.
    """
    signal.set_wakeup_fd(-1)
    for number in _SIGNALS:
        signal.signal(number, lambda number, frame: None)


@contextmanager
def deferred() -> Iterator[Callable[[int], int]]:
    """Inside, a signal does not interrupt: `asked(step)` is its number once it came, else 0.

    It has to be called after the same steps by all processes. One that came too late to be asked
    for is obeyed at the end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda step: 0  # then signals are somebody else's
        return
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    several = parallel.process()[1] > 1
    # Of several, JAX has handlers of its own, by which they agree on a step.
    for number in () if several else _SIGNALS:
        signal.signal(number, lambda number, frame: came.append(number))

    def asked(step: int) -> int:
        if several:
            return signal.SIGTERM if hosts.preempted(step) else 0
        return came[0] if came else 0

    try:
        yield asked
    finally:
        for number, handler in before.items():
            # A second one would break into the end of the program.
            signal.signal(number, signal.SIG_IGN if came and handler is _stop else handler)
    if came:
        stop(came[0])


def stop(number: int, what: str = "") -> NoReturn:
    """Raises what ends the program after signal `number`: SystemExit, or KeyboardInterrupt."""
    name = signal.Signals(number).name
    logging.warning("Stopped by %s%s: the same command goes on.", name, what)
    _end(number)


def _end(number: int) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def send_again(lost: BaseException | None) -> None:
    """Sends a signal again whose exception was lost, for it came while a finaliser ran.

    To be called by `sys.unraisablehook`, which gets what nobody could catch.
    """
    ended_by: dict[type, int] = {SystemExit: signal.SIGTERM, KeyboardInterrupt: signal.SIGINT}
    if number := ended_by.get(type(lost)):
        signal.signal(number, lambda number, frame: _end(number))  # it has been said already
        threading.Timer(_PAUSE, os.kill, (os.getpid(), number)).start()


def _stop(number: int, frame: FrameType | None) -> None:
    for other in _SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    stop(number)


def _end_in_time(reading: int) -> None:
    number = os.read(reading, 1)[0]
    threading.Event().wait(_PATIENCE)
    text = f"error: {_PATIENCE} s after {signal.Signals(number).name} still at work: ended by force"
    os.write(2, f"{text}; the last checkpoint is kept, the same command goes on\n".encode())
    os._exit(128 + number)
