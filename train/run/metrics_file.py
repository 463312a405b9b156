"""The file ``metrics.jsonl``: a resumed run writes the same lines as an unbroken one, and no line is lost."""

import itertools
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from train.checkpoint import manifest, store
from train.run import claims, config, files

NAME = "metrics.jsonl"


class MetricsFile:
    """The lines of a run, cut back to a step: what an unbroken run would have written up to that step.

    Attributes:
      aside: file that now holds the lines of a run whose checkpoints are gone; None where no lines were set aside.

    Raises:
      CheckpointError: the file cannot be read or written.
    """

    def __init__(self, path: pathlib.Path, settings: config.Run, step: int, owned: claims.Claims):
        self.path = path
        self.waiting: list[str] = []
        self.aside: pathlib.Path | None = None
        with manifest.as_checkpoint_error(path):
            lines = list(files.lines(path)) if path.exists() else []
            if step == 0 and any(_is_report(line, settings) for line in lines):
                names = (path.with_name(f"{path.name}.{i}") for i in itertools.count(1))
                self.aside = next(name for name in names if not name.exists())
                owned(self.aside)
                path.rename(self.aside)
            files.replace(path, "".join(map(_text, _unbroken(lines, settings, step))))

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line, after the lines that could not be added before; a full disk does not end the run."""
        self.waiting.append(_text(line))
        try:
            files.append(self.path, "".join(self.waiting))
            self.waiting = []
        except OSError as error:
            if len(self.waiting) == 1:
                store.warn(f"{self.path} cannot be written: {error.strerror}; its lines wait until it can")


def is_boundary(settings: config.Run, step: int) -> bool:
    """True if an unbroken run writes a line after this step."""
    return step % settings.log_every == 0 or step % settings.every == 0


def tensorboard(folder: pathlib.Path, owned: claims.Claims) -> Any:
    """Open a TensorBoard writer for the same lines; None where TensorBoard is not installed."""
    try:
        import tensorboardX
    except ImportError:
        return None
    try:
        before = {*folder.iterdir()} if folder.is_dir() else set()
        board = tensorboardX.SummaryWriter(str(folder))
        for path in {*folder.iterdir()} - before:
            owned.add_written(path)
        return board
    except Exception as error:
        store.warn(f"TensorBoard: {error}; nothing is written for it")
        return None


def _unbroken(lines: Iterable[Mapping[str, Any]], settings: config.Run, last_step: int) -> Iterator[dict[str, Any]]:
    """The lines that an unbroken run would have written up to this step."""
    for line in lines:
        step = line.get("step")
        if isinstance(step, int) and step <= last_step and is_boundary(settings, step):
            report = step % settings.every == 0  # the last step of a shorter run was a report too
            yield {name: value for name, value in line.items() if report or not name.startswith("heldout_")}


def _is_report(line: Mapping[str, Any], settings: config.Run) -> bool:
    """True if a checkpoint was due after this line."""
    step = line.get("step")
    return "heldout_loss" in line or (isinstance(step, int) and step % settings.every == 0)


def _text(line: Mapping[str, Any]) -> str:
    return json.dumps(line) + "\n"
