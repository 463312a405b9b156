"""Gaussians against scipy in float64, and float32 against float64 at the extremes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from scipy import integrate

from genjax.theory import gaussian
from genjax.theory.gaussian import DiagGaussian, FullGaussian

RNG = np.random.default_rng(0)


def random_full(d, *batch):
    root = RNG.standard_normal((*batch, d, d))
    covariance = root @ np.swapaxes(root, -1, -2) + 0.3 * np.eye(d)
    return gaussian.from_covariance(jnp.asarray(RNG.standard_normal((*batch, d))), jnp.asarray(covariance))


def random_diag(d, *batch):
    return DiagGaussian(*(jnp.asarray(0.7 * RNG.standard_normal((*batch, d))) for _ in range(2)))


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def scipys(p):
    return scipy.stats.multivariate_normal(np.asarray(p.mean), np.asarray(gaussian.full(p).covariance))


@pytest.mark.parametrize("make", [random_diag, random_full])
def test_density_and_entropy_are_those_of_scipy(make):
    p, x = make(3), RNG.standard_normal(3)
    assert np.isclose(gaussian.log_prob(p, jnp.asarray(x)), scipys(p).logpdf(x), rtol=1e-12)
    assert np.isclose(gaussian.entropy(p), scipys(p).entropy(), rtol=1e-12)


@pytest.mark.parametrize("make", [random_diag, random_full])
def test_draws_have_the_mean_and_the_covariance(make):
    p = make(3)
    draws = jax.jit(jax.vmap(lambda key: gaussian.sample(key, p)))(jax.random.split(jax.random.key(0), 100_000))
    z = (draws.mean(0) - p.mean) / np.sqrt(np.diag(gaussian.full(p).covariance) / 1e5)
    assert np.abs(z).max() < 4
    assert np.allclose(np.cov(draws.T), gaussian.full(p).covariance, atol=0.15)


def test_each_gaussian_of_a_batch_has_its_own_stream():
    p = random_diag(2, 5)
    whole = gaussian.sample(jax.random.key(0), p)
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(0), i))(jnp.arange(5))
    part = gaussian.sample(keys[2:4], DiagGaussian(p.mean[2:4], p.log_std[2:4]))
    assert np.array_equal(whole[2:4], part)


@pytest.mark.parametrize("make", [random_diag, random_full])
@pytest.mark.parametrize("other", [random_diag, random_full])
def test_kl_is_the_integral(make, other):
    """D = E_p[log p - log q], by Gauss-Hermite quadrature, exact for these quadratics."""
    p, q = make(2), other(2)
    nodes, weights = np.polynomial.hermite_e.hermegauss(5)
    grid = np.stack(np.meshgrid(nodes, nodes), -1).reshape(-1, 2)
    weight = np.outer(weights, weights).reshape(-1) / weights.sum() ** 2
    x = p.mean + grid @ np.asarray(gaussian.full(p).scale_tril).T
    exact = (weight * (scipys(p).logpdf(x) - scipys(q).logpdf(x))).sum()
    assert np.isclose(gaussian.kl(p, q), exact, rtol=1e-10)
    assert gaussian.kl(p, p) == pytest.approx(0, abs=1e-12)


def test_the_notes_two_forms_of_kl():
    """log σ_q/σ_p + (σ_p² + (μ_p - μ_q)²) / 2σ_q² - ½, and -½ Σ (1 + log σ² - μ² - σ²)."""
    p, q = random_diag(4), random_diag(4)
    sp, sq = np.exp(p.log_std), np.exp(q.log_std)
    general = (np.log(sq / sp) + (sp**2 + (p.mean - q.mean) ** 2) / (2 * sq**2) - 0.5).sum()
    standard = -0.5 * (1 + 2 * p.log_std - p.mean**2 - sp**2).sum()
    assert np.isclose(gaussian.kl(p, q), general, rtol=1e-12)
    assert np.isclose(gaussian.kl_standard(p), standard, rtol=1e-12)
    assert np.isclose(gaussian.kl_standard(gaussian.full(p)), standard, rtol=1e-12)


@pytest.mark.parametrize("make", [random_diag, random_full])
def test_a_product_of_densities_is_a_density_times_z(make):
    p, q = make(3), make(3)
    r, log_z = gaussian.product(p, q)
    for x in jnp.asarray(RNG.standard_normal((5, 3))):
        both = gaussian.log_prob(p, x) + gaussian.log_prob(q, x)
        assert np.isclose(both, gaussian.log_prob(r, x) + log_z, rtol=1e-10)


def test_conditioning_is_bayes_rule():
    p = random_full(4)
    index, rest = jnp.array([2, 0]), jnp.array([1, 3])
    x = jnp.asarray(RNG.standard_normal(4))
    given = gaussian.condition(p, index, x[index])
    ratio = gaussian.log_prob(p, x) - gaussian.log_prob(gaussian.marginal(p, index), x[index])
    assert np.isclose(gaussian.log_prob(given, x[rest]), ratio, rtol=1e-10)


def test_batches_are_one_by_one():
    p, q, x = random_full(3, 4, 2), random_full(3, 4, 2), jnp.asarray(RNG.standard_normal((4, 2, 3)))
    at = lambda g, i: FullGaussian(g.mean[i], g.scale_tril[i])
    for f in (
        lambda p, q, x: gaussian.log_prob(p, x),
        lambda p, q, x: gaussian.kl(p, q),
        lambda p, q, x: gaussian.product(p, q)[1],
        lambda p, q, x: gaussian.entropy(p),
        lambda p, q, x: gaussian.condition(p, jnp.array([1]), x[..., 1:2]).mean,
    ):
        whole = f(p, q, x)
        assert np.allclose(whole[3, 1], f(at(p, (3, 1)), at(q, (3, 1)), x[3, 1]), atol=1e-12)


# Precision: float32 against float64.


def float32(f, x):
    with jax.enable_x64(False):
        return np.asarray(f(jnp.asarray(np.float32(x))), np.float64)


@pytest.mark.parametrize(("log_variance", "relative"), [(1e-1, 1e-6), (1e-3, 1e-6), (1e-4, 1e-6), (1e-7, 1e-6)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_kl_keeps_its_digits_near_zero(log_variance, relative, sign):
    s = float(np.float32(sign * log_variance / 2))
    kl = float32(lambda log_std: gaussian.kl_standard(DiagGaussian(jnp.zeros(1), log_std[None])), s)
    lv = 2 * s
    exact = 0.5 * lv**2 * (1 / 2 + lv / 6 + lv**2 / 24 + lv**3 / 120 + lv**4 / 720)
    assert np.isclose(kl, exact, rtol=relative, atol=0)


def test_kl_and_its_gradient_are_finite_to_the_extremes():
    for log_variance in (-1e4, -20.0, 0.0, 80.0):
        f = lambda s: gaussian.kl_standard(DiagGaussian(jnp.zeros(1), s[None]))
        value, slope = float32(f, log_variance / 2), float32(jax.grad(f), log_variance / 2)
        exact = 0.5 * (np.expm1(log_variance) - log_variance)
        assert np.isclose(value, exact, rtol=1e-5) and np.isclose(slope, np.expm1(log_variance), rtol=1e-5)


TAIL = -np.concatenate([np.logspace(4, -2, 60), -np.logspace(-2, 0.9, 20)])


def exact_ratio(x):
    return np.sqrt(2 / np.pi) / scipy.special.erfcx(-x / np.sqrt(2))


@pytest.mark.parametrize(("cast", "rtol"), [(np.float32, 8e-6), (np.float64, 1e-12)])
def test_log_cdf_and_its_first_two_slopes(cast, rtol):
    x = TAIL.astype(cast)
    with jax.enable_x64(cast is np.float64):
        value, slope = jax.vmap(jax.value_and_grad(gaussian.log_cdf))(jnp.asarray(x))
        second = jax.vmap(jax.grad(jax.grad(gaussian.log_cdf)))(jnp.asarray(x))
    x = x.astype(float)
    assert np.allclose(value, scipy.special.log_ndtr(x), rtol=rtol, atol=0)
    assert np.allclose(slope, exact_ratio(x), rtol=rtol, atol=0)
    near = np.abs(x) < 30  # beyond, the reference itself cancels
    exact = -exact_ratio(x) * (x + exact_ratio(x))
    assert np.allclose(second[near], exact[near], rtol=10 * rtol, atol=0)


@pytest.mark.parametrize(("cast", "rtol"), [(np.float32, 1e-6), (np.float64, 1e-11)])
def test_quantiles_far_in_the_tail(cast, rtol):
    log_p = -np.logspace(-6, 7, 80).astype(cast)
    with jax.enable_x64(cast is np.float64):
        x = np.asarray(gaussian.inverse_log_cdf(jnp.asarray(log_p)), float)
        slope = np.asarray(jax.vmap(jax.grad(gaussian.inverse_log_cdf))(jnp.asarray(log_p)), float)
    exact = scipy.special.ndtri_exp(log_p.astype(float))
    assert np.allclose(x, exact, rtol=rtol, atol=rtol)
    assert np.allclose(slope * exact_ratio(exact), 1, rtol=30 * rtol)


def test_expm1_minus_x_is_exact_to_the_last_digit():
    x = np.concatenate([-np.logspace(-8, 2, 60), np.logspace(-8, 1.9, 60)])
    wide = x.astype(np.longdouble)
    series = wide**2 / 2 * (1 + wide / 3 * (1 + wide / 4 * (1 + wide / 5 * (1 + wide / 6 * (1 + wide / 7)))))
    exact = np.where(np.abs(x) < 1e-2, series, np.expm1(wide) - wide)
    assert np.abs(np.asarray(gaussian.expm1_minus_x(jnp.asarray(x))) / exact - 1).max() < 1e-14
    assert np.allclose(jax.vmap(jax.grad(gaussian.expm1_minus_x))(jnp.asarray(x)), np.expm1(x), rtol=1e-15)


def test_a_density_integrates_to_one():
    p = DiagGaussian(jnp.array([0.3]), jnp.array([-0.5]))
    total, _ = integrate.quad(lambda x: float(jnp.exp(gaussian.log_prob(p, jnp.array([x])))), -10, 10)
    assert np.isclose(total, 1, atol=1e-8)
