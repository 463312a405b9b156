"""Tables of discrete variables: the sum rule, the product rule, and Bayes' rule."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from genjax.theory import bayes

RNG = np.random.default_rng(0)
TABLE = RNG.dirichlet(np.ones(24)).reshape(2, 3, 4)


def test_a_joint_is_its_marginal_times_its_conditional():
    prior = bayes.marginal(TABLE, (0, 1))
    assert np.allclose(bayes.joint(prior, bayes.conditional(TABLE, (0, 1))), TABLE, atol=1e-7)
    assert np.allclose(bayes.marginal(TABLE, (2,)), TABLE.sum((0, 1)), atol=1e-7)
    assert np.allclose(bayes.conditional(TABLE, (1,)).sum((0, 2)), 1, atol=1e-6)


def test_a_condition_that_float32_takes_for_0_is_one():
    table = np.array([[1e-50, 3e-50], [0.5, 0.5], [0, 0]])
    conditional = bayes.conditional(table, (0,))
    assert np.allclose(conditional, [[0.25, 0.75], [0.5, 0.5], [np.nan] * 2], equal_nan=True)


def test_bayes_rule_turns_a_conditional_around():
    """Counting worlds: p(x|y) by definition, from the joint table."""
    joint = TABLE.sum(2)
    x = joint.sum(1)
    likelihood = joint / x[:, None]
    for y in range(3):
        assert np.allclose(bayes.posterior(x, likelihood[:, y]), joint[:, y] / joint[:, y].sum(), atol=1e-6)


def test_learning_one_by_one_is_learning_at_once():
    """A coin's bias on a grid, 7 heads and 3 tails: the posterior is Beta(8, 4) where the prior is flat."""
    grid = (np.arange(400) + 0.5) / 400
    prior = np.full(400, 1 / 400)
    tosses = [1, 1, 0, 1, 1, 1, 0, 1, 1, 0]
    one_by_one = jnp.asarray(prior)
    for toss in tosses:
        one_by_one = bayes.posterior(one_by_one, grid if toss else 1 - grid)
    at_once = bayes.log_posterior(jnp.log(prior), jnp.asarray(7 * np.log(grid) + 3 * np.log(1 - grid)))
    assert np.allclose(one_by_one, at_once, atol=1e-6)
    assert np.allclose(at_once * 400, scipy.stats.beta(8, 4).pdf(grid), atol=1e-3)


def test_many_observations_do_not_underflow():
    grid = np.array([0.25, 0.5, 0.75])
    log_likelihood = 700_000 * np.log(grid) + 300_000 * np.log(1 - grid)
    assert np.allclose(bayes.log_posterior(jnp.log(jnp.full(3, 1 / 3)), jnp.asarray(log_likelihood)), [0, 0, 1])


def test_small_likelihoods_do_not_underflow():
    """Only their ratio counts: 2 : 2.2 and 1 : 3, however small; as do differences of large log-likelihoods."""
    assert np.allclose(bayes.posterior([0.5, 0.5], np.float32([2e-38, 2.2e-38])), [10 / 21, 11 / 21], rtol=1e-6)
    assert np.allclose(bayes.posterior([0.5, 0.5], [1e-50, 3e-50]), [0.25, 0.75], rtol=1e-6)
    assert np.allclose(bayes.posterior([1e-30, 1], [1e30, 0]), [1, 0])
    assert np.allclose(bayes.log_posterior([0.0, 0], [-20000001.0, -20000000]), [1 / (1 + np.e), np.e / (1 + np.e)])
    with jax.enable_x64(True):
        assert np.allclose(bayes.posterior([0.5, 0.5], [1e-300, 3e-300]), [0.25, 0.75], rtol=1e-12)


def test_axes_come_in_the_order_asked_for():
    for axes in itertools.permutations(range(3)):
        for n in range(4):
            expected = np.einsum(TABLE, range(3), axes[:n])
            assert np.allclose(bayes.marginal(TABLE, axes[:n]), expected, atol=1e-7)
    assert np.allclose(bayes.marginal(TABLE, (-1, 0)), TABLE.sum(1).T, atol=1e-7)
    assert np.array_equal(bayes.joint([1, 0], [[1, 0], [0, 1]]), [[1, 0], [0, 0]])


def test_dependence_is_never_negative():
    for seed in range(20):
        source = np.random.default_rng(seed)
        product = source.dirichlet(np.ones(3))[:, None, None] * np.outer(*source.dirichlet(np.ones(4), 2))
        for given in ((), (0,)):
            assert 0 <= bayes.dependence(np.float32(product / product.sum()), 1, 2, given) < 1e-12


def test_what_is_certain_stays_certain():
    assert bayes.posterior(np.array([1.0, 0.0]), np.array([0.1, 0.9])).tolist() == [1, 0]
    assert np.isnan(bayes.conditional(np.array([[0.5, 0.5], [0, 0]]), (0,))[1]).all()
    gradient = jax.grad(lambda p: bayes.posterior(p, jnp.array([0.1, 0.9]))[0])(jnp.array([1.0, 0.0]))
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: bayes.posterior(np.array([0.5, 0.6]), np.ones(2)),
            "prior: the probabilities sum to 1.1, 0.1 too much",
        ),
        (lambda: bayes.posterior(np.array([0.5, 0.5]), np.ones(3)), r"likelihood: expected one number for each"),
        (
            lambda: bayes.posterior(np.array([0.5, 0.5]), np.array([-1, 1])),
            "likelihood: expected nothing negative, got -1",
        ),
        (lambda: bayes.posterior(np.array([1.0, 0]), np.array([0, 1])), "impossible under the prior"),
        (
            lambda: bayes.joint(np.array([0.5, 0.5]), np.array([[0.5, 0.5], [0.5, 0.6]])),
            "conditional: row 1 sums to 1.1",
        ),
        (lambda: bayes.joint(np.array([0.5, 0.5]), np.ones((3, 1))), "conditional: expected the axes"),
        (lambda: bayes.dependence(TABLE, 0, 0), "different axes"),
        (lambda: bayes.dependence(TABLE, 0, 1, (-3,)), "x, y, given: expected different axes"),
        (lambda: bayes.dependence(TABLE, 2, 3), "x, y, given: expected an axis from -3 to 2 of 3, got 3"),
        (lambda: bayes.independent(TABLE, 0, 5), "x, y, given: expected an axis"),
        (lambda: bayes.independent(TABLE, 0, 1, tolerance=math.nan), "tolerance: expected"),
        (lambda: bayes.marginal(TABLE, (5,)), "axes: expected an axis from -3 to 2 of 3, got 5"),
        (lambda: bayes.marginal(TABLE, (0, 0)), "axes: expected different axes"),
        (lambda: bayes.marginal(1.0, ()), "table: expected probabilities"),
        (lambda: bayes.conditional(TABLE, (7,)), "given: expected an axis"),
        (lambda: bayes.conditional(TABLE, (1, -2)), "given: expected different axes"),
        (lambda: bayes.joint(np.zeros(0), np.zeros((0, 2))), "prior: the probabilities sum to 0"),
        (lambda: bayes.posterior([0.5, 0.5], [np.inf, 1]), "likelihood: expected finite"),
        (lambda: bayes.log_posterior([-np.inf, 0], [0, -np.inf]), "impossible under the prior"),
        (lambda: bayes.log_posterior([np.nan, 0], [0, 0]), "log_prior: expected numbers"),
        (lambda: bayes.log_posterior([0, 0], [[0], [0]]), "log_prior, log_likelihood: expected the same axes"),
        (lambda: bayes.marginal(2 * TABLE, (0,)), "table: the probabilities sum to 2"),
    ],
)
def test_bad_tables_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
