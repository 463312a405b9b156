"""The stationary distribution of a finite chain by eliminating states (Grassmann, Taksar & Heyman 1985).

Nothing is subtracted, so each probability is exact to about s roundings, even if it is small or the chain hardly moves
between parts (O'Cinneide 1993). The first state must be reachable from every other state.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from genjax import lapack
from genjax.theory import series, transitions


def stationary_on_host(transition: Float[np.ndarray, "s s"], first: int) -> Float[np.ndarray, " s"]:
    """π in numpy.

    >>> stationary_on_host(np.array([[0.0, 1.0], [0.5, 0.5]]), 0).round(3).tolist()
    [0.333, 0.667]
    """
    size = len(transition)
    order = np.argsort(np.arange(size) != first, kind="stable")
    table, pi = transition[np.ix_(order, order)].copy(), np.ones(size)
    for k in range(size - 1, 0, -1):
        table[:k, k] /= table[k, :k].sum()
        table[:k, :k] += np.outer(table[:k, k], table[k, :k])
    for k in range(1, size):
        pi[k] = pi[:k] @ table[:k, k]
        pi[: k + 1] /= pi[: k + 1].sum()
    in_order = np.empty(size)
    in_order[order] = pi
    return in_order


def stationary_in_jit(transition: Float[Array, "s s"]) -> Float[Array, " s"]:
    """π under ``jit`` and ``vmap``, with the gradient of a linear solve; NaN if no state is reachable from all others.

    The equations are π_j Σ_{i≠j} P_ji = Σ_{i≠j} π_i P_ij: the flows out of a state and into it are equal. One equation
    follows from the others, so Σ π / s = 1 / s is added to it.
    """
    size = len(transition)
    moving = jnp.where(jnp.eye(size, dtype=bool), 0, transition)
    is_recurrent = jnp.all(transitions.reachable(transition), axis=0)  # from every state
    first = jnp.argmax(is_recurrent)
    balance = (jnp.diag(moving.sum(1)) - moving).T.at[first].add(1 / size)
    solution = lapack.solve(balance, jax.nn.one_hot(first, size, dtype=moving.dtype)[:, None] / size)[:, 0]
    pi = series.with_gradient_of(_eliminate(jax.lax.stop_gradient(moving), first), solution)
    return jnp.where(jnp.any(is_recurrent), pi, jnp.nan)


def _eliminate(transition: Float[Array, "s s"], first: Int[Array, ""]) -> Float[Array, " s"]:
    size = len(transition)
    index = jnp.arange(size)
    order = jnp.argsort(index != first, stable=True)

    def eliminate(i: Int[Array, ""], table: Float[Array, "s s"]) -> Float[Array, "s s"]:
        k = size - 1 - i
        row = jnp.where(index < k, table[k], 0)
        column = jnp.where(index < k, table[:, k], 0) / row.sum()
        return table.at[:, k].set(jnp.where(index < k, column, table[:, k])) + column[:, None] * row

    def substitute(k: Int[Array, ""], pi: Float[Array, " s"]) -> Float[Array, " s"]:
        pi = pi.at[k].set(jnp.sum(jnp.where(index < k, pi * table[:, k], 0)))
        return pi / pi.sum()

    table = jax.lax.fori_loop(0, size - 1, eliminate, transition[order][:, order])
    pi = jax.lax.fori_loop(1, size, substitute, (index == 0).astype(transition.dtype))
    return jnp.zeros_like(pi).at[order].set(pi)
