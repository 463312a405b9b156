"""Monte Carlo by Markov chains: exact on small spaces, right on known laws, wrong by the known amount unadjusted."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
import scipy.stats
from jax.extend.core import jaxprs_in_params

from genjax.theory import markov, mcmc

KEY = jax.random.key(0)
RWM = mcmc.random_walk_metropolis

normal = lambda x: -jnp.sum(x**2) / 2
gamma = lambda x: jnp.where(x > 0, 2 * jnp.log(x) - x, -jnp.inf)  # Gamma(3); below 0 the gradient is NaN

ess = jax.jit(mcmc.effective_sample_size)


@functools.partial(jax.jit, static_argnums=0)
def chains(algorithm, start, key):
    """64 chains of 2200 steps, the first 200 left out: outputs [t, chain, ...]."""
    run = lambda key: markov.simulate(algorithm.step, key, algorithm.init(start), length=2200)[1]
    return jax.tree.map(lambda y: jnp.swapaxes(y, 0, 1)[200:], jax.vmap(run)(jax.random.split(key, 64)))


def check_moment(values, expected):
    """Within 4 standard errors, which are small enough to mean something."""
    effective = float(ess(values).sum())
    error = float(values.std()) / math.sqrt(effective)
    assert abs(float(values.mean()) - expected) < 4 * error
    return error


# Exact, on five states.

LAW = np.array([0.1, 0.4, 0.0, 0.2, 0.3])  # nothing in state 2
PROPOSAL = np.random.default_rng(0).dirichlet(np.ones(5), size=5)


def acceptance(law, proposal):
    """The kernel's own probability to accept j from i."""
    log_density = lambda i: jnp.log(jnp.asarray(law))[i]
    log_q = jnp.log(proposal)

    def accept(i, j):
        algorithm = mcmc.metropolis_hastings(log_density, lambda key, x: (j, log_q[j, x] - log_q[x, j]))
        return algorithm.step(KEY, algorithm.init(i), None)[1].acceptance_rate

    states = jnp.arange(len(law))
    return np.asarray(jax.jit(jax.vmap(jax.vmap(accept, (None, 0)), (0, None)))(states, states))


@pytest.mark.parametrize("proposal", [PROPOSAL, np.full((5, 5), 0.2)], ids=["asymmetric", "symmetric"])
def test_the_exact_transition_matrix_is_in_detailed_balance(proposal):
    accept = acceptance(LAW, proposal)
    moves = proposal * accept
    np.fill_diagonal(moves, 0)
    table = jnp.asarray(moves + np.diag(1 - moves.sum(1)))
    assert markov.detailed_balance(table, jnp.asarray(LAW)) < 1e-7
    assert markov.detailed_balance(jnp.asarray(proposal), jnp.asarray(LAW)) > 0.01  # accepting always would not do
    np.testing.assert_allclose(markov.stationary_by_eigenvector(table), LAW, atol=1e-6)
    assert np.all(moves[:, 2] == 0)
    assert np.all(accept[2] == (LAW > 0))  # inside jit nobody asks where a chain begins


def test_proposals_are_accepted_as_often_as_they_should():
    @jax.jit
    def one_step(log_ratio):
        log_density = lambda i: i * log_ratio
        algorithm = mcmc.metropolis_hastings(log_density, lambda key, x: (x + 1, 0.0))
        start = algorithm.init(0)
        return jax.vmap(lambda key: algorithm.step(key, start, None))(jax.random.split(KEY, 20_000))

    for ratio in (0.02, 0.5, 0.9, 1.0, 3.0):
        state, info = one_step(math.log(ratio))
        np.testing.assert_allclose(info.acceptance_rate, min(1, ratio), rtol=1e-6)
        assert np.array_equal(info.position, info.is_accepted) and np.array_equal(state.position, info.position)
        np.testing.assert_allclose(state.log_density, info.position * math.log(ratio), rtol=1e-6)
        error = math.sqrt(min(1, ratio) * (1 - min(1, ratio)) / 20_000)
        assert abs(info.is_accepted.mean() - min(1, ratio)) <= 4 * error


# Known laws.


@pytest.mark.parametrize(
    "algorithm",
    [mcmc.random_walk_metropolis(gamma, 4.0), mcmc.mala(gamma, 2.0)],
    ids=["metropolis", "MALA"],
)
def test_the_draws_follow_the_distribution(algorithm):
    info = chains(algorithm, 3.0, KEY)
    assert check_moment(info.position, 3) < 0.05
    check_moment((info.position - 3) ** 2, 3)
    assert np.all(info.position > 0) and 0.3 < info.is_accepted.mean() < 0.9
    np.testing.assert_allclose(info.is_accepted.mean(), info.acceptance_rate.mean(), atol=0.01)
    thinned = np.asarray(info.position[::50]).reshape(-1)
    assert ess(info.position).mean() > 3 * 2000 / 50  # so these are as good as independent
    assert scipy.stats.kstest(thinned, scipy.stats.gamma(3).cdf).pvalue > 0.001


def test_unadjusted_langevin_has_the_variance_of_its_steps():
    h = 1.5
    x = chains(mcmc.langevin(normal, h), 0.0, KEY)
    assert check_moment(x**2, 1 / (1 - h / 4)) < 0.02  # so it is no 1
    check_moment(x, 0)


def test_adjusted_langevin_has_the_true_covariance_in_several_dimensions():
    covariance = np.array([[1.0, 0.8], [0.8, 2.0]])
    precision = jnp.asarray(np.linalg.inv(covariance))
    log_density = lambda x: -x @ precision @ x / 2
    info = chains(mcmc.mala(log_density, 0.9), jnp.zeros(2), KEY)
    assert info.position.shape == (2000, 64, 2) and info.is_accepted.shape == (2000, 64)
    for i, j in ((0, 0), (0, 1), (1, 1)):
        assert check_moment(info.position[:, :, i] * info.position[:, :, j], covariance[i, j]) < 0.05


# Where there is nothing to stand on.


def test_proposals_without_a_density_are_rejected():
    @jax.jit
    def run(outside):
        box = lambda x: jnp.where(jnp.abs(x) < 1, 0.0, outside)  # uniform on (-1, 1)
        algorithm = mcmc.random_walk_metropolis(box, 1.0)
        return markov.simulate(algorithm.step, KEY, algorithm.init(0.5), length=20_000)[1]

    nowhere, unknown = run(-jnp.inf), run(jnp.nan)
    assert np.all(np.abs(nowhere.position) < 1) and np.isfinite(nowhere.acceptance_rate).all()
    assert 0.5 < nowhere.is_accepted.mean() < 0.8
    assert check_moment(nowhere.position[:, None] ** 2, 1 / 3) < 0.01
    jax.tree.map(np.testing.assert_array_equal, nowhere, unknown)


def test_a_bad_start_is_refused():
    with pytest.raises(ValueError, match=r"position: expected a start of positive, finite density.*-inf"):
        mcmc.random_walk_metropolis(gamma, 1.0).init(-1.0)
    with pytest.raises(ValueError, match="nan"):
        mcmc.mala(normal, 1.0).init(jnp.nan)
    with pytest.raises(ValueError, match="gradient is finite"):
        mcmc.mala(lambda x: -jnp.sqrt(x), 1.0).init(0.0)
    with pytest.raises(ValueError, match=r"expected one number, got shape \(3,\); sum"):
        mcmc.random_walk_metropolis(lambda x: -(x**2) / 2, 1.0).init(jnp.zeros(3))


@pytest.mark.parametrize(
    ("make", "begin", "message"),
    [
        (RWM, lambda: RWM(normal, 1.0).init(0), "position: expected floating-point numbers, got int32; start at 0.0"),
        (mcmc.langevin, lambda: mcmc.langevin(normal, 1.0).init(0), "position: expected floating-point numbers"),
        (mcmc.langevin, lambda: mcmc.langevin(normal, 1.0).init((0.0, 0.0)), "position: expected one array, got tuple"),
        (mcmc.mala, lambda: mcmc.mala(normal, 1.0).init(0), "position: expected floating-point numbers"),
        (mcmc.mala, lambda: RWM(normal, 1.0).init(0.0), "state: expected an MCMCState with a gradient"),
        (RWM, lambda: mcmc.mala(normal, 1.0).init(0.0), "state: expected an MCMCState without a gradient"),
        (RWM, lambda: 0.0, "state: expected an MCMCState"),
    ],
)
def test_a_start_of_another_kind_is_refused(make, begin, message):
    with pytest.raises(ValueError, match=message):
        markov.simulate(make(normal, 1.0).step, KEY, begin(), length=2)


def test_whole_numbers_walk_with_a_density_of_whole_numbers():
    algorithm = mcmc.metropolis_hastings(lambda i: -abs(i), lambda key, x: (x + 1, 0.0))
    _, info = markov.simulate(algorithm.step, KEY, algorithm.init(0), length=3)
    assert info.position.dtype == jnp.int32 and np.allclose(info.acceptance_rate, np.exp(-1))
    _, none = markov.simulate(algorithm.step, KEY, algorithm.init(0), length=0)
    assert none.position.shape == (0,)
    assert algorithm.init(np.uint8(0)).position.dtype == jnp.int32


def test_an_infinite_density_is_no_place_to_be():
    """One would never leave it."""
    spike = lambda x: jnp.where(x == 1, jnp.inf, 0.0)
    algorithm = mcmc.metropolis_hastings(spike, lambda key, x: (1 - x, 0.0))
    assert not markov.simulate(algorithm.step, KEY, algorithm.init(0.0), length=5)[1].is_accepted.any()


@pytest.mark.parametrize("step_size", [0.0, -1.0, math.nan, math.inf])
def test_a_step_must_be_positive(step_size):
    for make in (RWM, mcmc.langevin, mcmc.mala):
        with pytest.raises(ValueError, match="step_size: expected positive"):
            make(normal, step_size)


# One program.


def primitives(jaxpr):
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inner in jaxprs_in_params(equation.params):
            yield from primitives(inner)


def test_a_run_is_one_scan_with_one_gradient_a_step():
    algorithm = RWM(normal, 1.0)
    start = algorithm.init(0.0)
    names = list(primitives(jax.make_jaxpr(lambda: markov.simulate(algorithm.step, KEY, start, length=7))().jaxpr))
    assert names.count("scan") == 1 and "while" not in names
    calls = []
    counted = lambda x: calls.append(1) or normal(x)
    algorithm = mcmc.mala(counted, 1.0)
    start = algorithm.init(0.0)
    calls.clear()
    jax.eval_shape(lambda: algorithm.step(KEY, start, None))
    assert len(calls) == 1


def test_many_chains_are_each_alone_and_many_step_sizes_can_be_tried_at_once():
    @jax.jit
    @jax.vmap
    def run(key, step_size):
        algorithm = RWM(gamma, step_size)
        return markov.simulate(algorithm.step, key, algorithm.init(1.0), length=50)[1]

    keys, sizes = jax.random.split(KEY, 3), jnp.array([0.1, 2.0, 50.0])
    together, backwards = run(keys, sizes), run(keys[::-1], sizes[::-1])
    np.testing.assert_array_equal(together.position, backwards.position[::-1])
    rates = together.is_accepted.mean(1)
    assert rates[0] > rates[1] > rates[2]


# Effective sample size.


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.5, 0.9])
def test_the_effective_sample_size_of_an_autoregression(rho):
    n, noise = 2000, np.random.default_rng(0).normal(size=(2300, 64))
    chain = scipy.signal.lfilter([1], [1, -rho], noise, axis=0)[300:]
    expected = n * (1 - rho) / (1 + rho)
    np.testing.assert_allclose(ess(jnp.asarray(chain)).mean(), expected, rtol=0.06)


def test_the_effective_sample_size_is_that_of_the_plain_sum():
    chain = scipy.signal.lfilter([1], [1, -0.8], np.random.default_rng(1).normal(size=(101, 3)), axis=0)
    expected = []
    for x in chain.T - chain.mean(0)[:, None]:
        pairs = [sum(x[: 101 - k] @ x[k:] for k in (m, m + 1)) / (x @ x) for m in range(0, 100, 2)]
        time, least = -1.0, math.inf
        for pair in pairs:
            if pair <= 0:
                break
            least = min(least, pair)
            time += 2 * least
        expected.append(101 / time)
    once = jax.jit(mcmc.effective_sample_size)
    np.testing.assert_allclose(once(jnp.asarray(chain)), expected, rtol=1e-4)
    np.testing.assert_allclose(once(jnp.asarray(100 - 3 * chain)), expected, rtol=1e-3)


def test_the_effective_sample_size_has_no_unit():
    chain = scipy.signal.lfilter([1], [1, -0.8], np.random.default_rng(1).normal(size=(101, 3)), axis=0)
    expected = ess(jnp.asarray(chain))
    for unit in (1e30, 1e-30):
        np.testing.assert_allclose(ess(jnp.asarray(chain * unit)), expected, rtol=1e-4)
    bits = np.arange(100) % 7 < 2
    np.testing.assert_allclose(mcmc.effective_sample_size(bits), ess(jnp.asarray(bits, jnp.float32)), rtol=1e-5)
    for bad in ([1.0, 2, 3, math.nan], [1.0, 2, 3, math.inf], np.zeros((0, 2)), 3.0):
        with pytest.raises(ValueError, match="chain: expected"):
            mcmc.effective_sample_size(bad)


@pytest.mark.parametrize("rho", [-0.5, 0.5, 0.9])
def test_its_error_bars_cover(rho):
    """1000 chains with 2000 draws, started in their law: 1.96 std / √ESS hold the mean 95 times of 100."""
    noise = np.random.default_rng(2).normal(size=(2300, 1000))
    chain = jnp.asarray(scipy.signal.lfilter([1], [1, -rho], noise, axis=0)[300:])
    error = chain.std(0) / jnp.sqrt(ess(chain))
    assert 0.92 < np.mean(np.abs(chain.mean(0)) < 1.96 * error) < 0.975


def test_the_effective_sample_size_at_the_extremes():
    stuck, opposed = np.full(100, 0.1), np.resize([1.0, -1.0], 100)
    stuck_size, opposed_size = ess(jnp.asarray(np.stack([stuck, opposed], 1)))
    assert np.isnan(stuck_size)
    np.testing.assert_allclose(opposed_size, 100 * math.log10(100), rtol=1e-5)
    with pytest.raises(ValueError, match="at least 4 draws along axis 0, got 3"):
        mcmc.effective_sample_size(jnp.zeros(3))
