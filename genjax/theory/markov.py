"""Markov chains: the engine of the library, and the theory of chains on finitely many states.

Diffusion, sampling of pixels, Metropolis and training steps are kernels ``(key, state, input) -> (state, output)``;
``simulate`` repeats any of them as one compiled loop. A chain on s states is its transition matrix P; rows that are no
distributions are a ``ValueError``. What is said to be "outside ``jit``" looks at the values of P, in float64. Sections
are those of Levin, Peres & Wilmer 2017, "Markov Chains and Mixing Times", 2nd edition.
"""

import math
import reprlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from scipy.sparse import csgraph, csr_array

from genjax import lapack
from genjax.theory import scans, simplex
from genjax.types import Input, Kernel, Key, Output, Scalar, State

Transition = Float[Array, "s s"] | Float[np.ndarray, "s s"]
"""P_ij = P(next = j | now = i)."""
MAX_DOUBLINGS = 64  # chains that need more than 2⁶⁴ steps are given up


def simulate(
    kernel: Kernel,
    key: Key,
    state: State,
    inputs: Input = None,
    *,
    length: int | None = None,
    segment: int | None = None,
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
      segment: for reverse-mode gradients: only every ``segment``-th state is kept, and the others are computed again
        (Griewank & Walther 2000, two levels); √length makes memory grow as √length.

    Returns:
      The last state, and the outputs stacked along a new leading axis.

    Raises:
      ValueError: neither ``inputs`` nor ``length`` says how long, or they disagree; or ``segment`` < 1.
    """
    lengths = {leaf.shape[0] for leaf in jax.tree.leaves(inputs)} | ({length} if length is not None else set())
    if len(lengths) != 1:
        raise ValueError(f"length: inputs and length must name one number of steps; got {sorted(lengths) or 'none'}")
    if segment is not None and segment < 1:
        raise ValueError(f"segment: expected at least 1 step, got {segment}")
    parts = scans.streams(key, lengths.pop()), inputs
    step = lambda x, part: kernel(part[0], x, part[1])
    return scans.in_segments(step, state, parts, segment) if segment else jax.lax.scan(step, state, parts)


def walk(transition: Transition) -> Kernel:
    """The kernel of a finite chain: from state i to a draw of row i. One chain; ``jax.vmap`` of ``simulate`` for many.

    >>> P = jnp.array([[0.2, 0.6, 0.2], [0.3, 0, 0.7], [0.5, 0, 0.5]])  # a restaurant: hamburger, pizza, hot dog
    >>> end, path = simulate(walk(P), jax.random.key(0), 1, length=1000)
    >>> bool(jnp.all((path[1:] != 1) | (path[:-1] == 0)))  # pizza is served after hamburgers only
    True
    """
    _check(transition)
    log_p = jnp.log(jnp.asarray(transition))
    draw = lambda key, state: jax.random.categorical(key, log_p[state]).astype(jnp.result_type(state))
    return lambda key, state, _: (draw(key, state),) * 2


def evolve(transition: Transition, start: Float[Array, "... s"], steps: int) -> Float[Array, "t ... s"]:
    """The laws π_t = π_0 Pᵗ for t = 0, ..., ``steps``, along a new leading axis; Pᵗ itself from π_0 = ``jnp.eye(s)``.

    >>> P = jnp.array([[0.2, 0.6, 0.2], [0.3, 0, 0.7], [0.5, 0, 0.5]])
    >>> [[round(float(p), 2) for p in law] for law in evolve(P, jnp.array([0.0, 1.0, 0.0]), 2)]
    [[0.0, 1.0, 0.0], [0.3, 0.0, 0.7], [0.41, 0.18, 0.41]]
    """
    _check(transition)
    simplex.check("start", start)
    table = jnp.asarray(transition, start.dtype)
    step = lambda law, _: (_times(law, table),) * 2
    return jnp.concatenate([start[None], jax.lax.scan(step, start, length=steps)[1]])


def stationary(transition: Transition) -> Float[Array, " s"]:
    """The law that the chain leaves as it is, π P = π, by a linear solve; for ``jit``, ``vmap`` and ``grad`` (§1.5).

    π_j Σ_{i≠j} P_ji = Σ_{i≠j} π_i P_ij: what flows out of a state flows in. One of these equations follows from the
    others, so Σ π / s = 1 / s is added to it. A period does no harm; states that are left for ever have probability 0.

    >>> P = jnp.array([[0.2, 0.6, 0.2], [0.3, 0, 0.7], [0.5, 0, 0.5]])
    >>> [round(float(71 * p), 3) for p in stationary(P)]
    [25.0, 15.0, 31.0]

    The diagonal is not read: a gradient is for probability moved from P_ii to P_ij. The error is about ε / (1 - |λ₂|)
    at worst, ε of the dtype.

    Raises:
      ValueError: there are several closed classes, so no single law (NaN in ``jit``).
    """
    _check(transition)
    if simplex.known(transition):
        _closed_class(transition)
    table = jnp.asarray(transition)
    moving = jnp.where(jnp.eye(len(table), dtype=bool), 0, table)
    from_everywhere = jnp.all(_reachable(table), axis=0)
    state = jnp.argmax(from_everywhere)  # one of the closed class
    balance = (jnp.diag(moving.sum(1)) - moving).T.at[state].add(1 / len(table))
    law = lapack.solve(balance, jax.nn.one_hot(state, len(table), dtype=table.dtype)[:, None] / len(table))[:, 0]
    return jnp.where(jnp.any(from_everywhere), jnp.where(law < 0, 0, law), jnp.nan)  # < 0 is rounding


def stationary_by_eigenvector(transition: Transition) -> Float[Array, " s"]:
    """``stationary`` as the left eigenvector of P to the eigenvalue 1; outside ``jit``. A period does no harm.

    >>> P = jnp.array([[0.2, 0.6, 0.2], [0.3, 0, 0.7], [0.5, 0, 0.5]])
    >>> [round(float(71 * p), 3) for p in stationary_by_eigenvector(P)]
    [25.0, 15.0, 31.0]
    """
    _closed_class(transition)
    return jnp.asarray(_eigenvector(_known(transition)), jnp.asarray(transition).dtype)


def stationary_by_power_iteration(transition: Transition) -> Float[Array, " s"]:
    """The row that all rows of Pⁿ tend to, n = 1, 2, 4, 8, ... by squaring; for ``jit`` and ``vmap``, no ``grad``.

    d(n) = max_{x,y} TV(Pⁿ(x, ·), Pⁿ(y, ·)) bounds the error, and d(2n) ≤ d(n)² (§4.4): once d ≤ √ε, one more
    squaring brings it to ε, the rounding of the dtype.

    >>> P = jnp.array([[0.2, 0.6, 0.2], [0.3, 0, 0.7], [0.5, 0, 0.5]])
    >>> [round(float(71 * p), 3) for p in stationary_by_power_iteration(P)]
    [25.0, 15.0, 31.0]

    Raises:
      ValueError: as ``stationary``; or the chain has a period, so Pⁿ has no limit. In ``jit`` both give NaN.
    """
    _check(transition)
    if simplex.known(transition):
        _aperiodic(transition)
    table = jnp.asarray(transition)
    spread = lambda power: jnp.sum(power.max(0) - power.min(0)) / 2  # ≥ d(n)
    enough = jnp.finfo(table.dtype).eps ** 0.5
    unfinished = lambda loop: (spread(loop[0]) > enough) & (loop[1] < MAX_DOUBLINGS)
    square = lambda power: _rows_to_one(_times(power, power))
    power, _ = jax.lax.while_loop(unfinished, lambda loop: (square(loop[0]), loop[1] + 1), (table, 0))
    return jnp.where(spread(power) <= enough, square(power)[0], jnp.nan)


class CommunicatingClass(NamedTuple):
    """States that lead to each other: which, whether the chain stays there for ever, and its period (0: no return)."""

    states: tuple[int, ...]
    closed: bool
    period: int


def communicating_classes(transition: Transition) -> list[CommunicatingClass]:
    """The classes of states that lead to each other, by their first states (§1.7); outside ``jit``.

    >>> for group in communicating_classes(jnp.array([[0.5, 0.3, 0.2], [0, 0, 1], [0, 1, 0]])):
    ...     print(group)
    CommunicatingClass(states=(0,), closed=False, period=1)
    CommunicatingClass(states=(1, 2), closed=True, period=2)
    """
    linked = _known(transition) > 0
    groups: dict[int, list[int]] = {}
    for state, label in enumerate(csgraph.connected_components(csr_array(linked), connection="strong")[1]):
        groups.setdefault(int(label), []).append(state)
    closed = lambda group: not np.delete(linked[group], group, axis=1).any()
    return [CommunicatingClass(tuple(g), closed(g), _period(linked[np.ix_(g, g)])) for g in groups.values()]


def period(transition: Transition) -> int:
    """The smallest d with P^{t+d} - Pᵗ → 0, so 1 where Pᵗ converges: the closed classes' (common) period; outside
    ``jit``. That of a class is the greatest common divisor of the lengths of its cycles (§1.3).

    >>> period(jnp.array([[0, 1.0, 0], [0.5, 0, 0.5], [0, 1.0, 0]]))
    2
    """
    return math.lcm(*(group.period for group in communicating_classes(transition) if group.closed))


def total_variation(p: Float[Array, "... s"], q: Float[Array, "... s"]) -> Float[Array, "..."]:
    """TV(p, q) = ½ Σ |p - q| = max_A |p(A) - q(A)|, in [0, 1], over the last axis (Prop. 4.2).

    >>> float(total_variation(jnp.array([0.5, 0.5, 0.0]), jnp.array([0.0, 0.5, 0.5])))
    0.5
    """
    simplex.check("p", p)
    simplex.check("q", q)
    return jnp.sum(jnp.abs(p - q), -1) / 2


def mixing_time(transition: Transition, distance: float = 0.25) -> int:
    """The smallest t with max_x TV(Pᵗ(x, ·), π) ≤ ``distance`` (§4.5); outside ``jit``.

    >>> P = jnp.array([[0.2, 0.6, 0.2], [0.3, 0, 0.7], [0.5, 0, 0.5]])
    >>> mixing_time(P), mixing_time(P, 0.001)
    (2, 7)

    Raises:
      ValueError: as ``stationary_by_power_iteration``; ``distance`` outside (0, 1), or not reached in 2⁶⁴ steps.
    """
    if not 0 < distance < 1:
        raise ValueError(f"distance: expected a total variation in (0, 1), got {distance:g}")
    _aperiodic(transition)
    table = _known(transition)
    law, start = _eigenvector(table), np.eye(len(table))
    far = lambda power: bool(np.abs(power - law).sum(1).max() / 2 > distance * (1 + 1e-6))  # a tie is near enough
    powers = [table]  # P, P², P⁴, ..., up to the first that is near
    while far(powers[-1]):
        if len(powers) > MAX_DOUBLINGS:
            raise ValueError(f"distance: {distance:g} is not reached in 2**{MAX_DOUBLINGS} steps; ask for a larger one")
        powers.append(_rows_to_one(powers[-1] @ powers[-1]))
    last, at_last = 0, start  # the last time that is far, bit by bit: the distance never grows
    for i in reversed(range(len(powers) - 1)):
        if far(later := at_last @ powers[i]):
            last, at_last = last + 2**i, later
    return last + far(start)


def detailed_balance(transition: Transition, distribution: Float[Array, " s"]) -> Scalar:
    """max_ij |π_i P_ij - π_j P_ji|: 0 iff the chain is reversible with respect to π, which it then leaves (§1.6).

    >>> float(detailed_balance(jnp.array([[0.5, 0.5], [0.25, 0.75]]), jnp.array([1 / 3, 2 / 3])))
    0.0
    """
    _check(transition)
    simplex.check("distribution", distribution)
    flow = distribution[:, None] * transition
    return jnp.max(jnp.abs(flow - flow.T))


def _check(transition: Any) -> None:
    if np.ndim(transition) != 2 or len({*np.shape(transition)}) != 1:
        raise ValueError(f"transition: expected a square table, a row for each state; got shape {np.shape(transition)}")
    simplex.check("transition", transition)


def _known(transition: Transition) -> Float[np.ndarray, "s s"]:
    if not simplex.known(transition):
        raise ValueError("transition: expected known values, got a tracer; call this outside jit, grad and vmap")
    _check(transition)
    return _rows_to_one(np.asarray(transition, np.float64))


def _closed_class(transition: Transition) -> CommunicatingClass:
    closed = [group for group in communicating_classes(transition) if group.closed]
    if len(closed) != 1:
        names, fix = reprlib.repr([group.states for group in closed]), "pass the rows and columns of one of them"
        raise ValueError(f"transition: each of the closed classes {names} has a stationary law of its own; {fix}")
    return closed[0]


def _aperiodic(transition: Transition) -> None:
    if (cycle := _closed_class(transition).period) > 1:
        fix = "the stationary law is stationary(transition); (I + P) / 2 has the same, and no period"
        raise ValueError(f"transition: the chain has period {cycle}, so its powers do not converge; {fix}")


def _period(linked: Bool[np.ndarray, "s s"]) -> int:
    """gcd of depth(i) + 1 - depth(j) over the links of a class, with depth the distance from a state (Denardo 1977)."""
    depth = csgraph.shortest_path(csr_array(linked), unweighted=True, indices=0).astype(int)
    i, j = np.nonzero(linked)
    return int(np.gcd.reduce(depth[i] + 1 - depth[j]))


def _eigenvector(table: Float[np.ndarray, "s s"]) -> Float[np.ndarray, " s"]:
    values, vectors = np.linalg.eig(table.T)
    return _rows_to_one(np.abs(vectors[:, [np.argmin(np.abs(values - 1))]].T))[0]


def _reachable(table: Float[Array, "s s"]) -> Bool[Array, "s s"]:
    reach = (table > 0) | jnp.eye(len(table), dtype=bool)
    for _ in range(len(table).bit_length()):
        reach = _times(reach.astype(table.dtype), reach.astype(table.dtype)) > 0
    return reach


def _rows_to_one(table):
    return table / table.sum(1, keepdims=True)


def _times(a: Float[Array, "... s"], b: Float[Array, "s s"]) -> Float[Array, "... s"]:
    return jnp.matmul(a, b, precision="highest")  # accelerators would round the factors
