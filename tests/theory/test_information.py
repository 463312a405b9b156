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
    assert -1e-6 <= entropy(p) <= np.log(6) + 1e-6
    assert kl(p, q) >= -1e-6 and kl(p, p) == 0
    assert -1e-6 <= jensen_shannon(p, q) <= np.log(2) + 1e-6
    assert np.isclose(jensen_shannon(p, q), jensen_shannon(q, p), atol=1e-6)


@laws
@given(numbers(12))
def test_what_two_variables_share(x):
    with jax.enable_x64(True):
        joint = np.asarray(x, np.float64).reshape(3, 4) / np.sum(np.asarray(x, np.float64))
        both, hx, hy = (scipy.stats.entropy(t.reshape(-1)) for t in (joint, joint.sum(1), joint.sum(0)))
        assert np.isclose(information.mutual_information(joint), hx + hy - both, atol=1e-12)
        assert np.isclose(information.conditional_entropy(joint), both - hx, atol=1e-12)
        assert np.isclose(information.mutual_information(joint.T), information.mutual_information(joint), atol=1e-12)
        product = joint.sum(1)[:, None] * joint.sum(0)
        assert np.isclose(information.mutual_information(joint), information.kl(joint, product, (0, 1)), atol=1e-12)


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
        for pair in ((edge, other), (other, edge), (edge, edge)):
            assert np.isfinite(jax.grad(f, argnums=(0, 1))(*pair)).all()
    joint = jnp.array([[0.5, 0.0], [0.5, 0.0]])
    for f in (information.mutual_information, information.conditional_entropy):
        assert np.isfinite(jax.grad(f)(joint)).all()
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
    ours, plain = estimates.kl_from_samples(log_p, log_q), estimates.estimate(log_p - log_q)
    assert abs(ours.mean - 0.045) < 4 * ours.standard_error
    assert ours.standard_error < 0.5 * plain.standard_error


def test_dependence_is_found_under_any_order_of_axes():
    rng = np.random.default_rng(2)
    given_z = np.einsum(
        "z,zx,zy->xyz", rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(2), 3), rng.dirichlet(np.ones(4), 3)
    )
    assert bayes.independent(given_z, 0, 1, (2,)) and not bayes.independent(given_z, 0, 1)
    turned = given_z.transpose(2, 0, 1)
    assert np.isclose(bayes.dependence(turned, 1, 2), bayes.dependence(given_z, 0, 1), atol=1e-6)
