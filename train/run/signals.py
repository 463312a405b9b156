"""Signals: SIGTERM as a flag that training looks at, and a watch over calls that do not come back.

Python runs the handler of a signal in the main thread, and only there between two of its own instructions: while that
thread waits inside XLA, no handler runs. So a thread beside it is told of every signal by the system's own handler, and
ends the process where the main thread does not answer in time.
"""

import contextlib
import math
import os
import pathlib
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

GRACE = 20.0
"""Seconds that the main thread has to answer a signal, or twice the longest time between two looks at the flag."""

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_answered = threading.Event()
_longest = [0.0]  # seconds between two looks at the flag


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Inside, SIGINT and a SIGTERM that ``on_sigterm`` takes end the process even if the main thread never answers.

    Then the exit code is 130 or 143, and a line on stderr says where it waits. A second signal ends it at once.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    except ValueError:  # not the main thread: signals are somebody else's
        os.close(reader)
        os.close(writer)
        yield
        return
    ignored = (
        signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    )  # as for a command that a shell starts in the background
    before = None if ignored else signal.signal(signal.SIGINT, _interrupt)
    threading.Thread(target=_watch, args=(reader,), name="signals", daemon=True).start()
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)
        signal.set_wakeup_fd(wakeup)
        os.close(writer)


class Stop:
    """Whether a signal has asked the run to stop: ``stop()`` on any machine, ``stop.here()`` on this one."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.looked = time.monotonic()

    def here(self) -> bool:
        """Whether this process was asked."""
        now = time.monotonic()
        self.looked, _longest[0] = now, max(_longest[0], now - self.looked)
        return bool(self.asked)

    def __call__(self) -> bool:
        """Whether any process was asked; all of them are to ask, and stop after the same step."""
        asked = self.here()
        if jax.process_count() > 1:
            return bool(multihost_utils.process_allgather(jax.numpy.asarray(asked)).any())
        return asked


@contextlib.contextmanager
def on_sigterm(restart: bool = False) -> Iterator[Stop]:
    """Inside, SIGTERM only sets a flag, which the yielded ``Stop`` reads; a second one ends the process at once.

    Args:
      restart: whether the command that runs deletes what there is; then it is not the one to go on with.
    """
    stop = Stop()

    def handle(number, frame):
        if stop.asked:
            os._exit(128 + number)
        stop.asked.append(number)
        _answered.set()

    try:
        previous = signal.signal(signal.SIGTERM, handle)
    except ValueError:  # not the main thread: signals are somebody else's
        yield stop
        return
    try:
        yield stop
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(f"interrupted; {resume_hint(restart)} from the last checkpoint") from error
    finally:
        signal.signal(signal.SIGTERM, previous)


def resume_hint(restart: bool) -> str:
    """Which command goes on with a run that was stopped."""
    return "the same command without --restart goes on" if restart else "the same command goes on"


def _interrupt(number, frame):
    _answered.set()
    raise KeyboardInterrupt


def _watch(reader: int) -> None:
    """Wait for a signal, then for an answer; without one, or at a second signal, end the process."""
    number, end = 0, math.inf
    while True:
        waiting = number and not _answered.is_set()
        if select.select([reader], [], [], 0.1 if waiting else None)[0]:
            told = os.read(reader, 1)
            if not told:
                return os.close(reader)
            if told[0] in (signal.SIGINT, signal.SIGTERM):
                if number:
                    os._exit(128 + told[0])
                number, end = told[0], time.monotonic() + _patience()
        elif waiting and time.monotonic() > end:
            _give_up(number)


def _patience() -> float:
    return max(GRACE, 2 * _longest[0])


def _give_up(number: int) -> None:
    text = (
        f"{signal.Signals(number).name}: no answer for {_patience():.0f} s from {_place()}; ended without saving. "
        "Checkpoints are untouched\n"
    )
    with contextlib.suppress(OSError):
        os.write(2, text.encode(errors="replace"))
    os._exit(128 + number)


def _place() -> str:
    """The innermost line of ours that the main thread is in, and the line of others that it called."""
    frame = inner = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None and not pathlib.Path(frame.f_code.co_filename).is_relative_to(_ROOT):
        frame = frame.f_back
    places = [f"{each.f_code.co_filename}:{each.f_lineno} ({each.f_code.co_name})" for each in (frame, inner) if each]
    return ", in ".join(dict.fromkeys(places)).replace(f"{_ROOT}{os.sep}", "")
