"""Bytes and floats, and the coin of each image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import data, random

LEVELS = np.arange(256, dtype=np.uint8)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_bytes_survive_scaling_in_every_precision(dtype, wrap):
    scaled = wrap(lambda u: data.scale(u, dtype))(LEVELS)
    assert scaled.dtype == dtype
    assert (wrap(data.to_uint8)(scaled) == LEVELS).all()


def test_bytes_survive_scaling_in_double_precision():
    with jax.enable_x64(True):
        scaled = data.scale(LEVELS, jnp.float64)
        assert np.abs(np.asarray(scaled) - (LEVELS / 127.5 - 1)).max() < 1e-15
        assert (data.to_uint8(scaled) == LEVELS).all()


def test_scale_has_its_ends_at_one_and_is_symmetric():
    scaled = np.asarray(data.scale(LEVELS))
    assert (scaled[0], scaled[-1]) == (-1, 1)
    np.testing.assert_allclose(scaled, -scaled[::-1], atol=3e-7)


def test_to_uint8_rounds_and_clips():
    x = np.array([-9, -1, (100.4 / 127.5) - 1, (100.6 / 127.5) - 1, 1, 9, np.inf, -np.inf], np.float32)
    assert np.asarray(data.to_uint8(x)).tolist() == [0, 0, 100, 101, 255, 255, 255, 0]


def some_images(num, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, 256, (num, 4, 5, 3)).astype(dtype)


def test_flip_of_an_image_depends_on_its_key_only():
    images, key = some_images(64), jax.random.key(3)
    together = np.asarray(data.flip(key, images))
    keys = random.example_keys(key, 64)
    assert (np.concatenate([data.flip(keys[i : i + 8], images[i : i + 8]) for i in range(0, 64, 8)]) == together).all()
    assert (np.concatenate([data.flip(keys[i : i + 1], images[i : i + 1]) for i in range(4)]) == together[:4]).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_flip_is_an_involution_that_mirrors_or_leaves_each_image(dtype):
    images, key = some_images(64, dtype), jax.random.key(1)
    once = np.asarray(jax.jit(data.flip)(key, images))
    assert once.dtype == dtype
    assert (np.asarray(data.flip(key, once)) == images).all()
    kept, mirrored = ((once == other).all((1, 2, 3)) for other in (images, images[:, :, ::-1]))
    assert (kept ^ mirrored).all()


def test_flip_is_fair():
    images = np.broadcast_to(np.arange(2, dtype=np.uint8)[None, None, :, None], (10_000, 1, 2, 1))
    flipped = np.asarray(data.flip(jax.random.key(0), images))[:, 0, 0, 0].mean()
    assert abs(flipped - 0.5) < 4 * 0.5 / 100
