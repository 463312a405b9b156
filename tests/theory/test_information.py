"""Information against its laws, scipy and the notes; also at the edges, where 0 · log 0 lives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from genjax.theory import bayes, estimates, information, simplex

laws = settings(derandomize=True, deadline=None, max_examples=100)


def numbers(size, least=0.0):
    return st.lists(st.floats(least, 1, width=32), min_size=size, max_size=size).filter(lambda x: sum(x) > 1e-3)


def distribution(x):
    x = np.where(np.asarray(x) < 1e-30, 0, x)  # XLA takes subnormal numbers for zero
    return (x / x.sum()).astype(np.float32)


entropy, kl, cross_entropy, jensen_shannon = (
    jax.jit(f) for f in (information.entropy, information.kl, information.cross_entropy, information.jensen_shannon)
)
shared, left = jax.jit(information.mutual_information), jax.jit(information.conditional_entropy)
from_logits = jax.jit(information.kl_from_logits)


def test_the_notes_numbers():
    coin, unfair = np.array([0.5, 0.5]), np.array([0.2, 0.8])
    assert information.entropy_bits(coin) == 1
    assert np.allclose(information.self_information_bits(unfair), [2.32, 0.32], atol=5e-3)
    assert np.isclose(information.entropy_bits(unfair), 0.72, atol=5e-3)
    assert np.isclose(information.cross_entropy_bits(coin, unfair), 1.32, atol=5e-3)
    assert np.isclose(information.cross_entropy_bits(coin, np.array([0.4, 0.6])), 1.03, atol=5e-3)
    q, p = np.array([1.0, 0, 0, 0]), np.array([1 / 2, 1 / 4, 1 / 8, 1 / 8])
    assert information.cross_entropy_bits(q, p) == 1 and information.entropy_bits(q) == 0
    assert information.cross_entropy_bits(p, q) == np.inf == information.kl_bits(p, q)
    assert information.entropy_bits(p) == 1.75


@laws
@given(numbers(5), numbers(5))
def test_entropies_are_those_of_scipy(x, y):
    p, q = distribution(x), distribution(y)
    p64, q64 = p.astype(float) / p.astype(float).sum(), q.astype(float) / q.astype(float).sum()
    assert np.isclose(entropy(p), scipy.stats.entropy(p64), atol=2e-6)
    reference = scipy.special.rel_entr(p64, q64).sum()
    if np.isfinite(reference):
        assert np.isclose(kl(p, q), reference, rtol=1e-5, atol=3e-6)
        assert np.isclose(cross_entropy(p, q), kl(p, q) + entropy(p), rtol=1e-5, atol=3e-6)
    else:
        assert kl(p, q) == np.inf == cross_entropy(p, q)
    middle = (p64 + q64) / 2
    js = (scipy.special.rel_entr(p64, middle).sum() + scipy.special.rel_entr(q64, middle).sum()) / 2
    assert np.isclose(jensen_shannon(p, q), js, atol=3e-6)


@laws
@given(numbers(6), numbers(6))
def test_bounds(x, y):
    p, q = distribution(x), distribution(y)
    assert 0 <= entropy(p) <= np.log(6) + 1e-6
    assert kl(p, q) >= 0 and kl(p, p) == 0
    assert 0 <= jensen_shannon(p, q) <= np.float32(np.log(2)) and jensen_shannon(p, q) == jensen_shannon(q, p)


@laws
@given(numbers(12))
def test_what_two_variables_share(x):
    with jax.enable_x64(True):
        joint = np.asarray(x, np.float64).reshape(3, 4) / np.sum(np.asarray(x, np.float64))
        both, hx, hy = (scipy.stats.entropy(t.reshape(-1)) for t in (joint, joint.sum(1), joint.sum(0)))
        product = joint.sum(1)[:, None] * joint.sum(0)
        assert np.isclose(shared(joint), hx + hy - both, atol=1e-12)
        assert np.isclose(left(joint), both - hx, atol=1e-12)
        assert np.isclose(shared(joint.T), shared(joint), atol=1e-12)
        assert np.isclose(shared(joint), kl(joint.reshape(-1), product.reshape(-1)), atol=1e-12)


def exact(p, q):
    """D(p‖q) of tables as they are in float32, with twice float64's digits: Σ p log(p / q), divided by their sums."""
    p, q = (np.asarray(x, np.longdouble).reshape(-1) for x in (p, q))
    p, q = p / p.sum(), q / q.sum()
    ratio = np.where(p > 0, p, 1) / q
    return float(np.sum(q * np.where(p > 0, ratio * np.log(ratio) - ratio + 1, 1)))


def test_what_is_nearly_nothing_is_not_negative_and_keeps_its_digits():
    """float32, from far apart to 1e-4 apart: where D is 1e-9, its terms are 1e-4 and a plain sum is noise."""
    rng = np.random.default_rng(0)
    for apart in np.repeat([1.0, 0.1, 1e-2, 1e-3, 1e-4], 12):
        change = np.exp(apart * rng.standard_normal(12))
        p = rng.dirichlet(np.full(12, rng.choice([0.3, 1, 5])))
        p, q = (np.float32(x / x.sum()) for x in (p, p * change))
        middle = (np.float64(p) + q) / 2
        assert np.isclose(kl(p, q), exact(p, q), rtol=2e-4, atol=0)
        assert np.isclose(jensen_shannon(p, q), (exact(p, middle) + exact(q, middle)) / 2, rtol=2e-4, atol=0)
        joint = np.outer(rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(4))) * change.reshape(3, 4)
        joint = np.float64(np.float32(joint / joint.sum()))
        product = joint.sum(1)[:, None] * joint.sum(0) / joint.sum()
        assert np.isclose(shared(np.float32(joint)), exact(joint, product), rtol=max(1e-5, 3e-7 / apart), atol=0)
        logits = np.float32(3 * rng.standard_normal(12))
        moved = np.float32(logits + apart * rng.standard_normal(12))
        softmax = [scipy.special.softmax(np.longdouble(x)) for x in (logits, moved)]
        assert np.isclose(from_logits(logits, moved), exact(*softmax), rtol=2e-3 if apart < 1e-3 else 1e-5, atol=0)
    tables = rng.dirichlet(np.ones(12), 500).astype(np.float32)
    near = tables * (1 + 1e-7 * rng.standard_normal(tables.shape).astype(np.float32))
    for value in (kl(tables, near), jensen_shannon(tables, near), shared(tables.reshape(500, 3, 4))):
        assert np.all(value >= 0)
    product = np.float32(tables[:250, :3, None] / tables[:250, :3].sum(1)[:, None, None])
    product = product * (tables[250:, None, :4] / tables[250:, :4].sum(1)[:, None, None])
    for value in (shared(product), jax.jit(information.conditional_mutual_information)(product[:, :, :, None])):
        assert np.all((value >= 0) & (value < 1e-12))


def test_near_certainty_costs_what_is_left():
    """-(1 - d) log(1 - d) - d log d: in float32 1 - d is off by 6e-8, which is no small part of d."""
    for d in (1e-3, 1e-6, 1e-9, 1e-30):
        p, sure = np.float32([1 - d, d]), np.float32([1, 0])
        h = -(1 - d) * np.log1p(-d) - d * np.log(d)
        logit = np.float32(np.log(d) - np.log1p(-d))
        assert np.isclose(entropy(p), h, rtol=1e-6, atol=0)
        assert np.isclose(information.entropy_from_logits([0, logit]), h, rtol=1e-5, atol=0)
        assert np.isclose(cross_entropy(sure, p), -np.log1p(-d), rtol=1e-6, atol=0)
        assert np.isclose(information.cross_entropy_from_logits(sure, [0, logit]), -np.log1p(-d), rtol=1e-5, atol=0)
        assert np.isclose(information.conditional_entropy(np.stack([p, p]) / 2), h, rtol=1e-6, atol=0)
    above = np.float32([1 + 1e-7, 0])  # by rounding
    assert entropy(above) == 0 == cross_entropy(above, above) and information.self_information(above)[0] == 0


def test_slopes_are_those_of_the_formulas():
    p, q = jnp.array([0.2, 0.3, 0.5]), jnp.array([0.1, 0.6, 0.3])
    by_p, by_q = jax.jit(jax.grad(information.kl, (0, 1)))(p, q)
    assert np.allclose(by_p, np.log(p / q) + 1, rtol=1e-6) and np.allclose(by_q, -p / q, rtol=1e-6)
    assert np.allclose(jax.jit(jax.grad(information.entropy))(p), -np.log(p) - 1, rtol=1e-6)
    assert np.allclose(jax.jit(jax.grad(information.jensen_shannon))(p, q), np.log(2 * p / (p + q)) / 2, atol=1e-6)
    assert np.array_equal(
        jax.grad(lambda x: information.self_information(x).sum())(jnp.array([1, 0, 0.5])), [-1, 0, -2]
    )
    curvature = jax.jit(jax.hessian(information.kl_from_logits, 1))(jnp.log(p), jnp.log(q))
    assert np.allclose(curvature, jnp.diag(q) - jnp.outer(q, q), atol=1e-6)


def test_the_chain_rule_of_information():
    with jax.enable_x64(True):
        table = np.random.default_rng(0).dirichlet(np.ones(24)).reshape(2, 3, 4)
        # I(X; Y, Z) = I(X; Z) + I(X; Y|Z)
        whole = information.mutual_information(table.reshape(2, 12))
        parts = information.mutual_information(table.sum(1)) + information.conditional_mutual_information(table)
        assert np.isclose(whole, parts, atol=1e-13)
        batch = np.stack([table, table[:, ::-1]])  # which value of Y is called what does not matter
        assert np.allclose(
            information.conditional_mutual_information(batch),
            parts - information.mutual_information(table.sum(1)),
            atol=1e-13,
        )


def test_any_axis_and_several():
    table = np.random.default_rng(1).dirichlet(np.ones(6), 5).reshape(5, 2, 3)
    assert np.allclose(information.entropy(table, (1, 2)), information.entropy(table.reshape(5, 6)), atol=1e-6)
    turned = np.moveaxis(table.reshape(5, 6), 0, 1)
    assert np.allclose(information.entropy(turned, 0), information.entropy(table.reshape(5, 6)), atol=1e-6)


def test_the_gradient_of_kl_is_that_of_cross_entropy():
    p = jnp.array([0.2, 0.3, 0.5])
    logits = jnp.array([1.0, -2.0, 0.3])
    through = lambda f: jax.grad(lambda x: f(p, jax.nn.softmax(x)))(logits)
    assert np.allclose(through(information.kl), through(information.cross_entropy), atol=1e-7)
    assert np.allclose(through(information.kl), jax.nn.softmax(logits) - p, atol=1e-6)


def test_no_gradient_is_nan_at_the_edges():
    edge, other = jnp.array([1.0, 0.0, 0.0]), jnp.array([0.0, 0.5, 0.5])
    for f in (information.kl, information.cross_entropy, information.jensen_shannon):
        slopes = jax.jit(jax.grad(f, argnums=(0, 1)))
        for pair in ((edge, other), (other, edge), (edge, edge)):
            assert np.isfinite(slopes(*pair)).all()
    joint = jnp.array([[0.5, 0.0], [0.5, 0.0]])
    for f in (information.mutual_information, information.conditional_entropy):
        assert np.isfinite(jax.jit(jax.grad(f))(joint)).all()
    # cost of an event that never happened so far: linear in p, so its slope is right even at p = 0
    assert np.allclose(jax.grad(information.cross_entropy)(edge, jnp.array([0.5, 0.25, 0.25])), np.log([2, 4, 4]))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0, 1e4, 1e30])
def test_from_logits_to_the_extremes(scale):
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(rng.standard_normal(7).astype(np.float32) * np.float32(scale)) for _ in range(2))
    p, log_p = scipy.special.softmax(np.float64(a)), scipy.special.log_softmax(np.float64(a))
    log_q = scipy.special.log_softmax(np.float64(b))
    # float32 rounds logits of size s to s · 6e-8
    close = functools.partial(np.allclose, rtol=2e-5, atol=2e-6)
    assert close(information.entropy_from_logits(a), -(p * log_p).sum())
    assert close(information.cross_entropy_from_logits(jnp.float32(p), b), -(p * log_q).sum())
    assert close(information.kl_from_logits(a, b), (p * (log_p - log_q)).sum(), rtol=1e-3 if scale < 0.01 else 2e-5)
    for argument in (0, 1):
        assert np.isfinite(jax.grad(information.kl_from_logits, argument)(a, b)).all()


def test_impossible_outcomes_as_logits():
    a, b = jnp.array([0.0, -jnp.inf, 0.0]), jnp.array([0.0, 0.0, 0.0])
    assert np.isclose(information.kl_from_logits(a, b), np.log(3 / 2)) and information.kl_from_logits(b, a) == np.inf
    assert np.isfinite(jax.grad(information.kl_from_logits, (0, 1))(a, b)[1]).all()
    assert np.isclose(information.entropy_from_logits(a), np.log(2))


@pytest.mark.parametrize("logit", [-1e30, -1e4, -88.0, -17.0, -1e-3, 0.0, 1e-3, 17.0, 88.0, 1e4, 1e30])
@pytest.mark.parametrize("y", [0.0, 1.0, 0.25])
def test_binary_cross_entropy(y, logit):
    y, logit = jnp.float32(y), jnp.float32(logit)
    value, slope = jax.value_and_grad(information.binary_cross_entropy, argnums=1)(y, logit)
    reference = float(y) * np.logaddexp(0, -float(logit)) + (1 - float(y)) * np.logaddexp(0, float(logit))
    assert np.isclose(value, reference, rtol=1e-6, atol=1e-37)  # float32 has no smaller numbers
    exact = scipy.special.expit(float(logit)) - float(y)
    if y in (0, 1):  # without cancellation
        exact = scipy.special.expit(float(logit)) if y == 0 else -scipy.special.expit(-float(logit))
    assert abs(slope - exact) <= 4 * np.spacing(np.float32(max(abs(exact), 1e-38)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: information.entropy(np.array([0.5, 0.4])), "p: the probabilities sum to 0.9, 0.1 too little"),
        (lambda: information.kl(np.eye(2), np.array([[0.5, 0.5], [0.9, 0.3]])), "q: row 1 sums to 1.2, 0.2 too much"),
        (lambda: information.entropy(np.array([1.5, -0.5])), r"p: expected probabilities, got -0.5 at 1"),
        (lambda: information.entropy(np.array([np.nan, 1])), "got nan at 0"),
        (lambda: information.self_information(np.array([0.5, 1.2])), r"p: expected probabilities in \[0, 1\], got 1.2"),
        (lambda: information.mutual_information(np.ones(3) / 3), "joint: expected probabilities over axis"),
        (lambda: estimates.empirical([jnp.array([0, 3])], [3]), r"variables\[0\]: expected samples in \[0, 3\)"),
    ],
)
def test_bad_tables_are_refused_outside_jit(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: information.kl([1.0], [0.2, 0.8]), "p, q: expected the same outcomes"),
        (lambda: information.kl(np.full(2, 0.5), np.full((5, 2), 0.5), 0), "q: row 0 sums to 2.5"),
        (lambda: information.kl(np.full((2, 2), 0.5), np.full((3, 2), 0.5)), "p, q: expected the same outcomes"),
        (lambda: information.kl([0.5, 0.5], [1e-40, 1]), "q: 1e-40 is taken for 0 by float32"),
        (lambda: information.self_information(1e-40), "p: 1e-40 is taken for 0"),
        (lambda: information.entropy(np.array([0.5j, 0.5])), "p: expected real numbers"),
        (lambda: information.entropy(np.full((2, 2), 0.25), (0, -2)), "axis: expected different axes"),
        (lambda: information.entropy(np.zeros(0)), "p: the probabilities sum to 0"),
        (lambda: information.entropy_from_logits([np.nan, 0]), "logits: expected numbers below"),
        (lambda: information.kl_from_logits([0.0, 1], [-np.inf, -np.inf]), "q_logits: expected numbers below"),
        (lambda: information.cross_entropy_from_logits([1.0, 1], [0.0, 0]), "p: the probabilities sum to 2"),
        (lambda: information.binary_cross_entropy(1.5, 0.0), "y: expected numbers from 0 to 1, got 1.5"),
        (lambda: information.bits_per_dim(1.0, 0), "num_dims: expected at least 1"),
        (lambda: estimates.estimate([1.0]), "values: expected at least 2"),
        (lambda: estimates.estimate([1.0, np.nan]), "values: expected finite numbers, got nan at 1"),
        (lambda: estimates.kl_from_samples([0.0, 0], [-np.inf, 0]), "log_q: expected finite numbers"),
        (lambda: estimates.kl_from_samples([0.0, 0], [100.0, 0]), "log_q: expected at most 89 nats more"),
        (lambda: estimates.kl_from_samples([0.0, 0], [[0.0], [0]]), "log_p, log_q: expected one shape"),
        (lambda: estimates.empirical([np.zeros(0, int)], [2]), "variables: expected at least 1"),
        (lambda: estimates.empirical([np.array([0.0, 1])], [2]), r"variables\[0\]: expected whole numbers"),
        (lambda: estimates.empirical([np.zeros(2, int), np.zeros(1, int)], [2, 2]), "variables: expected samples"),
    ],
)
def test_what_has_no_answer_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_lists_whole_numbers_and_infinite_logits_are_taken():
    assert information.entropy([True, False]) == 0 == information.entropy(np.array([0, 1], np.uint8))
    assert information.kl([0.5, 0.5], np.full((5, 2), 0.5)).tolist() == [0] * 5
    assert information.binary_cross_entropy([1, 0, 1], [np.inf, -np.inf, -np.inf]).tolist() == [0, 0, np.inf]
    q = np.exp([50, 0, 1]) / np.exp([50, 0, 1]).sum()
    kl = information.kl_from_logits([-np.inf, 0, 0], [50, 0, 1])
    assert np.isclose(kl, -np.log(2) - np.log(q[1:]).mean(), rtol=1e-6)


def test_counts_and_sums_of_samples_do_not_overflow():
    joint = estimates.empirical([np.array([0, 200], np.uint8), np.array([0, 100], np.int8)], [256, 128])
    assert joint[200, 100] == 0.5 == joint[0, 0]
    wide = estimates.estimate(np.float32([1e38, 3e38]))
    assert np.allclose(wide, [2e38, 1e38], rtol=1e-6)
    far = estimates.estimate(1e9 + np.arange(5.0))
    assert far.standard_error == pytest.approx(0.5**0.5, rel=1e-6)
    close = estimates.kl_from_samples(np.full(2, -1e9), -1e9 + np.array([-1e-3, 1e-3]))
    assert close.mean == pytest.approx(5e-7, rel=1e-3)  # r - 1 - log r of r = e^±.001


def test_error_bars_of_means_cover():
    """4000 means of 30 draws: 1.96 standard errors, of a normal law with its deviation estimated, hold 94 of 100."""
    draws = np.random.default_rng(0).standard_normal((30, 4000))
    estimate = estimates.estimate(draws)
    inside = np.abs(estimate.mean) < 1.96 * np.asarray(estimate.standard_error)
    expected = 2 * scipy.stats.t(29).cdf(1.96) - 1
    assert abs(inside.mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / 4000)


def test_inside_jit_nothing_is_looked_at():
    assert jax.jit(information.entropy)(jnp.array([0.5, 0.4])) > 0
    simplex.check("p", np.full(3, 1 / 3, np.float32))
    with pytest.raises(ValueError, match="sum"):
        simplex.check("p", np.full(3, 1 / 3 + 1e-8, np.float64))


def test_estimates_from_samples():
    rng = np.random.default_rng(0)
    joint = np.array([[0.3, 0.1], [0.15, 0.45]])
    flat = jnp.asarray(rng.choice(4, 40_000, p=joint.reshape(-1)))
    x, y = flat // 2, flat % 2
    assert np.allclose(estimates.empirical([x, y], [2, 2]), joint, atol=0.01)
    true = float(information.mutual_information(joint))
    assert np.isclose(estimates.mutual_information_from_samples(x, y, (2, 2)), true, atol=0.005)

    # the correction of Miller removes most of the plug-in estimate's bias
    p = rng.dirichlet(np.ones(8))
    small = jnp.asarray(rng.choice(8, (3000, 60), p=p))
    corrected = jax.vmap(lambda s: estimates.entropy_from_samples(s, 8))(small).mean()
    plug_in = jax.vmap(lambda s: information.entropy(estimates.empirical([s], [8])))(small).mean()
    bias = lambda h: abs(float(h) - scipy.stats.entropy(p))
    assert bias(corrected) < 0.3 * bias(plug_in)


def test_kl_from_samples_is_unbiased_and_tighter_than_the_plain_mean():
    rng = np.random.default_rng(0)
    z = jnp.asarray(rng.standard_normal(20_000), jnp.float32)
    log_p, log_q = -0.5 * z**2, -0.5 * (z - 0.3) ** 2  # both less ½ log 2π
    k3, plain = estimates.kl_from_samples(log_p, log_q), estimates.estimate(log_p - log_q)
    assert abs(k3.mean - 0.045) < 4 * k3.standard_error
    assert k3.standard_error < 0.5 * plain.standard_error


def test_dependence_is_found_under_any_order_of_axes():
    rng = np.random.default_rng(2)
    given_z = np.einsum(
        "z,zx,zy->xyz", rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(2), 3), rng.dirichlet(np.ones(4), 3)
    )
    assert bayes.independent(given_z, 0, 1, (2,)) and not bayes.independent(given_z, 0, 1)
    turned = given_z.transpose(2, 0, 1)
    assert np.isclose(bayes.dependence(turned, 1, 2), bayes.dependence(given_z, 0, 1), atol=1e-6)
