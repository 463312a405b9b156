"""Several devices, several machines: everything that knows ``pmap``.

The state enters and leaves without a device axis, so that a checkpoint is a plain tree and restores on any number of
devices. Inside, the batch is split along ``AXIS``: ``rows`` takes a device's share, ``gradient_step`` averages over the
axis.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from genjax import checks
from genjax.training.state import TrainState
from genjax.types import Data, Metrics

AXIS = "devices"

Run = Callable[[Any, TrainState, Data], tuple[TrainState, Metrics]]
"""Training steps, ``(key, state, data) -> (state, metrics)``; any tree of arrays may stand in place of the key."""


def distribute(run: Run, devices: Sequence[jax.Device] | None = None) -> Run:
    """Compile a run for several devices at once; the state given to it is consumed.

    Args:
      run: training steps made with ``axis_name=AXIS`` throughout, so that their results are equal on all devices.
      devices: devices of this machine, by default all. On several machines the axis spans the devices of all machines.
    """
    devices = jax.local_devices() if devices is None else list(devices)
    checks.min_rows("devices", devices)
    mapped = jax.pmap(
        lambda _, key, state, data: run(key, state, data),
        axis_name=AXIS,
        in_axes=(0, None, None, None),  # pmap needs something to map: the devices' numbers
        out_axes=(None, None),
        donate_argnums=2,
        devices=None if jax.process_count() > 1 else devices,
    )
    numbers = np.arange(len(devices))
    return lambda key, state, data: mapped(numbers, key, state, data)


def replicate(tree: Any, devices: Sequence[jax.Device] | None = None) -> Any:
    """Copy every array to every device, as the runs of ``distribute`` take and return arrays."""
    mesh = jax.sharding.Mesh(np.array(jax.local_devices() if devices is None else devices), (AXIS,))
    return jax.device_put(tree, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))


def unreplicate(tree: Any) -> Any:
    """Take the copy on this machine's first device."""
    return jax.tree.map(lambda array: array.addressable_data(0), tree)


def check_split(batch_size: int, num_devices: int) -> None:
    """Refuse a batch that does not split evenly.

    Raises:
      ValueError: naming the nearest sizes that do.
    """
    checks.count("num_devices", num_devices)
    if batch_size < 1 or batch_size % num_devices:
        below, above = batch_size // num_devices * num_devices, -(-max(batch_size, 1) // num_devices) * num_devices
        fits = f"{below} or {above}" if below > 0 else f"{above}"
        raise ValueError(f"batch_size {batch_size} does not split over {num_devices} devices; use {fits}")
