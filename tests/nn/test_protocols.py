"""Networks offer what models read, and one that keeps more than parameters is refused before it trains."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from genjax.nn import adversarial, convnet, mlp, pixelcnn, pixelrnn, protocols, simple_unet, unet

IMAGE = jax.ShapeDtypeStruct((1, 4, 4, 1), jnp.float32)


class FlaxDropout(nn.Module):
    rate: float = 0.5

    @nn.compact
    def __call__(self, x):
        return nn.Dropout(self.rate, deterministic=False)(nn.Dense(2)(x))


class Noise(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x + jax.random.normal(self.make_rng("noise"), x.shape)


class Statistics(nn.Module):
    collection: str = "batch_stats"

    @nn.compact
    def __call__(self, x):
        return x - self.variable(self.collection, "mean", jnp.zeros, x.shape[-1:]).value


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.BatchNorm(use_running_average=False), "got batch_stats as well; use genjax.nn.normalization.GroupNorm"),
        (Statistics("cache"), "expected params as the only variables, got cache as well; make its variables params"),
        (Statistics("ema"), "got ema as well"),
        (adversarial.Discriminator((4,), spectral=True), "as well"),
        (FlaxDropout(), 'draws nothing by itself.*"dropout".*genjax.nn.dropout.Dropout'),
        (Noise(), 'draws nothing by itself.*"noise"'),
    ],
)
def test_a_network_that_needs_more_than_parameters_is_refused(network, message):
    with pytest.raises(ValueError, match=f"^judge: (?s:.*){message}"):
        protocols.output_shape("judge", network, IMAGE)


def test_auxiliary_losses_are_allowed_where_the_model_adds_them():
    network = adversarial.Discriminator((4,), spectral=True)
    sown = set(jax.eval_shape(network.init, jax.random.key(0), IMAGE)) - {"params"}
    assert len(sown) == 1  # the collection of genjax.nn.spectral
    assert protocols.output_shape("judge", network, IMAGE, None, sown=sown).shape == (1, 1)


def test_the_output_shape_is_that_of_the_output():
    network = mlp.Encoder(3, (5,), num_classes=2)
    labels = jnp.zeros(1, jnp.int32)
    x = jnp.zeros(IMAGE.shape)
    output = network.apply(network.init(jax.random.key(0), x, labels), x, labels)
    assert protocols.output_shape("encoder", network, IMAGE, labels) == jax.ShapeDtypeStruct(output.shape, output.dtype)
    assert protocols.output_shape("network", FlaxDropout(0.0), IMAGE).shape == (1, 4, 4, 2)  # draws nothing
    assert protocols.output_shape("network", Empty(), IMAGE) == IMAGE  # no parameters at all


class Empty(nn.Module):
    def __call__(self, x):
        return x


@pytest.mark.parametrize(
    ("network", "classes", "keys"),
    [
        (convnet.Encoder(4, num_classes=3), 3, False),
        (convnet.MapEncoder(4), 0, False),
        (simple_unet.SimpleUNet((8, 8), 1), 0, True),
        (unet.UNet(8, (1,), 1, groups=2, image_channels=1, num_classes=5), 5, True),
        (pixelcnn.GatedPixelCNN(2, num_classes=4), 4, False),
        (nn.Dense(2), 0, False),
    ],
)
def test_what_a_network_takes(network, classes, keys):
    assert (protocols.num_classes(network), protocols.takes_keys(network)) == (classes, keys)


@pytest.mark.parametrize("network", [pixelcnn.PixelCNN(2), pixelcnn.GatedPixelCNN(2), pixelrnn.PixelRNN(2)])
def test_causal_networks_are_causal(network):
    protocols.check_causal("network", network)
    assert isinstance(network, protocols.CausalNetwork)


def test_a_network_that_is_not_causal_is_refused():
    with pytest.raises(
        ValueError, match="network: expected a causal network, got a Dense without colours, embed, cache"
    ):
        protocols.check_causal("network", nn.Dense(2))
