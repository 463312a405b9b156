"""Markov chain Monte Carlo: chains whose stationary distribution is a given density, known up to a constant.

An algorithm is a pair: ``init`` makes the first state from a position, ``step`` is the kernel that moves one chain.
``markov.simulate`` repeats the kernel, and ``jax.vmap`` runs many chains:

    algorithm = random_walk_metropolis(log_density, 0.5)
    run = lambda key, x: markov.simulate(algorithm.step, key, algorithm.init(x), length=1000)[1]
    info = jax.vmap(run)(jax.random.split(key, 8), positions)

Acceptance is computed in logarithms. A proposal is rejected where the density is 0 or infinite, or any number is NaN.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from genjax import checks
from genjax.theory import simplex
from genjax.theory.simplex import Numbers
from genjax.types import Kernel, Key, Scalar

LogDensity = Callable[[Any], Any]
"""``x -> log π(x)`` up to a constant: one number, nats; -∞ where the density is 0."""

Propose = Callable[[Key, Any], tuple[Any, Scalar | float]]
"""``(key, x) -> (x', log q(x|x') - log q(x'|x))``: a draw of q(·|x) and the log ratio; 0 if q is symmetric."""

StepSize = Any
"""A positive number; may be traced, so that ``vmap`` tries many at once."""


class MCMCState(NamedTuple):
    """State of a chain.

    Attributes:
      position: x, any tree of arrays.
      log_density: log π(x).
      log_density_grad: ∇ log π(x), for algorithms that use the gradient; otherwise None.
    """

    position: Any
    log_density: Scalar
    log_density_grad: Any = None


class MCMCInfo(NamedTuple):
    """Output of one transition.

    Attributes:
      position: position after the transition.
      is_accepted: True where the proposal was accepted; the mean over a run is the acceptance rate.
      acceptance_rate: probability of accepting the proposal; its mean estimates the same rate with less noise.
    """

    position: Any
    is_accepted: Bool[Array, ""]
    acceptance_rate: Scalar


class SamplingAlgorithm(NamedTuple):
    """A Markov chain Monte Carlo algorithm for one density.

    Attributes:
      init: ``(position) -> state``, the first state of ``step``.
      step: the kernel ``(key, state, _) -> (state, output)`` for ``markov.simulate``.
    """

    init: Callable[[Any], Any]
    step: Kernel


def random_walk_metropolis(log_density: LogDensity, step_size: StepSize) -> SamplingAlgorithm:
    """Random-walk Metropolis: x' = x + s ε, ε ~ N(0, I), accepted with min(1, π(x') / π(x)) (Metropolis et al. 1953).

    ``init`` and ``step`` are those of ``metropolis_hastings``.

    >>> from genjax.theory import markov
    >>> algorithm = random_walk_metropolis(lambda x: -(x**2) / 2, 2.4)
    >>> _, info = markov.simulate(algorithm.step, jax.random.key(0), algorithm.init(0.0), length=10_000)
    >>> round(float(info.position.std()), 1), round(float(info.is_accepted.mean()), 1)
    (1.0, 0.4)

    Args:
      log_density: log π of a floating-point array of any shape.
      step_size: s, the standard deviation of the proposal, > 0. For a Gaussian in d dimensions 2.4 σ / √d is about
        best, with an acceptance rate of 0.44 (d = 1) to 0.23 (Roberts, Gelman & Gilks 1997).

    Raises:
      ValueError: ``step_size`` is not positive.
    """
    checks.positive("step_size", step_size)

    def propose(key: Key, x: Any) -> tuple[Any, float]:
        _check_floating(x)
        return _move(x, step_size, _noise(key, x)), 0.0

    return metropolis_hastings(log_density, propose)


def metropolis_hastings(log_density: LogDensity, propose: Propose) -> SamplingAlgorithm:
    """Metropolis with any proposal q: accepted with min(1, π(x') q(x|x') / (π(x) q(x'|x))) (Hastings 1970).

    State and output are ``MCMCState`` and ``MCMCInfo``. ``init`` raises a ValueError where ``log_density`` returns no
    scalar, or, outside ``jit``, one that is not finite.

    >>> up_or_down = lambda key, n: (n + 2 * jax.random.bernoulli(key).astype(n.dtype) - 1, 0.0)
    >>> log_density = lambda n: jnp.where(n < 0, -jnp.inf, -n * jnp.log(2.0))  # π(n) = 2⁻ⁿ⁻¹, n = 0, 1, ...
    >>> algorithm = metropolis_hastings(log_density, up_or_down)
    >>> state, info = algorithm.step(jax.random.key(0), algorithm.init(0), None)
    >>> int(state.position), float(info.acceptance_rate)
    (0, 0.0)
    >>> algorithm.init(-1)
    Traceback (most recent call last):
    ValueError: position: expected a start of positive, finite density, got log_density(x) = -inf

    Args:
      log_density: log π of any tree of arrays: continuous, discrete or both.
      propose: the proposal q.
    """

    def step(key: Key, state: Any, _: Any) -> tuple[MCMCState, MCMCInfo]:
        if not isinstance(state, MCMCState) or state.log_density_grad is not None:
            raise ValueError("state: expected an MCMCState without a gradient; begin at init(x) of the same algorithm")
        propose_key, accept_key = jax.random.split(key)
        x, log_ratio = propose(propose_key, state.position)
        return _accept(accept_key, state, MCMCState(x, _evaluate(log_density, x)), log_ratio)

    return SamplingAlgorithm(lambda position: _init(log_density, position), step)


def langevin(log_density: LogDensity, step_size: StepSize) -> SamplingAlgorithm:
    """Unadjusted Langevin: x' = x + h/2 ∇ log π(x) + √h ε, ε ~ N(0, I) (Roberts & Tweedie 1996).

    The Euler steps of dX = ½ ∇ log π(X) dt + dW, whose distribution is π. The steps themselves are off by O(h): on
    N(0, 1) their variance is 1 / (1 - h/4), and from h = 4 on it is infinite. State and output are the position alone.

    >>> from genjax.theory import markov
    >>> algorithm = langevin(lambda x: -(x**2) / 2, 2.0)
    >>> _, positions = markov.simulate(algorithm.step, jax.random.key(0), algorithm.init(0.0), length=10_000)
    >>> round(float(positions.var()), 1)
    2.0

    Args:
      log_density: log π of a floating-point array of any shape.
      step_size: h > 0, the time step, which is the variance of the noise.

    Raises:
      ValueError: ``step_size`` is not positive; in ``init``, the position is no floating-point array.
    """
    checks.positive("step_size", step_size)

    def init(position: Any) -> Float[Array, "..."]:
        position = jax.tree.map(_as_signed, position)
        _check_floating(position)
        return position

    def step(key: Key, x: Any, _: Any) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        drifted = _move(x, step_size / 2, _with_gradient(log_density, x).log_density_grad)
        x = _move(drifted, jnp.sqrt(step_size), _noise(key, drifted))
        return x, x

    return SamplingAlgorithm(init, step)


def mala(log_density: LogDensity, step_size: StepSize) -> SamplingAlgorithm:
    """Metropolis-adjusted Langevin: a step of ``langevin`` as proposal, accepted so that π is exact.

    q(x'|x) = N(x'; x + h/2 ∇ log π(x), h I) (Roberts & Tweedie 1996). One gradient per step: the ``MCMCState`` keeps
    the gradient at its position. The output is an ``MCMCInfo``.

    >>> from genjax.theory import markov
    >>> algorithm = mala(lambda x: -(x**2) / 2, 2.0)
    >>> _, info = markov.simulate(algorithm.step, jax.random.key(0), algorithm.init(0.0), length=10_000)
    >>> round(float(info.position.var()), 1)
    1.0

    Args:
      log_density: log π of a floating-point array of any shape.
      step_size: h > 0; best at an acceptance rate of 0.57 in many dimensions (Roberts & Rosenthal 1998).

    Raises:
      ValueError: ``step_size`` is not positive; in ``init``, as ``metropolis_hastings``, or the position is no
        floating-point array, or, outside ``jit``, the gradient is not finite.
    """
    checks.positive("step_size", step_size)

    def log_q(to: MCMCState, given: MCMCState) -> Scalar:
        mean = _move(given.position, step_size / 2, given.log_density_grad)
        return -jnp.sum((to.position - mean) ** 2) / (2 * step_size)

    def init(position: Any) -> MCMCState:
        state = _with_gradient(log_density, _init(log_density, position).position)
        if checks.is_concrete(state) and not np.all(np.isfinite(state.log_density_grad)):
            raise ValueError(f"position: expected a start where the gradient is finite, got {state.log_density_grad}")
        return state

    def step(key: Key, state: Any, _: Any) -> tuple[MCMCState, MCMCInfo]:
        if not isinstance(state, MCMCState) or state.log_density_grad is None:
            raise ValueError("state: expected an MCMCState with a gradient; begin at init(x) of the same algorithm")
        propose_key, accept_key = jax.random.split(key)
        drifted = _move(state.position, step_size / 2, state.log_density_grad)
        noise = _noise(propose_key, state.position)
        proposal = _with_gradient(log_density, _move(drifted, jnp.sqrt(step_size), noise))
        return _accept(accept_key, state, proposal, log_q(state, proposal) - log_q(proposal, state))

    return SamplingAlgorithm(init, step)


def effective_sample_size(chain: Numbers) -> Float[Array, "..."]:
    """n / τ: of how many independent draws the mean over axis 0 is worth; its standard error is std / √ESS.

    τ = 1 + 2 Σ_k ρ_k = -1 + 2 Σ_m Γ_m,  Γ_m = ρ_{2m} + ρ_{2m+1}

    with ρ_k the correlation of draws k apart. For a reversible chain Γ is positive and falls, so the sum ends before
    the first Γ_m ≤ 0 and no term is more than the one before (Geyer 1992, §3.3, initial monotone sequence). More than
    n where neighbours are opposed, up to n log₁₀ n (as in Stan). NaN where the chain never moves.

    >>> noise = jax.random.normal(jax.random.key(0), (4000,))
    >>> repeated = jnp.repeat(noise, 10)
    >>> bool(3500 < effective_sample_size(repeated) < 4500)
    True

    Raises:
      ValueError: fewer than 4 draws, or one is not finite.
    """
    checks.finite("chain", chain)
    n = np.shape(chain)[0] if np.ndim(chain) else 0
    if n < 4:
        raise ValueError(f"chain: expected at least 4 draws along axis 0, got {n}")
    draws = simplex.as_floating(chain)
    draws = draws * jnp.where(jnp.max(jnp.abs(draws), 0) > 1, 0.25, 1)  # so that no difference overflows
    centred = draws - draws[:1]  # exactly 0 for a chain that never moves
    centred = centred / jnp.maximum(jnp.max(jnp.abs(centred), 0), jnp.finfo(draws.dtype).tiny)
    centred = centred - centred.mean(0)
    spectrum = jnp.fft.rfft(centred, 1 << (2 * n - 1).bit_length(), axis=0)
    covariance = jnp.fft.irfft(jnp.abs(spectrum) ** 2, axis=0)[: n // 2 * 2]
    pairs = (covariance[::2] + covariance[1::2]) / covariance[0]
    time = -1 + 2 * jnp.sum(jnp.maximum(jax.lax.cummin(pairs, axis=0), 0), 0)
    return n / jnp.maximum(time, 1 / math.log10(n))


def _accept(key: Key, old: MCMCState, new: MCMCState, log_ratio: Scalar | float) -> tuple[MCMCState, MCMCInfo]:
    """The new state with probability min(1, π(x') / π(x) · e^log_ratio), otherwise the old one."""
    log_density = jnp.where(jnp.isposinf(new.log_density), jnp.nan, new.log_density)
    log_odds = log_density - old.log_density + log_ratio
    rate = jnp.where(jnp.isnan(log_odds), 0, jnp.exp(jnp.minimum(log_odds, 0)))
    # -log u as an exponential is finite; log of a uniform is -∞ once in 2²³ draws, and would accept anything then.
    is_accepted = log_odds >= -jax.random.exponential(key, dtype=log_odds.dtype)
    state = jax.tree.map(lambda new, old: jnp.where(is_accepted, new, old), new, old)
    return state, MCMCInfo(state.position, is_accepted, rate)


def _init(log_density: LogDensity, position: Any) -> MCMCState:
    """The first state, without a gradient; refused where the density is 0 or infinite."""
    position = jax.tree.map(_as_signed, position)
    value = _evaluate(log_density, position)
    if checks.is_concrete(value) and not np.isfinite(value):
        raise ValueError(f"position: expected a start of positive, finite density, got log_density(x) = {value}")
    return MCMCState(position, value)


def _as_signed(x: Any) -> Array:
    """The number as an array; unsigned integers as signed ones, since a step down from 0 must not wrap around."""
    x = jnp.asarray(x)
    return x.astype(jnp.int32) if jnp.issubdtype(x.dtype, jnp.unsignedinteger) else x


def _evaluate(log_density: LogDensity, x: Any) -> Scalar:
    value = simplex.as_floating(log_density(x))
    if value.shape:
        raise ValueError(f"log_density: expected one number, got shape {value.shape}; sum over the dimensions of x")
    return value


def _with_gradient(log_density: LogDensity, x: Any) -> MCMCState:
    _check_floating(x)
    return MCMCState(x, *jax.value_and_grad(lambda x: _evaluate(log_density, x))(x))


def _move(x: Float[Array, "..."], scale: StepSize, direction: Float[Array, "..."]) -> Float[Array, "..."]:
    """x + scale · direction, in the dtype of x."""
    return x + (scale * direction).astype(x.dtype)


def _noise(key: Key, x: Any) -> Float[Array, "..."]:
    return jax.random.normal(key, x.shape, x.dtype)


def _check_floating(x: Any) -> None:
    if not hasattr(x, "dtype"):
        raise ValueError(f"position: expected one array, got {type(x).__name__}; use metropolis_hastings for trees")
    checks.floating("position", x, "start at 0.0 instead of 0; metropolis_hastings moves integers")
