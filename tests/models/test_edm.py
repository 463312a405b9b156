"""The model of Karras et al. 2022: what its loss is at best, and what it draws."""

import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from genjax import diffusion, random
from genjax.models import edm
from genjax.nn import unet

KEY = jax.random.key(0)
MEAN, STD = 0.4, 0.5


class Exact(nn.Module):
    """F of E[x_0|x] where x_0 is N(MEAN, STD²) and s = STD: D = c_skip x + (1 - c_skip) MEAN."""

    @nn.compact
    def __call__(self, x, c_noise):
        sigma = jnp.exp(4 * c_noise)[:, None, None, None]
        output = sigma / (STD * jnp.sqrt(sigma**2 + STD**2)) * MEAN
        return jnp.zeros_like(x) + output


class Fixed(nn.Module):
    """A network of one parameter."""

    @nn.compact
    def __call__(self, x, c_noise):
        return self.param("gain", nn.initializers.constant(0.3), ()) * x


MODEL = edm.build(Exact(), (1, 1, 1), sigma_data=STD)


def test_the_loss_of_the_best_network_is_one_and_any_other_costs_more():
    """λ(σ) σ² s²/(σ² + s²) = 1 at every σ."""
    images = MEAN + STD * jax.random.normal(jax.random.key(1), (20_000, 1, 1, 1))
    time = (jnp.arange(20_000) + 0.5) / 20_000
    for batch in ({"image": images}, {"image": images, "time": time}):
        result = MODEL.losses(KEY, {}, batch)
        assert abs(result.mean() - 1) < 4 * result.std() / np.sqrt(20_000)
    other = edm.build(Fixed(), (1, 1, 1), sigma_data=STD)
    assert other.loss(KEY, other.init(KEY), {"image": images})[0] > 1.05


def test_times_are_quantiles_of_sigma():
    """The network is told ¼ log σ, and log σ is normal."""
    seen = []

    def network(x, c_noise):
        seen.append(np.asarray(c_noise))
        return jnp.zeros_like(x)

    images, keys = jnp.zeros((1000, 1, 1, 1)), random.example_keys(KEY, 1000)
    edm.losses(network, keys, images, p_mean=-0.7, p_std=1.5, u=(jnp.arange(1000) + 0.5) / 1000)
    expected = stats.norm.ppf((np.arange(1000) + 0.5) / 1000, -0.7, 1.5)
    assert np.allclose(4 * seen[0], expected, atol=1e-4)
    edm.losses(network, keys, images, p_mean=-0.7, p_std=1.5)
    assert stats.kstest(4 * seen[1], stats.norm(-0.7, 1.5).cdf).pvalue > 1e-3
    edm.losses(network, keys[:2], images[:2], u=jnp.array([0.0, 0.9999999]))
    assert np.all(np.isfinite(seen[2]))


def test_it_draws_the_data():
    model = edm.build(Exact(), (1, 1, 1), sigma_data=STD, sampler=lambda d, grid: diffusion.heun(d, grid, clip=False))
    drawn, frames = jax.jit(lambda: model.sample(KEY, {}, 4000, (0, 18)))()
    assert stats.kstest(drawn.ravel(), stats.norm(MEAN, STD).cdf).pvalue > 1e-3
    assert np.isclose(frames[0].std(), 80, rtol=0.05) and np.array_equal(frames[1], drawn)
    assert np.array_equal(MODEL.sample(KEY, {}, 3), MODEL.sample(KEY, {}, 8)[:3])


def test_a_network_with_dropout_drops_in_training_alone():
    network = unet.UNet(
        channels=8,
        channel_mults=(1,),
        num_res_blocks=1,
        attention_resolutions=(),
        dropout=0.5,
        groups=2,
        image_channels=1,
    )
    model = edm.build(network, (4, 4, 1), sigma_data=0.5)
    params = jax.tree.map(lambda x: x + 0.1, model.init(KEY))
    with_other = lambda seed: jax.jit(lambda p: model.denoise(p)(jnp.ones((2, 4, 4, 1)), jnp.ones(2)).x0)(params)
    assert np.array_equal(with_other(0), with_other(1))
    plain = edm.build(network.clone(dropout=0.0), (4, 4, 1), sigma_data=0.5)
    batch = {"image": jnp.ones((2, 4, 4, 1))}
    assert not np.allclose(jax.jit(model.loss)(KEY, params, batch)[0], jax.jit(plain.loss)(KEY, params, batch)[0])


def test_what_is_not_said_is_the_papers():
    """Karras et al. 2022, Table 1."""
    default = lambda function: {name: p.default for name, p in inspect.signature(function).parameters.items()}
    for function in (edm.build, edm.losses):
        assert {"sigma_data": 0.5, "p_mean": -1.2, "p_std": 1.2}.items() <= default(function).items()
    assert {"sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0}.items() <= default(diffusion.karras).items()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"sigma_data": 0.0}, "sigma_data, p_std: expected positive numbers, got 0"),
        ({"p_std": -1.0}, "sigma_data, p_std: expected positive numbers"),
        ({"sigma_data": float("inf")}, "sigma_data, p_std: expected positive numbers, got inf"),
        ({"p_std": float("nan")}, "sigma_data, p_std: expected positive numbers"),
        ({"p_mean": float("nan")}, "mean: expected finite"),
        ({"grid": diffusion.Grid(np.ones(3), np.ones(3), np.ones(3))}, "grid: expected"),
        ({"network": nn.Dense(3)}, "network: expected a prediction of shape"),
    ],
)
def test_bad_input_is_refused(more, message):
    with pytest.raises(ValueError, match=message):
        edm.build(**{"network": Exact(), "shape": (1, 1, 1)} | more)


def test_what_a_model_cannot_take_is_refused():
    for batch in ({"image": jnp.zeros((2, 1, 1, 1), jnp.uint8)}, {"image": jnp.full((2, 1, 1, 1), jnp.nan)}):
        with pytest.raises(ValueError, match="image: expected f"):
            MODEL.loss(KEY, {}, batch)
    with pytest.raises(ValueError, match="time: expected numbers from 0 to 1"):
        MODEL.loss(KEY, {}, {"image": jnp.zeros((1, 1, 1, 1)), "time": jnp.array([-0.1])})
    with pytest.raises(ValueError, match="sigma_data, p_std"):
        edm.losses(lambda x, c: x, random.example_keys(KEY, 1), jnp.zeros((1, 1, 1, 1)), p_std=0.0)
    with pytest.raises(ValueError, match="num: expected at least 0"):
        MODEL.sample(KEY, {}, -1)
    with pytest.warns(diffusion.StartWarning):
        edm.build(Exact(), (1, 1, 1), grid=diffusion.karras(5, sigma_max=2.0))
