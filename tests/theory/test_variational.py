"""Variational inference where the answer is known: the notes' example, and Gaussians."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from scipy import integrate

from genjax.theory import estimates, exponential_normal, families, gaussian, variational

KEY = jax.random.key(0)

# x, log p(x), E[z|x], Var[z|x], by quadrature to 1e-14
EXACT = [
    (-3.0, -6.860101486527, 0.225607144, 0.04667283),
    (0.0, -1.341021645009, 0.525135276, 0.199097666),
    (1.0, -1.193147180560, 0.797884561, 0.363380228),
    (4.0, -3.501350809965, 3.004437839, 0.986666788),
]


def log_joint(x):
    return lambda z: exponential_normal.log_joint(z, x).sum()


@pytest.mark.parametrize(("x", "log_p", "mean", "variance"), EXACT)
def test_the_notes_example_is_solved(x, log_p, mean, variance):
    with jax.enable_x64(True):
        density = lambda z: np.exp(-z) * scipy.stats.norm.pdf(x, z)
        assert np.isclose(np.log(integrate.quad(density, 0, 40)[0]), log_p, atol=1e-9)
        assert np.isclose(exponential_normal.log_evidence(x), log_p, atol=1e-11)
        posterior = exponential_normal.posterior(jnp.array([x]))
        assert np.isclose(posterior.mean[0], mean, atol=1e-8) and np.isclose(posterior.variance[0], variance, atol=1e-7)
        z = np.linspace(0, 6, 7)
        log_prob = families.truncated_normal(1).log_prob
        assert np.allclose(
            [log_prob(posterior, jnp.array([v])) + log_p for v in z],
            [float(log_joint(x)(jnp.array([v]))) for v in z],
            atol=1e-10,
        )


def scipys(name, p):
    a, b = (float(v[0]) for v in p)
    return {
        "log_normal": lambda: scipy.stats.lognorm(np.exp(b), scale=np.exp(a)),
        "gamma": lambda: scipy.stats.gamma(a, scale=1 / b),
        "truncated_normal": lambda: scipy.stats.truncnorm(-a / b, np.inf, a, b),
        "mean_field": lambda: scipy.stats.norm(a, np.exp(b)),
    }[name]()


@pytest.mark.parametrize("name", ["mean_field", "log_normal", "gamma", "truncated_normal"])
@pytest.mark.parametrize("move", [(0.0, 0.0), (-0.8, 0.5), (1.2, -1.0), (-2.0, 0.2)])
def test_a_family_draws_from_its_density(name, move):
    family = getattr(families, name)(1)
    q = family.distribution(jax.tree.map(lambda x, d: x + d, family.init, type(family.init)(*move)))
    reference = scipys(name, q)
    draws = jax.jit(jax.vmap(lambda key: family.sample(key, q)))(jax.random.split(KEY, 20_000))
    assert scipy.stats.kstest(np.asarray(draws[:, 0], float), reference.cdf).pvalue > 1e-3
    for z in reference.ppf([0.2, 0.5, 0.99]):
        assert np.isclose(family.log_prob(q, jnp.array([z])), reference.logpdf(z), rtol=1e-4, atol=1e-4)


def test_a_cut_far_in_the_tail():
    """N(-40, 1) above zero: nearly exponential with rate 40."""
    q = families.TruncatedNormal(jnp.array([-40.0]), jnp.array([1.0]))
    draws = jax.jit(jax.vmap(lambda key: families.truncated_normal(1).sample(key, q)))(jax.random.split(KEY, 20_000))
    assert (
        draws.min() >= 0
        and np.isclose(draws.mean(), q.mean[0], rtol=0.03)
        and np.isclose(q.mean[0], 0.02497, rtol=1e-3)
    )


@functools.cache
def fitted(name, x, gradient):
    family = getattr(families, name)(1)
    fit = functools.partial(variational.fit, family=family, num_steps=600, num_samples=32, gradient=gradient)
    return jax.jit(lambda key: fit(log_joint(x), key=key))(KEY).distribution


def exact_elbo(name, q, x):
    """∫ q (log p - log q) dz, by quadrature in float64."""
    law = scipys(name, q)
    integrand = lambda z: law.pdf(z) * (-z + scipy.stats.norm.logpdf(x, z) - law.logpdf(z))
    return integrate.quad(integrand, law.ppf(1e-12), law.ppf(1 - 1e-12), limit=400)[0]


@pytest.mark.parametrize("name", ["log_normal", "gamma", "truncated_normal"])
@pytest.mark.parametrize("x", [0.0, 1.0, 4.0])
def test_the_fitted_bound_never_exceeds_log_p_and_meets_it_for_the_truncated_normal(name, x):
    gap = exponential_normal.log_evidence(x) - exact_elbo(name, fitted(name, x, variational.sticking_the_landing), x)
    assert gap > -1e-6
    assert gap < {"truncated_normal": 1e-4, "gamma": 0.1, "log_normal": 0.2}[name]
    if name != "truncated_normal":
        assert gap > 5e-4  # another family cannot meet it


@pytest.mark.parametrize("gradient", [variational.score_function, variational.reparameterised])
def test_every_gradient_finds_the_same_optimum(gradient):
    q, reference = fitted("gamma", 1.0, gradient), fitted("gamma", 1.0, variational.sticking_the_landing)
    assert np.allclose(q.concentration, reference.concentration, rtol=0.1)
    assert abs(exact_elbo("gamma", q, 1.0) - exact_elbo("gamma", reference, 1.0)) < 2e-3


def test_at_the_posterior_every_weight_is_the_evidence():
    family = families.truncated_normal(1)
    params = families.TruncatedNormal(jnp.array([0.0]), jnp.array([0.0]))  # x = 1: N(0, 1) above zero
    weights = jax.jit(lambda key: variational.log_weights(key, log_joint(1.0), family, params, 100))(KEY)
    assert np.allclose(weights, exponential_normal.log_evidence(1.0), atol=1e-5)
    gradient = jax.jit(lambda key: variational.sticking_the_landing(key, log_joint(1.0), family, params, 10))
    assert np.allclose(jax.tree.leaves(gradient(KEY).gradient), 0, atol=1e-4)


def test_gradients_are_unbiased_and_agree():
    """Against the exact gradient of the ELBO, -∇ D(q‖p), of a Gaussian target."""
    target = gaussian.from_covariance(jnp.array([1.0, -1.0]), jnp.array([[1.0, 0.6], [0.6, 2.0]]))
    family = families.mean_field(2)
    params = gaussian.DiagGaussian(jnp.array([0.3, 0.1]), jnp.array([-0.5, 0.2]))
    log_joint = lambda z: gaussian.log_prob(target, z)
    exact = jax.grad(lambda params: -gaussian.kl(params, target))(params)
    exact = np.concatenate(exact)
    for estimator in (variational.reparameterised, variational.score_function, variational.sticking_the_landing):
        one = functools.partial(estimator, log_joint=log_joint, family=family, params=params, num_samples=8)
        gradients = jax.jit(jax.vmap(one))(jax.random.split(KEY, 4000)).gradient
        draws = np.concatenate([np.asarray(g, float) for g in gradients], 1)
        z = (draws.mean(0) - exact) / (draws.std(0) / np.sqrt(4000))
        assert np.abs(z).max() < 4, estimator


def test_the_bound_tightens_with_k():
    family = families.mean_field(1)
    target = gaussian.DiagGaussian(jnp.array([0.5]), jnp.array([0.3]))  # normalised, so log p(x) = 0
    log_joint = lambda z: gaussian.log_prob(target, z)
    weights = jax.jit(lambda key: variational.log_weights(key, log_joint, family, family.init, 64_000))(KEY)
    bounds = [estimates.estimate(variational.importance_weighted_bound(weights.reshape(k, -1))) for k in (1, 4, 16, 64)]
    assert np.isclose(bounds[0].mean, variational.elbo(weights), atol=1e-5)
    assert abs(bounds[0].mean + gaussian.kl(family.init, target)) < 4 * bounds[0].standard_error
    for looser, tighter in zip(bounds, bounds[1:], strict=False):
        assert tighter.mean > looser.mean - 2 * (looser.standard_error + tighter.standard_error)
    assert bounds[-1].mean > bounds[0].mean + 0.03 and bounds[-1].mean < 4 * bounds[-1].standard_error


def test_the_bound_holds_for_weights_beyond_the_range_of_exp():
    weights = jnp.array([-1e4, -1e4 + 1])
    assert np.isclose(variational.importance_weighted_bound(weights), -1e4 + np.log((1 + np.e) / 2), atol=1e-3)
    assert variational.importance_weighted_bound(jnp.full(3, -jnp.inf)) == -jnp.inf


def test_full_rank_is_exact_where_mean_field_cannot_be():
    """Fitted to a Gaussian, mean field takes the inverse of the precision's diagonal (Bishop 2006, eq. 10.12-10.15)."""
    covariance = jnp.array([[1.0, 0.9], [0.9, 1.5]])
    target = gaussian.from_covariance(jnp.array([1.0, -2.0]), covariance)
    settings = {"num_steps": 800, "gradient": variational.sticking_the_landing}
    log_joint = lambda z: gaussian.log_prob(target, z)
    fit = lambda family: jax.jit(lambda key: variational.fit(log_joint, family, key, **settings))(KEY).distribution
    full, diagonal = fit(families.full_rank(2)), fit(families.mean_field(2))
    assert np.allclose(full.mean, target.mean, atol=1e-2) and np.allclose(full.covariance, covariance, atol=2e-2)
    assert np.allclose(jnp.exp(-2 * diagonal.log_std), np.diag(np.linalg.inv(covariance)), rtol=0.05)


def test_a_fit_is_one_scan_and_a_batch_of_fits_one_program():
    fit = lambda key, x: variational.fit(log_joint(x), families.gamma(1), key, num_steps=50, num_samples=4).bound
    scans = str(jax.make_jaxpr(fit)(KEY, 1.0)).count("length=50")
    assert scans == 1
    together = jax.jit(jax.vmap(fit))(jax.random.split(KEY, 2), jnp.array([0.0, 1.0]))
    assert np.allclose(together[1], fit(jax.random.split(KEY, 2)[1], 1.0), atol=1e-3)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"log_joint: expected one number for one draw, got shape \(2,\)"):
        variational.fit(lambda z: z, families.mean_field(2), KEY)
    with pytest.raises(ValueError, match="num_samples: expected at least 2"):
        variational.score_function(KEY, lambda z: z[0], families.mean_field(1), families.mean_field(1).init, 1)
