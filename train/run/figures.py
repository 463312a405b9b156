"""The figures of a report, written after all else is saved.

A figure that fails is a warning. A signal does not wait for figures.
"""

import errno
import pathlib
import threading
from collections.abc import Callable, Sequence

from train.checkpoint import manifest, store
from train.run import claims, files, process, sheets

POLL = 0.1
"""Seconds between two looks at the signal."""


def write(step: int, writers: Sequence[Callable[[], None]], owned: claims.Claims, stopping: Callable[[], bool]) -> None:
    """Call each writer; a failure becomes a warning. Return at once when a signal asks the run to stop.

    Args:
      step: step of the report.
      writers: functions that write figures.
      owned: files that the run owns; only such files are written.
      stopping: answer to whether a signal has come.

    Raises:
      NonFinite: images of a figure are not finite.
    """
    if stopping():
        return
    work = _Work(step, writers, owned)
    worker = threading.Thread(target=work.run, name="figures", daemon=True)  # a signal handler needs this thread free
    worker.start()
    try:
        while worker.is_alive() and not stopping():
            worker.join(POLL)
    finally:
        if worker.is_alive():
            work.abandoned.set()
    if work.not_finite:
        raise work.not_finite[0]


class _Work:
    """The figures of one report, written by a thread; once abandoned, the thread writes no more files."""

    def __init__(self, step: int, writers: Sequence[Callable[[], None]], owned: claims.Claims):
        self.step, self.writers, self.owned = step, writers, owned
        self.not_finite: list[process.NonFinite] = []
        self.abandoned = threading.Event()

    def run(self) -> None:
        with files.claimed(self._claim):
            for writer in self.writers:
                try:
                    writer()
                except process.NonFinite as error:
                    self.not_finite.append(error)
                except Exception as error:
                    if self.abandoned.is_set():
                        return
                    prefix = "" if isinstance(error, sheets.PictureError) else f"pictures of step {self.step}: "
                    store.warn(f"{prefix}{_reason(error)}; the run goes on without")
        if not self.abandoned.is_set():
            self.owned.add_figures(self.step)

    def _claim(self, path: pathlib.Path) -> None:
        if self.abandoned.is_set():
            raise OSError(errno.ECANCELED, "the run has ended", str(path))
        self.owned(path)


def _reason(error: Exception) -> str:
    if isinstance(error, sheets.PictureError):
        return str(error)
    return manifest.brief(error) + (f" ({error.filename})" if isinstance(error, OSError) and error.filename else "")
