"""What every model asks of its networks: params as the only variables, and no randomness of their own."""

import flax.linen as nn
import jax.numpy as jnp
import optax
import pytest

from genjax import envs
from genjax.models import actor_critic, autoencoder, autoregressive, classifier, gan, vae, vqvae
from genjax.nn import adversarial, convnet, mlp
from genjax.nn.pixelcnn import GatedPixelCNN
from genjax.theory import pixels

SHAPE = (8, 8, 1)


def batch_norm(x):
    return nn.BatchNorm(use_running_average=True)(x)


def dropout(x):
    return nn.Dropout(0.5, deterministic=False)(x)


def with_layer(network, layer):
    """The network, with a layer of flax before it."""

    class Layered(type(network)):
        @nn.compact
        def __call__(self, x, *args):
            return super().__call__(layer(jnp.asarray(x, jnp.float32)), *args)

    fields = {name: getattr(network, name) for name in network.__dataclass_fields__ if name not in ("parent", "name")}
    return Layered(**fields)


MODELS = {
    "vae": (
        [mlp.Encoder(4, (4,)), mlp.Decoder(SHAPE, (4,))],
        lambda encoder, decoder: vae.build(encoder, decoder, pixels.bernoulli(), SHAPE),
    ),
    "autoencoder": (
        [mlp.Encoder(4, (4,)), mlp.Decoder(SHAPE, (4,))],
        lambda encoder, decoder: autoencoder.build(encoder, decoder, SHAPE),
    ),
    "vqvae": (
        [convnet.MapEncoder(4, (4,), 0), convnet.MapDecoder(1, (4,), 0)],
        lambda *networks: vqvae.build(*networks, vqvae.ema_codebook(8), pixels.gaussian(0.5), SHAPE),
    ),
    "gan": (
        [adversarial.Generator(SHAPE, (4,)), adversarial.Discriminator((4,), spectral=True)],
        lambda *networks: gan.build(*networks, gan.hinge, SHAPE, latent_dim=3),
    ),
    "autoregressive": (
        [GatedPixelCNN(1, num_layers=1, features=4, head_features=4)],
        lambda network: autoregressive.build(network, pixels.bernoulli(), SHAPE),
    ),
    "actor_critic": (
        [mlp.MLP(2, (4,)), mlp.MLP(1, (4,))],
        lambda policy, value: actor_critic.build(policy, value, envs.cartpole()),
    ),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (batch_norm, "expected params as the only variables, got batch_stats as well; use genjax.nn.normalization"),
        (dropout, "expected a network that draws nothing by itself"),
    ],
)
def test_other_variables_and_streams_of_random_numbers_are_refused(name, layer, message):
    networks, build = MODELS[name]
    for i, network in enumerate(networks):
        with pytest.raises(ValueError, match=message):
            build(*networks[:i], with_layer(network, layer), *networks[i + 1 :])


def test_a_classifier_refuses_them_too():
    class Layered(classifier.Network):
        def setup(self):
            super().setup()
            self.norm = nn.BatchNorm(use_running_average=True)

        def __call__(self, images):
            return self.norm(super().__call__(images))

    with pytest.raises(ValueError, match="network: expected params as the only variables, got batch_stats"):
        classifier.build(Layered(2, (4,), 4), SHAPE)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_makes_its_own_optimizer(name):
    networks, build = MODELS[name]
    model, inner = build(*networks), optax.adam(1e-3)
    assert (model.optimizer(inner) is inner) == (name in ("vae", "autoencoder", "autoregressive"))
