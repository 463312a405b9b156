"""Maximum likelihood: closed forms, and Newton's method for any model (Fisher 1922; Wasserman 2004, ch. 9).

θ̂ = argmax_θ Σ_i log p(x_i; θ). The standard errors are the square roots of the diagonal of the inverse observed
information, -∇² Σ_i log p(x_i; θ̂) (Efron & Hinkley 1978).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
import scipy.stats
from jax.flatten_util import ravel_pytree
from jax.scipy.stats import chi2
from jaxtyping import Array, Bool, Float

from genjax import checks
from genjax.theory import maximum, simplex
from genjax.theory.gaussian import DiagGaussian, FullGaussian, from_covariance
from genjax.theory.simplex import Numbers
from genjax.types import Params, Scalar

LogLikelihood = Callable[[Params, Any], Float[Array, "..."]]
"""``(params, data) -> log p(x_i; params)`` of all observations, or the sum over them; nats."""


def bernoulli(successes: Numbers, trials: Numbers) -> Float[Array, "..."]:
    """θ̂ = successes / trials.

    >>> round(float(bernoulli(30, 100)), 4)
    0.3

    Raises:
      ValueError: not 0 ≤ successes ≤ trials, or no trials.
    """
    if not checks.is_concrete(successes, trials):
        return simplex.as_floating(successes) / simplex.as_floating(trials)
    s, n = np.asarray(successes, np.float64), np.asarray(trials, np.float64)
    if not np.all((s >= 0) & (s <= n) & (n > 0) & (n < np.inf)):
        got = f"{np.asarray(successes)} of {np.asarray(trials)}"
        raise ValueError(f"successes, trials: expected 0 <= successes <= trials and a trial, got {got}")
    return _to_device(s / n, successes, trials)


def categorical(counts: Numbers) -> Float[Array, "... k"]:
    """θ̂_k = counts_k / Σ counts, over the last axis.

    >>> [round(float(p), 3) for p in categorical(jnp.array([50, 25, 25]))]
    [0.5, 0.25, 0.25]

    Raises:
      ValueError: a count is negative, or a row has no observation.
    """
    if not np.ndim(counts):
        raise ValueError("counts: expected a count of each outcome along the last axis, got a single number")
    _check_not_negative("counts", counts)
    is_concrete = checks.is_concrete(counts)
    table = np.asarray(counts, np.float64) if is_concrete else simplex.as_floating(counts)
    largest = table.max(-1, keepdims=True, initial=0)
    if is_concrete and not np.all(largest > 0):
        raise ValueError("counts: expected at least one observation in each row")
    scaled = table / largest  # the sum cannot overflow
    return _to_device(scaled / scaled.sum(-1, keepdims=True), counts)


def gaussian(x: Numbers) -> DiagGaussian:
    """μ̂ = mean, σ̂² = mean squared deviation (divided by n, not n - 1), over the leading axis of x [n ... d].

    >>> float(gaussian(jnp.array([[1.0], [3.0]])).mean[0]), float(gaussian(jnp.array([[1.0], [3.0]])).log_std[0])
    (2.0, 0.0)

    Raises:
      ValueError: there are no observations, a number is not finite, or all are equal in a dimension, so σ̂ is 0.
    """
    table = _observations(x)
    if checks.is_concrete(x) and not np.all(np.ptp(table, 0) > 0):
        raise ValueError(f"x: expected different observations in each dimension; of {len(table)}, all are equal in one")
    log = np.log if checks.is_concrete(x) else jnp.log
    return DiagGaussian(_to_device(table.mean(0), x), _to_device(log(table.std(0)), x))


def full_gaussian(x: Numbers) -> FullGaussian:
    """μ̂ = mean, Σ̂ = 1/n Σ_i (x_i - μ̂)(x_i - μ̂)ᵀ of x [n d].

    Raises:
      ValueError: there are no more observations than dimensions, or they lie in a plane, so Σ̂ is singular.
    """
    if np.ndim(x) != 2:
        raise ValueError(f"x: expected observations [n d], got the shape {np.shape(x)}")
    table = _observations(x)
    n, d = table.shape
    if n <= d:
        raise ValueError(f"x: expected more observations than the {d} dimensions, got {n}")
    centred = table - table.mean(0)
    covariance = _to_device(centred.T @ centred / n, x)
    if checks.is_concrete(x):
        scale = np.where((deviation := table.std(0)) > 0, deviation, 1)
        smallest = np.linalg.eigvalsh((centred / scale).T @ (centred / scale) / n)[0]
        if not smallest > 16 * d * jnp.finfo(covariance.dtype).eps:
            raise ValueError(f"x: expected observations that span {d} dimensions; their covariance is singular")
        if not np.all(np.diagonal(covariance) >= jnp.finfo(covariance.dtype).tiny):
            raise ValueError(f"x: expected variances in the range of {covariance.dtype}; change the unit of x")
    return from_covariance(_to_device(table.mean(0), x), covariance)


def exponential(x: Numbers) -> Float[Array, "..."]:
    """Rate λ̂ = 1 / mean of an exponential distribution, over the leading axis.

    Raises:
      ValueError: an observation is negative, there are none, or all are 0.
    """
    _check_not_negative("x", x)
    mean = _observations(x).mean(0)
    if checks.is_concrete(x) and not np.all(mean > 0):
        raise ValueError("x: expected an observation above 0; where all are 0 the likelihood has no maximum")
    return _to_device(1 / mean, x)


def poisson(x: Numbers) -> Float[Array, "..."]:
    """Rate λ̂ = mean of a Poisson distribution, over the leading axis.

    Raises:
      ValueError: an observation is negative, or there are none.
    """
    _check_not_negative("x", x)
    return _to_device(_observations(x).mean(0), x)


class Fit(NamedTuple):
    """A maximum-likelihood fit.

    Attributes:
      params: θ̂.
      log_likelihood: Σ_i log p(x_i; θ̂), nats.
      information: observed Fisher information [p p], in the order of ``jax.flatten_util.ravel_pytree(params)``.
      standard_error: standard error of each parameter, a tree like ``params``; NaN where the information is not
        positive definite. Meaningless unless ``converged``.
      converged: True where θ̂ is a maximum, to tolerance or precision: the gradient is negligible against the
        information, and the information is positive definite and hardly changes along the gradient. False where the
        likelihood rises for ever, or does not depend on a parameter.
    """

    params: Params
    log_likelihood: Scalar
    information: Float[Array, "p p"]
    standard_error: Params
    converged: Bool[Array, ""]


def fit(
    log_likelihood: LogLikelihood,
    init: Params,
    data: Any,
    *,
    num_steps: int = 200,
    tolerance: float | int | None = None,
) -> Fit:
    """Maximise Σ_i log p(x_i; θ) by Newton's method; works under ``jit`` and ``vmap``.

    >>> tosses = jnp.arange(100) < 30
    >>> toss = lambda logit, x: jnp.where(x, jax.nn.log_sigmoid(logit), jax.nn.log_sigmoid(-logit))
    >>> result = fit(toss, 0.0, tosses)
    >>> round(float(jax.nn.sigmoid(result.params)), 4), round(float(result.standard_error), 4)
    (0.3, 0.2182)
    >>> bool(result.converged), bool(fit(toss, 0.0, tosses | True).converged)  # heads alone: no maximum
    (True, False)

    Args:
      log_likelihood: log-likelihood of the observations, twice differentiable.
      init: initial parameters, a tree of unconstrained numbers: fit the logarithm of a positive parameter.
      data: the second argument of ``log_likelihood``.
      num_steps: maximum number of Newton steps.
      tolerance: length of the next step, in standard errors of a single observation, √(gᵀ I⁻¹ g / n), at which to
        stop. Default, and minimum for ``converged``: the 2/3 power of the precision (2e-5 in float32).

    Raises:
      ValueError: the log-likelihood at ``init`` is not finite, there is no parameter or no observation, or an option is
        out of range.
    """
    if num_steps < 0:
        raise ValueError(f"num_steps: expected at least 0, got {num_steps}")
    if tolerance is not None:
        checks.within("tolerance", tolerance, 0, 1)
    start, unravel = ravel_pytree(_floats(init))
    terms = lambda flat: log_likelihood(unravel(flat), data)
    size = jax.eval_shape(terms, start).size if start.size else 0
    if not size:
        raise ValueError(f"init, data: expected parameters and observations, got {start.size} and {size}")
    total = lambda flat: jnp.sum(terms(flat)).astype(flat.dtype)
    initial = total(start)
    if checks.is_concrete(initial) and not np.isfinite(initial):
        raise ValueError(f"init: the log-likelihood is {float(initial)} there; start where the data are possible")
    precision = float(jnp.finfo(start.dtype).eps) ** (2 / 3)
    limit = precision if tolerance is None else tolerance
    flat = maximum.newton(total, start, size, num_steps=num_steps, limit=limit)
    deviation, converged = maximum.verify(total, flat, size, max(limit, precision))
    params = unravel(flat)
    return Fit(params, total(flat), information(log_likelihood, params, data), unravel(deviation), converged)


def information(log_likelihood: LogLikelihood, params: Params, data: Any) -> Float[Array, "p p"]:
    """The observed Fisher information -∇² Σ_i log p(x_i; θ), in the order of ``ravel_pytree(params)``.

    Raises:
      ValueError: a parameter or the data are not finite.
    """
    for leaf in jax.tree.leaves((params, data)):
        checks.finite("params, data", leaf)
    flat, unravel = ravel_pytree(_floats(params))
    return -jax.hessian(lambda flat: jnp.sum(log_likelihood(unravel(flat), data)))(flat)


def confidence_interval(fit: Fit, level: float | int = 0.95) -> tuple[Params, Params]:
    """Lower and upper end of Wald's confidence interval θ̂ ∓ z se of each parameter (Wasserman 2004, thm. 9.19).

    The interval is (-∞, ∞) where the fit has not converged.

    Raises:
      ValueError: ``level`` is outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level: expected a probability in (0, 1), such as 0.95; got {level}")
    tail = (1 - level) / 2  # keeps the digits that (1 + level) / 2 would lose
    z = float(-scipy.special.ndtri(tail)) if level > 0.5 else float(scipy.special.erfinv(level)) * 2**0.5

    def end(sign: int, x: Any, error: Any) -> Float[Array, "..."]:
        converged = jnp.asarray(fit.converged)
        converged = converged.reshape(converged.shape + (1,) * (np.ndim(x) - converged.ndim))  # a batch of fits
        return jnp.where(converged & jnp.isfinite(error), x + sign * z * jnp.asarray(error), sign * jnp.inf)

    lower, upper = (jax.tree.map(functools.partial(end, sign), fit.params, fit.standard_error) for sign in (-1, 1))
    return lower, upper


class RatioTest(NamedTuple):
    """Result of a likelihood-ratio test.

    Attributes:
      statistic: 2 (log L(full) - log L(restricted)) ≥ 0.
      p_value: probability of a statistic at least this large where the restriction holds.
    """

    statistic: Scalar
    p_value: Scalar


def ratio_test(restricted: Numbers, full: Numbers, num_restrictions: int) -> RatioTest:
    """Compare nested models: 2 (log L₁ - log L₀) is χ² with as many degrees of freedom as restrictions (Wilks 1938).

    Args:
      restricted: maximum log-likelihood of the smaller model, nats: ``Fit.log_likelihood``.
      full: maximum log-likelihood of the larger model, nats.
      num_restrictions: difference of the numbers of parameters.

    Raises:
      ValueError: ``num_restrictions`` < 1; a log-likelihood is not finite; or ``full`` is below ``restricted`` by more
        than rounding: the two are exchanged, or a fit has not converged.
    """
    if num_restrictions < 1:
        raise ValueError(f"num_restrictions: expected at least 1, got {num_restrictions}")
    checks.finite("restricted", restricted)
    checks.finite("full", full)
    if not checks.is_concrete(restricted, full):
        statistic = jnp.maximum(2 * (jnp.asarray(full) - jnp.asarray(restricted)), 0.0)
        return RatioTest(statistic, chi2.sf(statistic, num_restrictions))
    smaller, larger = np.asarray(restricted, np.float64), np.asarray(full, np.float64)  # subtract exactly
    if np.any(larger - smaller < -1e-5 * np.maximum(np.abs(smaller), 1)):
        raise ValueError(f"full: expected at least the log-likelihood {smaller} of the restricted model, got {larger}")
    exact = np.maximum(2 * (larger - smaller), 0)
    p_value = scipy.stats.chi2.sf(exact, num_restrictions)
    return RatioTest(_to_device(exact, restricted, full), _to_device(p_value, restricted, full))


def _floats(params: Params) -> Params:
    """Parameters in floating point, float32 or wider."""
    widen = lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return jax.tree.map(lambda x: widen(simplex.as_floating(x)), params)


def _observations(x: Numbers) -> Any:
    """Check observations along the leading axis, at least one; float64 outside ``jit``."""
    checks.min_rows("x", x)
    checks.finite("x", x)
    return np.asarray(x, np.float64) if checks.is_concrete(x) else simplex.as_floating(x)


def _to_device(value: Any, *like: Numbers) -> Float[Array, "..."]:
    """The value in the dtype that JAX would give a result of the arguments ``like`` in floating point."""
    floats = [x.dtype for x in like if hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.asarray(value, jnp.result_type(*map(jax.dtypes.canonicalize_dtype, floats or [float])))


def _check_not_negative(name: str, x: Numbers) -> None:
    checks.finite(name, x)
    if checks.is_concrete(x) and np.any(np.asarray(x) < 0):
        raise ValueError(f"{name}: expected nothing negative, got {np.min(np.asarray(x)):g}")
