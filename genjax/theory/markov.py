"""Markov chains: the engine of the library.

Diffusion, pixel-by-pixel sampling, Metropolis and a training step are all kernels ``(key, state, input) -> (state,
output)``; ``simulate`` repeats any of them as one compiled loop.
"""

import jax
import jax.numpy as jnp

from genjax.types import Input, Kernel, Key, Output, State


def simulate(
    kernel: Kernel, key: Key, state: State, inputs: Input = None, *, length: int | None = None
) -> tuple[State, Output]:
    """Run a Markov chain as one ``jax.lax.scan``.

    x_{i+1}, y_i = kernel(key_i, x_i, u_i)  for i = 0, ..., length - 1

    >>> step = lambda key, x, u: (x + u, x)
    >>> end, path = simulate(step, jax.random.key(0), 0, jnp.array([1, 2, 3]))
    >>> int(end), path.tolist()
    (6, [0, 1, 3])

    Args:
      kernel: the transition.
      key: one key, or an array of keys for a batch of chains; the kernel then gets an array of the same shape, and
        chain i's stream depends on key i only.
      state: x_0, any tree of arrays; the kernel returns the same shapes and dtypes.
      inputs: u, a tree of arrays with leading axis ``length``; None for none.
      length: number of steps; may be left out where ``inputs`` tells.

    Returns:
      The last state, and the outputs stacked along a new leading axis.

    Raises:
      ValueError: neither ``inputs`` nor ``length`` says how long, or they disagree.
    """
    lengths = {leaf.shape[0] for leaf in jax.tree.leaves(inputs)} | ({length} if length is not None else set())
    if len(lengths) != 1:
        raise ValueError(f"length: inputs and length must name one number of steps; got {sorted(lengths) or 'none'}")
    keys = _streams(key, lengths.pop())
    return jax.lax.scan(lambda x, step: kernel(step[0], x, step[1]), state, (keys, inputs))


def _streams(key: Key, length: int) -> Key:
    """Keys [length, *key.shape]."""
    split = lambda one: jax.random.split(one, length)
    for _ in range(key.ndim):
        split = jax.vmap(split)
    return jnp.moveaxis(split(key), -1, 0)
