"""Checkpoints: saved with orbax while training goes on, verified before use. The only importer of orbax.

A save: orbax writes into ``<step>.partial`` → fsync → manifest with the SHA-256 of every file → rename to ``<step>`` →
prune. Whenever the process dies, a ``<step>`` is whole; and a reader takes none that does not verify.
"""

import concurrent.futures
import contextlib
import functools
import logging
import os
import pathlib
import secrets
import shutil
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from train.checkpoint import manifest, tree_paths
from train.checkpoint import steps as saved_steps
from train.checkpoint.lock import WorkdirError, held, hold, lock, primary, resolve
from train.checkpoint.manifest import CheckpointError, NonFinite
from train.checkpoint.steps import warn
from train.checkpoint.tree_paths import digest
from train.run import files

__all__ = ["CheckpointError", "Checkpoints", "NonFinite", "Restored", "WorkdirError", "digest", "lock", "read", "warn"]


class Restored(NamedTuple):
    """What was saved: the state as numpy arrays, in the tree of the template, and the meta beside it."""

    step: int
    state: Any
    meta: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run, in ``workdir/checkpoints``; a context manager that holds the workdir's lock.

    The state is any tree of arrays. On several machines, where it is the same everywhere, only the first one writes.

    Args:
      workdir: the folder of the run.
      run_id: the name of the run; its steps carry it.
      keep_latest: how many of the newest steps stay, at least 1.
      keep_best: how many of those with the lowest score stay beside them.
      on_warning: called with a sentence, from whichever thread; writes to stderr by default.

    Raises:
      WorkdirError: another run holds the workdir, or it cannot be written to.
      CheckpointError: there are steps of another run, or of a newer version.
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
            self._own = {*self._scores}  # what proves to be of this run; nothing else is removed
            self._thread = stack.enter_context(concurrent.futures.ThreadPoolExecutor(1, "checkpoint"))
            self._resources = stack.pop_all()
        _orbax()

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
          step: newer than every step there is.
          state: a tree of arrays, all finite; it may be donated right after.
          meta: what JSON can hold; floats come back exactly. Part of the same step.
          score: lower is better; None or not finite never counts as best.

        Raises:
          NonFinite: naming the leaves that hold NaN or infinity.
          CheckpointError: an earlier save failed, or the step is not newer.
          ValueError: the state is not a tree of arrays, or meta does not survive JSON.
        """
        self.wait()
        state = tree_paths.on_host(state)
        if bad := tree_paths.not_finite(state):
            raise NonFinite(f"step {step} is not finite, and not saved: {', '.join(bad[:5])}{', …' * (len(bad) > 5)}")
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
        """Raise CheckpointError if the last save has failed, once, or the folder is another; without waiting."""
        if primary():
            self._check_held()
        if self._last is not None and self._last.done():
            self.wait()

    def wait(self) -> None:
        """Return when the last save is on disk for good; raise CheckpointError, once, if it failed."""
        if self._last is not None:
            concurrent.futures.wait([self._last])
            last, self._last = self._last, None
            last.result()

    def restore(self, template: Any) -> Restored | None:
        """The newest step whose files are what was saved, or None if there is no step at all.

        Damaged newer steps are reported and set aside as ``<step>.corrupt``.

        Args:
          template: the tree to fill, with arrays or ``jax.ShapeDtypeStruct`` as leaves.

        Raises:
          CheckpointError: there are steps but none can be used, or the template differs (leaf by leaf).
        """
        self.wait()
        steps = saved_steps.steps(self._root)
        load = lambda folder: _load(folder, template, self._run_id, partial=False)
        found, damage = saved_steps.first_sound(self._root, steps, load) if steps else (None, {})
        if jax.process_count() > 1:
            multihost_utils.assert_equal(found.step if found else -1, "the processes read different checkpoints")
        if found is None:
            return None
        saved_steps.report(damage, found.step, self._warn)
        if primary():
            for step in damage:
                saved_steps.set_aside(self._root / str(step))
                self._scores.pop(step, None)
            self._prune()
        return found

    def _commit(self, state: Any, record: manifest.Manifest) -> None:
        final = self._root / str(record.step)
        partial = self._root / f"{record.step}.partial.{secrets.token_hex(8)}"
        try:
            _write(partial, state)
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
        """Keep the latest, the best, and no more."""
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
    """A step of any run, also while it trains; nothing is written.

    Leaves the template lacks are not read: ``TrainState(None, None, ema_params, None)`` gets the parameters alone.

    Args:
      workdir: the folder of the run.
      template: the tree to fill, with arrays or ``jax.ShapeDtypeStruct`` as leaves.
      step: which one; of "latest" and "best" (lowest score) the first that is not damaged.
      run_id: what the run must be called, if that matters.
      on_warning: called with a sentence for each damaged step that was passed over.

    Raises:
      CheckpointError: there is no such step (yet), or none can be used, or the template asks for other leaves.
    """
    root = resolve(workdir) / "checkpoints"
    for _ in range(10):
        steps = saved_steps.choose(root, step)
        try:
            found, damage = saved_steps.first_sound(
                root, steps, lambda folder: _load(folder, template, run_id, partial=True)
            )
        except CheckpointError:
            if saved_steps.present(root, steps):
                raise
        else:
            if saved_steps.present(root, damage):
                saved_steps.report(damage, found.step, on_warning)
                return found
    raise CheckpointError(f"{root}: the steps are removed faster than they can be read; save less often")


def _load(folder: pathlib.Path, template: Any, run_id: str | None, partial: bool) -> Restored:
    record = manifest.read(folder, run_id)
    manifest.check_fit(folder, record, tree_paths.layout(template), partial=partial)
    manifest.verify(folder, record)
    arrays = _read(folder, record, template)
    state = jax.tree_util.tree_map_with_path(lambda keys, _: arrays[tree_paths.path(keys)], template)
    if not partial and digest(state) != record.digest:
        raise manifest.Damaged(f"{folder}: the arrays are not those that were saved")
    return Restored(record.step, state, record.meta)


@functools.cache
def _orbax() -> ModuleType:
    """The library, which only the functions from here on know."""
    import orbax.checkpoint  # half a second, so not before it is needed

    logging.getLogger("absl").setLevel(logging.CRITICAL)  # what it logs before it raises is a hundred lines
    return orbax.checkpoint


def _checkpointer() -> Any:
    ocp, me = _orbax(), jax.process_index()
    alone = ocp.options.MultiprocessingOptions(  # else orbax waits for the other processes, which do not write
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process{me}"
    )
    state = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    options = ocp.CompositeOptions(multiprocessing_options=alone)
    step = ocp.CompositeCheckpointHandler(state=state, composite_options=options)
    return ocp.Checkpointer(step, multiprocessing_options=alone)


def _write(folder: pathlib.Path, state: Any) -> None:
    ocp = _orbax()
    tree = tree_paths.nested({name: leaf for name, leaf in tree_paths.named(state).items() if leaf.size})
    with _checkpointer() as orbax:
        orbax.save(folder, args=ocp.args.Composite(state=ocp.args.PyTreeSave(tree)))


def _read(folder: pathlib.Path, record: manifest.Manifest, template: Any) -> dict[str, np.ndarray]:
    """The leaves of the template by name. Arrays without elements are not on disk: orbax refuses them."""
    ocp = _orbax()
    blank = tree_paths.zeros(template)
    tree = tree_paths.nested({name: leaf for name, leaf in blank.items() if leaf.size})
    handler = ocp.PyTreeCheckpointHandler
    manifest.check_words(folder, f"{handler.__module__}.{handler.__qualname__}")
    try:
        with _checkpointer() as orbax:
            manifest.check_stored(folder, record, orbax.metadata(folder).item_metadata.state.tree)
            args = ocp.args.Composite(state=ocp.args.PyTreeRestore(tree, partial_restore=True))
            state = orbax.restore(folder, args=args).state
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:
        raise CheckpointError(f"{folder} is whole but cannot be read: {manifest.brief(error)}") from error
    return blank | {name: np.asarray(leaf) for name, leaf in tree_paths.named(state).items()}
