"""Variational diffusion: a monotone schedule that changes nothing but the noise of the loss."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special

from genjax import diffusion
from genjax.models import vdm
from genjax.nn import unet
from genjax.theory import gaussian

KEY = jax.random.key(0)
LOW, HIGH, STD = -13.3, 5.0, 0.5


class Exact(nn.Module):
    """E[ε|x] of N(0, std²), where γ is LOW + 18.3 place / 1000."""

    std: float = STD

    @nn.compact
    def __call__(self, x, place):
        g = (LOW + (HIGH - LOW) * place / 1000)[:, None, None, None]
        signal, noise = jnp.sqrt(jax.nn.sigmoid(-g)), jnp.sqrt(jax.nn.sigmoid(g))
        return noise * x / (signal**2 * self.std**2 + noise**2)


class Scaled(nn.Module):
    """A network of one parameter."""

    @nn.compact
    def __call__(self, x, place):
        return self.param("gain", nn.initializers.constant(0.5), ()) * x


MODEL = vdm.build(Exact(), (1, 1, 1), num_steps=200)
FINE = vdm.build(Exact(), (1, 1, 1), num_levels=512)  # images nearly continuous


@pytest.mark.parametrize("seed", [0, 1])
def test_the_schedule_rises_between_its_ends(seed):
    schedule = vdm.NoiseSchedule()
    params = schedule.init(jax.random.key(seed), jnp.zeros(1))
    gamma = schedule.apply(params, jnp.linspace(0, 1, 101))
    assert np.isclose(gamma[0], LOW, atol=1e-4) and np.isclose(gamma[-1], HIGH, atol=1e-4)
    assert np.all(np.diff(gamma) > 0) and np.std(np.diff(gamma)) > 1e-4  # no line


def test_the_bound_does_not_depend_on_the_schedule_between_its_ends():
    """½ ∫ γ' E|ε - ε̂|² dt = ½ log((1 + SNR_0 s²)/(1 + SNR_1 s²)) (eq. 18)."""
    expected = 0.5 * (np.log1p(np.exp(-LOW) * STD**2) - np.log1p(np.exp(-HIGH) * STD**2))
    images = STD * jax.random.normal(jax.random.key(5), (20_000, 1, 1, 1))
    time = (jnp.arange(20_000) + 0.5) / 20_000
    run = jax.jit(lambda params: FINE.losses(KEY, params, {"image": images, "time": time}).diffusion)
    result = [run(FINE.init(jax.random.key(seed))) for seed in (0, 1)]
    for nats in result:
        assert abs(nats.mean() - expected) < 4 * nats.std() / np.sqrt(20_000)
    assert not np.allclose(result[0], result[1])


def test_the_ends_of_the_bound_are_a_divergence_and_a_classification():
    """The prior's term is a KL divergence, the decoder's -log of a softmax over levels, here by quadrature."""
    num, levels = 20_000, np.linspace(-1, 1, 512)
    images = jnp.asarray(levels, jnp.float32)[jax.random.randint(jax.random.key(6), (num,), 100, 400)][
        :, None, None, None
    ]
    result = jax.jit(lambda params: FINE.losses(KEY, params, {"image": images}))(FINE.init(KEY))
    left = 1 / (1 + np.exp(HIGH))
    spread = gaussian.DiagGaussian(np.sqrt(left) * images[:, 0, 0], jnp.full((num, 1), 0.5 * np.log1p(-left)))
    standard = gaussian.DiagGaussian(jnp.zeros((num, 1)), jnp.zeros((num, 1)))
    assert np.allclose(result.prior, gaussian.kl(spread, standard), rtol=1e-3, atol=1e-7)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    noise = np.exp(LOW / 2)
    logits = -0.5 * ((levels[250] + noise * nodes[:, None] - levels) / noise) ** 2
    expected = weights @ -special.log_softmax(logits, axis=1)[:, 250] / weights.sum()
    assert abs(result.decoder.mean() - expected) < 4 * result.decoder.std() / np.sqrt(num) < 0.07 * expected


def test_the_bound_of_the_best_network_is_the_entropy():
    """Levels fine against the data, noise that ends below them: H = ½ log(2πe s²) - log of the distance of levels."""
    num, place = 40_000, (jnp.arange(40_000) + 0.5) / 40_000
    images = STD / 2.5 * jax.random.normal(jax.random.key(5), (num, 1, 1, 1))
    model = vdm.build(Exact(STD / 2.5), (1, 1, 1), num_levels=512)
    result = jax.jit(lambda params: model.losses(KEY, params, {"image": images, "time": place}))(model.init(KEY))
    total = sum(result)
    entropy = 0.5 * np.log(2 * np.pi * np.e * (STD / 2.5) ** 2) - np.log(2 / 511)
    assert abs(total.mean() - entropy) < 4 * total.std() / np.sqrt(num) < 0.05 * entropy


def test_the_loss_is_the_sum_of_its_parts_and_teaches_the_schedule():
    params = MODEL.init(KEY)
    images = jnp.round(jax.random.uniform(KEY, (8, 1, 1, 1)) * 255) / 127.5 - 1
    loss, metrics = jax.jit(MODEL.loss)(KEY, params, {"image": images})
    assert np.isclose(loss, sum(metrics.values())) and metrics["decoder"] < 0.1 and metrics["prior"] > 0
    slope = jax.jit(jax.grad(lambda p: MODEL.loss(KEY, p, {"image": images})[0]))(params)["schedule"]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope)) and np.abs(slope["inner"]).max() > 0


def test_between_its_ends_the_schedule_learns_the_least_variance():
    """The best γ makes the loss the same at all times: γ'(t) E|ε - ε̂|² constant, 2 K of it in all (eq. 18)."""

    def batch(num):
        images = STD * jax.random.normal(jax.random.key(5), (num, 1, 1, 1))
        return {"image": images, "time": (jnp.arange(num) + 0.5) / num}

    adam, some = optax.adam(0.03), batch(256)

    def by_time(params):
        return FINE.losses(KEY, params, batch(16_384)).diffusion.reshape(16, -1).mean(1)

    def train(params):
        def step(carry, key):
            params, state = carry
            updates, state = adam.update(jax.grad(lambda p: FINE.loss(key, p, some)[0])(params), state)
            schedule = {**optax.apply_updates(params, updates)["schedule"]}
            kept = {name: params["schedule"][name] for name in ("first", "gap")}
            return ({**params, "schedule": schedule | kept}, state), None

        return jax.lax.scan(step, (params, adam.init(params)), jax.random.split(KEY, 400))[0][0]

    before = MODEL.init(KEY)
    after = jax.jit(train)(before)
    first, last = (jax.jit(by_time)(params) for params in (before, after))
    assert np.isclose(first.mean(), last.mean(), rtol=0.05)
    assert np.std(last) < 0.7 * np.std(first)


def test_the_network_and_the_ends_follow_the_loss_itself():
    """Their gradients are those of the terms' mean, without the detour of the schedule."""
    model = vdm.build(Scaled(), (1, 1, 1))
    params = model.init(KEY)
    batch = {"image": 0.5 * jnp.sin(jnp.arange(64.0)).reshape(64, 1, 1, 1), "time": jnp.linspace(0, 1, 64)}
    total = lambda p: sum(part.mean() for part in model.losses(KEY, p, batch)) / np.log(2)
    expected, result = (jax.jit(jax.grad(f))(params) for f in (total, lambda p: model.loss(KEY, p, batch)[0]))
    assert np.isclose(result["network"]["gain"], expected["network"]["gain"], rtol=1e-4)
    for name in ("first", "gap"):
        assert np.isclose(result["schedule"][name], expected["schedule"][name], rtol=1e-3)
    assert not np.allclose(result["schedule"]["inner"], expected["schedule"]["inner"])


def test_pixels_between_levels_are_taken_to_the_nearest():
    params = MODEL.init(KEY)
    levels = jnp.linspace(-1, 1, 256)[:, None, None, None]
    run = jax.jit(lambda images: MODEL.losses(KEY, params, {"image": images}))
    for one, other in zip(run(levels), run(levels + 0.3 * 2 / 255), strict=True):
        assert np.allclose(one, other, rtol=1e-3, atol=1e-4)
    assert np.all(run(levels + 0.3 * 2 / 255).decoder > -1e-4)


def test_dropout_is_on_in_training_alone():
    network = unet.UNet(channels=8, channel_mults=(1,), num_res_blocks=1, groups=4, image_channels=1, dropout=0.5)
    model = vdm.build(network, (4, 4, 1))
    params = model.init(KEY)
    params["network"] = jax.tree.map(lambda leaf: leaf + 0.1, params["network"])
    batch = {"image": jnp.zeros((2, 4, 4, 1)), "time": jnp.array([0.2, 0.7])}
    nats = jax.jit(model.losses)(KEY, params, batch)
    bits = {name: value.mean() / (16 * np.log(2)) for name, value in nats._asdict().items()}
    trained = jax.jit(model.loss)(KEY, params, batch)[1]
    assert np.isclose(bits["decoder"], trained["decoder"], rtol=1e-5)
    assert not np.isclose(bits["diffusion"], trained["diffusion"], rtol=1e-3)


def test_it_draws_the_data():
    drawn = jax.jit(lambda key, params: MODEL.sample(key, params, 2000))(KEY, MODEL.init(KEY))
    clipped = np.clip(STD * np.random.default_rng(0).normal(size=100_000), -1, 1)
    assert abs(np.std(drawn) - np.std(clipped)) < 0.03 and abs(np.mean(drawn)) < 0.05


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="expected at least 2 and 1, got 1 and 250"):
        vdm.build(Exact(), (1, 1, 1), num_levels=1)
    two = unet.UNet(channels=8, channel_mults=(1,), num_res_blocks=1, groups=4, image_channels=2)
    with pytest.raises(ValueError, match=r"expected a prediction of shape \(4, 4, 1\)"):
        vdm.build(two, (4, 4, 1))
    for ends in ({"gamma_min": 5.0, "gamma_max": -3.0}, {"gamma_min": float("nan")}, {"gamma_max": float("inf")}):
        with pytest.raises(ValueError, match=r"gamma_min, gamma_max: expected γ\(0\) < γ\(1\)"):
            vdm.build(Exact(), (1, 1, 1), schedule=vdm.NoiseSchedule(**ends))
    with pytest.raises(ValueError, match=r"schedule: expected γ\(0\) < γ\(1\), got -0 and -1"):
        vdm.build(Exact(), (1, 1, 1), schedule=Falling())
    with pytest.raises(ValueError, match="image: expected floating-point"):
        MODEL.losses(KEY, MODEL.init(KEY), {"image": jnp.zeros((2, 1, 1, 1), jnp.uint8)})
    with pytest.warns(diffusion.StartWarning):
        vdm.build(Exact(), (1, 1, 1), schedule=vdm.NoiseSchedule(gamma_max=1.0))


class Falling(nn.Module):
    """A schedule the wrong way round."""

    @nn.compact
    def __call__(self, t):
        return -t * self.param("speed", nn.initializers.ones, ())
