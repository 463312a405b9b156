"""The pictures of a report, drawn when all else is saved: one that fails is a warning, and no signal waits for them."""

import errno
import pathlib
import threading
from collections.abc import Callable, Sequence

from train.checkpoint import manifest, store
from train.run import claims, files, plots, process

PATIENCE = 0.1  # seconds between two looks at the signal


def draw(step: int, parts: Sequence[Callable[[], None]], own: claims.Claims, stopping: Callable[[], bool]) -> None:
    """Draw each part; what fails is named on stderr. Returns at once when the run is to stop, whatever is being drawn.

    Args:
      step: whose pictures they are.
      parts: of them.
      own: what the run owns: only such files are written.
      stopping: whether a signal has come.

    Raises:
      NonFinite: images that were drawn are not finite.
    """
    failed: list[BaseException] = []
    left = threading.Event()  # from then on nothing is written

    def claim(path: pathlib.Path) -> None:
        if left.is_set():
            raise OSError(errno.ECANCELED, "the run has ended", str(path))
        own(path)

    def work() -> None:
        with files.claimed(claim):
            for part in parts:
                try:
                    part()
                except process.NonFinite as error:
                    failed.append(error)
                except Exception as error:
                    if left.is_set():
                        return
                    what = "" if isinstance(error, plots.PictureError) else f"pictures of step {step}: "
                    store.warn(f"{what}{_reason(error)}; the run goes on without")
        if not left.is_set():
            own.draw(step)

    if stopping():
        return
    worker = threading.Thread(target=work, name="pictures", daemon=True)  # a signal handler wants this thread free
    worker.start()
    try:
        while worker.is_alive() and not stopping():
            worker.join(PATIENCE)
    finally:
        if worker.is_alive():
            left.set()
    if failed:
        raise failed[0]


def _reason(error: Exception) -> str:
    if isinstance(error, plots.PictureError):
        return str(error)
    return manifest.brief(error) + (f" ({error.filename})" if isinstance(error, OSError) and error.filename else "")
