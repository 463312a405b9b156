"""The lines of ``metrics.jsonl``: a resumed run writes those of an unbroken one, and none is lost."""

import itertools
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from train.checkpoint import manifest, store
from train.run import claims, config, files


class Lines:
    """The file, as it would be after so many steps, had the run never stopped.

    Fields:
      aside: where the lines of a run are now whose checkpoints are gone; None where it need not be.

    Raises:
      CheckpointError: the file cannot be read or written.
    """

    def __init__(self, path: pathlib.Path, settings: config.Run, done: int, own: claims.Claims):
        self.path = path
        self.waiting: list[str] = []
        self.aside: pathlib.Path | None = None
        with manifest.kept(path):
            found = list(files.lines(path)) if path.exists() else []
            if done == 0 and any(_reported(line, settings) for line in found):
                names = (path.with_name(f"{path.name}.{i}") for i in itertools.count(1))
                self.aside = next(name for name in names if not name.exists())
                own(self.aside)
                path.rename(self.aside)
            files.replace(path, "".join(map(_text, _unbroken(found, settings, done))))

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line, and those that could not be added before; what cannot be written costs the run nothing."""
        self.waiting.append(_text(line))
        try:
            files.append(self.path, "".join(self.waiting))
            self.waiting = []
        except OSError as error:
            if len(self.waiting) == 1:
                store.warn(f"{self.path} cannot be written: {error.strerror}; its lines wait until it can")


def aligned(settings: config.Run, step: int) -> bool:
    """Whether an unbroken run writes a line after this step."""
    return step % settings.log_every == 0 or step % settings.every == 0


def tensorboard(folder: pathlib.Path, own: claims.Claims) -> Any:
    """A writer of the same lines for TensorBoard, where that is installed; else None."""
    try:
        import tensorboardX
    except ImportError:
        return None
    try:
        before = {*folder.iterdir()} if folder.is_dir() else set()
        board = tensorboardX.SummaryWriter(str(folder))
        for path in {*folder.iterdir()} - before:
            own.made(path)
        return board
    except Exception as error:
        store.warn(f"TensorBoard: {error}; nothing is written for it")
        return None


def _unbroken(found: Iterable[Mapping[str, Any]], settings: config.Run, done: int) -> Iterator[dict[str, Any]]:
    """The lines that a run would have written up to this step, had it never stopped."""
    for line in found:
        step = line.get("step")
        if isinstance(step, int) and step <= done and aligned(settings, step):
            report = step % settings.every == 0  # the last step of a shorter run was one too
            yield {name: value for name, value in line.items() if report or not name.startswith("heldout_")}


def _reported(line: Mapping[str, Any], settings: config.Run) -> bool:
    """Whether a checkpoint was due after this line."""
    step = line.get("step")
    return "heldout_loss" in line or (isinstance(step, int) and step % settings.every == 0)


def _text(line: Mapping[str, Any]) -> str:
    return json.dumps(line) + "\n"
