"""Signals: SIGTERM as a flag that training polls, and a watchdog for calls that do not return.

Python runs the handler of a signal in the main thread, between two instructions of Python: while the main thread waits
inside XLA, no handler runs. So a second thread learns of every signal from the C-level handler, and ends the process
where the main thread does not answer in time.
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
from types import FrameType

import jax
from jax.experimental import multihost_utils

GRACE = 20.0
"""Seconds that the main thread has to answer a signal; or twice the longest time between two polls of the flag."""

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_answered = threading.Event()
_longest = [0.0]  # seconds between two polls of the flag


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Make SIGINT, and a SIGTERM inside ``on_sigterm``, end the process even if the main thread never answers.

    The exit code is then 130 or 143, and a line on stderr says where the main thread waits. A second signal ends the
    process at once.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    except ValueError:  # not the main thread, which alone handles signals
        os.close(reader)
        os.close(writer)
        yield
        return
    # a shell starts commands in the background with SIGINT ignored
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
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
    """Flag of a signal that asks the run to stop: ``stop()`` for any machine, ``stop.here()`` for this one."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.polled = time.monotonic()

    def here(self) -> bool:
        """True if this process was asked to stop."""
        now = time.monotonic()
        self.polled, _longest[0] = now, max(_longest[0], now - self.polled)
        return bool(self.asked)

    def __call__(self) -> bool:
        """True if any process was asked to stop. Every process must call this after the same step."""
        asked = self.here()
        if jax.process_count() > 1:
            return bool(multihost_utils.process_allgather(jax.numpy.asarray(asked)).any())
        return asked


@contextlib.contextmanager
def on_sigterm(restart: bool = False) -> Iterator[Stop]:
    """Make SIGTERM set a flag, which the yielded ``Stop`` reads; a second SIGTERM ends the process at once.

    Args:
      restart: True if the command deletes the run in the workdir, so that the same command would not resume it.
    """
    stop = Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.asked:
            os._exit(128 + number)
        stop.asked.append(number)
        _answered.set()

    try:
        previous = signal.signal(signal.SIGTERM, handle)
    except ValueError:  # not the main thread, which alone handles signals
        yield stop
        return
    try:
        yield stop
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(f"interrupted; {resume_hint(restart)} from the last checkpoint") from error
    finally:
        signal.signal(signal.SIGTERM, previous)


def resume_hint(restart: bool) -> str:
    """The command that resumes a stopped run, for a message."""
    return "the same command without --restart goes on" if restart else "the same command goes on"


def _interrupt(number: int, frame: FrameType | None) -> None:
    _answered.set()
    raise KeyboardInterrupt


def _watch(reader: int) -> None:
    """Wait for a signal, then for an answer; without one, or at a second signal, end the process."""
    number, end = 0, math.inf
    while True:
        waiting = number and not _answered.is_set()
        if select.select([reader], [], [], 0.1 if waiting else None)[0]:
            received = os.read(reader, 1)
            if not received:
                return os.close(reader)
            if received[0] in (signal.SIGINT, signal.SIGTERM):
                if number:
                    os._exit(128 + received[0])
                number, end = received[0], time.monotonic() + _patience()
        elif waiting and time.monotonic() > end:
            _give_up(number)


def _patience() -> float:
    return max(GRACE, 2 * _longest[0])


def _give_up(number: int) -> None:
    text = (
        f"{signal.Signals(number).name}: no answer for {_patience():.0f} s from {_position()}; ended without saving. "
        "Checkpoints are untouched\n"
    )
    with contextlib.suppress(OSError):
        os.write(2, text.encode(errors="replace"))
    os._exit(128 + number)


def _position() -> str:
    """The innermost line of this project that the main thread is in, and the line of a library that it called."""
    frame = inner = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None and not pathlib.Path(frame.f_code.co_filename).is_relative_to(_ROOT):
        frame = frame.f_back
    lines = [f"{each.f_code.co_filename}:{each.f_lineno} ({each.f_code.co_name})" for each in (frame, inner) if each]
    return ", in ".join(dict.fromkeys(lines)).replace(f"{_ROOT}{os.sep}", "")
