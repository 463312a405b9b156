"""Networks and distributions of pixels by the names that settings give them."""

from collections.abc import Callable
from typing import Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from genjax import data
from genjax.nn import convnet, mlp, unet
from genjax.theory import pixels
from train.run import conditions, config, logging, sources


class LayerSettings(Protocol):
    """The settings of an encoder and a decoder."""

    @property
    def network(self) -> str:
        """``dense`` or ``conv``."""

    @property
    def hidden(self) -> tuple[int, ...]:
        """Widths of the dense layers of the encoder."""

    @property
    def conv_channels(self) -> tuple[int, ...]:
        """Channels of the convolutions of the encoder; read for ``conv`` only."""


class PixelSettings(Protocol):
    """The settings of a distribution of pixels given latents; a number is read only where the likelihood has it."""

    @property
    def likelihood(self) -> str:
        """``bernoulli``, ``gaussian`` or ``logistic``."""

    @property
    def std(self) -> float:
        """Standard deviation of ``gaussian``."""

    @property
    def levels(self) -> int:
        """Number of values of a pixel of ``logistic``."""


def likelihood(settings: PixelSettings) -> pixels.Likelihood:
    """Make the distribution p(pixel | latents) that ``likelihood`` names."""
    return {
        "bernoulli": pixels.bernoulli,
        "gaussian": lambda: pixels.gaussian(settings.std),
        "logistic": lambda: pixels.discretized_logistic(settings.levels),
    }[settings.likelihood]()


def describe_pixels(settings: PixelSettings, binarization: str = "none") -> str:
    """Describe the pixels that a likelihood is a probability of, for the reader of its number."""
    if settings.likelihood != "bernoulli":
        levels = likelihood(settings).num_levels
        return f"{levels} levels" if levels else f"continuous, density, std {settings.std:g}"
    return BINARY_PIXELS[binarization]


BINARY_PIXELS = {
    "none": "grey, cross-entropy: no likelihood",
    "dynamic": "binarised dynamically, one draw",
    "static": "binarised statically",
}
"""Description of the pixels of a Bernoulli likelihood, by ``binarization``."""


def encoder_decoder(
    settings: LayerSettings,
    features: int,
    outputs: tuple[int, int, int],
    *,
    num_classes: int = 0,
    activation: Callable[[jax.Array], jax.Array] | None = None,
) -> tuple[nn.Module, nn.Module]:
    """Make an encoder and its mirror image.

    Args:
      settings: settings of the layers.
      features: number of outputs of the encoder.
      outputs: (h, w, m) of the decoder's outputs.
      num_classes: number of labels that both depend on; 0 for none.
      activation: activation of the encoder's output; None for none.
    """
    down, up = settings.hidden, settings.hidden[::-1]
    if settings.network == "conv":
        check_halvings("--conv-channels", len(settings.conv_channels), outputs)
        return (
            convnet.Encoder(features, settings.conv_channels, down, num_classes, activation),
            convnet.Decoder(outputs, settings.conv_channels, up, num_classes),
        )
    return mlp.Encoder(features, down, num_classes, activation), mlp.Decoder(outputs, up, num_classes)


def make_unet(settings: config.UNetRun, channels: int, height: int, num_classes: int = 0) -> unet.UNet:
    """Make the U-Net of the settings, with this number of output channels, for images of this height."""
    return unet.UNet(
        channels=settings.width,
        channel_mults=settings.channel_mults,
        num_res_blocks=settings.num_res_blocks,
        attention_resolutions=tuple(sorted(set(settings.attention_resolutions) & heights(settings, height))),
        dropout=settings.dropout,
        groups=min(32, max(settings.width // 4, 1)),
        image_channels=channels,
        dtype=jnp.bfloat16 if settings.bfloat16 else None,
        fourier=settings.fourier,
        num_classes=num_classes,
    )


def check_halvings(flag: str, times: int, shape: tuple[int, int, int]) -> None:
    """Refuse images that cannot be halved this often.

    Args:
      flag: flag that sets the number of halvings.
      times: number of halvings.
      shape: (h, w, c) of the images.

    Raises:
      UsageError: with what to use instead.
    """
    unit = 2**times
    if any(size % unit for size in shape[:2]):
        near = [max(1, round(size / unit)) * unit for size in shape[:2]]
        raise config.UsageError(
            f"{flag}: so many of them halve images {times} times, and {shape[0]} by {shape[1]} does not go by {unit}; "
            f"use fewer, or images of {near[0]} by {near[1]}"
        )


def heights(settings: config.UNetRun, height: int) -> set[int]:
    """List the heights of the feature maps in the U-Net, for images of this height."""
    return {height >> level for level in range(len(settings.channel_mults))}


def _attention_occurs(settings: config.UNetRun) -> bool:
    """True if the U-Net has maps of all heights with attention, or if only the data tell how high images are."""
    shape = sources.shape(settings)
    return shape is None or set(settings.attention_resolutions) <= heights(settings, shape[0])


def report_attention(settings: config.UNetRun, dataset: data.Dataset) -> None:
    """Log where a configuration asks for attention at heights that these images never have."""
    height = dataset.train["image"].shape[1]
    if missing := sorted(set(settings.attention_resolutions) - heights(settings, height)):
        there = ", ".join(map(str, sorted(heights(settings, height), reverse=True)))
        logging.log(
            f"attention at height {', '.join(map(str, missing))}: images of height {height} come to {there} only, so "
            "there is none of it; --attention-resolutions says where"
        )


ATTENTION_OCCURS = (
    conditions.Condition(
        _attention_occurs,
        "at heights that the U-Net has: that of the images, halved once for each of --channel-mults after the first",
    ),
)
"""The condition under which ``attention_resolutions`` is read."""


def check_labels(num_classes: int, dataset: data.Dataset) -> None:
    """Refuse a data set whose labels are not among the classes of a conditional model.

    Raises:
      UsageError: the data have no labels, or others.
    """
    if not num_classes:
        return
    if "label" not in dataset.train:
        raise config.UsageError(f"num_classes {num_classes}: {dataset.name} has no labels; use --num-classes 0")
    for split in (dataset.train, dataset.heldout):
        labels = split["label"]
        if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
            raise config.UsageError(
                f"num_classes {num_classes}: {dataset.name} has labels from {labels.min()} to {labels.max()}; "
                f"expected 0 to {num_classes - 1}; use --num-classes {labels.max() + 1}"
            )


def check_levels(likelihood_name: str, num_levels: int, dataset: data.Dataset) -> None:
    """Refuse a data set whose pixels are not among the levels of their distribution.

    Raises:
      UsageError: with what to use instead.
    """
    for split in (dataset.train, dataset.heldout):
        present = np.unique(split["image"])
        try:
            pixels.check_levels(data.scale(present.reshape(-1, 1, 1, 1)), num_levels)
        except ValueError as error:
            black_and_white = "use --binarization dynamic, or --likelihood categorical or mixture"
            raise config.UsageError(
                f"likelihood {likelihood_name}: {dataset.name} has pixels of {len(present)} levels, which are not "
                f"among {num_levels}, evenly spaced; "
                + (black_and_white if likelihood_name == "bernoulli" else "use --levels 256, which every image has")
            ) from error
