"""Maximum likelihood against scipy, closed forms against fits, and intervals against repeated experiments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from genjax.theory import gaussian, likelihood

RNG = np.random.default_rng(0)


def bernoulli(logit, x):
    return jnp.where(x > 0, jax.nn.log_sigmoid(logit), jax.nn.log_sigmoid(-logit))


def exponential(log_rate, x):
    return log_rate - jnp.exp(log_rate) * x


def poisson(log_rate, x):
    return x * log_rate - jnp.exp(log_rate) - jax.scipy.special.gammaln(x + 1)


def normal(params, x):
    return gaussian.log_prob(params, x[:, None])


def test_the_notes_coin():
    assert np.isclose(likelihood.bernoulli(30, 100), 0.3)
    grid = np.linspace(0.001, 0.999, 999)
    assert np.isclose(
        grid[np.argmax(scipy.stats.binom.logpmf(30, 100, grid))], likelihood.bernoulli(30, 100), atol=1e-3
    )


def test_closed_forms_are_the_maximum():
    """No neighbour is more likely, and scipy's fits agree."""
    x = RNG.gamma(2.0, 1.5, 500)
    assert np.isclose(likelihood.exponential(jnp.asarray(x)), 1 / scipy.stats.expon.fit(x, floc=0)[1], rtol=1e-6)
    mean, std = scipy.stats.norm.fit(x)
    fit = likelihood.gaussian(jnp.asarray(x)[:, None])
    assert np.isclose(fit.mean[0], mean, rtol=1e-5) and np.isclose(jnp.exp(fit.log_std[0]), std, rtol=1e-5)
    counts = RNG.poisson(3.3, 400)
    around = likelihood.poisson(counts) + np.array([-1e-2, 0, 1e-2])
    assert np.argmax([scipy.stats.poisson.logpmf(counts, m).sum() for m in around]) == 1
    points = RNG.multivariate_normal([1, 2], [[2, 0.8], [0.8, 1]], 300)
    full = likelihood.full_gaussian(jnp.asarray(points))
    assert np.allclose(full.covariance, np.cov(points.T, bias=True), rtol=1e-4)
    counts = RNG.multinomial(100, [0.2, 0.3, 0.5])
    assert np.allclose(likelihood.categorical(counts), counts / 100)


@pytest.mark.parametrize(
    ("log_likelihood", "init", "data", "estimate", "standard_error"),
    [
        (bernoulli, 0.0, np.arange(100) < 30, np.log(0.3 / 0.7), 1 / np.sqrt(100 * 0.3 * 0.7)),
        (exponential, 0.0, np.full(50, 0.25), np.log(4), 1 / np.sqrt(50)),
        (poisson, 0.0, np.array([1.0, 2, 3, 4, 5, 6]), np.log(3.5), 1 / np.sqrt(21)),
    ],
)
def test_by_gradient_is_the_closed_form(log_likelihood, init, data, estimate, standard_error):
    with jax.enable_x64(True):
        end = jax.jit(lambda x: likelihood.fit(log_likelihood, init, x))(jnp.asarray(data))
        assert end.converged
        assert np.isclose(end.params, estimate, atol=1e-8) and np.isclose(end.standard_error, standard_error, rtol=1e-8)
    end = jax.jit(lambda x: likelihood.fit(log_likelihood, init, x))(jnp.asarray(data, jnp.float32))
    assert end.converged and np.isclose(end.params, estimate, atol=1e-4)


def test_regression_is_that_of_scipy():
    """Logistic regression: the maximum and the standard errors, by an independent optimizer and finite differences."""
    x = np.concatenate([np.ones((200, 1)), RNG.standard_normal((200, 2))], 1)
    y = RNG.random(200) < scipy.special.expit(x @ [0.3, 1.0, -2.0])
    sign = np.where(y, 1, -1)
    loss = lambda w: np.logaddexp(0, -sign * (x @ w)).sum()
    reference = scipy.optimize.minimize(
        loss, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}
    )
    p = scipy.special.expit(x @ reference.x)
    covariance = np.linalg.inv((x * (p * (1 - p))[:, None]).T @ x)
    log_likelihood = lambda w, data: jax.nn.log_sigmoid(data[1] * (data[0] @ jnp.stack([w["bias"], *w["slope"]])))
    with jax.enable_x64(True):
        init = {"bias": 0.0, "slope": jnp.zeros(2)}
        end = jax.jit(lambda data: likelihood.fit(log_likelihood, init, data))((x, sign.astype(float)))
        assert end.converged
        assert np.allclose([end.params["bias"], *end.params["slope"]], reference.x, atol=1e-6)
        errors = [end.standard_error["bias"], *end.standard_error["slope"]]
        assert np.allclose(errors, np.sqrt(np.diag(covariance)), rtol=1e-6)
        assert np.isclose(end.log_likelihood, -reference.fun, rtol=1e-10)


def test_observed_information_is_on_average_the_variance_of_the_score():
    """-E[∇² log p] = E[(∇ log p)²], Fisher's identity, on draws of the model itself."""
    log_std = 0.4
    x = jnp.asarray(RNG.standard_normal(200_000) * np.exp(log_std) + 1)
    params = gaussian.DiagGaussian(jnp.array([1.0]), jnp.array([log_std]))
    observed = likelihood.information(normal, params, x) / x.size
    score = jax.vmap(jax.grad(lambda p, x: normal(p, x[None])[0]), (None, 0))(params, x)
    outer = np.cov(np.concatenate(score, 1).T)
    assert np.allclose(observed, outer, atol=0.03) and np.allclose(observed, np.diag([np.exp(-0.8), 2]), atol=0.03)


def test_the_interval_covers_the_truth_95_times_of_100():
    """10,000 experiments of 400 tosses, each with its own interval, in one program."""
    truth = 0.4
    tosses = jnp.asarray(RNG.random((10_000, 400)) < 1 / (1 + np.exp(-truth)))

    @jax.jit
    @jax.vmap
    def covers(x):
        lower, upper = likelihood.confidence_interval(likelihood.fit(bernoulli, 0.0, x))
        return (lower < truth) & (truth < upper)

    assert abs(covers(tosses).mean() - 0.95) < 0.01


def test_the_ratio_test_is_right_as_often_as_it_says():
    """Where both rates are equal, p-values of the test that they are, are uniform."""
    x = jnp.asarray(RNG.exponential(2.0, (4000, 2, 300)))

    @jax.jit
    def p_value(x):
        top = lambda x: exponential(jnp.log(likelihood.exponential(x)), x).sum()
        return likelihood.ratio_test(top(x.reshape(-1)), top(x[0]) + top(x[1]), 1).p_value

    p = np.asarray(jax.vmap(p_value)(x))
    assert scipy.stats.kstest(p, "uniform").pvalue > 1e-3
    assert likelihood.ratio_test(-103.0, -100.0, 2).p_value == pytest.approx(scipy.stats.chi2.sf(6, 2), rel=1e-5)


def test_a_maximum_that_is_not_there_is_not_claimed():
    """All heads: the likelihood rises with the logit for ever."""
    end = likelihood.fit(lambda w, x: -jnp.exp(-w) * x, 0.0, jnp.ones(10), num_steps=10)
    assert not end.converged
    flat = likelihood.fit(lambda w, x: -((w[0] - x) ** 2), jnp.zeros(2), jnp.ones(10))
    assert np.isnan(flat.standard_error).all()  # nothing is known of the second


HEADS, TAILS = np.arange(100) < 30, np.zeros(100, bool)
coins = jax.jit(lambda init, x, constant: likelihood.fit(lambda logit, x: bernoulli(logit, x) + constant, init, x))


@pytest.mark.parametrize("constant", [0.0, 1e8, -1e8])
@pytest.mark.parametrize("init", [0.0, np.log(3 / 7), 50.0, -80.0])
def test_a_maximum_is_found_and_told_from_anywhere_whatever_is_added(init, constant):
    end = coins(init, HEADS, constant)
    assert end.converged and np.isclose(end.params, np.log(3 / 7), atol=1e-4)
    assert np.isclose(end.standard_error, 1 / np.sqrt(21), rtol=1e-4)
    assert not coins(init, ~TAILS, constant).converged and not coins(init, TAILS, constant).converged
    assert np.all(np.abs(likelihood.confidence_interval(coins(init, TAILS, constant))) == np.inf)


def test_a_maximum_is_told_in_any_unit():
    """A normal law's mean and log-deviation, of data far from the start and far in size."""
    x = RNG.standard_normal(200) * 2 + 5
    fit = jax.jit(lambda x: likelihood.fit(normal, gaussian.DiagGaussian(jnp.zeros(1), jnp.zeros(1)), x))
    for unit in (1, 1e6, 1e10, 1e-6):
        end = fit(jnp.asarray(x * unit))
        assert end.converged
        assert np.isclose(end.params.mean[0], x.mean() * unit, rtol=1e-5)
        assert np.isclose(end.params.log_std[0], np.log(x.std() * unit), atol=1e-4)
        assert np.isclose(end.standard_error.mean[0], x.std() * unit / 200**0.5, rtol=1e-3)
    assert not fit(jnp.full(200, 2.0)).converged  # the deviation falls for ever
    scaled = lambda w, x: -((x - w[0] * 1e-8) ** 2) / 2 - (x - w[1] * 1e7) ** 2 / 2
    odd = likelihood.fit(scaled, jnp.zeros(2), jnp.asarray(x))
    assert odd.converged and np.allclose(odd.params, [x.mean() * 1e8, x.mean() / 1e7], rtol=1e-5)


def test_years_are_no_reason_to_refuse():
    """A line over 2000 to 2020: intercept and slope correlate by all but 5e-6, which float32 still tells from 1."""
    year = np.linspace(2000, 2020, 200)
    y = 0.1 * year - 190 + RNG.standard_normal(200)
    end = likelihood.fit(lambda w, d: -((d[1] - w[0] - w[1] * d[0]) ** 2) / 2, jnp.zeros(2), (year, y))
    assert end.converged and np.isclose(end.params[1], np.polyfit(year, y, 1)[0], rtol=0.05)
    assert np.isclose(end.standard_error[1], 1 / np.sqrt(((year - 2010) ** 2).sum()), rtol=0.05)


def test_what_the_data_do_not_tell_is_not_claimed():
    """Only a sum, only a product, only one of two parameters: a ridge, not a top."""
    mean = lambda w, which: which @ jnp.stack([w[0] + w[1], w[0] * w[1], w[0]])
    fit = jax.jit(lambda which, x: likelihood.fit(lambda w, x: -((x - mean(w, which)) ** 2), jnp.array([1.0, 0.3]), x))
    for which in np.eye(3, dtype=np.float32):
        assert not fit(which, jnp.asarray(RNG.standard_normal(50) + 1, jnp.float32)).converged


@pytest.mark.parametrize(
    ("log_likelihood", "init", "data"),
    [
        (
            lambda w, d: jax.nn.log_sigmoid(d[1] * (w[0] + w[1] * d[0])),
            np.zeros(2),
            ([-2.0, -1, 1, 2], [-1.0, -1, 1, 1]),
        ),
        (
            lambda w, d: jax.nn.log_sigmoid(d[1] * (w[0] + w[1] * d[0])),
            np.zeros(2),
            ([-1.0, 0, 0, 1], [-1.0, -1, 1, 1]),
        ),
        (lambda log_rate, x: x * log_rate - jnp.exp(log_rate), 0, np.zeros(3)),
        (lambda w, x: -x / w**2, 1, np.ones(3)),
        (lambda w, x: jnp.where(w > 0, -w * x, -jnp.inf), 1, np.ones(3)),
        (lambda w, x: x * (w**2 - 1) ** 2, 0, -np.ones(3)),
        (lambda w, x: x, 0, np.ones(3)),
    ],
    ids=["separable", "nearly separable", "no counts", "power law", "an edge", "a minimum", "nothing"],
)
def test_no_maximum_is_claimed_where_there_is_none(log_likelihood, init, data):
    data = jax.tree.map(jnp.asarray, data, is_leaf=lambda x: isinstance(x, list))
    assert not likelihood.fit(log_likelihood, init, data).converged


def test_what_is_rounding_alone_is_no_maximum():
    """Counts whose variance is below their mean: the likelihood rises towards Poisson's, and float32 has no digits."""
    gammaln, log_rate = jax.scipy.special.gammaln, np.log(2.0)

    def negative_binomial(log_size, x):
        rising = gammaln(x + jnp.exp(log_size)) - gammaln(jnp.exp(log_size))
        return rising - x * jnp.logaddexp(log_size, log_rate) - jnp.exp(log_size) * jax.nn.softplus(log_rate - log_size)

    assert not likelihood.fit(negative_binomial, 0.0, np.full(3, 2.0)).converged


def test_a_maximum_is_as_near_as_its_type_and_its_slopes_allow():
    """Of counts in millions float32 holds the log of the rate to 1e-6; the slope of ``betaln`` is right to 1e-9."""
    counts = likelihood.fit(poisson, 0.0, np.array([3e6, 4e6, 5e6]))
    assert counts.converged and np.isclose(counts.params, np.log(4e6), atol=2e-6)

    def beta(p, x):
        a, b = jnp.exp(p)
        return (a - 1) * jnp.log(x) + (b - 1) * jnp.log1p(-x) - jax.scipy.special.betaln(a, b)

    shares = np.array([0.2, 0.5, 0.7, 0.6])
    end = likelihood.fit(beta, jnp.zeros(2), shares)
    assert end.converged and np.allclose(
        np.exp(end.params), scipy.stats.beta.fit(shares, floc=0, fscale=1)[:2], rtol=1e-2
    )


def test_one_observation_many_and_a_tolerance_below_the_precision():
    one = likelihood.fit(poisson, 0, np.array([3.0]))
    assert one.converged and np.isclose(one.params, np.log(3), atol=1e-5)
    many = likelihood.fit(bernoulli, 0.0, np.arange(1_000_000) % 10 < 3)
    assert many.converged and np.isclose(many.params, np.log(3 / 7), atol=1e-5)
    fine = likelihood.fit(bernoulli, 0.0, HEADS, tolerance=1e-12)
    assert fine.converged and np.isclose(fine.params, np.log(3 / 7), atol=1e-6)


def test_counts_of_any_type_are_added_up_without_overflow():
    for counts in (jnp.array([2_000_000_000] * 2), np.uint8([200, 200]), [2**62, 2**62], np.int8([100, 100])):
        assert likelihood.categorical(counts).tolist() == [0.5, 0.5]
    assert jax.jit(likelihood.categorical)(jnp.array([2_000_000_000] * 2)).tolist() == [0.5, 0.5]
    assert (
        likelihood.bernoulli(3_000_000_000, 4_000_000_000) == 0.75 and likelihood.bernoulli(np.uint8(200), 250) == 0.8
    )
    assert likelihood.poisson(np.uint8([200, 200])) == 200 and likelihood.poisson([3_000_000_000]) == 3e9
    assert likelihood.exponential(np.int8([100, 100, 100])) == np.float32(0.01)
    far = likelihood.gaussian(np.float32([[1e8], [1e8 + 8], [1e8 + 16]]))
    assert np.isclose(far.log_std[0], np.log(np.sqrt(128 / 3)), rtol=1e-6)


def test_log_likelihoods_are_subtracted_with_all_their_digits():
    """χ² of 1 at 2: erfc(1); in float32 both would be -2e7. At 6 deviations (1 - level) / 2 is what counts."""
    test = likelihood.ratio_test(-20000001.0, -20000000.0, 1)
    assert test.statistic == 2 and np.isclose(test.p_value, 0.15729920705, rtol=1e-6)
    end = likelihood.Fit(0.0, 0.0, jnp.eye(1), 1.0, True)
    for level, z in ((1 - 1.97e-9, 6.0003), (1 - 2**-53, 8.2924), (0.95, 1.959964), (1e-20, 1.2533141e-20)):
        lower, upper = likelihood.confidence_interval(end, level)
        assert np.isclose(upper, z, rtol=1e-4, atol=0) and lower == -upper  # z by mpmath's erfinv


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: likelihood.ratio_test(-100.0, -103.0, 1), "full: expected at least the log-likelihood -100"),
        (lambda: likelihood.ratio_test(np.nan, 0.0, 1), "restricted: expected finite"),
        (lambda: likelihood.categorical([1, np.inf]), "counts: expected finite"),
        (lambda: likelihood.categorical([0, 0]), "counts: expected at least one observation"),
        (lambda: likelihood.poisson([]), "x: expected at least 1"),
        (lambda: likelihood.exponential([0.0, 0]), "x: expected an observation above 0"),
        (lambda: likelihood.gaussian([[1.0]]), "x: expected different observations"),
        (lambda: likelihood.full_gaussian([[1.0, 1], [2, 2], [3, 3]]), "their covariance is singular"),
        (lambda: likelihood.fit(bernoulli, {}, HEADS), "init, data: expected parameters"),
        (lambda: likelihood.fit(bernoulli, 0.0, HEADS[:0]), "init, data: expected parameters and observations"),
        (lambda: likelihood.fit(bernoulli, 0.0, HEADS, num_steps=-1), "num_steps: expected at least 0"),
        (lambda: likelihood.fit(bernoulli, 0.0, HEADS, tolerance=-1), "tolerance: expected"),
        (lambda: likelihood.bernoulli(5, 4), "successes, trials: expected 0 <= successes <= trials"),
        (lambda: likelihood.bernoulli(0, 0), "and a trial, got 0 of 0"),
        (lambda: likelihood.categorical(jnp.array([1, -1, 2])), "counts: expected nothing negative"),
        (lambda: likelihood.exponential(jnp.array([1.0, -2.0])), "x: expected nothing negative, got -2"),
        (lambda: likelihood.full_gaussian(jnp.ones((2, 3))), "more observations than the 3 dimensions, got 2"),
        (
            lambda: likelihood.fit(lambda w, x: jnp.log(w) * x, 0.0, jnp.ones(3)),
            "init: the log-likelihood is -inf there",
        ),
        (lambda: likelihood.ratio_test(0.0, 1.0, 0), "num_restrictions: expected at least 1"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
