"""Guidance and editing by their identities and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import diffusion
from genjax.diffusion import editing, grids, guidance, samplers

LINEAR = diffusion.linear_schedule(1000)
KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(4, 3))


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def grid(count):
    return grids.on_times(LINEAR, grids.timesteps(1000, count, "trailing"))


def with_label(x, t):
    return jnp.tanh(x + 0.5)


def without(x, t):
    return 0.5 * jnp.sin(x)


def test_guidance_identities():
    x, t = jnp.asarray(X), jnp.array([0, 10, 20, 30])
    guide = lambda *a, **k: guidance.classifier_free(with_label, without, *a, **k)(x, t)
    assert np.allclose(guide(0.0), without(x, t), atol=1e-10) and np.allclose(guide(1.0), with_label(x, t), atol=1e-10)
    assert np.allclose(guide(1.0, rescale=1.0), with_label(x, t), atol=1e-10)
    half = guide(4.0, (10, 20))
    assert np.allclose(half[1:3], guide(4.0)[1:3]) and np.allclose(half[::3], with_label(x, t)[::3], atol=1e-10)
    assert np.allclose(np.std(guide(4.0, rescale=1.0), axis=1), np.std(with_label(x, t), axis=1), atol=1e-10)
    network = lambda x, t, labels: jnp.where(labels[:, None] == 9, without(x, t), with_label(x, t))
    batched = guidance.classifier_free_batched(network, jnp.arange(4), 9, 3.0)(x, t)
    assert np.allclose(batched, guide(3.0), atol=1e-12)
    for more in ({}, {"interval": (10, 20)}, {"rescale": 0.7}):
        some = guide(3.0, channels=2, **more)
        rest = guidance.classifier_free(
            lambda x, t: with_label(x[:, :2], t), lambda x, t: without(x[:, :2], t), 3.0, **more
        )
        assert np.allclose(some[:, :2], rest(x, t), atol=1e-12) and np.array_equal(some[:, 2:], with_label(x, t)[:, 2:])


def test_threshold():
    inside, wild = jnp.asarray(X / 10), jnp.asarray(10 * X)
    assert np.array_equal(guidance.threshold()(inside), inside)
    out = guidance.threshold(50.0)(wild)
    s = np.median(np.abs(10 * X), axis=1, keepdims=True)
    assert np.allclose(out, np.clip(10 * X, -s, s) / s)
    drawn = samplers.ddim_on_grid(lambda x, t: -5 * x, grid(5), clip=guidance.threshold())(KEY, wild)
    assert jnp.abs(drawn).max() <= 1 + 1e-12


def test_repaint_draws_the_conditional_law():
    """Two numbers of variance 1 and correlation 0.8; the second known to be 1.2: the first has mean 0.96."""
    covariance = jnp.array([[1.0, 0.8], [0.8, 1.0]])

    def denoise(x, t):
        a = jnp.asarray(LINEAR.alpha_bar)[t[0]]
        return jnp.sqrt(1 - a) * jnp.linalg.solve(a * covariance + (1 - a) * jnp.eye(2), x.T).T

    images, known = jnp.full((400, 2), 1.2), jnp.array([False, True])
    mean = {}
    for resample in (1, 20):
        sample = editing.repaint(denoise, grid(50), images, known, resample=resample, clip=False)
        drawn = jax.jit(sample)(KEY, jax.random.normal(jax.random.key(1), (400, 2)))
        assert np.array_equal(drawn[:, 1], images[:, 1])
        mean[resample] = float(drawn[:, 0].mean())
    assert abs(mean[20] - 0.96) < 0.1 < 0.3 < abs(mean[1] - 0.96), mean


@pytest.mark.parametrize(("resample", "jump"), [(1, 1), (3, 1), (3, 5)])
def test_repaint_of_nothing_known_has_the_variance_of_its_walk(resample, jump):
    """Data N(0, 1): every step down is affine by the posterior (Ho et al. 2020, eq. 7), every one up adds its noise."""
    where = grid(50)
    share = where.alpha**2
    variance = 1.0
    for came, now in zip(*editing.resample_schedule(50, jump, resample), strict=True):
        variance = share[now] / share[came] * variance + 1 - share[now] / share[came]
        here, after = share[now], share[now + 1]
        beta = 1 - here / after
        slope = np.sqrt(after * here) * beta / (1 - here) + np.sqrt(1 - beta) * (1 - after) / (1 - here)
        variance = slope**2 * variance + (1 - after) / (1 - here) * beta
    denoise = lambda x, t: diffusion.at(LINEAR.sqrt_one_minus_alpha_bar, t, x) * x
    sample = editing.repaint(
        denoise, where, jnp.zeros((20_000, 1)), jnp.array([False]), resample=resample, jump=jump, clip=False
    )
    drawn = jax.jit(sample)(KEY, jax.random.normal(jax.random.key(1), (20_000, 1)))
    assert abs(drawn.var() / variance - 1) < 4 * np.sqrt(2 / 20_000)


def test_a_mask_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="known"):
        editing.repaint(without, grid(5), jnp.asarray(X), jnp.ones((2, 2)))


def test_sdedit_at_both_ends():
    x = jnp.asarray(X)
    edit = lambda strength: editing.sdedit(lambda g: samplers.ddim_on_grid(without, g), grid(10), strength)(KEY, x)
    assert np.array_equal(edit(0.0), x)
    keys = [jax.random.split(jax.random.fold_in(KEY, i)) for i in range(4)]
    noise = jnp.stack([jax.random.normal(k[0], (3,), x.dtype) for k in keys])
    start = LINEAR.sqrt_alpha_bar[-1] * x + LINEAR.sqrt_one_minus_alpha_bar[-1] * noise
    assert np.allclose(edit(1.0), samplers.ddim_on_grid(without, grid(10))(KEY, start), atol=1e-10)


def test_slerp():
    a, b = jnp.asarray(X[:2]), jnp.asarray(X[2:])
    assert np.allclose(editing.slerp(a, b, 0.0), a) and np.allclose(editing.slerp(a, b, 1.0), b)
    assert np.allclose(editing.slerp(a, a, 0.3), a)
    unit = lambda v: v / jnp.linalg.norm(v, axis=1, keepdims=True)
    assert np.allclose(jnp.linalg.norm(editing.slerp(unit(a), unit(b), 0.3), axis=1), 1)
