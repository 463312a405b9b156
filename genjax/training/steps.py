"""A training step is a kernel; many of them are one chain.

Step i of the run with key k uses ``fold_in(k, i)``; epoch e is permuted by ``fold_in(fold_in(k, 2³² - 1), e)``.
So a run is a function of (key, state, data): stopped anywhere and started again, it goes on as if nothing had been.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, UInt32

from genjax import checks, random, statistics
from genjax.theory import markov
from genjax.training.state import TrainState
from genjax.types import BatchFn, Data, Kernel, Key, Loss, Metrics, Params

_DATA_STREAM, _PLACE_STREAM = 0xFFFFFFFF, 0xFFFFFFFC  # those between are train/loop.py's


def gradient_step(
    loss: Loss, optimizer: optax.GradientTransformation, *, ema_decay: float | int = 0.0, axis_name: str | None = None
) -> Kernel:
    """One step of gradient descent: the kernel ``(key, TrainState, batch) -> (TrainState, Metrics)``.

    Args:
      loss: the mean over a batch.
      optimizer: from optax; the model's own where it has running statistics (``genjax.statistics``).
      ema_decay: d; 0 keeps no average, ema is params. See ``average``.
      axis_name: where set, the batch is this device's share of a global batch that is split along this axis: gradients
        and metrics are averaged over it, and the loss gets one key per example, numbered within the global batch.

    Returns:
      The kernel. Metrics: ``loss``, ``grad_norm`` (2-norm before the optimizer, of all parameters but running
      statistics) and those of the loss.

    Raises:
      ValueError: ``ema_decay`` outside [0, 1); at the first step, an optimizer that does not know running statistics.
    """
    if not 0 <= ema_decay < 1:
        raise ValueError(f"ema_decay: expected 0 (no average) to below 1, got {ema_decay:g}")

    def step(key: Key, state: TrainState, batch) -> tuple[TrainState, Metrics]:
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
        return TrainState(state.step + 1, params, ema_params, opt_state), metrics

    return step


def average(ema_params: Params, params: Params, decay: float | int, step: Int[Array, ""]) -> Params:
    """ema ← d_n · ema + (1 - d_n) · params with d_n = min(d, (1 + n) / (10 + n)), n the steps done before.

    The warm-up of TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``: the start weighs Π d_n, which is
    about 9!·n⁻⁹ as long as the warm-up lasts, and not dⁿ, which is .905 after 1000 steps of d = .9999.

    Args:
      ema_params: the average so far.
      params: after the step.
      decay: d; 0 gives ``params``.
      step: n.
    """
    warm = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return optax.incremental_update(params, ema_params, 1 - warm if decay else 1.0)


def rows(batch_size: int, *, axis_name: str | None = None) -> BatchFn:
    """The rows that ``state.step`` points at: every epoch visits every row exactly once, in an order of its own.

    Step i takes places i·b to i·b + b - 1 of the endless sequence of epochs, so an epoch need not end with a batch.

    Args:
      batch_size: b, over all devices.
      axis_name: where set, the batch is split along this axis and each device draws its own share.

    The cursor counts to 2³² examples.

    Raises:
      ValueError: ``batch_size`` below 1; at the first batch, data without a row.
    """
    checks.count("batch_size", batch_size)

    def sample_batch(key: Key, state: TrainState, data: Data):
        _rows_of("data", data)
        size = jax.tree.leaves(data)[0].shape[0]
        shares, share = (1, 0) if axis_name is None else (jax.lax.axis_size(axis_name), jax.lax.axis_index(axis_name))
        local = batch_size // shares
        place = state.step.astype(jnp.uint32) * batch_size + (share * local + jnp.arange(local)).astype(jnp.uint32)
        index = _epoch_order(key, place, size)
        return jax.tree.map(lambda array: jnp.asarray(array)[index], data)

    return sample_batch


def with_schedule(sample_batch: BatchFn, name: str, schedule: optax.Schedule) -> BatchFn:
    """The batches of ``sample_batch`` with one thing more: ``name``, [b], what the schedule says at the step.

    >>> batches = with_schedule(rows(2), "beta", optax.linear_schedule(0.0, 1.0, 10))  # KL warm-up of a VAE
    """

    def with_number(key: Key, state: TrainState, data: Data):
        batch = sample_batch(key, state, data)
        num = jax.tree.leaves(batch)[0].shape[0]
        return {**batch, name: jnp.broadcast_to(jnp.asarray(schedule(state.step), jnp.float32), (num,))}

    return with_number


def with_stratified_times(sample_batch: BatchFn, name: str, *, axis_name: str | None = None) -> BatchFn:
    """The batches of ``sample_batch`` with one thing more: ``name``, [b], evenly spread in [0, 1) over the whole batch.

    Number i of b is (i/b + u) mod 1 with one uniform u for each step: each is uniform, and together they cover the
    interval with less variance than independent ones (Kingma et al. 2021, App. I.1).

    Args:
      sample_batch: of the rows.
      name: of what is added, as ``"time"`` of a diffusion model.
      axis_name: as of ``rows``; devices share u and divide the places.
    """

    def with_places(key: Key, state: TrainState, data: Data):
        batch = sample_batch(key, state, data)
        local = jax.tree.leaves(batch)[0].shape[0]
        shares, share = (1, 0) if axis_name is None else (jax.lax.axis_size(axis_name), jax.lax.axis_index(axis_name))
        shift = jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, _PLACE_STREAM), state.step))
        place = (share * local + jnp.arange(local)) / (shares * local) + shift
        return {**batch, name: (place % 1).astype(jnp.float32)}

    return with_places


def repeat(
    step: Kernel, sample_batch: BatchFn, num_steps: int
) -> Callable[[Key, TrainState, Data], tuple[TrainState, Metrics]]:
    """``num_steps`` training steps as one scan: ``(key of the run, state, data) -> (state, metrics [num_steps])``.

    Raises:
      ValueError: ``num_steps`` below 0.
    """
    checks.count("num_steps", num_steps, 0)

    def run(key: Key, state: TrainState, data: Data) -> tuple[TrainState, Metrics]:
        def kernel(_, state, __):
            return step(jax.random.fold_in(key, state.step), state, sample_batch(key, state, data))

        return markov.simulate(kernel, key, state, length=num_steps)

    return run


def minibatch_updates(step: Kernel, num_epochs: int, batch_size: int) -> Kernel:
    """Several steps on one batch as one: the batch in smaller ones, ``num_epochs`` times, each in an order of its own.

    Args:
      step: the kernel of one smaller batch.
      num_epochs: how often every row is visited.
      batch_size: rows of a smaller batch; what is left over in an epoch waits for the next.

    Returns:
      The kernel; it counts as one step, and its metrics are means.

    Raises:
      ValueError: ``num_epochs`` or ``batch_size`` below 1; at the first step, a batch without a row.
    """
    checks.count("num_epochs", num_epochs)
    checks.count("batch_size", batch_size)

    def kernel(key: Key, state: TrainState, batch) -> tuple[TrainState, Metrics]:
        _rows_of("batch", batch)
        size = jax.tree.leaves(batch)[0].shape[0]
        each = max(size // batch_size, 1)

        def smaller(step_key: Key, state: TrainState, i) -> tuple[TrainState, Metrics]:
            place = i % each * batch_size + jnp.arange(min(batch_size, size))
            index = random.permute(jax.random.fold_in(key, i // each), place, size)
            return step(step_key, state, jax.tree.map(lambda array: array[index], batch))

        end, metrics = markov.simulate(smaller, key, state, jnp.arange(num_epochs * each))
        return end._replace(step=state.step + 1), jax.tree.map(lambda m: m.mean(axis=0), metrics)

    return kernel


def evaluate(loss: Loss, batch_size: int) -> Callable[[Key, Params, Data], Metrics]:
    """The mean loss over all rows, ``(key, params, data) -> Metrics``; row i draws its noise from (key, i).

    Args:
      loss: the mean over a batch; it gets an array of keys, one per example.
      batch_size: rows per evaluation of the loss; the result does not depend on it.

    Raises:
      ValueError: ``batch_size`` below 1; when run, data without a row.
    """
    checks.count("batch_size", batch_size)

    def run(key: Key, params: Params, data: Data) -> Metrics:
        _rows_of("data", data)
        size = jax.tree.leaves(data)[0].shape[0]
        table = (random.example_keys(key, size), data)
        whole = size // batch_size * batch_size

        def mean(keys, batch):
            value, metrics = loss(keys, params, batch)
            return {"loss": value, **metrics}

        parts = []
        if whole:
            batches = jax.tree.map(lambda a: a[:whole].reshape(-1, batch_size, *a.shape[1:]), table)
            means = markov.simulate(lambda _, s, b: (s, mean(*b)), key, (), batches)[1]
            parts.append((whole, jax.tree.map(lambda a: a.mean(axis=0), means)))
        if size - whole:
            parts.append((size - whole, mean(*jax.tree.map(lambda a: a[whole:], table))))
        return jax.tree.map(
            lambda *m: sum(n / size * a for (n, _), a in zip(parts, m, strict=True)), *[m for _, m in parts]
        )

    return run


def _rows_of(name: str, data: Any) -> None:
    """Refuse arrays that have no row in common."""
    sizes = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(data)}
    if len(sizes) != 1 or not min(sizes) or not min(sizes)[0]:
        raise ValueError(f"{name}: expected arrays with as many rows each, and at least one; got {sorted(sizes)} rows")


def _epoch_order(key: Key, place: UInt32[Array, " b"], size: int) -> UInt32[Array, " b"]:
    """Rows at these places in the endless sequence of epochs, each a permutation of ``range(size)``."""
    stream = jax.random.fold_in(key, _DATA_STREAM)
    row = lambda p: random.permute(jax.random.fold_in(stream, p // size), (p % size)[None], size)[0]
    return jax.vmap(row)(place)
