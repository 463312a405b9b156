"""Tables of discrete variables: the sum rule, the product rule, and Bayes' rule."""

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
        (lambda: bayes.marginal(2 * TABLE, (0,)), "table: the probabilities sum to 2"),
    ],
)
def test_bad_tables_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
