"""Markov chain Monte Carlo: kernels whose stationary law is a given density, known up to a constant.

A kernel moves one chain, and ``markov.simulate`` repeats it; many chains are a ``jax.vmap`` of that:

    run = lambda key, x: markov.simulate(kernel, key, start(log_density, x), length=1000)[1]
    steps = jax.vmap(run)(jax.random.split(key, 8), xs)

Accepting is in logarithms. A proposal is rejected where the density is 0 or infinite, or anything is NaN.
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
"""log π(x) + any constant, one number, nats; -∞ where the density is 0."""

Propose = Callable[[Key, Any], tuple[Any, Scalar | float]]
"""``(key, x) -> (x', log q(x|x') - log q(x'|x))``: a draw of q(·|x), and 0 where the proposal is symmetric."""

StepSize = Any
"""A positive number; traced under ``jit`` and ``vmap``, to try many at once."""


class Point(NamedTuple):
    """Where a chain is.

    Fields:
      x: the place, any tree of arrays.
      log_density: log π(x).
      gradient: ∇ log π(x), for the kernels that use it.
    """

    x: Any
    log_density: Scalar
    gradient: Any = None


class Step(NamedTuple):
    """What happened in a step.

    Fields:
      x: the place after it.
      accepted: whether the proposal was; its mean over a run is the acceptance rate.
      probability: with which it was to be; its mean estimates the same rate with less noise.
    """

    x: Any
    accepted: Bool[Array, ""]
    probability: Scalar


def start(log_density: LogDensity, x: Any) -> Point:
    """The first state of ``metropolis`` and ``metropolis_hastings``.

    >>> start(lambda x: jnp.where(x > 0, -x, -jnp.inf), -1.0)
    Traceback (most recent call last):
    ValueError: x: expected a start where the density is positive and finite, got log_density(x) = -inf

    Raises:
      ValueError: ``log_density(x)`` is no scalar; or, outside ``jit``, it is not finite.
    """
    x = jax.tree.map(_signed, x)
    value = _value(log_density, x)
    if simplex.known(value) and not np.isfinite(value):
        raise ValueError(f"x: expected a start where the density is positive and finite, got log_density(x) = {value}")
    return Point(x, value)


def _signed(x: Any) -> Array:
    """As an array; unsigned numbers as signed ones, for a step down from 0 must not come out at the top."""
    x = jnp.asarray(x)
    return x.astype(jnp.int32) if jnp.issubdtype(x.dtype, jnp.unsignedinteger) else x


def start_with_gradient(log_density: LogDensity, x: Any) -> Point:
    """The first state of ``adjusted_langevin``.

    Raises:
      ValueError: as ``start``; x is no array of floating-point numbers; outside ``jit``, the gradient is not finite.
    """
    point = _with_gradient(log_density, start(log_density, x).x)
    if simplex.known(point.gradient) and not np.all(np.isfinite(point.gradient)):
        raise ValueError(f"x: expected a start where the gradient is finite, got {point.gradient}")
    return point


def metropolis(log_density: LogDensity, step_size: StepSize) -> Kernel:
    """Random-walk Metropolis: x' = x + s ε, ε ~ N(0, I), accepted with min(1, π(x') / π(x)) (Metropolis et al. 1953).

    >>> from genjax.theory import markov
    >>> log_density = lambda x: -(x**2) / 2
    >>> kernel, point = metropolis(log_density, 2.4), start(log_density, 0.0)
    >>> _, steps = markov.simulate(kernel, jax.random.key(0), point, length=10_000)
    >>> round(float(steps.x.std()), 1), round(float(steps.accepted.mean()), 1)
    (1.0, 0.4)

    Args:
      log_density: log π, of an array of any shape, of floating-point numbers.
      step_size: s, the standard deviation of the proposal, > 0. For a Gaussian in d dimensions 2.4 σ / √d is about
        best, with a rate of 0.44 (d = 1) to 0.23 (Roberts, Gelman & Gilks 1997).

    Returns:
      The kernel, from ``Point`` to ``(Point, Step)``; it begins at ``start(log_density, x)``.

    Raises:
      ValueError: ``step_size`` is not positive.
    """
    _check(step_size)

    def propose(key, x):
        _check_floating(x)
        return _moved(x, step_size, _noise(key, x)), 0.0

    return metropolis_hastings(log_density, propose)


def metropolis_hastings(log_density: LogDensity, propose: Propose) -> Kernel:
    """Metropolis with any proposal q: accepted with min(1, π(x') q(x|x') / (π(x) q(x'|x))) (Hastings 1970).

    >>> up_or_down = lambda key, n: (n + 2 * jax.random.bernoulli(key).astype(n.dtype) - 1, 0.0)
    >>> log_density = lambda n: jnp.where(n < 0, -jnp.inf, -n * jnp.log(2.0))  # π(n) = 2⁻ⁿ⁻¹, n = 0, 1, ...
    >>> kernel = metropolis_hastings(log_density, up_or_down)
    >>> point, step = kernel(jax.random.key(0), start(log_density, 0), None)
    >>> int(point.x), float(step.probability)
    (0, 0.0)

    Args:
      log_density: log π, of any tree of arrays: continuous, discrete or both.
      propose: q.

    Returns:
      The kernel, from ``Point`` to ``(Point, Step)``; it begins at ``start(log_density, x)``.
    """

    def kernel(key, here, _):
        if not isinstance(here, Point) or here.gradient is not None:
            raise ValueError("state: expected a Point without a gradient; begin at start(log_density, x)")
        propose_key, accept_key = jax.random.split(key)
        x, log_ratio = propose(propose_key, here.x)
        return _accept(accept_key, here, Point(x, _value(log_density, x)), log_ratio)

    return kernel


def langevin(log_density: LogDensity, step_size: StepSize) -> Kernel:
    """Unadjusted Langevin: x' = x + h/2 ∇ log π(x) + √h ε, ε ~ N(0, I) (Roberts & Tweedie 1996).

    The Euler steps of dX = ½ ∇ log π(X) dt + dW, whose law is π. That of the steps themselves is off by O(h): on
    N(0, 1) its variance is 1 / (1 - h/4), and there is none from h = 4 on.

    >>> from genjax.theory import markov
    >>> log_density = lambda x: -(x**2) / 2
    >>> _, xs = markov.simulate(langevin(log_density, 2.0), jax.random.key(0), 0.0, length=10_000)
    >>> round(float(xs.var()), 1)
    2.0

    Args:
      log_density: log π, of an array of any shape.
      step_size: h, the time step, which is the variance of the noise, > 0.

    Returns:
      The kernel; state and output are x alone.

    Raises:
      ValueError: ``step_size`` is not positive.
    """
    _check(step_size)

    def kernel(key, x, _):
        x = jnp.asarray(x) if isinstance(x, float) else x
        drifted = _moved(x, step_size / 2, _with_gradient(log_density, x).gradient)
        x = _moved(drifted, jnp.sqrt(step_size), _noise(key, drifted))
        return x, x

    return kernel


def adjusted_langevin(log_density: LogDensity, step_size: StepSize) -> Kernel:
    """MALA: a step of ``langevin`` as proposal, accepted so that π is exact (Roberts & Tweedie 1996).

    q(x'|x) = N(x'; x + h/2 ∇ log π(x), h I). One gradient a step: that of a place is carried along.

    >>> from genjax.theory import markov
    >>> log_density = lambda x: -(x**2) / 2
    >>> kernel, point = adjusted_langevin(log_density, 2.0), start_with_gradient(log_density, 0.0)
    >>> _, steps = markov.simulate(kernel, jax.random.key(0), point, length=10_000)
    >>> round(float(steps.x.var()), 1)
    1.0

    Args:
      log_density: log π, of an array of any shape.
      step_size: h, > 0; best at an acceptance rate of 0.57 in many dimensions (Roberts & Rosenthal 1998).

    Returns:
      The kernel, from ``Point`` to ``(Point, Step)``; it begins at ``start_with_gradient(log_density, x)``.

    Raises:
      ValueError: ``step_size`` is not positive.
    """
    _check(step_size)

    def log_q(to: Point, of: Point) -> Scalar:
        return -jnp.sum((to.x - _moved(of.x, step_size / 2, of.gradient)) ** 2) / (2 * step_size)

    def kernel(key, here, _):
        if not isinstance(here, Point) or here.gradient is None:
            raise ValueError("state: expected a Point with a gradient; begin at start_with_gradient(log_density, x)")
        propose_key, accept_key = jax.random.split(key)
        drifted, noise = _moved(here.x, step_size / 2, here.gradient), _noise(propose_key, here.x)
        there = _with_gradient(log_density, _moved(drifted, jnp.sqrt(step_size), noise))
        return _accept(accept_key, here, there, log_q(here, there) - log_q(there, here))

    return kernel


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
    draws = simplex.floating(chain)
    draws = draws * jnp.where(jnp.max(jnp.abs(draws), 0) > 1, 0.25, 1)  # so that no difference overflows
    centred = draws - draws[:1]  # exactly 0 for a chain that never moves
    centred = centred / jnp.maximum(jnp.max(jnp.abs(centred), 0), jnp.finfo(draws.dtype).tiny)
    centred = centred - centred.mean(0)
    spectrum = jnp.fft.rfft(centred, 1 << (2 * n - 1).bit_length(), axis=0)
    covariance = jnp.fft.irfft(jnp.abs(spectrum) ** 2, axis=0)[: n // 2 * 2]
    pairs = (covariance[::2] + covariance[1::2]) / covariance[0]
    time = -1 + 2 * jnp.sum(jnp.maximum(jax.lax.cummin(pairs, axis=0), 0), 0)
    return n / jnp.maximum(time, 1 / math.log10(n))


def _accept(key: Key, here: Point, there: Point, log_ratio: Scalar | float) -> tuple[Point, Step]:
    """``there`` with probability min(1, π(there) / π(here) · e^log_ratio), otherwise ``here``."""
    found = jnp.where(jnp.isposinf(there.log_density), jnp.nan, there.log_density)
    log_odds = found - here.log_density + log_ratio
    probability = jnp.where(jnp.isnan(log_odds), 0, jnp.exp(jnp.minimum(log_odds, 0)))
    # -log u as an exponential is finite; log of a uniform is -∞ once in 2²³ draws, and would accept anything then.
    accepted = log_odds >= -jax.random.exponential(key, dtype=log_odds.dtype)
    point = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), there, here)
    return point, Step(point.x, accepted, probability)


def _value(log_density: LogDensity, x: Any) -> Scalar:
    value = simplex.floating(log_density(x))
    if value.shape:
        raise ValueError(f"log_density: expected one number, got shape {value.shape}; sum over the dimensions of x")
    return value


def _with_gradient(log_density: LogDensity, x: Any) -> Point:
    _check_floating(x)
    return Point(x, *jax.value_and_grad(lambda x: _value(log_density, x))(x))


def _moved(x: Float[Array, "..."], scale: StepSize, direction: Float[Array, "..."]) -> Float[Array, "..."]:
    """Of the type of x, whatever that of the scale is."""
    return x + (scale * direction).astype(x.dtype)


def _noise(key: Key, x: Any) -> Float[Array, "..."]:
    return jax.random.normal(key, x.shape, x.dtype)


def _check_floating(x: Any) -> None:
    if not hasattr(x, "dtype"):
        raise ValueError(f"x: expected one array, got {type(x).__name__}; for other places use metropolis_hastings")
    checks.floating("x", x, "start at 0.0 instead of 0; metropolis_hastings moves whole numbers")


def _check(step_size: StepSize) -> None:
    if simplex.known(step_size) and not np.all((np.asarray(step_size) > 0) & np.isfinite(step_size)):
        raise ValueError(f"step_size: expected a positive number, got {step_size}")
