"""Families far from their mass: densities against numbers of 50 digits, draws that stay in the support."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from genjax.theory import exponential_normal, families, gaussian, variational

KEY = jax.random.key(0)


# parameters and params, log density: mpmath, of the float32 numbers that these are rounded to
@pytest.mark.parametrize(("name", "params", "exact"), [
    ("gamma", (0.01, 1.0, 1e-30), 63.7872973737),
    ("gamma", (0.01, 2.0, 0.5), -4.90633271996),
    ("gamma", (3.0, 0.5, 100.0), -43.5622483503),
    ("gamma", (1e4, 1e-2, 1.01e6), -10.6359268025),
    ("gamma", (1e6, 1e3, 1001.0), -1.41960503334),
    ("truncated_normal", (-40.0, 1.0, 0.02), 2.88930349844),
    ("truncated_normal", (-1e4, 1.0, 2e-4), 7.2103404125),
    ("truncated_normal", (-3e4, 2.0, 1e-4), 8.17265832167),
    ("truncated_normal", (-3.0, 1.0, 0.25), 0.407537688306),
    ("truncated_normal", (5.0, 0.01, 4.9), -46.3136751926),
    ("truncated_normal", (2.0, 1.0, 0.5), -2.02092562388),
])  # fmt: skip
def test_densities_far_from_the_mass(name, params, exact):
    kind = {"gamma": families.Gamma, "truncated_normal": families.TruncatedNormal}[name]
    a, b, z = (jnp.array([v], jnp.float32) for v in params)
    assert np.isclose(getattr(families, name)(1).log_prob(kind(a, b), z), exact, rtol=1e-4)


@pytest.mark.parametrize(("name", "a", "b"), [
    ("gamma", [0.01, 1e-4, 1e-30, 1e6, 2.0, 0.5], [1.0, 1.0, 3.0, 1e-3, 1e-35, 1e30]),
    ("truncated_normal", [-1e4, -1e15, -40.0, 0.0, 100.0, 1e4], [1.0, 1.0, 1e-3, 1.0, 1e-2, 1e4]),
    ("log_normal", [-200.0, 200.0, 0.0, 0.0, -50.0, 1e3], [0.0, 0.0, 4.0, -20.0, 3.0, 0.0]),
])  # fmt: skip
def test_every_draw_is_in_the_open_support_and_has_a_finite_density(name, a, b):
    kind = {"gamma": families.Gamma, "truncated_normal": families.TruncatedNormal, "log_normal": gaussian.DiagGaussian}
    family, q = getattr(families, name)(6), kind[name](jnp.array(a), jnp.array(b))
    one = lambda key: (z := family.sample(key, q), family.log_prob(q, z), variational._draws(key, family, q, q, 1)[1])
    draws, *log_prob = jax.jit(jax.vmap(one))(jax.random.split(KEY, 2000))
    assert draws.min() > 0 and np.isfinite(draws).all() and np.isfinite(log_prob[0]).all()
    assert np.isfinite(log_prob[1]).all()
    assert family.log_prob(q, -jnp.ones(6)) == -jnp.inf


def test_draws_of_a_small_gamma_follow_their_law_and_slope_below_the_range_of_floats():
    """By their log z: P(log z < y) = e^(a y) / Γ(a + 1) far out; E[∂ log z/∂a] = ψ'(a), as E[log z] = ψ(a)."""
    a, family = 0.01, families.gamma(1)
    q = families.Gamma(jnp.array([a]), jnp.array([1.0]))
    log_q = jax.jit(jax.vmap(lambda key: family.sample_and_log_prob(key, q, q)[1]))(jax.random.split(KEY, 4000))
    density = scipy.special.gammaln(a) + np.asarray(log_q, float)  # (a - 1) y - e^y, falling in y
    y = -density / (1 - a)
    for _ in range(50):
        y = y - (density + (1 - a) * y + np.exp(y)) / (1 - a + np.exp(y))
    share = np.where(y < -30, np.exp(a * y - scipy.special.gammaln(a + 1)), scipy.special.gammainc(a, np.exp(y)))
    assert (y < -88).mean() > 0.4 and scipy.stats.kstest(share, "uniform").pvalue > 1e-3
    through = lambda a, key: family.sample_and_log_prob(key, families.Gamma(a, jnp.ones(1)), q)[
        1
    ]  # of log z, at a still density
    slopes = jax.jit(jax.vmap(jax.grad(through), (None, 0)))(jnp.array([a]), jax.random.split(KEY, 4000))[:, 0]
    slopes = np.asarray(slopes, float) / (a - 1 - np.exp(y))
    assert abs(slopes.mean() - scipy.special.polygamma(1, a)) < 4 * slopes.std() / np.sqrt(4000)


def test_slopes_of_gamma_draws_are_finite_at_the_ends_of_float32_and_right_for_large_ones():
    """z / a is nearly constant for large a, so ∂ log z / ∂ log a = 1; for tiny a z is the smallest number there is."""
    family = families.gamma(1)
    draw = lambda log_a: jnp.log(family.sample(KEY, families.Gamma(jnp.exp(log_a), jnp.ones(1)))[0])
    weight = lambda log_a: family.sample_and_log_prob(KEY, *[families.Gamma(jnp.exp(log_a), jnp.ones(1))] * 2)[1]
    slopes = jax.jit(jax.vmap(lambda log_a: (jax.grad(draw)(log_a), jax.grad(weight)(log_a))))
    of_draws, of_weights = slopes(jnp.log(jnp.array([[1e-36], [1e-20], [1e-18], [1e6], [1e10], [1e36]])))
    assert np.isfinite(of_draws).all() and np.isfinite(of_weights).all()
    assert np.allclose(of_draws[:3], 0) and np.allclose(of_draws[3:], 1, atol=0.01)


def test_a_fit_from_a_small_gamma_ends_and_its_bound_holds():
    start = families.Gamma(jnp.log(jnp.array([0.01])), jnp.zeros(1))
    family = families.gamma(1)._replace(init=start)
    log_joint = lambda z: exponential_normal.log_joint(z, 1.0).sum()
    fit = variational.fit(log_joint, family, KEY, num_steps=200, num_samples=8)
    assert np.isfinite(fit.bound).all() and fit.bound[-1] > fit.bound[0] + 50
    # E[log p] - E[log q] in closed form, as p is flat where most of q lies
    weights = np.asarray(variational.log_weights(KEY, log_joint, family, start, 4000), float)
    a, moment = 0.01, 0.01 * 1.01
    log_q = -scipy.special.gammaln(a) + (a - 1) * scipy.special.psi(a) - a
    exact = -0.5 * (1 + np.log(2 * np.pi)) - 0.5 * moment - log_q  # -z - (1 - z)²/2 = -1/2 - z²/2
    assert abs(weights.mean() - exact) < 4 * weights.std() / np.sqrt(4000) and exact < exponential_normal.log_evidence(
        1
    )


def test_bad_numbers_are_refused():
    with pytest.raises(ValueError, match="num_dims: expected at least 1, got 0"):
        families.gamma(0)
    with pytest.raises(ValueError, match="log_joint: the fit is not finite at its end; the bound was nan at step 0"):
        variational.fit(lambda z: jnp.log(-z[0]), families.gamma(1), KEY, num_steps=3)
    for wrong in ({"num_steps": 0}, {"num_samples": 0}):
        with pytest.raises(ValueError, match=r"num_\w+: expected numbers of at least 1, got 0"):
            variational.fit(lambda z: z[0], families.mean_field(1), KEY, **wrong)
    p = gaussian.FullGaussian(jnp.zeros(3), jnp.eye(3))
    for index in ([5], [-1], [0.5], [0, 0]):
        with pytest.raises(ValueError, match="index: expected"):
            gaussian.marginal(p, np.array(index))
    with pytest.raises(ValueError, match="value: expected 2 along its last axis"):
        gaussian.condition(p, np.array([0, 1]), np.zeros(1))
