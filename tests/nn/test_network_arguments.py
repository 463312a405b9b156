"""Networks refuse numbers that cannot be when they are made, and what is no image when they are called."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.models import classifier
from genjax.nn import (
    adversarial,
    causal,
    convnet,
    convolution,
    dropout,
    mlp,
    normalization,
    pixelcnn,
    pixelrnn,
    simple_unet,
    spectral,
    unet,
)

KEY = jax.random.key(0)
NAN = float("nan")

NUMBERS = [
    (mlp.Encoder, {"features": 4}, {"features": [-1], "hidden": [(0,), (8, -2)], "num_classes": [-1]}),
    (mlp.Decoder, {"shape": (4, 4, 1)}, {"shape": [(4, 0, 1)], "hidden": [(0,)], "num_classes": [-3]}),
    (mlp.MLP, {"features": 2}, {"features": [0], "hidden": [(0,)], "output_scale": [0.0, -1.0, NAN]}),
    (convnet.Encoder, {"features": 4}, {"features": [-1], "channels": [(0,)], "hidden": [(-1,)]}),
    (convnet.Decoder, {"shape": (4, 4, 1)}, {"channels": [(), (0,)], "num_classes": [-1]}),
    (convnet.MapEncoder, {"features": 4}, {"features": [0], "channels": [()], "num_blocks": [-1]}),
    (convnet.MapDecoder, {"outputs": 4}, {"outputs": [0], "channels": [()], "num_blocks": [-1]}),
    (adversarial.Generator, {"shape": (4, 4, 1)}, {"hidden": [(0,)], "channels": [(0,)], "num_classes": [-1]}),
    (adversarial.Discriminator, {}, {"hidden": [(-1,)], "channels": [(0,)], "num_classes": [-1]}),
    (causal.MaskedConv, {"inputs": 1, "features": 2, "kernel_size": 3, "mask_type": "A"},
     {"kernel_size": [2, 4, 0, -1], "features": [0], "rows_above": [-1], "colours": [0]}),
    (causal.RowsAbove, {"inputs": 1, "features": 2, "kernel_size": 3, "mask_type": "A"}, {"kernel_size": [4]}),
    (pixelcnn.PixelCNN, {"outputs": 2},
     {"outputs": [0], "kernel_size": [2, 6], "features": [0], "num_blocks": [-1], "head_features": [0],
      "num_levels": [1, -1], "colours": [0]}),
    (pixelcnn.GatedPixelCNN, {"outputs": 2}, {"kernel_size": [4], "num_layers": [0], "num_classes": [-1]}),
    (pixelrnn.PixelRNN, {"outputs": 2}, {"num_layers": [-1], "features": [0]}),
    (pixelrnn.RowLSTM, {"inputs": 2, "features": 2}, {"kernel_size": [2], "features": [0]}),
    (dropout.Dropout, {"rate": 0.1}, {"rate": [1.0, -0.1, NAN]}),
    (normalization.GroupNorm, {"num_groups": 2}, {"num_groups": [0], "epsilon": [0.0, -1.0, NAN]}),
    (normalization.BatchNorm, {}, {"epsilon": [0.0, NAN]}),
    (spectral.Dense, {"features": 2}, {"features": [0]}),
    (simple_unet.SimpleUNet, {}, {"channels": [(), (0,)], "image_channels": [0]}),
    (unet.UNet, {},
     {"channels": [0, -8], "channel_mults": [(), (1, 0)], "num_res_blocks": [0], "attention_resolutions": [(0,)],
      "dropout": [1.0, -0.1, NAN], "groups": [0], "epsilon": [0.0, NAN], "head_channels": [0], "num_classes": [-1],
      "attention_up": [(4,)], "image_channels": [0]}),
    (classifier.Network, {"num_classes": 3}, {"num_classes": [0], "channels": [(0,)], "features": [0]}),
]  # fmt: skip


@pytest.mark.parametrize(("network", "needed", "wrong"), NUMBERS)
def test_numbers_that_cannot_be_are_refused_when_a_network_is_made(network, needed, wrong):
    for name, values in wrong.items():
        for value in values:
            with pytest.raises(ValueError, match="rate" if name == "dropout" else name):
                network(**(needed | {name: value}))


UNET = unet.UNet(8, (1,), 1, groups=2, image_channels=1)
IMAGES = {
    "mlp": mlp.Encoder(2, ()),
    "convnet": convnet.Encoder(2, (2,), ()),
    "maps": convnet.MapEncoder(2, (2,)),
    "judge": adversarial.Discriminator((2,)),
    "pixelcnn": pixelcnn.PixelCNN(1),
    "gated": pixelcnn.GatedPixelCNN(1),
    "pixelrnn": pixelrnn.PixelRNN(1),
    "simple": simple_unet.SimpleUNet((8, 8), 1),
    "unet": UNET,
}


@pytest.mark.parametrize("name", IMAGES)
def test_bytes_are_refused_with_what_scales_them(name):
    more = (jnp.zeros(1, int),) if "unet" in name or name == "simple" else ()
    for kind in (jnp.uint8, jnp.int32):
        with pytest.raises(ValueError, match="genjax.data.scale"):
            jax.eval_shape(IMAGES[name].init, KEY, jnp.zeros((1, 8, 8, 1), kind), *more)


@pytest.mark.parametrize("kind", [jnp.bfloat16, jnp.float16, jnp.float32])
@pytest.mark.parametrize("computed", [None, jnp.bfloat16])
@pytest.mark.parametrize("name", ["simple", "unet"])
def test_images_of_any_precision_come_back_in_float32(name, computed, kind):
    network = IMAGES[name].clone(dtype=computed)
    x, t = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 1)), kind), jnp.arange(2)
    params = jax.eval_shape(network.init, KEY, x.astype(jnp.float32), t)
    assert jax.eval_shape(network.apply, params, x, t).dtype == jnp.float32


def test_attention_stands_at_heights_that_the_image_comes_to():
    at = lambda heights, size=8: jax.eval_shape(
        unet.UNet(8, (1, 2), 1, heights, groups=2, image_channels=1).init,
        KEY,
        jnp.zeros((1, size, size, 1)),
        jnp.zeros(1),
    )["params"]
    assert "down_1_0_attention" in at((4,)) and "down_0_0_attention" in at((8, 4))
    assert not any("attention" in name for name in at(None) if "middle" not in name)  # 16 where there is one
    assert "down_0_0_attention" in at(None, 16) and "down_1_0_attention" not in at(None, 16)
    with pytest.raises(
        ValueError, match="attention_resolutions: expected heights that .* 8 comes to, which are 8, 4; got 7, 16"
    ):
        at((7, 4, 16))


@pytest.mark.parametrize("labels", [[-1], [4], [0.0]])
def test_labels_of_a_unet_are_its_classes_or_none(labels):
    network = UNET.clone(num_classes=3)
    with pytest.raises(ValueError, match="labels: expected whole numbers from 0 to 3"):
        network.init(KEY, jnp.zeros((1, 8, 8, 1)), jnp.zeros(1, int), None, jnp.asarray(labels))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: convolution.Conv(0, (3, 3)).init(KEY, jnp.zeros((1, 4, 4, 1))),
            "features: expected at least 1, got 0",
        ),
        (lambda: convolution.Conv(2, (0, 3)).init(KEY, jnp.zeros((1, 4, 4, 1))), "kernel_size: expected"),
        (
            lambda: normalization.GroupNorm(3).init(KEY, jnp.zeros((1, 4, 4, 8))),
            "num_groups: expected a divisor of the 8",
        ),
        (lambda: mlp.one_hot(jnp.array([3]), 3), "labels: expected whole numbers from 0 to 2, got 3"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
