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
from jaxtyping import Array, Float
from scipy.sparse import csgraph, csr_array

from genjax import checks
from genjax.theory import elimination, scans, simplex, transitions
from genjax.theory.simplex import Numbers
from genjax.types import Input, Kernel, Key, Output, Scalar, State

Transition = Any
"""P_ij = P(next = j | now = i), a table of numbers [s s]."""
MAX_DOUBLINGS = 64  # chains that need more than 2⁶⁴ steps are given up
_check = transitions.check


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
      ValueError: neither ``inputs`` nor ``length`` says how long, or they disagree; ``segment`` < 1; or the key is not
        of ``jax.random.key``.
    """
    length = scans.num_steps(inputs, length)
    if segment is not None and segment < 1:
        raise ValueError(f"segment: expected at least 1 step, got {segment}")
    parts = scans.step_keys(key, length), inputs
    step = lambda x, part: kernel(part[0], x, part[1])
    if segment and length:
        return scans.checkpointed_scan(step, state, parts, segment)
    return jax.lax.scan(step, state, parts)


def walk(transition: Transition) -> Kernel:
    """The kernel of a finite chain: from state i to a draw of row i. One chain; ``jax.vmap`` of ``simulate`` for many.

    >>> P = jnp.array([[0.2, 0.6, 0.2], [0.3, 0, 0.7], [0.5, 0, 0.5]])  # a restaurant: hamburger, pizza, hot dog
    >>> end, path = simulate(walk(P), jax.random.key(0), 1, length=1000)
    >>> bool(jnp.all((path[1:] != 1) | (path[:-1] == 0)))  # pizza is served after hamburgers only
    True

    Raises:
      ValueError: ``transition`` is no table of distributions; in the kernel, the state is of no type that counts s
        states, or, outside ``jit``, it is none of them. Inside, what is none of them stays where it is.
    """
    _check(transition)
    log_p = jnp.log(simplex.as_floating(transition))
    last = len(log_p) - 1

    def kernel(key, state, _):
        dtype = jnp.result_type(state)
        if not jnp.issubdtype(dtype, jnp.integer) or jnp.iinfo(dtype).max < last:
            raise ValueError(f"state: expected a whole number of a type that reaches {last}, got {dtype}")
        checks.integers("state", state, 0, last + 1)
        drawn = jax.random.categorical(key, log_p[jnp.clip(state, 0, last)]).astype(dtype)
        new = jnp.where((state >= 0) & (state <= last), drawn, state)
        return new, new

    return kernel


def evolve(transition: Transition, start: Numbers, steps: int) -> Float[Array, "t ... s"]:
    """The laws π_t = π_0 Pᵗ for t = 0, ..., ``steps``, along a new leading axis; Pᵗ itself from π_0 = ``jnp.eye(s)``.

    >>> P = jnp.array([[0.2, 0.6, 0.2], [0.3, 0, 0.7], [0.5, 0, 0.5]])
    >>> [[round(float(p), 2) for p in law] for law in evolve(P, jnp.array([0.0, 1.0, 0.0]), 2)]
    [[0.0, 1.0, 0.0], [0.3, 0.0, 0.7], [0.41, 0.18, 0.41]]

    Raises:
      ValueError: ``transition`` or ``start`` [... s] are no distributions over the same states, or ``steps`` < 0.
    """
    _check(transition)
    law = simplex.as_floating(start)
    transitions.check_distribution("start", start, transition)
    if steps < 0:
        raise ValueError(f"steps: expected at least 0, got {steps}")
    table = jnp.asarray(transition, law.dtype)
    to_one = lambda law: law * jax.lax.stop_gradient(jnp.sum(law, -1, keepdims=True) ** -1.0)  # roundings would add up
    step = lambda law, _: (to_one(transitions.matmul(law, table)),) * 2
    return jnp.concatenate([law[None], jax.lax.scan(step, law, length=steps)[1]])


def stationary(transition: Transition) -> Float[Array, " s"]:
    """The law that the chain leaves as it is, π P = π, by elimination; for ``jit``, ``vmap`` and ``grad`` (§1.5).

    Each probability is right to s roundings, whatever the chain. A period does no harm; states that are left for ever
    have probability 0.

    >>> P = jnp.array([[0.2, 0.6, 0.2], [0.3, 0, 0.7], [0.5, 0, 0.5]])
    >>> [round(float(71 * p), 3) for p in stationary(P)]
    [25.0, 15.0, 31.0]

    The diagonal is not read: a gradient is for probability moved from P_ii to P_ij. It is that of the linear equations
    π_j Σ_{i≠j} P_ji = Σ_{i≠j} π_i P_ij: what flows out of a state flows in. One of them follows from the others, so
    Σ π / s = 1 / s is added to it.

    Raises:
      ValueError: there are several closed classes, so no single law (NaN in ``jit``).
    """
    _check(transition)
    table = simplex.as_floating(transition)
    if checks.is_concrete(transition):
        return jnp.asarray(_law(transition), table.dtype)
    return elimination.stationary_in_jit(table)


def stationary_by_eigenvector(transition: Transition) -> Float[Array, " s"]:
    """``stationary`` as the left eigenvector of P to the eigenvalue 1; outside ``jit``. A period does no harm.

    >>> P = jnp.array([[0.2, 0.6, 0.2], [0.3, 0, 0.7], [0.5, 0, 0.5]])
    >>> [round(float(71 * p), 3) for p in stationary_by_eigenvector(P)]
    [25.0, 15.0, 31.0]

    Raises:
      ValueError: as ``stationary``; or a second eigenvalue is so near to 1 that rounding mixes the two.
    """
    _closed_class(transition)
    values, vectors = np.linalg.eig(transitions.host_table(transition).T)
    far = np.abs(values - 1)
    if len(far) > 1 and np.sort(far)[1] < 1e-8:
        raise ValueError("transition: a second eigenvalue is too near to 1 to tell them apart; use stationary")
    law = np.abs(vectors[:, np.argmin(far)])
    return jnp.asarray(law / law.sum(), simplex.as_floating(transition).dtype)


def stationary_by_power_iteration(transition: Transition) -> Float[Array, " s"]:
    """The row that all rows of Pⁿ tend to, n = 1, 2, 4, 8, ... by squaring; for ``jit`` and ``vmap``, no ``grad``.

    d(n) = max_{x,y} TV(Pⁿ(x, ·), Pⁿ(y, ·)) bounds the error, and d(2n) ≤ d(n)² (§4.4): once d ≤ √ε, one more
    squaring brings it to ε, the rounding of the dtype.

    >>> P = jnp.array([[0.2, 0.6, 0.2], [0.3, 0, 0.7], [0.5, 0, 0.5]])
    >>> [round(float(71 * p), 3) for p in stationary_by_power_iteration(P)]
    [25.0, 15.0, 31.0]

    Raises:
      ValueError: as ``stationary``; the chain has a period, so Pⁿ has no limit; or it is not met in 2⁶⁴ steps. In
        ``jit`` all give NaN.
    """
    _check(transition)
    if checks.is_concrete(transition):
        _aperiodic(transition)
    table = simplex.as_floating(transition)
    spread = lambda power: jnp.sum(power.max(0) - power.min(0)) / 2  # ≥ d(n)
    enough = jnp.finfo(table.dtype).eps ** 0.5
    unfinished = lambda loop: (spread(loop[0]) > enough) & (loop[1] < MAX_DOUBLINGS)
    square = lambda power: transitions.normalise_rows(transitions.matmul(power, power))
    power, _ = jax.lax.while_loop(unfinished, lambda loop: (square(loop[0]), loop[1] + 1), (table, 0))
    law = jnp.where(spread(power) <= enough, square(power)[0], jnp.nan)
    if checks.is_concrete(law) and not np.all(np.isfinite(law)):
        raise ValueError(f"transition: the powers are still apart after 2**{MAX_DOUBLINGS} steps; use stationary")
    return law


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
    linked = transitions.host_table(transition) > 0
    groups: dict[int, list[int]] = {}
    for state, label in enumerate(csgraph.connected_components(csr_array(linked), connection="strong")[1]):
        groups.setdefault(int(label), []).append(state)
    closed = lambda group: not np.delete(linked[group], group, axis=1).any()
    return [CommunicatingClass(tuple(g), closed(g), transitions.period(linked[np.ix_(g, g)])) for g in groups.values()]


def period(transition: Transition) -> int:
    """The smallest d with P^{t+d} - Pᵗ → 0, so 1 where Pᵗ converges: the closed classes' (common) period; outside
    ``jit``. That of a class is the greatest common divisor of the lengths of its cycles (§1.3).

    >>> period(jnp.array([[0, 1.0, 0], [0.5, 0, 0.5], [0, 1.0, 0]]))
    2
    """
    return math.lcm(*(group.period for group in communicating_classes(transition) if group.closed))


def total_variation(p: Numbers, q: Numbers) -> Float[Array, "..."]:
    """TV(p, q) = ½ Σ |p - q| = max_A |p(A) - q(A)|, in [0, 1], over the last axis (Prop. 4.2).

    >>> float(total_variation(jnp.array([0.5, 0.5, 0.0]), jnp.array([0.0, 0.5, 0.5])))
    0.5

    Raises:
      ValueError: ``p`` or ``q`` are no distributions over the same states.
    """
    simplex.same_outcomes(-1, p=p, q=q)
    distance = jnp.sum(jnp.abs(simplex.distribution("p", p) - simplex.distribution("q", q)), -1) / 2
    return jnp.where(distance > 1, 1, distance)  # by rounding


def mixing_time(transition: Transition, distance: float | int = 0.25) -> int:
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
    table = transitions.host_table(transition)
    law, start = _law(transition), np.eye(len(table))
    far = lambda power: bool(np.abs(power - law).sum(1).max() / 2 > distance * (1 + 1e-6))  # a tie is near enough
    powers = [table]  # P, P², P⁴, ..., up to the first that is near
    while far(powers[-1]):
        if len(powers) > MAX_DOUBLINGS:
            raise ValueError(f"distance: {distance:g} is not reached in 2**{MAX_DOUBLINGS} steps; ask for a larger one")
        powers.append(transitions.normalise_rows(powers[-1] @ powers[-1]))
    last, at_last = 0, start  # the last time that is far, bit by bit: the distance never grows
    for i in reversed(range(len(powers) - 1)):
        if far(later := at_last @ powers[i]):
            last, at_last = last + 2**i, later
    return last + far(start)


def detailed_balance(transition: Transition, distribution: Numbers) -> Scalar:
    """max_ij |π_i P_ij - π_j P_ji|: 0 iff the chain is reversible with respect to π, which it then leaves (§1.6).

    >>> float(detailed_balance(jnp.array([[0.5, 0.5], [0.25, 0.75]]), jnp.array([1 / 3, 2 / 3])))
    0.0

    Raises:
      ValueError: ``transition`` or ``distribution`` [s] are no distributions over the same states.
    """
    _check(transition)
    transitions.check_distribution("distribution", distribution, transition)
    flow = simplex.as_floating(distribution)[:, None] * simplex.as_floating(transition)
    return jnp.max(jnp.abs(flow - flow.T))


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


def _law(transition: Transition) -> Float[np.ndarray, " s"]:
    return elimination.stationary_on_host(transitions.host_table(transition), _closed_class(transition).states[0])
