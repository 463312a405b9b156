"""Variational diffusion: a monotone schedule that changes nothing but the noise of the loss."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.models import vdm

KEY = jax.random.key(0)
LOW, HIGH, STD = -13.3, 5.0, 0.5


class Exact(nn.Module):
    """E[ε|x] of N(0, STD²), where γ is LOW + 18.3 place / 1000."""

    @nn.compact
    def __call__(self, x, place):
        g = (LOW + (HIGH - LOW) * place / 1000)[:, None, None, None]
        signal, noise = jnp.sqrt(jax.nn.sigmoid(-g)), jnp.sqrt(jax.nn.sigmoid(g))
        return noise * x / (signal**2 * STD**2 + noise**2)


MODEL = vdm.build(Exact(), (1, 1, 1), num_steps=200)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_schedule_rises_between_its_ends(seed):
    schedule = vdm.Schedule()
    params = schedule.init(jax.random.key(seed), jnp.zeros(1))
    gamma = schedule.apply(params, jnp.linspace(0, 1, 101))
    assert np.isclose(gamma[0], LOW, atol=1e-4) and np.isclose(gamma[-1], HIGH, atol=1e-4)
    assert np.all(np.diff(gamma) > 0) and np.std(np.diff(gamma)) > 1e-4  # no line


def test_the_bound_does_not_depend_on_the_schedule_between_its_ends():
    """½ ∫ γ' E|ε - ε̂|² dt = ½ log((1 + SNR_0 s²)/(1 + SNR_1 s²)) (eq. 18)."""
    expected = 0.5 * (np.log1p(np.exp(-LOW) * STD**2) - np.log1p(np.exp(-HIGH) * STD**2))
    images = STD * jax.random.normal(jax.random.key(5), (20_000, 1, 1, 1))
    time = (jnp.arange(20_000) + 0.5) / 20_000
    run = jax.jit(lambda params: MODEL.losses(KEY, params, {"image": images, "time": time})[1])
    found = [run(MODEL.init(jax.random.key(seed))) for seed in (0, 1)]
    for nats in found:
        assert abs(nats.mean() - expected) < 4 * nats.std() / np.sqrt(20_000)
    assert not np.allclose(found[0], found[1])


def test_the_loss_is_the_sum_of_its_parts_and_teaches_the_schedule():
    params = MODEL.init(KEY)
    images = jnp.round(jax.random.uniform(KEY, (8, 1, 1, 1)) * 255) / 127.5 - 1
    loss, metrics = jax.jit(MODEL.loss)(KEY, params, {"image": images})
    assert np.isclose(loss, sum(metrics.values())) and metrics["decoder"] < 0.1 and metrics["prior"] > 0
    slope = jax.jit(jax.grad(lambda p: MODEL.loss(KEY, p, {"image": images})[0]))(params)["schedule"]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope)) and np.abs(slope["inner"]).max() > 0


def test_it_draws_the_data():
    drawn = jax.jit(lambda key, params: MODEL.sample(key, params, 2000))(KEY, MODEL.init(KEY))
    clipped = np.clip(STD * np.random.default_rng(0).normal(size=100_000), -1, 1)
    assert abs(np.std(drawn) - np.std(clipped)) < 0.03 and abs(np.mean(drawn)) < 0.05


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="expected at least 2 and 1, got 1 and 100"):
        vdm.build(Exact(), (1, 1, 1), num_levels=1)
