"""Reports of a run: lines on the terminal, ``metrics.jsonl`` and TensorBoard."""

import contextlib
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import tqdm

from train.checkpoint import store
from train.run import claims, config, files, metrics_file, sweep, terminal

CLOCK_FIELDS = ("seconds", "steps_per_second")
"""Fields of ``metrics.jsonl`` that differ between a run and its repetition."""


def log(text: str) -> None:
    """Print a line on the first process; a closed pipe is ignored."""
    if jax.process_index() == 0:
        terminal.write_line(text)


def log_start(workdir: pathlib.Path, step: int | None, is_new: bool) -> None:
    """Say where a run resumes, or that a run without checkpoints begins again."""
    if step is not None:
        log(f"going on from step {step}")
    elif not is_new:
        log(f"there is no checkpoint in {workdir}, so that the run starts at step 0")


class MetricAverage:
    """Averages of the metrics since the last line of ``metrics.jsonl``.

    The sums are part of a checkpoint, so that a resumed run writes the same lines as an unbroken one.

    Raises:
      CheckpointError: the saved value does not hold sums.
    """

    def __init__(self, saved: Mapping[str, Any] | None = None):
        try:
            self.count = int(saved["count"]) if saved is not None else 0
            self.sums = {name: float(total) for name, total in saved["sums"].items()} if saved is not None else {}
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise store.CheckpointError(f"the checkpoint does not hold the sums of its metrics: {error}") from error

    def add(self, metrics: Mapping[str, np.ndarray]) -> None:
        """Add the metrics [num] of consecutive steps."""
        self.count += len(metrics["loss"])
        for name, values in metrics.items():
            for value in values.tolist():  # one by one: the sum must not depend on how steps are grouped into calls
                self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """The mean of every metric by name."""
        return {name: total / self.count for name, total in self.sums.items()}

    def to_json(self) -> dict[str, Any]:
        """The value that a checkpoint keeps."""
        return {"count": self.count, "sums": self.sums}


class RunLog:
    """Writer of ``metrics.jsonl``, and of the same lines on the terminal and, where installed, in TensorBoard."""

    def __init__(self, workdir: pathlib.Path, settings: config.Run, step: int, owned: claims.Claims):
        self.path = workdir / metrics_file.NAME
        self.total, self.every = settings.steps, settings.every
        self.silent = jax.process_index() != 0
        self.bar: tqdm.tqdm | None = None
        self.board: Any = None
        self.started = time.monotonic()
        self.compiled: set[int] = set()
        self.timed_steps, self.timed_seconds = 0, 0.0
        if self.silent:
            return
        self.lines = metrics_file.MetricsFile(self.path, settings, step, owned)
        if self.lines.aside is not None:
            log(f"the lines of before are kept in {self.lines.aside}")
        if sys.stdout is not None and sys.stdout.isatty():
            self.bar = tqdm.tqdm(total=settings.steps, initial=step, unit="step", dynamic_ncols=True)
        self.board = metrics_file.tensorboard(workdir / "tensorboard", owned)

    @contextlib.contextmanager
    def timed(self, num: int) -> Iterator[None]:
        """Time a compiled call of ``num`` steps; the first call of a size compiles, and does not count as speed."""
        before = time.monotonic()
        yield
        if num in self.compiled:
            self.timed_steps += num
            self.timed_seconds += time.monotonic() - before
        self.compiled.add(num)
        self._show(lambda bar: bar.update(num))

    def write(self, metrics: Mapping[str, Any]) -> None:
        """Add a line with these metrics and the fields of the clock."""
        if self.silent:
            return
        speed = self.timed_steps / self.timed_seconds if self.timed_steps else None
        line = {**metrics, "seconds": round(time.monotonic() - self.started, 3)}
        if speed:
            line["steps_per_second"] = round(speed, 3)
        self.timed_steps, self.timed_seconds = 0, 0.0
        self.lines.append(line)
        self._add_to_board(line)
        self._print(line, speed)

    def _add_to_board(self, line: Mapping[str, Any]) -> None:
        if self.board is None:
            return
        try:
            for name, value in line.items():
                if not isinstance(value, dict):
                    self.board.add_scalar(name, value, line["step"])
        except Exception as error:
            store.warn(f"TensorBoard: {error}; nothing more is written for it")
            self.board = None

    def _print(self, line: Mapping[str, Any], speed: float | None) -> None:
        """Print the losses of a line: beside the progress bar, or at each report where there is no bar."""
        labels = {"loss": "loss", "heldout_loss": "held out"}
        text = "  ".join(f"{label} {line[name]:.4f}" for name, label in labels.items() if name in line)
        if losses := line.get("heldout_members", {}).get("loss"):
            text += f" ± {sweep.standard_error(np.array(losses)):.2g} over {len(losses)} members"
        if self.bar is not None:
            self._show(lambda bar: bar.set_postfix_str(text))
        elif line["step"] % self.every == 0 or line["step"] == self.total:
            pace = f"  {speed:.3g} steps/s" if speed else ""
            log(f"step {line['step']:>{len(str(self.total))}}/{self.total}  {text}{pace}")

    def heldout_members(self, step: int) -> dict[str, np.ndarray]:
        """The held-out metrics [m] of a step by name; empty for a run without an ensemble."""
        line = next((line for line in files.lines(self.path) if line.get("step") == step), {})
        return {name: np.array(values) for name, values in line.get("heldout_members", {}).items()}

    def close(self) -> None:
        """Close the progress bar."""
        self._show(lambda bar: bar.close())

    def _show(self, act: Callable[[tqdm.tqdm], Any]) -> None:
        if self.bar is not None:
            with contextlib.suppress(OSError, ValueError):  # the terminal has gone
                act(self.bar)
