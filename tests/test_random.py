"""Keys per example, and permutations that are never built."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from genjax import random

KEY = jax.random.key(3)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 31, 32, 33, 1797, 4096, 50_001])
def test_permute_is_a_bijection(size):
    index = jnp.arange(size)
    assert np.array_equal(np.sort(random.permute(KEY, index, size)), index)


def test_permute_is_uniform():
    """Every value is equally likely at every place, and every order of four things is equally likely."""
    keys = jax.random.split(KEY, 20_000)
    orders = np.asarray(jax.jit(jax.vmap(lambda key: random.permute(key, jnp.arange(4), 4)))(keys))
    counts = np.unique(orders @ [64, 16, 4, 1], return_counts=True)[1]
    assert len(counts) == 24 and stats.chisquare(counts).pvalue > 1e-3
    keys = jax.random.split(jax.random.key(4), 2_000)
    orders = np.asarray(jax.jit(jax.vmap(lambda key: random.permute(key, jnp.arange(100), 100)))(keys))
    for place in (0, 37, 99):
        assert stats.chisquare(np.bincount(orders[:, place], minlength=100)).pvalue > 1e-3
    # neighbours do not stay neighbours
    steps = np.bincount((orders[:, 1:] - orders[:, :-1]).ravel() % 100, minlength=100)[1:]
    assert stats.chisquare(steps).pvalue > 1e-3


def test_permute_refuses_sizes_it_has_no_room_for():
    for size in (0, 2**30 + 1):
        with pytest.raises(ValueError, match="size"):
            random.permute(KEY, jnp.arange(1), size)


def test_keys_per_example_are_those_of_any_slice():
    data = jax.random.key_data
    whole = data(random.example_keys(KEY, 64))
    assert np.array_equal(data(random.example_keys(KEY, 8, first=24)), whole[24:32])
    assert len(np.unique(whole, axis=0)) == 64
    keys = random.example_keys(KEY, 8)
    assert np.array_equal(data(random.example_keys(keys, 8)), data(keys))
    with pytest.raises(ValueError, match="one per example"):
        random.example_keys(keys, 7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: random.example_keys(KEY, 0), "num: expected at least 1, got 0"),
        (lambda: random.example_keys(KEY, 2.5), "num: expected a whole number"),
        (lambda: random.example_keys(jax.random.PRNGKey(0), 2), "key: expected a typed key"),
        (lambda: random.split(KEY, 0), "num: expected at least 1, got 0"),
        (lambda: random.permute(KEY, jnp.array([5]), 5), "index: expected whole numbers from 0 to 4, got 5"),
        (lambda: random.permute(KEY, jnp.array([0.5]), 5), "index: expected whole numbers from 0 to 4, got the type"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_streams_are_apart_from_each_other_and_from_steps():
    numbers = [int(name) for name in random.Stream]
    assert len(set(numbers)) == len(numbers) == len(random.Stream.__members__)
    assert all(2**31 < number < 2**32 for number in numbers)  # no run has as many steps
    keys = [jax.random.key_data(random.stream(KEY, name)) for name in random.Stream]
    assert len(np.unique(keys, axis=0)) == len(keys)


def test_split_gives_independent_streams():
    a, b = random.split(random.example_keys(KEY, 5), 2)
    noise = np.concatenate([random.normal(keys, (3,)) for keys in (a, b)])
    assert len(np.unique(noise)) == noise.size
    assert random.split(KEY, 3)[0].shape == ()
