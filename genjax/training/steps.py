"""A training step is a kernel; many steps are one chain.

Step i of the run with key k uses ``fold_in(k, i)``; the order of epoch e is ``fold_in(stream(k, DATA), e)``
(``genjax.random.Stream``). So a run is a function of (key, state, data): a run that is stopped anywhere and started
again goes on with the same bits.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, UInt32

from genjax import checks, random, statistics
from genjax.random import Stream
from genjax.theory import markov
from genjax.training.state import TrainState
from genjax.types import Batch, BatchFn, Carried, Data, Kernel, Key, Loss, Metrics, Params

Run = Callable[[Key, TrainState, Data], tuple[TrainState, Metrics]]
"""Several steps: ``(key of the run, state, data) -> (state, metrics [num_steps])``."""


def gradient_step(
    loss: Loss, optimizer: optax.GradientTransformation, *, ema_decay: float | int = 0.0, axis_name: str | None = None
) -> Kernel:
    """Make the kernel of a step of gradient descent: ``(key, TrainState, batch) -> (TrainState, Metrics)``.

    Args:
      loss: mean over a batch.
      optimizer: transformation from optax; ``model.optimizer(inner)`` for a model with running statistics.
      ema_decay: d, the decay of the average of the parameters; 0 keeps no average, and ``ema_params`` is ``params``.
        See ``average``.
      axis_name: mapped axis of the devices. If set, the batch is this device's share of a global batch: gradients and
        metrics are averaged over the axis, and the loss gets one key per example, numbered within the global batch.

    Returns:
      The kernel. Metrics: ``loss``, ``grad_norm`` (2-norm before the optimizer, of all parameters but running
      statistics) and the metrics of the loss.

    Raises:
      ValueError: ``ema_decay`` outside [0, 1); at the first step, an optimizer that does not know running statistics.
    """
    if not 0 <= ema_decay < 1:
        raise ValueError(f"ema_decay: expected 0 (no average) to below 1, got {ema_decay:g}")

    def step(key: Key, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        statistics.check(state.params, optimizer)
        if axis_name is not None:
            num = jax.tree.leaves(batch)[0].shape[0]
            key = random.example_keys(key, num, first=jax.lax.axis_index(axis_name) * num)
        (value, metrics), gradients = jax.value_and_grad(loss, argnums=1, has_aux=True)(key, state.params, batch)
        metrics = {"loss": value, **metrics}
        if axis_name is not None:
            gradients, metrics = jax.lax.pmean((gradients, metrics), axis_name)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema_params = average(state.ema_params, params, ema_decay, state.step)
        metrics["grad_norm"] = optax.tree.norm(statistics.descending(gradients))
        return TrainState(state.step + 1, params, ema_params, opt_state, state.carry), metrics

    return step


def average(ema_params: Params, params: Params, decay: float | int, step: Int[Array, ""]) -> Params:
    """ema ← d_n · ema + (1 - d_n) · params with d_n = min(d, (1 + n) / (10 + n)), n the steps done before.

    The warm-up of TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``: the start weighs Π d_n, which is
    about 9!·n⁻⁹ as long as the warm-up lasts, and not dⁿ, which is .905 after 1000 steps of d = .9999.

    Args:
      ema_params: average so far.
      params: parameters after the step.
      decay: d; 0 gives ``params``.
      step: n.
    """
    warm = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return optax.incremental_update(params, ema_params, 1 - warm if decay else 1.0)


def rows(batch_size: int, *, axis_name: str | None = None) -> BatchFn:
    """The rows that ``state.step`` points at: every epoch visits every row exactly once, in an order of its own.

    Step i takes positions i·b to i·b + b - 1 of the endless sequence of epochs, so an epoch need not end with a batch.
    The cursor counts to 2³² examples.

    Args:
      batch_size: b, over all devices.
      axis_name: mapped axis of the devices. If set, the batch is split along the axis, and each device takes its share.

    Raises:
      ValueError: ``batch_size`` below 1; at the first batch, data without a row, or a batch that does not split.
    """
    checks.count("batch_size", batch_size)

    def sample_batch(key: Key, state: TrainState, data: Data) -> Batch:
        _check_rows("data", data)
        size = jax.tree.leaves(data)[0].shape[0]
        num_devices, device = random.device_axis(axis_name)
        if batch_size % num_devices:
            raise ValueError(f"batch_size: expected a multiple of the {num_devices} devices, got {batch_size}")
        share = batch_size // num_devices
        offset = (device * share + jnp.arange(share)).astype(jnp.uint32)
        index = _epoch_order(key, state.step.astype(jnp.uint32) * batch_size + offset, size)
        return jax.tree.map(lambda array: jnp.asarray(array)[index], data)

    return sample_batch


def with_schedule(sample_batch: BatchFn, name: str, schedule: optax.Schedule) -> BatchFn:
    """Add an array to the batches of ``sample_batch``: ``name`` [b], the value of a schedule at the step.

    >>> batches = with_schedule(rows(2), "beta", optax.linear_schedule(0.0, 1.0, 10))  # KL warm-up of a VAE
    """

    def values(key: Key, state: TrainState, num: int) -> Float[Array, " b"]:
        return jnp.broadcast_to(jnp.asarray(schedule(state.step), jnp.float32), (num,))

    return _with(sample_batch, name, values)


def with_stratified_times(sample_batch: BatchFn, name: str, *, axis_name: str | None = None) -> BatchFn:
    """Add an array to the batches of ``sample_batch``: ``name`` [b], times that are evenly spread over the batch.

    Time i of b is (i/b + u) mod 1, with one uniform u for each step: each time is uniform in [0, 1), and together they
    cover the interval with less variance than independent times (Kingma et al. 2021, App. I.1).

    Args:
      sample_batch: source of the rows.
      name: name of the array, such as ``"time"`` of a diffusion model.
      axis_name: mapped axis of the devices, the same as for ``rows``; devices share u and divide the times.
    """

    def times(key: Key, state: TrainState, num: int) -> Float[Array, " b"]:
        num_devices, device = random.device_axis(axis_name)
        u = jax.random.uniform(jax.random.fold_in(random.stream(key, Stream.BATCH), state.step))
        return (((device * num + jnp.arange(num)) / (num_devices * num) + u) % 1).astype(jnp.float32)

    return _with(sample_batch, name, times)


def _with(sample_batch: BatchFn, name: str, values: Callable[[Key, TrainState, int], Float[Array, " b"]]) -> BatchFn:
    """Add ``name``, given by ``values(key, state, b)``, to every batch."""

    def extended(key: Key, state: TrainState, data: Data) -> Batch | Carried:
        sampled = sample_batch(key, state, data)
        batch = sampled.batch if isinstance(sampled, Carried) else sampled
        batch = {**batch, name: values(key, state, jax.tree.leaves(batch)[0].shape[0])}
        return sampled._replace(batch=batch) if isinstance(sampled, Carried) else batch

    return extended


def repeat(step: Kernel, sample_batch: BatchFn, num_steps: int) -> Run:
    """``num_steps`` training steps as one scan: ``(key of the run, state, data) -> (state, metrics [num_steps])``.

    Args:
      step: kernel of ``gradient_step``.
      sample_batch: source of the batches. If it returns ``Carried``, the carry goes on in the state.
      num_steps: number of steps, at least 0.

    Raises:
      ValueError: ``num_steps`` below 0; when run, a carry that is not like the state's.
    """
    checks.count("num_steps", num_steps, 0)

    def run(key: Key, state: TrainState, data: Data) -> tuple[TrainState, Metrics]:
        def kernel(_: Key, state: TrainState, __: None) -> tuple[TrainState, Metrics]:
            sampled = sample_batch(key, state, data)
            batch, carry = sampled if isinstance(sampled, Carried) else (sampled, ())
            _check_carry(state.carry, carry)
            return step(jax.random.fold_in(key, state.step), state._replace(carry=carry), batch)

        return markov.simulate(kernel, key, state, length=num_steps)

    return run


def minibatch_updates(step: Kernel, num_epochs: int, batch_size: int) -> Kernel:
    """Make one step of several: the batch is cut into minibatches, ``num_epochs`` times, each in an order of its own.

    Args:
      step: kernel of one minibatch.
      num_epochs: number of visits to every row.
      batch_size: rows of a minibatch; rows that are left over in an epoch wait for the next.

    Returns:
      The kernel; it counts as one step, and its metrics are means.

    Raises:
      ValueError: ``num_epochs`` or ``batch_size`` below 1; at the first step, a batch without a row.
    """
    checks.count("num_epochs", num_epochs)
    checks.count("batch_size", batch_size)

    def kernel(key: Key, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        _check_rows("batch", batch)
        size = jax.tree.leaves(batch)[0].shape[0]
        per_epoch = max(size // batch_size, 1)

        def update(step_key: Key, state: TrainState, i: Int[Array, ""]) -> tuple[TrainState, Metrics]:
            position = i % per_epoch * batch_size + jnp.arange(min(batch_size, size))
            index = random.permute(jax.random.fold_in(key, i // per_epoch), position, size)
            return step(step_key, state, jax.tree.map(lambda array: array[index], batch))

        end, metrics = markov.simulate(update, key, state, jnp.arange(num_epochs * per_epoch))
        return end._replace(step=state.step + 1), jax.tree.map(lambda m: m.mean(axis=0), metrics)

    return kernel


def evaluate(loss: Loss, batch_size: int) -> Callable[[Key, Params, Data], Metrics]:
    """The mean loss over all rows, ``(key, params, data) -> Metrics``; row i draws its noise from (key, i).

    Args:
      loss: mean over a batch; it gets an array of keys, one per example.
      batch_size: rows per evaluation of the loss; the result does not depend on it.

    Raises:
      ValueError: ``batch_size`` below 1; when run, data without a row.
    """
    checks.count("batch_size", batch_size)

    def run(key: Key, params: Params, data: Data) -> Metrics:
        _check_rows("data", data)
        size = jax.tree.leaves(data)[0].shape[0]
        examples = (random.example_keys(key, size), data)
        whole = size // batch_size * batch_size

        def mean(keys: Key, batch: Batch) -> Metrics:
            value, metrics = loss(keys, params, batch)
            return {"loss": value, **metrics}

        parts = []  # (rows, their means): all whole batches, and the rest
        if whole:
            batches = jax.tree.map(lambda a: a[:whole].reshape(-1, batch_size, *a.shape[1:]), examples)
            means = jax.lax.map(lambda example: mean(*example), batches)
            parts.append((whole, jax.tree.map(lambda a: a.mean(axis=0), means)))
        if size - whole:
            parts.append((size - whole, mean(*jax.tree.map(lambda a: a[whole:], examples))))
        weights = [num / size for num, _ in parts]
        return jax.tree.map(
            lambda *means: sum(weight * mean for weight, mean in zip(weights, means, strict=True)),
            *[means for _, means in parts],
        )

    return run


def _check_rows(name: str, data: Data) -> None:
    """Refuse arrays without a common number of rows, and no rows."""
    sizes = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(data)}
    if len(sizes) != 1 or not min(sizes) or not min(sizes)[0]:
        raise ValueError(f"{name}: expected arrays with as many rows each, and at least one; got {sorted(sizes)} rows")


def _check_carry(before: Any, after: Any) -> None:
    """Refuse a carry of another structure, shapes or dtypes than the state's."""
    shapes = [jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", carry) for carry in (before, after)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"carry: expected what sample_batch returns, {shapes[1]}; the state has {shapes[0]}; "
            "make the state by create(params, optimizer, carry), with the model's own carry"
        )


def _epoch_order(key: Key, position: UInt32[Array, " b"], size: int) -> UInt32[Array, " b"]:
    """Rows at these positions in the endless sequence of epochs, each a permutation of ``range(size)``."""
    epochs = random.stream(key, Stream.DATA)
    row = lambda p: random.permute(jax.random.fold_in(epochs, p // size), (p % size)[None], size)[0]
    return jax.vmap(row)(position)
