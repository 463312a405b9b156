"""The chain of kernels: one scan, a stream of keys for each chain."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
