"""Markov chains: the engine of the library, and the theory of chains on finitely many states.

Diffusion, sampling of pixels, Metropolis and training steps are kernels ``(key, state, input) -> (state, output)``;
``simulate`` repeats any kernel as one compiled loop. A chain on s states is its transition matrix P; a row that is no
distribution is a ``ValueError``. Functions marked "not jittable" need concrete P and compute in float64. Section
numbers refer to Levin, Peres & Wilmer 2017, "Markov Chains and Mixing Times", 2nd edition.
"""

import math
import reprlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.sparse import csgraph, csr_array

from genjax import checks
from genjax.theory import elimination, scans, simplex, transitions
from genjax.theory.simplex import Numbers
from genjax.types import Input, Kernel, Key, Output, Scalar, State

Transition = Any
"""P_ij = P(x_{t+1} = j | x_t = i), a table of numbers [s s]."""
MAX_DOUBLINGS = 64  # no more than 2⁶⁴ steps


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
      key: random key, or an array of keys for a batch of chains. The kernel then receives an array of the same shape,
        and chain i depends on key i only.
      state: x_0, any tree of arrays; the kernel returns the same shapes and dtypes.
      inputs: u, a tree of arrays with leading axis ``length``; None for no inputs.
      length: number of steps; None for that of ``inputs``.
      segment: number of steps between stored states in reverse mode; the states between are computed again
        (Griewank & Walther 2000, two levels). With √length, memory grows as √length. None stores all states.

    Returns:
      The last state, and the outputs stacked along a new leading axis.

    Raises:
      ValueError: ``inputs`` and ``length`` are both None or disagree; ``segment`` < 1; or ``key`` is no typed key.
    """
    length = scans.num_steps(inputs, length)
    if segment is not None and segment < 1:
        raise ValueError(f"segment: expected at least 1 step, got {segment}")
    keys_and_inputs = scans.step_keys(key, length), inputs
    step = lambda x, key_and_input: kernel(key_and_input[0], x, key_and_input[1])
    if segment and length:
        return scans.checkpointed_scan(step, state, keys_and_inputs, segment)
    return jax.lax.scan(step, state, keys_and_inputs)


def walk(transition: Transition) -> Kernel:
    """The kernel of a finite chain: from state i to a draw of row i; ``jax.vmap`` of ``simulate`` runs many chains.

    >>> P = jnp.array([[0.2, 0.6, 0.2], [0.3, 0, 0.7], [0.5, 0, 0.5]])  # hamburger, pizza, hot dog
    >>> end, path = simulate(walk(P), jax.random.key(0), 1, length=1000)
    >>> bool(jnp.all((path[1:] != 1) | (path[:-1] == 0)))  # pizza follows only hamburgers
    True

    Raises:
      ValueError: ``transition`` is no table of distributions; in the kernel, the dtype of the state does not reach
        s - 1, or, outside ``jit``, the state is outside [0, s). Inside ``jit``, a state outside [0, s) never changes.
    """
    transitions.check(transition)
    log_p = jnp.log(simplex.as_floating(transition))
    last = len(log_p) - 1

    def kernel(key: Key, state: Any, _: Any) -> tuple[Int[Array, ""], Int[Array, ""]]:
        dtype = jnp.result_type(state)
        if not jnp.issubdtype(dtype, jnp.integer) or jnp.iinfo(dtype).max < last:
            raise ValueError(f"state: expected a whole number of a type that reaches {last}, got {dtype}")
        checks.integers("state", state, 0, last + 1)
        draw = jax.random.categorical(key, log_p[jnp.clip(state, 0, last)]).astype(dtype)
        state = jnp.where((state >= 0) & (state <= last), draw, state)
        return state, state

    return kernel


def evolve(transition: Transition, start: Numbers, steps: int) -> Float[Array, "t ... s"]:
    """The distributions π_t = π_0 Pᵗ for t = 0, ..., ``steps``, along a new leading axis; ``jnp.eye(s)`` gives Pᵗ.

    >>> P = jnp.array([[0.2, 0.6, 0.2], [0.3, 0, 0.7], [0.5, 0, 0.5]])
    >>> [[round(float(p), 2) for p in row] for row in evolve(P, jnp.array([0.0, 1.0, 0.0]), 2)]
    [[0.0, 1.0, 0.0], [0.3, 0.0, 0.7], [0.41, 0.18, 0.41]]

    Raises:
      ValueError: ``transition`` or ``start`` [... s] are no distributions over the same states, or ``steps`` < 0.
    """
    transitions.check(transition)
    first = simplex.as_floating(start)
    transitions.check_distribution("start", start, transition)
    checks.count("steps", steps, 0)
    table = jnp.asarray(transition, first.dtype)
    normalise = lambda p: p * jax.lax.stop_gradient(jnp.sum(p, -1, keepdims=True) ** -1.0)  # rounding would add up
    step = lambda p, _: (normalise(transitions.matmul(p, table)),) * 2
    return jnp.concatenate([first[None], jax.lax.scan(step, first, length=steps)[1]])


def stationary(transition: Transition) -> Float[Array, " s"]:
    """The stationary distribution, π P = π, by elimination; works under ``jit``, ``vmap`` and ``grad`` (§1.5).

    Each probability is exact to s roundings. The chain may be periodic; transient states have probability 0.

    >>> P = jnp.array([[0.2, 0.6, 0.2], [0.3, 0, 0.7], [0.5, 0, 0.5]])
    >>> [round(float(71 * p), 3) for p in stationary(P)]
    [25.0, 15.0, 31.0]

    The diagonal is not used, so the gradient in P_ij is for probability moved from P_ii to P_ij.

    Raises:
      ValueError: there are several closed classes, so several stationary distributions (NaN in ``jit``).
    """
    transitions.check(transition)
    table = simplex.as_floating(transition)
    if checks.is_concrete(transition):
        first = _closed_class(transition).states[0]
        return jnp.asarray(elimination.stationary_on_host(transitions.host_table(transition), first), table.dtype)
    return elimination.stationary_in_jit(table)


def stationary_by_eigenvector(transition: Transition) -> Float[Array, " s"]:
    """``stationary`` as the left eigenvector of P for the eigenvalue 1; not jittable. Periodic chains are allowed.

    >>> P = jnp.array([[0.2, 0.6, 0.2], [0.3, 0, 0.7], [0.5, 0, 0.5]])
    >>> [round(float(71 * p), 3) for p in stationary_by_eigenvector(P)]
    [25.0, 15.0, 31.0]

    Raises:
      ValueError: as ``stationary``; or a second eigenvalue is so close to 1 that rounding mixes the two.
    """
    _closed_class(transition)
    values, vectors = np.linalg.eig(transitions.host_table(transition).T)
    distance = np.abs(values - 1)
    if len(distance) > 1 and np.sort(distance)[1] < 1e-8:
        raise ValueError("transition: a second eigenvalue is too near to 1 to tell them apart; use stationary")
    vector = np.abs(vectors[:, np.argmin(distance)])
    return jnp.asarray(vector / vector.sum(), simplex.as_floating(transition).dtype)


def stationary_by_power_iteration(transition: Transition) -> Float[Array, " s"]:
    """The limit of every row of Pⁿ, n = 1, 2, 4, 8, ... by squaring; works under ``jit`` and ``vmap``, not ``grad``.

    d(n) = max_{x,y} TV(Pⁿ(x, ·), Pⁿ(y, ·)) bounds the error, and d(2n) ≤ d(n)² (§4.4): once d ≤ √ε, one more
    squaring brings it to ε, the rounding of the dtype.

    >>> P = jnp.array([[0.2, 0.6, 0.2], [0.3, 0, 0.7], [0.5, 0, 0.5]])
    >>> [round(float(71 * p), 3) for p in stationary_by_power_iteration(P)]
    [25.0, 15.0, 31.0]

    Raises:
      ValueError: as ``stationary``; or the chain is periodic, or 2⁶⁴ steps do not reach the limit (NaN in ``jit``).
    """
    transitions.check(transition)
    if checks.is_concrete(transition):
        _check_aperiodic(transition)
    table = simplex.as_floating(transition)
    bound = lambda power: jnp.sum(power.max(0) - power.min(0)) / 2  # ≥ d(n)
    tolerance = jnp.finfo(table.dtype).eps ** 0.5
    is_unfinished = lambda loop: (bound(loop[0]) > tolerance) & (loop[1] < MAX_DOUBLINGS)
    square = lambda power: transitions.normalise_rows(transitions.matmul(power, power))
    power, _ = jax.lax.while_loop(is_unfinished, lambda loop: (square(loop[0]), loop[1] + 1), (table, 0))
    limit = jnp.where(bound(power) <= tolerance, square(power)[0], jnp.nan)
    if checks.is_concrete(limit) and not np.all(np.isfinite(limit)):
        raise ValueError(f"transition: the powers do not converge in 2**{MAX_DOUBLINGS} steps; use stationary")
    return limit


class CommunicatingClass(NamedTuple):
    """A class of states that lead to each other.

    Attributes:
      states: indices of the states.
      closed: True where the chain never leaves the class.
      period: period of the class; 0 for a single state without return.
    """

    states: tuple[int, ...]
    closed: bool
    period: int


def communicating_classes(transition: Transition) -> list[CommunicatingClass]:
    """Classes of states that lead to each other, in the order of their first states (§1.7); not jittable.

    >>> for group in communicating_classes(jnp.array([[0.5, 0.3, 0.2], [0, 0, 1], [0, 1, 0]])):
    ...     print(group)
    CommunicatingClass(states=(0,), closed=False, period=1)
    CommunicatingClass(states=(1, 2), closed=True, period=2)
    """
    linked = transitions.host_table(transition) > 0
    groups: dict[int, list[int]] = {}
    for state, label in enumerate(csgraph.connected_components(csr_array(linked), connection="strong")[1]):
        groups.setdefault(int(label), []).append(state)
    closed = lambda g: not np.delete(linked[g], g, axis=1).any()
    return [CommunicatingClass(tuple(g), closed(g), transitions.period(linked[np.ix_(g, g)])) for g in groups.values()]


def period(transition: Transition) -> int:
    """The smallest d with P^{t+d} - Pᵗ → 0, so 1 where Pᵗ converges; not jittable.

    The least common multiple of the periods of the closed classes, each the gcd of the lengths of cycles (§1.3).

    >>> period(jnp.array([[0, 1.0, 0], [0.5, 0, 0.5], [0, 1.0, 0]]))
    2
    """
    return math.lcm(*(group.period for group in communicating_classes(transition) if group.closed))


def total_variation(p: Numbers, q: Numbers) -> Float[Array, "..."]:
    """TV(p, q) = ½ Σ |p - q| = max_A |p(A) - q(A)|, in [0, 1], over the last axis (Prop. 4.2).

    >>> float(total_variation(jnp.array([0.5, 0.5, 0.0]), jnp.array([0.0, 0.5, 0.5])))
    0.5

    Raises:
      ValueError: ``p`` and ``q`` are no distributions over the same states.
    """
    simplex.same_outcomes(-1, p=p, q=q)
    distance = jnp.sum(jnp.abs(simplex.distribution("p", p) - simplex.distribution("q", q)), -1) / 2
    return jnp.where(distance > 1, 1, distance)  # by rounding


def mixing_time(transition: Transition, distance: float | int = 0.25) -> int:
    """The smallest t with max_x TV(Pᵗ(x, ·), π) ≤ ``distance`` (§4.5); not jittable.

    >>> P = jnp.array([[0.2, 0.6, 0.2], [0.3, 0, 0.7], [0.5, 0, 0.5]])
    >>> mixing_time(P), mixing_time(P, 0.001)
    (2, 7)

    Raises:
      ValueError: as ``stationary_by_power_iteration``; ``distance`` is outside (0, 1), or not reached in 2⁶⁴ steps.
    """
    if not 0 < distance < 1:
        raise ValueError(f"distance: expected a total variation in (0, 1), got {distance:g}")
    _check_aperiodic(transition)
    table = transitions.host_table(transition)
    pi = elimination.stationary_on_host(table, _closed_class(transition).states[0])
    identity = np.eye(len(table))
    is_far = lambda power: bool(np.abs(power - pi).sum(1).max() / 2 > distance * (1 + 1e-6))  # a tie is not far
    powers = [table]  # P, P², P⁴, ..., up to the first that is not far
    while is_far(powers[-1]):
        if len(powers) > MAX_DOUBLINGS:
            raise ValueError(f"distance: {distance:g} is not reached in 2**{MAX_DOUBLINGS} steps; ask for a larger one")
        powers.append(transitions.normalise_rows(powers[-1] @ powers[-1]))
    t, power = 0, identity  # the largest t that is far, bit by bit: the distance never grows
    for i in reversed(range(len(powers) - 1)):
        if is_far(longer := power @ powers[i]):
            t, power = t + 2**i, longer
    return t + is_far(identity)


def detailed_balance(transition: Transition, distribution: Numbers) -> Scalar:
    """max_ij |π_i P_ij - π_j P_ji|: 0 iff the chain is reversible with respect to π, which is then stationary (§1.6).

    >>> float(detailed_balance(jnp.array([[0.5, 0.5], [0.25, 0.75]]), jnp.array([1 / 3, 2 / 3])))
    0.0

    Raises:
      ValueError: ``transition`` or ``distribution`` [s] are no distributions over the same states.
    """
    transitions.check(transition)
    transitions.check_distribution("distribution", distribution, transition)
    flow = simplex.as_floating(distribution)[:, None] * simplex.as_floating(transition)
    return jnp.max(jnp.abs(flow - flow.T))


def _closed_class(transition: Transition) -> CommunicatingClass:
    closed = [group for group in communicating_classes(transition) if group.closed]
    if len(closed) != 1:
        names, fix = reprlib.repr([group.states for group in closed]), "pass the rows and columns of one of them"
        raise ValueError(f"transition: each of the closed classes {names} has its own stationary distribution; {fix}")
    return closed[0]


def _check_aperiodic(transition: Transition) -> None:
    if (cycle := _closed_class(transition).period) > 1:
        fix = "use stationary(transition), or (I + P) / 2, which has the same stationary distribution and no period"
        raise ValueError(f"transition: the chain has period {cycle}, so its powers do not converge; {fix}")
