"""Checkpoints: saved with orbax while training goes on, verified before use.

A save: orbax writes into ``<step>.partial`` → fsync → manifest with the SHA-256 of every file → rename to ``<step>`` →
prune. Whenever the process dies, every ``<step>`` is whole; and a reader refuses a step that does not verify.
"""

import concurrent.futures
import contextlib
import os
import pathlib
import secrets
import shutil
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
from jax.experimental import multihost_utils

from train.checkpoint import arrays, manifest, tree_paths
from train.checkpoint import steps as saved_steps
from train.checkpoint.lock import WorkdirError, held, hold, lock, primary, resolve
from train.checkpoint.manifest import CheckpointError, NonFiniteState
from train.checkpoint.steps import warn
from train.checkpoint.tree_paths import digest
from train.run import files

__all__ = [
    "CheckpointError",
    "Checkpoints",
    "NonFiniteState",
    "Restored",
    "WorkdirError",
    "digest",
    "lock",
    "read",
    "warn",
]


class Restored(NamedTuple):
    """A step that was read.

    Attributes:
      step: number of the step.
      state: state as numpy arrays, in the tree of the template.
      meta: values that were saved beside the state.
    """

    step: int
    state: Any
    meta: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run, in ``workdir/checkpoints``; a context manager that holds the workdir's lock.

    The state is any tree of arrays. On several machines, where it is the same everywhere, only the first one writes.

    Args:
      workdir: folder of the run.
      run_id: name of the run, written into its steps.
      keep_latest: number of newest steps to keep, at least 1.
      keep_best: number of steps with the lowest scores to keep besides.
      on_warning: function of a sentence, called from any thread; by default it prints to stderr.

    Raises:
      WorkdirError: another run holds the workdir, or the workdir cannot be written to.
      CheckpointError: there are steps of another run, or of a newer version of this program.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        *,
        run_id: str,
        keep_latest: int = 2,
        keep_best: int = 1,
        on_warning: saved_steps.Warn = warn,
    ):
        if keep_latest < 1 or keep_best < 0:
            raise ValueError(f"keep_latest: expected ≥ 1, got {keep_latest}; keep_best: expected ≥ 0, got {keep_best}")
        self._run_id, self._keep_latest, self._keep_best, self._warn = run_id, keep_latest, keep_best, on_warning
        self._last: concurrent.futures.Future | None = None
        with contextlib.ExitStack() as stack:
            self._root = stack.enter_context(hold(workdir)) / "checkpoints"
            if primary():
                for path in saved_steps.prepare(self._root):
                    self._warn(f"{path} had the name of a step and is none; passed over")
            self._scores = saved_steps.scores(self._root, run_id)
            self._own = {*self._scores}  # steps that prove to be of this run; no others are removed
            self._thread = stack.enter_context(concurrent.futures.ThreadPoolExecutor(1, "checkpoint"))
            self._resources = stack.pop_all()
        arrays.library()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        with self._resources:
            try:
                self.wait()
            except CheckpointError as failure:
                if error is None:
                    raise
                self._warn(str(failure))

    def save(self, step: int, state: Any, meta: Mapping[str, Any], *, score: float | None = None) -> None:
        """Copy the state to host memory and return; the rest happens in the background, one save at a time.

        Saving the newest step again does nothing if the state is the same.

        Args:
          step: number of the step, above every existing one.
          state: tree of arrays, all finite; it may be donated right after.
          meta: values that JSON can hold, saved with the state; floats come back exactly.
          score: held-out score, lower is better; None or a score that is not finite never counts as best.

        Raises:
          NonFiniteState: leaves hold NaN or infinity; the message names them.
          CheckpointError: an earlier save failed, or the step is not newer.
          ValueError: the state is not a tree of arrays, or JSON does not return ``meta`` unchanged.
        """
        self.wait()
        state = tree_paths.on_host(state)
        if bad := tree_paths.not_finite(state):
            raise NonFiniteState(
                f"step {step} is not finite, and not saved: {', '.join(bad[:5])}{', …' * (len(bad) > 5)}"
            )
        record = manifest.draft(self._run_id, step, meta, score)
        if not primary():
            return
        self._check_held()
        newest = max(saved_steps.steps(self._root), default=-1)
        if step == newest and manifest.read(self._root / str(step)).digest == digest(state):
            return
        if step <= newest:
            raise CheckpointError(f"step {step} is not newer than {self._root / str(newest)}; restore that one first")
        self._last = self._thread.submit(self._commit, state, record)

    def _check_held(self) -> None:
        if not held(self._root.parent):
            raise CheckpointError(
                f"workdir {self._root.parent} was removed or replaced while this run went on; nothing more is written"
            )

    def check(self) -> None:
        """Raise CheckpointError, once, if the last save has failed or the folder was replaced; without waiting."""
        if primary():
            self._check_held()
        if self._last is not None and self._last.done():
            self.wait()

    def wait(self) -> None:
        """Wait until the last save is durably on disk; raise CheckpointError, once, if it failed."""
        if self._last is not None:
            concurrent.futures.wait([self._last])
            last, self._last = self._last, None
            last.result()

    def restore(self, template: Any) -> Restored | None:
        """Read the newest step whose files verify; None if there are no steps.

        Damaged newer steps are reported and set aside as ``<step>.corrupt``.

        Args:
          template: tree to fill, with arrays or ``jax.ShapeDtypeStruct`` as leaves.

        Raises:
          CheckpointError: every step is damaged, or the template differs from the state, leaf by leaf.
        """
        self.wait()
        steps = saved_steps.steps(self._root)
        load = lambda folder: _load(folder, template, self._run_id, partial=False)
        restored, damage = saved_steps.load_first_intact(self._root, steps, load) if steps else (None, {})
        if jax.process_count() > 1:
            multihost_utils.assert_equal(restored.step if restored else -1, "the processes read different checkpoints")
        if restored is None:
            return None
        saved_steps.report(damage, restored.step, self._warn)
        if primary():
            for step in damage:
                saved_steps.set_aside(self._root / str(step))
                self._scores.pop(step, None)
            self._prune()
        return restored

    def _commit(self, state: Any, record: manifest.Manifest) -> None:
        final = self._root / str(record.step)
        partial = self._root / f"{record.step}.partial.{secrets.token_hex(8)}"
        try:
            arrays.write(partial, state)
            manifest.seal(partial, record._replace(digest=digest(state), layout=tree_paths.layout(state)))
            self._check_held()
            os.rename(partial, final)
            files.sync(self._root)
        except Exception as error:
            for path in self._root.glob(f"{partial.name}*"):
                shutil.rmtree(path, ignore_errors=True)
            if isinstance(error, CheckpointError):
                raise
            reason = manifest.brief(error)
            raise CheckpointError(f"{final} could not be saved: {reason}; the steps before it are intact") from error
        self._scores[record.step] = record.score
        self._own.add(record.step)
        self._prune()

    def _prune(self) -> None:
        """Remove every step of this run except the latest and the best."""
        self._check_held()
        latest = sorted(self._scores)[-self._keep_latest :]
        best = saved_steps.best(self._scores)[: self._keep_best]
        for step in self._own.intersection(saved_steps.steps(self._root)) - {*latest, *best}:
            self._scores.pop(step, None)
            try:
                saved_steps.remove(self._root / str(step))
            except OSError as error:
                self._warn(f"{self._root / str(step)} could not be removed: {error.strerror}")


def read(
    workdir: str | os.PathLike,
    template: Any,
    *,
    step: int | Literal["latest", "best"] = "latest",
    run_id: str | None = None,
    on_warning: saved_steps.Warn = warn,
) -> Restored:
    """Read a step of any run, also while the run trains; nothing is written.

    Leaves that the template lacks are not read: ``TrainState(None, None, ema_params, None)`` reads the average
    parameters alone.

    Args:
      workdir: folder of the run.
      template: tree to fill, with arrays or ``jax.ShapeDtypeStruct`` as leaves.
      step: number of the step; "latest" or "best" (lowest score) for the first such step that is not damaged.
      run_id: required name of the run; None accepts any run.
      on_warning: function of a sentence, called for each damaged step that is passed over.

    Raises:
      CheckpointError: there is no such step (yet), every such step is damaged, or the template has other leaves.
    """
    root = resolve(workdir) / "checkpoints"
    for _ in range(10):
        steps = saved_steps.choose(root, step)
        try:
            restored, damage = saved_steps.load_first_intact(
                root, steps, lambda folder: _load(folder, template, run_id, partial=True)
            )
        except CheckpointError:
            if saved_steps.exist(root, steps):
                raise
        else:
            if saved_steps.exist(root, damage):
                saved_steps.report(damage, restored.step, on_warning)
                return restored
    raise CheckpointError(f"{root}: the steps are removed faster than they can be read; save less often")


def _load(folder: pathlib.Path, template: Any, run_id: str | None, partial: bool) -> Restored:
    record = manifest.read(folder, run_id)
    manifest.check_fit(folder, record, tree_paths.layout(template), partial=partial)
    manifest.verify(folder, record)
    leaves = arrays.read(folder, record, template)
    state = jax.tree_util.tree_map_with_path(lambda keys, _: leaves[tree_paths.path(keys)], template)
    if not partial and digest(state) != record.digest:
        raise manifest.Damaged(f"{folder}: the arrays are not those that were saved")
    return Restored(record.step, state, record.meta)
