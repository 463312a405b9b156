"""Arrays on disk: a tree of arrays written and read by orbax. The only importer of orbax."""

import functools
import logging
import pathlib
from types import ModuleType
from typing import Any

import jax
import numpy as np

from train.checkpoint import manifest, tree_paths
from train.checkpoint.manifest import CheckpointError


@functools.cache
def library() -> ModuleType:
    """Import orbax; only the functions of this module use it."""
    import orbax.checkpoint  # half a second, so not before it is needed

    logging.getLogger("absl").setLevel(logging.CRITICAL)  # what it logs before it raises is a hundred lines
    return orbax.checkpoint


def _checkpointer() -> Any:
    ocp, me = library(), jax.process_index()
    alone = ocp.options.MultiprocessingOptions(  # else orbax waits for the other processes, which do not write
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process{me}"
    )
    state = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    options = ocp.CompositeOptions(multiprocessing_options=alone)
    step = ocp.CompositeCheckpointHandler(state=state, composite_options=options)
    return ocp.Checkpointer(step, multiprocessing_options=alone)


def write(folder: pathlib.Path, state: Any) -> None:
    """Write the arrays of a tree into a new folder; arrays without elements are left out, as orbax refuses them."""
    ocp = library()
    tree = tree_paths.nested({name: leaf for name, leaf in tree_paths.named(state).items() if leaf.size})
    with _checkpointer() as orbax:
        orbax.save(folder, args=ocp.args.Composite(state=ocp.args.PyTreeSave(tree)))


def read(folder: pathlib.Path, record: manifest.Manifest, template: Any) -> dict[str, np.ndarray]:
    """Read the arrays of a template from a folder, by path.

    Args:
      folder: folder of the step.
      record: manifest of the step, which the folder must fit.
      template: tree of arrays or ``jax.ShapeDtypeStruct``.

    Raises:
      Damaged: orbax's own files describe other arrays than the manifest.
      CheckpointError: orbax cannot read the folder.
    """
    ocp = library()
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
