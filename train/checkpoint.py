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
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from train import leaves, manifest, shelf, streams
from train.leaves import digest
from train.manifest import CheckpointError, NonFinite
from train.workdir import WorkdirError, hold, lock, primary

__all__ = ["CheckpointError", "Checkpoints", "NonFinite", "Restored", "WorkdirError", "digest", "lock", "read"]

Warn = Callable[[str], None]


class Restored(NamedTuple):
    """What was saved: the state as numpy arrays, in the tree of the template, and the meta beside it."""

    step: int
    state: Any
    meta: dict[str, Any]


def _to_stderr(message: str) -> None:
    streams.tell(f"warning: {message}", sys.stderr)


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
        on_warning: Warn = _to_stderr,
    ):
        if keep_latest < 1 or keep_best < 0:
            raise ValueError(f"keep_latest: expected ≥ 1, got {keep_latest}; keep_best: expected ≥ 0, got {keep_best}")
        self._run_id, self._keep_latest, self._keep_best, self._warn = run_id, keep_latest, keep_best, on_warning
        self._last: concurrent.futures.Future | None = None
        with contextlib.ExitStack() as stack:
            self._root = stack.enter_context(hold(workdir)) / "checkpoints"
            if primary():
                self._root.mkdir(exist_ok=True)
                shelf.clean(self._root)
            self._scores = shelf.scores(self._root, run_id)
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
        state = leaves.on_host(state)
        if bad := leaves.not_finite(state):
            raise NonFinite(f"step {step} is not finite, and not saved: {', '.join(bad[:5])}{', …' * (len(bad) > 5)}")
        record = manifest.draft(self._run_id, step, meta, score)
        if not primary():
            return
        newest = max(shelf.steps(self._root), default=-1)
        if step == newest and manifest.read(self._root / str(step)).digest == digest(state):
            return
        if step <= newest:
            raise CheckpointError(f"step {step} is not newer than {self._root / str(newest)}; restore that one first")
        self._last = self._thread.submit(self._commit, state, record)

    def check(self) -> None:
        """Raise CheckpointError, once, if the save in the background has failed; does not wait for it."""
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
        steps = shelf.steps(self._root)
        found, damage = _first_sound(self._root, steps, template, self._run_id) if steps else (None, {})
        if jax.process_count() > 1:
            multihost_utils.assert_equal(found.step if found else -1, "the processes read different checkpoints")
        if found is None:
            return None
        _report(damage, found, self._warn)
        if primary():
            for step in damage:
                shelf.set_aside(self._root / str(step))
                self._scores.pop(step, None)
            self._prune()
        return found

    def _commit(self, state: Any, record: manifest.Manifest) -> None:
        final = self._root / str(record.step)
        partial = self._root / f"{record.step}.partial"
        try:
            _write(partial, state)
            manifest.seal(partial, record._replace(digest=digest(state), layout=leaves.layout(state)))
            os.rename(partial, final)
            manifest.sync(self._root)
        except Exception as error:
            shelf.clean(self._root)
            reason = manifest.brief(error)
            raise CheckpointError(f"{final} could not be saved: {reason}; the steps before it are intact") from error
        self._scores[record.step] = record.score
        self._prune()

    def _prune(self) -> None:
        """Keep the latest, the best, and no more."""
        latest = sorted(self._scores)[-self._keep_latest :]
        best = shelf.best(self._scores)[: self._keep_best]
        for step in set(shelf.steps(self._root)) - {*latest, *best}:
            self._scores.pop(step, None)
            try:
                shelf.remove(self._root / str(step))
            except OSError as error:
                self._warn(f"{self._root / str(step)} could not be removed: {error.strerror}")


def read(
    workdir: str | os.PathLike,
    template: Any,
    *,
    step: int | Literal["latest", "best"] = "latest",
    run_id: str | None = None,
    on_warning: Warn = _to_stderr,
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
    root = pathlib.Path(os.path.abspath(workdir)) / "checkpoints"
    for _ in range(10):
        steps = shelf.choose(root, step)
        try:
            found, damage = _first_sound(root, steps, template, run_id, partial=True)
        except CheckpointError:
            if shelf.present(root, steps):
                raise
        else:
            if shelf.present(root, damage):
                _report(damage, found, on_warning)
                return found
    raise CheckpointError(f"{root}: the steps are removed faster than they can be read; save less often")


def _first_sound(
    root: pathlib.Path, steps: Sequence[int], template: Any, run_id: str | None, *, partial: bool = False
) -> tuple[Restored, dict[int, str]]:
    """The first of the steps whose files are what was saved; and what is wrong with those before it."""
    damage: dict[int, str] = {}
    for step in steps:
        try:
            with shelf.reading(root / str(step)):
                return _load(root / str(step), template, run_id, partial), damage
        except manifest.Damaged as error:
            damage[step] = str(error)
    raise CheckpointError(f"{root}: every checkpoint is damaged:\n  " + "\n  ".join(damage.values()))


def _report(damage: Mapping[int, str], found: Restored, warn: Warn) -> None:
    for step, reason in damage.items():
        warn(f"checkpoint of step {step} is damaged ({reason}); using step {found.step} instead")


def _load(folder: pathlib.Path, template: Any, run_id: str | None, partial: bool) -> Restored:
    record = manifest.read(folder, run_id)
    manifest.check_fit(folder, record, leaves.layout(template), partial=partial)
    manifest.verify(folder, record)
    arrays = _read(folder, record, template)
    state = jax.tree_util.tree_map_with_path(lambda keys, _: arrays[leaves.path(keys)], template)
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
    tree = leaves.nested({name: leaf for name, leaf in leaves.named(state).items() if leaf.size})
    with _checkpointer() as orbax:
        orbax.save(folder, args=ocp.args.Composite(state=ocp.args.PyTreeSave(tree)))


def _read(folder: pathlib.Path, record: manifest.Manifest, template: Any) -> dict[str, np.ndarray]:
    """The leaves of the template by name. Arrays without elements are not on disk: orbax refuses them."""
    ocp = _orbax()
    blank = leaves.zeros(template)
    tree = leaves.nested({name: leaf for name, leaf in blank.items() if leaf.size})
    try:
        with _checkpointer() as orbax:
            manifest.check_stored(folder, record, orbax.metadata(folder).item_metadata.state.tree)
            args = ocp.args.Composite(state=ocp.args.PyTreeRestore(tree, partial_restore=True))
            state = orbax.restore(folder, args=args).state
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:
        raise CheckpointError(f"{folder} is whole but cannot be read: {manifest.brief(error)}") from error
    return blank | {name: np.asarray(leaf) for name, leaf in leaves.named(state).items()}
