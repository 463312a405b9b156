"""The loss and the sampler of DDPM against closed forms."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import integrate, stats

from genjax import diffusion, random
from genjax.models import ddpm, loss_aware

KEY = jax.random.key(0)
SCHEDULE = diffusion.linear_schedule(100)
SHAPE = (4, 4, 1)


class Affine(nn.Module):
    """The smallest network: a x + b t, with a zero-noise dropout hook that shows whether keys arrive."""

    @nn.compact
    def __call__(self, x_t, t, keys=None):
        scale, slope = (
            self.param("scale", nn.initializers.constant(0.3), ()),
            self.param("slope", nn.initializers.zeros, ()),
        )
        shift = 0.0 if keys is None else 100 * jax.vmap(jax.random.uniform)(keys)[:, None, None, None]
        return scale * x_t + slope * t[:, None, None, None] + shift


def losses(denoise, distance=ddpm.l2, num=20_000, mean=0.4, deviation=0.5):
    images = mean + deviation * jax.random.normal(jax.random.key(1), (num, 1, 1, 1))
    objective = diffusion.simple(distance)
    return np.asarray(ddpm.losses(denoise, SCHEDULE, random.example_keys(KEY, num), images, objective))


def close(sample, expected):
    """Within four standard errors."""
    return abs(sample.mean() - expected) <= 4 * sample.std() / np.sqrt(len(sample))


@pytest.mark.parametrize(
    ("distance", "error"),
    [(ddpm.l1, abs), (ddpm.l2, lambda e: e * e), (ddpm.huber, lambda e: 0.5 * e * e if abs(e) <= 1 else abs(e) - 0.5)],
)
def test_predicting_no_noise_costs_the_moment_of_the_normal(distance, error):
    expected = integrate.quad(lambda e: error(e) * stats.norm.pdf(e), -9, 9)[0]
    assert close(losses(lambda x, t: jnp.zeros_like(x), distance), expected)


def test_the_exact_denoiser_of_a_point_has_no_loss():
    denoise = lambda x, t: diffusion.from_x0(SCHEDULE, jnp.full_like(x, 0.4), x, t).noise
    assert losses(denoise, deviation=0.0).max() < 1e-5


def test_the_exact_denoiser_of_gaussian_data_has_the_least_loss():
    """E|ε - E[ε|x_t]|² = ᾱ s² / (ᾱ s² + 1 - ᾱ); anything else costs more."""

    def exact(x, t):
        signal, noise = (
            diffusion.at(SCHEDULE.sqrt_alpha_bar, t, x),
            diffusion.at(SCHEDULE.sqrt_one_minus_alpha_bar, t, x),
        )
        return noise * (x - signal * 0.4) / (signal**2 * 0.25 + noise**2)

    share = SCHEDULE.alpha_bar * 0.25
    expected = np.mean(share / (share + 1 - SCHEDULE.alpha_bar))
    assert close(losses(exact), expected)
    assert losses(lambda x, t: 1.05 * exact(x, t)).mean() > losses(exact).mean()
    assert not close(losses(lambda x, t: exact(x, t) + 0.2), expected)


def test_times_are_uniform_and_reach_both_ends():
    seen = []
    losses(lambda x, t: seen.append(t) or x)
    counts = np.bincount(np.asarray(seen[0]), minlength=100)
    assert len(counts) == 100 and stats.chisquare(counts).pvalue > 1e-3


def test_places_are_times_in_even_bins():
    seen = []
    images = jnp.zeros((5, 1, 1, 1))
    place = jnp.array([0.0, 0.0099, 0.0101, 0.9899, 1.0])
    denoise = lambda x, t: seen.append(t) or x
    ddpm.losses(denoise, SCHEDULE, random.example_keys(KEY, 5), images, diffusion.simple(ddpm.l2), place)
    assert np.asarray(seen[0]).tolist() == [0, 0, 1, 98, 99]


def test_the_loss_of_an_image_does_not_depend_on_its_batch():
    model = ddpm.build(Affine(), SCHEDULE, SHAPE)
    params = model.init(KEY)
    images = jax.random.normal(KEY, (6, *SHAPE))
    whole, _ = model.loss(KEY, params, {"image": images})
    parts = [
        model.loss(random.example_keys(KEY, 2, first=i), params, {"image": images[i : i + 2]})[0] for i in (0, 2, 4)
    ]
    assert np.allclose(whole, np.mean(parts), rtol=1e-6)
    assert not np.allclose(whole, model.loss(jax.random.key(1), params, {"image": images})[0])


def test_dropout_is_for_training_only():
    model = ddpm.build(Affine(), SCHEDULE, SHAPE)
    params = model.init(KEY)
    assert model.loss(KEY, params, {"image": jnp.zeros((8, *SHAPE))})[0] > 100  # the keys arrived
    assert jnp.abs(model.sample(KEY, params, 2)).max() <= 1  # and here they did not


@pytest.mark.parametrize("sampler", [diffusion.ancestral, lambda d, s: diffusion.ddim(d, s, num_steps=5, eta=1.0)])
def test_image_i_depends_on_key_and_i_only(sampler):
    model = ddpm.build(Affine(), SCHEDULE, SHAPE, sampler=sampler)
    params = model.init(KEY)
    whole = model.sample(KEY, params, 8)
    assert np.array_equal(whole[:1], model.sample(KEY, params, 1))
    assert np.array_equal(whole[3:], model.sample(random.example_keys(KEY, 5, first=3), params, 5))
    assert len(np.unique(np.asarray(whole).reshape(8, -1), axis=0)) == 8


def test_loss_aware_times_keep_the_mean_and_lower_its_variance():
    network = Affine()
    plain = ddpm.build(network, SCHEDULE, SHAPE, objective=diffusion.vlb())
    aware = loss_aware.build(plain, SCHEDULE.num_steps)
    images = {"image": jnp.round(0.5 * jax.random.normal(KEY, (4000, *SHAPE)) * 127.5) / 127.5}
    params = {"network": {"scale": jnp.array(0.9), "slope": jnp.array(0.0)}, "squares": jnp.ones(100)}
    keys = random.example_keys(KEY, 4000)
    at = lambda t: plain.losses(keys, params["network"], {**images, "time": jnp.full(4000, (t + 0.5) / 100)})
    squares = jax.jit(lambda: jax.lax.map(lambda t: jnp.mean(at(t) ** 2), jnp.arange(100)))()
    known = jax.jit(aware.losses)(KEY, {**params, "squares": squares}, images)
    uniform = jax.jit(plain.losses)(KEY, params["network"], images)
    assert abs(known.mean() - uniform.mean()) < 4 * np.hypot(known.std(), uniform.std()) / np.sqrt(4000)
    assert known.std() < 0.5 * uniform.std()
    slope = jax.jit(jax.grad(lambda p: aware.loss(KEY, p, images)[0]))(params)
    assert np.abs(slope["squares"]).max() > 0 and np.isfinite(slope["network"]["scale"])


def test_labels_reach_the_network_and_guidance_mixes_them():
    class Labelled(nn.Module):
        @nn.compact
        def __call__(self, x_t, t, labels=None):
            known = jnp.full(t.shape, 3) if labels is None else labels
            return x_t * self.param("scale", nn.initializers.ones, ()) + known[:, None, None, None]

    options = {"num_classes": 3, "p_uncond": 0.5}
    model = ddpm.build(Labelled(), SCHEDULE, SHAPE, **options)
    params, x, t = model.init(KEY), jnp.ones((2, *SHAPE)), jnp.array([5, 5])
    output = lambda model, labels: model.denoise(params, labels)(x, t).noise[:, 0, 0, 0]
    assert np.allclose(output(model, jnp.array([0, 2])), [1, 3]) and np.allclose(output(model, None), [4, 4])
    guide = partial(diffusion.classifier_free_batched, guidance_scale=2.0)
    guided = ddpm.build(Labelled(), SCHEDULE, SHAPE, **options, guide=guide)
    assert np.allclose(output(guided, jnp.array([0, 2])), [4 - 2 * 3, 4 - 2 * 1])
    batch = {"image": jnp.zeros((400, *SHAPE)), "label": jnp.zeros(400, int)}
    assert np.isclose(model.loss(KEY, params, batch)[0], guided.loss(KEY, params, batch)[0])  # training is not guided
    same = [model.losses(KEY, params, {**batch, "label": jnp.full(400, i)}) for i in (0, 2)]
    assert 120 < np.sum(np.isclose(*same)) < 280  # half of the labels are hidden
    with pytest.raises(ValueError, match="guide: expected a model conditional on labels"):
        ddpm.build(Affine(), SCHEDULE, SHAPE, guide=guide)


def test_a_network_without_dropout_needs_no_keys():
    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x_t, t):
            return nn.Dense(1)(x_t)

    model = ddpm.build(Plain(), SCHEDULE, SHAPE)
    assert np.isfinite(model.loss(KEY, model.init(KEY), {"image": jnp.zeros((2, *SHAPE))})[0])


def test_a_network_that_returns_another_shape_is_refused():
    class Wrong(nn.Module):
        @nn.compact
        def __call__(self, x_t, t):
            return nn.Dense(2)(x_t)

    with pytest.raises(ValueError, match=r"shape \(4, 4, 1\).*got \(4, 4, 2\)"):
        ddpm.build(Wrong(), SCHEDULE, SHAPE)


class Labelled(nn.Module):
    @nn.compact
    def __call__(self, x_t, t, labels=None):
        known = jnp.full(t.shape, 3) if labels is None else labels
        return x_t * self.param("scale", nn.initializers.ones, ()) + known[:, None, None, None]


ENDS_IN_NOISE = diffusion.cosine_schedule(20)
OF_THREE = ddpm.build(Labelled(), ENDS_IN_NOISE, SHAPE, num_classes=3)
PLAIN = ddpm.build(Affine(), ENDS_IN_NOISE, SHAPE)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"num_classes": -1}, "num_classes: expected at least 0"),
        ({"p_uncond": 1.5}, "p_uncond: expected a probability"),
        ({"p_uncond": float("nan")}, "p_uncond: expected a probability"),
        ({"sampler": partial(diffusion.ddim, num_steps=21)}, "num_steps: expected 1 to 20"),
        ({"sampler": partial(diffusion.ancestral, variance=np.ones(3))}, "variance: expected"),
        (
            {
                "schedule": diffusion.rescale_zero_terminal_snr(ENDS_IN_NOISE),
                "sampler": lambda d, s: diffusion.ddim_on_grid(d, diffusion.on_times(s, diffusion.karras_times(s, 3))),
                "to_prediction": diffusion.from_v,
            },
            "the last ᾱ is 0",
        ),
        ({"schedule": diffusion.rescale_zero_terminal_snr(ENDS_IN_NOISE)}, "let the network predict v or x_0"),
        (
            {
                "network": Labelled(),
                "num_classes": 3,
                "guide": partial(diffusion.classifier_free_batched, guidance_scale=float("nan")),
            },
            "guidance_scale: expected finite",
        ),
    ],
)
def test_what_cannot_be_is_refused_when_the_model_is_built(more, message):
    with pytest.raises(ValueError, match=message):
        ddpm.build(**{"network": Affine(), "schedule": ENDS_IN_NOISE, "shape": SHAPE} | more)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, x: OF_THREE.sample(KEY, p, 2, labels=jnp.array([0, 3])), "whole numbers from 0 to 2, got 3 at 1"),
        (lambda p, x: OF_THREE.sample(KEY, p, 2, labels=jnp.array([-1, 0])), "whole numbers from 0 to 2, got -1 at 0"),
        (lambda p, x: OF_THREE.sample(KEY, p, 2, labels=jnp.array([0.5, 1.0])), "labels: expected whole numbers"),
        (lambda p, x: OF_THREE.sample(KEY, p, 2, labels=jnp.array([0])), "expected one for each of 2 images"),
        (lambda p, x: OF_THREE.sample(KEY, p, -1), "num: expected at least 0"),
        (lambda p, x: OF_THREE.denoise(p, jnp.array([11])), "labels: expected whole numbers from 0 to 2"),
        (lambda p, x: OF_THREE.loss(KEY, p, {"image": x, "label": jnp.array([0, 4])}), "label: expected whole"),
        (
            lambda p, x: OF_THREE.loss(KEY, p, {"image": x, "label": jnp.array([0, -1])}),
            "label: expected whole numbers",
        ),
        (lambda p, x: PLAIN.sample(KEY, p, 1, labels=jnp.array([0])), "labels: expected none"),
        (lambda p, x: PLAIN.loss(KEY, p, {"image": jnp.uint8(x)}), "image: expected floating-point numbers, got uint8"),
        (lambda p, x: PLAIN.loss(KEY, p, {"image": x * jnp.nan}), "image: expected finite numbers"),
        (lambda p, x: PLAIN.loss(KEY, p, {"image": x[:0]}), "image: expected at least 1"),
        (lambda p, x: PLAIN.loss(KEY, p, {"image": x, "time": jnp.array([0.5, 1.5])}), "time: expected numbers from 0"),
        (lambda p, x: loss_aware.build(PLAIN, 0), "num_steps: expected at least 1"),
        (lambda p, x: loss_aware.optimizer(optax.sgd(1.0), 0.0), "rate: expected positive"),
    ],
)
def test_what_a_model_cannot_take_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call({"scale": jnp.array(1.0), "slope": jnp.array(0.0)}, jnp.zeros((2, *SHAPE)))


def test_a_model_whose_chain_begins_far_from_noise_says_so_when_it_is_built():
    with pytest.warns(diffusion.StartWarning, match="a share ᾱ = 0.364"):
        ddpm.build(Affine(), diffusion.linear_schedule(100), SHAPE)


def test_no_image_at_all_cannot_be_drawn():
    with pytest.raises(ValueError, match="num: expected at least 1, got 0"):
        PLAIN.sample(KEY, PLAIN.init(KEY), 0)
