"""Networks and distributions of pixels by the names that settings give them."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from genjax import data
from genjax.nn import convnet, mlp, unet
from genjax.theory import pixels
from train.run import conditions, config, logging, sources


def likelihood(settings: Any) -> pixels.Likelihood:
    """The distribution of pixels that ``likelihood`` names."""
    return {
        "bernoulli": pixels.bernoulli,
        "gaussian": lambda: pixels.gaussian(settings.std),
        "logistic": lambda: pixels.discretized_logistic(settings.levels),
        "categorical": lambda: pixels.categorical(settings.levels),
        "mixture": lambda: pixels.mixture_of_logistics(settings.components, settings.levels),
    }[settings.likelihood]()


def encoder_decoder(
    settings: Any,
    features: int,
    outputs: tuple[int, int, int],
    *,
    num_classes: int = 0,
    activation: Callable[[jax.Array], jax.Array] | None = None,
) -> tuple[nn.Module, nn.Module]:
    """An encoder and its mirror image, as ``network``, ``hidden`` and ``filters`` say.

    Args:
      settings: of the script.
      features: that the encoder gives.
      outputs: (h, w, m) that the decoder gives.
      num_classes: of the labels that both depend on.
      activation: of the encoder's output.
    """
    down, up = settings.hidden, settings.hidden[::-1]
    if settings.network == "conv":
        check_halvings("--conv-channels", len(settings.conv_channels), outputs)
        return (
            convnet.Encoder(features, settings.conv_channels, down, num_classes, activation),
            convnet.Decoder(outputs, settings.conv_channels, up, num_classes),
        )
    return mlp.Encoder(features, down, num_classes, activation), mlp.Decoder(outputs, up, num_classes)


def unet_of(settings: config.UNetRun, channels: int, height: int, **more: Any) -> unet.UNet:
    """The U-Net that the settings describe, for images of that height, which puts out so many channels."""
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
        **more,
    )


def check_halvings(flag: str, times: int, shape: tuple[int, int, int]) -> None:
    """Refuse images that do not halve so often.

    Args:
      flag: that says how often.
      times: that they are halved.
      shape: of the images.

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
    """Of the maps in the U-Net, of images of that height."""
    return {height >> level for level in range(len(settings.channel_mults))}


def _occurs(settings: config.UNetRun) -> bool:
    """Whether all heights of attention are somewhere; yes where only the data tell how high images are."""
    shape = sources.shape(settings)
    return shape is None or set(settings.attention_resolutions) <= heights(settings, shape[0])


def tell_attention(settings: config.UNetRun, dataset: data.Dataset) -> None:
    """Say where a configuration asks for attention at heights that these images never have."""
    height = dataset.train["image"].shape[1]
    if missing := sorted(set(settings.attention_resolutions) - heights(settings, height)):
        there = ", ".join(map(str, sorted(heights(settings, height), reverse=True)))
        logging.log(
            f"attention at height {', '.join(map(str, missing))}: images of height {height} come to {there} only, so "
            "there is none of it; --attention-resolutions says where"
        )


OCCURS = (
    conditions.Condition(
        _occurs,
        "at heights that the U-Net has: that of the images, halved once for each of --channel-mults after the first",
    ),
)
"""When attention at these heights is somewhere."""


def check_labels(classes: int, dataset: data.Dataset) -> None:
    """Refuse a data set whose labels are not among the classes of a conditional model.

    Raises:
      UsageError: it has no labels, or others.
    """
    if not classes:
        return
    if "label" not in dataset.train:
        raise config.UsageError(f"num_classes {classes}: {dataset.name} has no labels; use --num-classes 0")
    for split in (dataset.train, dataset.heldout):
        labels = split["label"]
        if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
            raise config.UsageError(
                f"num_classes {classes}: {dataset.name} has labels from {labels.min()} to {labels.max()}; "
                f"expected 0 to {classes - 1}; use --num-classes {labels.max() + 1}"
            )


def check_levels(settings: Any, num_levels: int, dataset: data.Dataset) -> None:
    """Refuse a data set whose pixels are not among the levels of their distribution.

    Raises:
      UsageError: they are not, and what to use.
    """
    for split in (dataset.train, dataset.heldout):
        present = np.unique(split["image"])
        try:
            pixels.check_levels(data.scale(present.reshape(-1, 1, 1, 1)), num_levels)
        except ValueError as error:
            black_and_white = "use --binarization dynamic, or --likelihood categorical or mixture"
            raise config.UsageError(
                f"likelihood {settings.likelihood}: {dataset.name} has pixels of {len(present)} levels, which are not "
                f"among {num_levels}, evenly spaced; "
                + (black_and_white if settings.likelihood == "bernoulli" else "use --levels 256, which every image has")
            ) from error
