"""The stationary law of a finite chain by leaving out one state after the other (Grassmann, Taksar & Heyman 1985).

Nothing is subtracted, so each probability is right to s roundings or so, small ones and those of chains that hardly
move from one part to another too (O'Cinneide 1993). The first state must be reached from every other one.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from genjax import lapack
from genjax.theory import series, transitions


def stationary_on_host(transition: Float[np.ndarray, "s s"], first: int) -> Float[np.ndarray, " s"]:
    """π on the host.

    >>> stationary_on_host(np.array([[0.0, 1.0], [0.5, 0.5]]), 0).round(3).tolist()
    [0.333, 0.667]
    """
    size = len(transition)
    order = np.argsort(np.arange(size) != first, kind="stable")
    table, found = transition[np.ix_(order, order)].copy(), np.ones(size)
    for k in range(size - 1, 0, -1):
        table[:k, k] /= table[k, :k].sum()
        table[:k, :k] += np.outer(table[:k, k], table[k, :k])
    for k in range(1, size):
        found[k] = found[:k] @ table[:k, k]
        found[: k + 1] /= found[: k + 1].sum()
    back = np.empty(size)
    back[order] = found
    return back


def stationary_in_jit(transition: Float[Array, "s s"]) -> Float[Array, " s"]:
    """π in ``jit`` and ``vmap``, with the gradient of a linear solve; NaN where no state is reached from every other.

    π_j Σ_{i≠j} P_ji = Σ_{i≠j} π_i P_ij: what flows out of a state flows in. One of these equations follows from the
    others, so Σ π / s = 1 / s is added to it.
    """
    size = len(transition)
    moving = jnp.where(jnp.eye(size, dtype=bool), 0, transition)
    from_everywhere = jnp.all(transitions.reachable(transition), axis=0)
    first = jnp.argmax(from_everywhere)  # one of the closed class
    balance = (jnp.diag(moving.sum(1)) - moving).T.at[first].add(1 / size)
    solved = lapack.solve(balance, jax.nn.one_hot(first, size, dtype=moving.dtype)[:, None] / size)[:, 0]
    law = series.with_gradient_of(_eliminated(jax.lax.stop_gradient(moving), first), solved)
    return jnp.where(jnp.any(from_everywhere), law, jnp.nan)


def _eliminated(transition: Float[Array, "s s"], first: Int[Array, ""]) -> Float[Array, " s"]:
    size = len(transition)
    index = jnp.arange(size)
    order = jnp.argsort(index != first, stable=True)

    def leave_out(i, table):
        k = size - 1 - i
        row = jnp.where(index < k, table[k], 0)
        column = jnp.where(index < k, table[:, k], 0) / row.sum()
        return table.at[:, k].set(jnp.where(index < k, column, table[:, k])) + column[:, None] * row

    def put_back(k, found):
        found = found.at[k].set(jnp.sum(jnp.where(index < k, found * table[:, k], 0)))
        return found / found.sum()

    table = jax.lax.fori_loop(0, size - 1, leave_out, transition[order][:, order])
    found = jax.lax.fori_loop(1, size, put_back, (index == 0).astype(transition.dtype))
    return jnp.zeros_like(found).at[order].set(found)
