"""The chain of kernels: one scan, a stream of keys for each chain. And chains on finitely many states."""

import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from genjax.theory import markov

KEY = jax.random.key(0)


def walk(key, x, u):
    y = x + u + jnp.reshape(jax.vmap(jax.random.normal)(key.reshape(-1)), key.shape)
    return y, y


def test_simulate_is_the_python_loop():
    inputs = jnp.arange(5.0)
    end, path = markov.simulate(walk, KEY, 0.0, inputs)
    x = 0.0
    for key, u, y in zip(jax.random.split(KEY, 5), inputs, path, strict=True):
        x, _ = walk(key, x, u)
        assert np.allclose(x, y, atol=1e-6)
    assert end == path[-1]


def test_a_batch_of_chains_is_the_chains_one_by_one():
    keys = jax.random.split(KEY, 3)
    end, path = markov.simulate(walk, keys, jnp.zeros(3), jnp.zeros((4, 1)))
    assert path.shape == (4, 3)
    for i in range(3):
        assert end[i] == markov.simulate(walk, keys[i], 0.0, jnp.zeros(4))[0]


def test_the_length_must_be_told_once():
    for inputs, length in ((None, None), (jnp.zeros(3), 4), ((jnp.zeros(3), jnp.zeros(2)), None)):
        with pytest.raises(ValueError, match="length"):
            markov.simulate(walk, KEY, 0.0, inputs, length=length)


RESTAURANT = np.array([[0.2, 0.6, 0.2], [0.3, 0, 0.7], [0.5, 0, 0.5]])  # hamburger, pizza, hot dog
SERVED = np.array([25, 15, 31]) / 71

METHODS = [markov.stationary, markov.stationary_by_eigenvector, markov.stationary_by_power_iteration]
COMPILED = [jax.jit(markov.stationary), markov.stationary_by_eigenvector, jax.jit(markov.stationary_by_power_iteration)]


@st.composite
def tables(draw, size=5):
    """Chains with few links: many are reducible, periodic or have transient states."""
    weights = np.reshape(
        draw(st.lists(st.sampled_from([0, 0, 0, 1, 2]), min_size=size**2, max_size=size**2)), (size,) * 2
    )
    weights = weights + np.diag(weights.sum(1) == 0)  # a state without a link stays where it is
    return weights / weights.sum(1, keepdims=True)


RING, PATH = np.roll(np.eye(5), 1, axis=1), np.eye(5)[[1, 2, 3, 4, 4]]
TWO_RINGS = np.eye(5)[[1, 0, 3, 4, 2]]
TIE = np.stack([*np.eye(5)[[2, 4, 4]], [0, 0.5, 0, 0.5, 0], np.eye(5)[3]])  # its distance is 1/4 at t = 4 and 5


def examples(num):
    def decorate(test):
        for table in (RING, PATH, TWO_RINGS):
            test = example(table)(test)
        return settings(derandomize=True, deadline=None, max_examples=num)(test)

    return decorate


def reach(table):
    """By walking."""
    reached = np.zeros(table.shape, bool)
    for first in range(len(table)):
        open_ends = [first]
        while open_ends:
            i = open_ends.pop()
            if not reached[first, i]:
                reached[first, i] = True
                open_ends += np.flatnonzero(table[i]).tolist()
    return reached


def closed_classes(table):
    reached = reach(table)
    groups = {tuple(np.flatnonzero(reached[i] & reached[:, i]).tolist()) for i in range(len(table))}
    return sorted(group for group in groups if set(np.flatnonzero(reached[group[0]])) == set(group))


def cycle(table, state):
    """The greatest common divisor of all times at which the chain can be back; 0 for never."""
    link, back, times = table > 0, np.eye(len(table), dtype=bool), []
    for t in range(1, 40):
        back = back @ link
        times += [t] if back[state, state] else []
    return math.gcd(*times)


def reference(table):
    """Least squares on π (P - I) = 0 and Σ π = 1."""
    system = np.concatenate([table.T - np.eye(len(table)), np.ones((1, len(table)))])
    return np.linalg.lstsq(system, np.eye(len(table) + 1)[-1])[0]


@pytest.mark.parametrize("method", COMPILED, ids=["solve", "eigenvector", "power"])
def test_the_restaurant_of_the_notes(method):
    np.testing.assert_allclose(method(jnp.asarray(RESTAURANT)), SERVED, rtol=1e-6)
    with jax.enable_x64(True):
        law = method(jnp.asarray(RESTAURANT))
        assert law.dtype == jnp.float64
        np.testing.assert_allclose(law, SERVED, rtol=1e-14)
        np.testing.assert_allclose(markov.evolve(RESTAURANT, jnp.array([0.0, 1, 0]), 1)[1], [0.3, 0, 0.7], rtol=1e-15)


@examples(60)
@given(tables())
def test_three_methods_find_the_one_law_or_say_why_there_is_none(table):
    closed = closed_classes(table)
    with jax.enable_x64(True):
        for method, compiled in zip(METHODS, COMPILED, strict=True):
            if len(closed) > 1:
                with pytest.raises(ValueError, match=re.escape(str(closed))):
                    method(jnp.asarray(table))
            elif method is markov.stationary_by_power_iteration and (d := cycle(table, closed[0][0])) > 1:
                with pytest.raises(ValueError, match=f"period {d},"):
                    method(jnp.asarray(table))
            else:
                law = np.asarray(compiled(jnp.asarray(table)))
                np.testing.assert_allclose(law, reference(table), atol=1e-10)
                np.testing.assert_allclose(law @ table, law, atol=1e-10)
                assert np.all(law[np.setdiff1d(np.arange(5), closed[0])] < 1e-12)


def test_states_that_are_left_for_ever_have_probability_zero():
    table = jnp.array([[0.3, 0.7, 0.0], [0.4, 0.6, 0.0], [1e-6, 0.0, 1 - 1e-6]])
    for method in COMPILED:
        np.testing.assert_allclose(method(table), [4 / 11, 7 / 11, 0], atol=1e-6)
        np.testing.assert_allclose(method(table[::-1, ::-1]), [0, 7 / 11, 4 / 11], atol=1e-6)
    assert COMPILED[0](table)[2] == 0


def test_a_slow_chain_keeps_its_digits():
    for rate in (1e-3, 1e-6, 1e-12):
        table = jnp.array([[1 - rate, rate], [2 * rate, 1 - 2 * rate]])
        np.testing.assert_allclose(COMPILED[0](table), [2 / 3, 1 / 3], rtol=1e-6)
        np.testing.assert_allclose(COMPILED[2](table), [2 / 3, 1 / 3], rtol=1e-6)
        if rate == 1e-3:
            assert markov.mixing_time(table) == math.ceil(math.log(0.25 * 3 / 2) / math.log(1 - 3 * rate))


def test_small_probabilities_and_slow_chains_keep_their_digits():
    """A walk up rarely, down often, in two parts linked by 1e-9; π by detailed balance, from 1 to 1e-19, in float32."""
    up, down = np.array([1e-5, 1e-5, 1e-9, 1e-5, 1e-5]), np.array([0.5, 0.5, 1e-9, 0.5, 0.5])
    table = np.diag(up, 1) + np.diag(down, -1)
    table = np.float32(table + np.diag(1 - table.sum(1)))
    rows = table / table.sum(1, dtype=np.float64, keepdims=True)
    law = np.cumprod([1, *(np.diag(rows, 1) / np.diag(rows, -1))])
    for method in (markov.stationary, COMPILED[0]):
        np.testing.assert_allclose(method(jnp.asarray(table)), law / law.sum(), rtol=1e-6)
    with pytest.raises(ValueError, match="eigenvalue is too near to 1"):
        markov.stationary_by_eigenvector(table)


def test_laws_still_sum_to_one_after_very_many_steps():
    """Rows that are off by rounding would have grown, or shrunk, by a hundredth."""
    laws = markov.evolve(np.float32([[0.3, 0.7], [0.6, 0.4]]), [1, 0], 100_000)
    np.testing.assert_allclose(laws[-1], [6 / 13, 7 / 13], rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: markov.stationary(np.zeros((0, 0))), "transition: expected a square table"),
        (lambda: markov.stationary([[np.nan, 1], [0, 1]]), "transition: expected probabilities, got nan"),
        (lambda: markov.stationary_by_power_iteration([[1, 1e-30], [1e-30, 1]]), r"do not converge in 2\*\*64 steps"),
        (lambda: markov.evolve(np.eye(2), [1.0], 1), "start: expected one probability of each of 2 states, got 1"),
        (lambda: markov.evolve(np.eye(2), [1.0, 0], -1), "steps: expected at least 0"),
        (lambda: markov.total_variation([1], [0.5, 0.5]), "p, q: expected the same outcomes"),
        (lambda: markov.detailed_balance(np.eye(2), [1.0]), "distribution: expected one probability"),
        (lambda: markov.mixing_time(np.eye(1), math.nan), "distance: expected"),
        (lambda: markov.walk(np.eye(2))(KEY, 7, None), "state: expected whole numbers from 0 to 1, got 7"),
        (lambda: markov.walk(np.eye(2))(KEY, 0.0, None), "state: expected a whole number"),
        (lambda: markov.walk(np.eye(200))(KEY, np.int8(3), None), "of a type that reaches 199, got int8"),
        (lambda: markov.simulate(walk, KEY, 0.0, length=-1), "length: inputs and length must name"),
        (lambda: markov.simulate(walk, KEY, 0.0, 3.0), "inputs: expected a leading axis"),
        (lambda: markov.simulate(walk, jax.random.PRNGKey(0), 0.0, length=2), "key: expected jax.random.key"),
    ],
)
def test_edges_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_lists_whole_numbers_and_no_steps_are_taken():
    assert markov.stationary([[0, 1], [1, 0]]).tolist() == [0.5, 0.5]
    assert markov.evolve(np.array([[0, 1], [1, 0]]), [1, 0], 1).tolist() == [[1, 0], [0, 1]]
    assert [method([[1]]).tolist() for method in METHODS] == [[1], [1], [1]] and markov.mixing_time([[1]]) == 0
    for segment in (None, 3):
        end, path = markov.simulate(lambda key, x, _: (x, x), KEY, 2.0, length=0, segment=segment)
        assert end == 2 and path.shape == (0,)


def test_inside_jit_what_has_no_answer_is_nan():
    two = jnp.array([[0.5, 0.2, 0.3], [0, 1, 0], [0, 0, 1]])
    ring = jnp.array([[0, 0.5, 0.5], [1, 0, 0], [1, 0, 0]])
    batch = jnp.stack([two, ring, jnp.asarray(RESTAURANT, jnp.float32)])
    solved = jax.jit(jax.vmap(markov.stationary))(batch)
    iterated = jax.jit(jax.vmap(markov.stationary_by_power_iteration))(batch)
    assert np.isnan(solved[0]).all() and np.isnan(iterated[:2]).all()
    np.testing.assert_allclose(solved[1], [0.5, 0.25, 0.25], rtol=1e-6)
    np.testing.assert_allclose(solved[2], SERVED, rtol=1e-6)
    np.testing.assert_allclose(iterated[2], SERVED, rtol=1e-6)
    for function in (markov.stationary_by_eigenvector, markov.communicating_classes, markov.mixing_time):
        with pytest.raises(ValueError, match="outside jit"):
            jax.jit(function)(ring)


def test_the_gradient_of_the_stationary_law_is_that_of_finite_differences():
    rng = np.random.default_rng(0)
    mixed, change = rng.dirichlet(np.ones(4), size=4), rng.normal(size=(4, 4))
    change -= change.mean(1, keepdims=True)  # rows still sum to one
    central = (reference(mixed + 1e-5 * change) - reference(mixed - 1e-5 * change)) / 2e-5
    left, way_back = mixed.copy(), np.zeros((4, 4))  # nothing leads to state 3, until the change
    left[:3, :3], left[:3, 3], way_back[0] = left[:3, :3] / left[:3, :3].sum(1, keepdims=True), 0, [-1, 0, 0, 1]
    one_sided = (reference(left + 1e-7 * way_back) - reference(left)) / 1e-7

    @jax.jit
    def slopes(p, dp):
        reverse = jax.grad(lambda q: markov.stationary(q)[0])(p)
        return jax.jvp(markov.stationary, (p,), (dp,))[1], jnp.sum(reverse * dp)

    with jax.enable_x64(True):
        for p, dp, expected, tolerance in ((mixed, change, central, 1e-8), (left, way_back, one_sided, 1e-5)):
            forward, reverse = slopes(jnp.asarray(p), jnp.asarray(dp))
            np.testing.assert_allclose(forward, expected, atol=tolerance)
            np.testing.assert_allclose(reverse, expected[0], atol=tolerance)
    assert one_sided[3] > 0.1


@examples(60)
@given(tables())
def test_classes_and_period_are_those_of_walking(table):
    reached, classes = reach(table), markov.communicating_classes(jnp.asarray(table))
    assert sorted(i for group in classes for i in group.states) == list(range(5))
    assert [group.states[0] for group in classes] == sorted(min(group.states) for group in classes)
    for group in classes:
        assert group.states == tuple(np.flatnonzero(reached[group.states[0]] & reached[:, group.states[0]]))
        assert all(group.period == cycle(table, i) for i in group.states)
    closed = [group for group in classes if group.closed]
    assert sorted(group.states for group in closed) == closed_classes(table)
    d = markov.period(jnp.asarray(table))
    assert d == math.lcm(*(group.period for group in closed))
    late = np.linalg.matrix_power(table, 2000)
    same = [np.allclose(late @ np.linalg.matrix_power(table, i), late, atol=1e-9) for i in range(1, d + 1)]
    assert same == [False] * (d - 1) + [True]


@settings(derandomize=True, deadline=None, max_examples=60)
@given(tables(), st.sampled_from([0.9, 0.5, 0.25, 0.01, 1e-6]))
@example(TIE, 0.25)
def test_mixing_time_is_that_of_trying_all_times(table, distance):
    assume(len(closed_classes(table)) == 1 and cycle(table, closed_classes(table)[0][0]) == 1)
    law, power, t = reference(table), np.eye(5), 0
    while np.abs(power - law).sum(1).max() / 2 > distance * (1 + 1e-6):
        power, t = power @ table, t + 1
    assert markov.mixing_time(jnp.asarray(table), distance) == t


def test_the_distance_falls_as_the_second_eigenvalue():
    n = 6  # a lazy walk on a ring: eigenvalues (1 + cos 2πk/n) / 2
    table = np.eye(n) / 2 + (np.roll(np.eye(n), 1, 0) + np.roll(np.eye(n), -1, 0)) / 4
    with jax.enable_x64(True):
        laws = markov.evolve(table, jnp.eye(n), 30)
        distance = markov.total_variation(laws, jnp.full(n, 1 / n)).max(1)
    np.testing.assert_allclose(distance[21:] / distance[20:-1], (1 + np.cos(2 * np.pi / n)) / 2, rtol=1e-6)
    assert np.all(distance[1:] <= distance[:-1])
    np.testing.assert_allclose(laws[30], np.linalg.matrix_power(table, 30), rtol=1e-12)


def test_total_variation_is_the_largest_difference_over_events():
    p, q = np.random.default_rng(0).dirichlet(np.ones(5), size=2)
    events = np.array(list(itertools.product([0, 1], repeat=5)))
    np.testing.assert_allclose(markov.total_variation(jnp.asarray(p), jnp.asarray(q)), max(events @ (p - q)), rtol=1e-6)
    with pytest.raises(ValueError, match="q: the probabilities sum to 2"):
        markov.total_variation(jnp.asarray(p), jnp.asarray(2 * q))


def test_detailed_balance_is_zero_for_reversible_chains_only():
    weights = np.random.default_rng(0).uniform(size=(4, 4))
    weights = weights + weights.T  # a walk on a graph with weights is reversible
    table, law = weights / weights.sum(1, keepdims=True), weights.sum(1) / weights.sum()
    assert markov.detailed_balance(jnp.asarray(table), jnp.asarray(law)) < 1e-7
    ring = jnp.array([[0, 2, 1], [1, 0, 2], [2, 1, 0]]) / 3
    np.testing.assert_allclose(markov.detailed_balance(ring, jnp.ones(3) / 3), 1 / 9, rtol=1e-6)


def test_a_walk_goes_where_the_rows_say():
    _, path = markov.simulate(markov.walk(RESTAURANT), KEY, 1, length=20_000)
    pairs = np.zeros((3, 3))
    np.add.at(pairs, (path[:-1], path[1:]), 1)
    visits = pairs.sum(1, keepdims=True)
    assert np.all(np.abs(pairs / visits - RESTAURANT) <= 4 * np.sqrt(RESTAURANT * (1 - RESTAURANT) / visits))
    np.testing.assert_allclose(visits[:, 0] / visits.sum(), SERVED, atol=0.01)


def test_what_is_no_chain_is_refused():
    bad = jnp.array([[0.5, 0.5], [0.7, 0.4]])
    uses = [
        *METHODS,
        markov.walk,
        markov.communicating_classes,
        markov.period,
        markov.mixing_time,
        lambda p: markov.evolve(p, jnp.array([1.0, 0.0]), 1),
        lambda p: markov.detailed_balance(p, jnp.array([1.0, 0.0])),
    ]
    for use in uses:
        with pytest.raises(ValueError, match=r"transition: row 1 sums to 1\.1, 0\.1 too much"):
            use(bad)
    with pytest.raises(ValueError, match="square"):
        markov.stationary(np.ones((2, 3)) / 3)
    with pytest.raises(ValueError, match="start: the probabilities sum to 2"):
        markov.evolve(jnp.eye(2), jnp.array([1.0, 1.0]), 1)
    with pytest.raises(ValueError, match="distance: expected"):
        markov.mixing_time(jnp.asarray(RESTAURANT), 0.0)
    with pytest.raises(ValueError, match=r"not reached in 2\*\*64 steps"):
        markov.mixing_time(jnp.array([[1, 1e-30], [1e-30, 1]]))


@pytest.mark.parametrize("segment", [1, 3, 4, 12, 20])
def test_a_chain_in_segments_is_the_same_chain_with_the_same_gradient(segment):
    def kernel(key, x, u):
        return jnp.sin(x + u) + 0.1 * jax.random.normal(key, x.shape), x

    def end(x, segment):
        state, path = markov.simulate(kernel, jax.random.key(0), x, jnp.linspace(0, 1, 12), segment=segment)
        return state.sum() + (path**2).sum()

    x = jnp.array([0.3, -0.2])
    whole, parts = (jax.jit(jax.value_and_grad(lambda x, s=s: end(x, s)))(x) for s in (None, segment))
    assert np.allclose(whole[0], parts[0], rtol=1e-6) and np.allclose(whole[1], parts[1], rtol=1e-5)


def test_segments_keep_the_memory_of_the_gradient_small():
    def memory(length, segment):
        def loss(x):
            return markov.simulate(
                lambda key, x, _: (jnp.sin(x @ x), None), jax.random.key(0), x, length=length, segment=segment
            )[0].sum()

        return jax.jit(jax.grad(loss)).lower(jnp.ones((32, 32))).compile().memory_analysis().temp_size_in_bytes

    assert memory(400, None) / memory(100, None) > 3  # as T
    assert memory(400, 20) / memory(100, 10) < 2.5  # as its root
    with pytest.raises(ValueError, match="segment: expected at least 1 step, got 0"):
        memory(4, 0)
