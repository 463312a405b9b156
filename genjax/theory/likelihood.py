"""Maximum likelihood: closed forms, and by gradient for any model (Fisher 1922; Wasserman 2004, ch. 9).

θ̂ = argmax_θ Σ_i log p(x_i; θ). Its standard errors are the square roots of the diagonal of the inverse of the observed
information, -∇² Σ_i log p(x_i; θ̂) (Efron & Hinkley 1978).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jax.scipy.special import ndtri
from jax.scipy.stats import chi2
from jaxtyping import Array, Bool, Float
from jaxtyping import ArrayLike as Numbers

from genjax import lapack
from genjax.theory import simplex
from genjax.theory.gaussian import DiagGaussian, FullGaussian, from_covariance
from genjax.types import Params, Scalar

LogLikelihood = Callable[[Params, Any], Float[Array, "..."]]
"""``(params, data) -> log p(x_i; params)`` of all observations, or their sum; nats."""


def bernoulli(successes: Numbers, trials: Numbers) -> Float[Array, "..."]:
    """θ̂ = successes / trials.

    >>> round(float(bernoulli(30, 100)), 4)
    0.3

    Raises:
      ValueError: not 0 ≤ successes ≤ trials, or no trials.
    """
    if simplex.known(successes, trials):
        s, n = np.asarray(successes), np.asarray(trials)
        if not np.all((s >= 0) & (s <= n) & (n > 0)):
            raise ValueError(f"successes, trials: expected 0 <= successes <= trials and a trial, got {s} of {n}")
    return jnp.asarray(successes) / jnp.asarray(trials)


def categorical(counts: Numbers) -> Float[Array, "... k"]:
    """θ̂_k = counts_k / Σ counts, over the last axis.

    >>> [round(float(p), 3) for p in categorical(jnp.array([50, 25, 25]))]
    [0.5, 0.25, 0.25]

    Raises:
      ValueError: a negative count, or none at all.
    """
    counts = jnp.asarray(counts)
    if simplex.known(counts):
        table = np.asarray(counts)
        if not (np.all(table >= 0) and np.all(table.sum(-1) > 0)):
            raise ValueError("counts: expected nothing negative and at least one observation in each row")
    return counts / counts.sum(-1, keepdims=True)


def gaussian(x: Float[Array, "n ... d"]) -> DiagGaussian:
    """μ̂ = mean, σ̂² = mean squared deviation (divided by n, not n - 1), over the leading axis.

    >>> float(gaussian(jnp.array([[1.0], [3.0]])).mean[0]), float(gaussian(jnp.array([[1.0], [3.0]])).log_std[0])
    (2.0, 0.0)
    """
    return DiagGaussian(x.mean(0), jnp.log(x.std(0)))


def full_gaussian(x: Float[Array, "n d"]) -> FullGaussian:
    """μ̂ = mean, Σ̂ = 1/n Σ_i (x_i - μ̂)(x_i - μ̂)ᵀ.

    Raises:
      ValueError: no more observations than dimensions, so that Σ̂ is singular.
    """
    n, d = x.shape
    if n <= d:
        raise ValueError(f"x: expected more observations than the {d} dimensions, got {n}")
    centred = x - x.mean(0)
    return from_covariance(x.mean(0), centred.T @ centred / n)


def exponential(x: Float[Array, "n ..."]) -> Float[Array, "..."]:
    """The rate λ̂ = 1 / mean.

    Raises:
      ValueError: a negative observation.
    """
    _check_not_negative(x)
    return 1 / x.mean(0)


def poisson(x: Numbers) -> Float[Array, "..."]:
    """The rate λ̂ = mean, over the leading axis.

    Raises:
      ValueError: a negative observation.
    """
    _check_not_negative(x)
    return jnp.asarray(x).mean(0, dtype=jnp.result_type(float))


class Fit(NamedTuple):
    """A maximum of a likelihood.

    Fields:
      params: θ̂.
      log_likelihood: Σ_i log p(x_i; θ̂), nats.
      information: the observed Fisher information [p p], in the order of ``jax.flatten_util.ravel_pytree(params)``.
      standard_error: of each parameter, a tree like ``params``; NaN where the information is not positive definite.
      converged: whether the gradient vanished. False where there is no maximum: look at ``params``.
    """

    params: Params
    log_likelihood: Scalar
    information: Float[Array, "p p"]
    standard_error: Params
    converged: Bool[Array, ""]


def fit(
    log_likelihood: LogLikelihood, init: Params, data: Any, *, num_steps: int = 200, tolerance: float | None = None
) -> Fit:
    """Maximise Σ_i log p(x_i; θ) by L-BFGS; works under ``jit`` and ``vmap``.

    >>> tosses = jnp.arange(100) < 30
    >>> end = fit(lambda logit, x: jnp.where(x, jax.nn.log_sigmoid(logit), jax.nn.log_sigmoid(-logit)), 0.0, tosses)
    >>> round(float(jax.nn.sigmoid(end.params)), 4), round(float(end.standard_error), 4)
    (0.3, 0.2182)

    Args:
      log_likelihood: of the observations.
      init: where to start, a tree of unconstrained numbers: fit the logarithm of what must be positive.
      data: the second argument of ``log_likelihood``.
      num_steps: at most so many.
      tolerance: the largest component of the gradient per observation, relative to the log-likelihood per
        observation, at which to stop; by default the 2/3 power of the precision (2e-5 in float32).

    Raises:
      ValueError: the log-likelihood at ``init`` is not finite.
    """
    start, unravel = ravel_pytree(jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x, float)), init))
    each = lambda flat: log_likelihood(unravel(flat), data)
    scale = 1 / max(jax.eval_shape(each, start).size, 1)
    first = jnp.sum(each(start))
    if simplex.known(first) and not np.isfinite(first):
        raise ValueError(f"init: the log-likelihood there is {float(first)}; start where the data are possible")
    scale = scale / jnp.maximum(1, jnp.abs(first * scale))
    loss = lambda flat: -jnp.sum(each(flat)) * scale
    limit = float(jnp.finfo(start.dtype).eps) ** (2 / 3) if tolerance is None else tolerance
    optimizer = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def going(state):
        _, _, gradient, steps, moved = state
        return (jnp.max(jnp.abs(gradient), initial=0.0) > limit) & (steps < num_steps) & moved

    def step(state):
        flat, opt_state, gradient, steps, _ = state
        value, gradient = value_and_grad(flat, state=opt_state)
        updates, opt_state = optimizer.update(gradient, opt_state, flat, value=value, grad=gradient, value_fn=loss)
        new = flat + updates
        return new, opt_state, jax.grad(loss)(new), steps + 1, jnp.any(new != flat)

    state = (start, optimizer.init(start), jax.grad(loss)(start), 0, jnp.array(True))
    flat, _, gradient, _, _ = jax.lax.while_loop(going, step, state)
    info = information(log_likelihood, unravel(flat), data)
    return Fit(
        unravel(flat),
        jnp.sum(each(flat)),
        info,
        unravel(_standard_error(info)),
        jnp.all(jnp.abs(gradient) <= 10 * limit),
    )


def information(log_likelihood: LogLikelihood, params: Params, data: Any) -> Float[Array, "p p"]:
    """The observed Fisher information -∇² Σ_i log p(x_i; θ), in the order of ``ravel_pytree(params)``."""
    flat, unravel = ravel_pytree(params)
    return -jax.hessian(lambda flat: jnp.sum(log_likelihood(unravel(flat), data)))(flat)


def interval(end: Fit, level: float = 0.95) -> tuple[Params, Params]:
    """Wald's confidence interval θ̂ ∓ z se, for each parameter (Wasserman 2004, thm. 9.19): lower and upper ends.

    Raises:
      ValueError: ``level`` outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level: expected a probability in (0, 1), such as 0.95; got {level}")
    z = ndtri((1 + level) / 2)
    shifted = lambda sign: jax.tree.map(lambda x, se: x + sign * z * se, end.params, end.standard_error)
    return shifted(-1), shifted(1)


class RatioTest(NamedTuple):
    """A likelihood-ratio test.

    Fields:
      statistic: 2 (log L(full) - log L(restricted)) ≥ 0.
      p_value: the chance of a statistic at least so large where the restriction holds.
    """

    statistic: Scalar
    p_value: Scalar


def ratio_test(restricted: Numbers, full: Numbers, num_restrictions: int) -> RatioTest:
    """Compare nested models: 2 (log L₁ - log L₀) is χ² with as many degrees of freedom as restrictions (Wilks 1938).

    Args:
      restricted: the largest log-likelihood of the smaller model, nats: ``Fit.log_likelihood``.
      full: that of the larger one.
      num_restrictions: how many parameters fewer the smaller one has.

    Raises:
      ValueError: ``num_restrictions`` < 1.
    """
    if num_restrictions < 1:
        raise ValueError(f"num_restrictions: expected at least 1, got {num_restrictions}")
    statistic = jnp.maximum(2 * (jnp.asarray(full) - jnp.asarray(restricted)), 0.0)
    return RatioTest(statistic, chi2.sf(statistic, num_restrictions))


def _standard_error(info: Float[Array, "p p"]) -> Float[Array, " p"]:
    low = lapack.cholesky(info)  # NaN where it is not positive definite
    half = lapack.solve_lower(low, jnp.eye(len(info), dtype=info.dtype))
    return jnp.sqrt(jnp.sum(half**2, 0))


def _check_not_negative(x: Numbers) -> None:
    if simplex.known(x) and np.any(np.asarray(x) < 0):
        raise ValueError(f"x: expected nothing negative, got {np.min(np.asarray(x)):g}")
