"""Protocols of networks: the fields and methods that each model reads, and the check that a Linen network fits.

A network is any ``flax.linen.Module`` whose parameters are its only variables. Each Protocol lists the members that a
model uses beside ``init`` and ``apply``; no network has to inherit from a Protocol. Images are NHWC and in [-1, 1]
unless the Protocol says otherwise.

========================================  =================================================================
model                                     networks
========================================  =================================================================
``ddpm``, ``edm``, ``vdm``                ``Denoiser``
``vae``, ``autoencoder``, ``vqvae``       ``Encoder``, ``Decoder``
``gan``                                   ``Generator``, ``Discriminator``
``autoregressive``                        ``CausalNetwork``
``actor_critic``                          ``Policy``, ``Value``
========================================  =================================================================

Labels and keys are optional. A network with a field ``num_classes`` above 0 is conditional: its ``__call__`` takes
``labels`` [b], whole numbers in [0, num_classes). A network with dropout has an argument ``keys`` in its ``__call__``:
one key for each example in training, None elsewhere (``genjax.nn.dropout``).
"""

import inspect
from collections.abc import Collection
from typing import Any, Protocol, runtime_checkable

import flax.errors
import flax.linen as nn
import jax
from jaxtyping import Array, Float, Shaped

from genjax.types import Images, Key

Labels = Any
"""Classes of the examples: whole numbers [b]."""
Cache = Any
"""A tree of arrays, with the examples along their first axis."""

_ADVICE = {"batch_stats": "use genjax.nn.normalization.GroupNorm, or its BatchNorm, which has no running averages"}


@runtime_checkable
class Conditional(Protocol):
    """A network with labels.

    Attributes:
      num_classes: number of classes; 0 for a network that takes no labels.
    """

    num_classes: int


class Denoiser(Protocol):
    """A network of a diffusion model.

    A model with classes also gives the keyword ``labels``; class ``num_classes`` then stands for no label.
    """

    def __call__(self, x_t: Images, t: Shaped[Array, " b"], *, keys: Key | None = None) -> Images:
        """Return the prediction, of the shape of x_t: the noise, the image or v, by the settings of the model.

        Args:
          x_t: noisy images, scaled as the model scales them.
          t: the conditioning number: the step for ``ddpm``, ln(σ) / 4 for ``edm``, 0 to 1000 for ``vdm``.
          keys: keys [b] of the examples' dropout; only given to a network that ``takes_keys``.
        """
        ...


class Encoder(Protocol):
    """A network from images to vectors [b features], or to maps of vectors [b h2 w2 d] for ``vqvae``.

    The optional field ``features`` is the number of outputs: ``vae`` reads 2d of them as μ and log σ². If the optional
    field ``num_classes`` is above 0, ``labels`` follow the images.
    """

    def __call__(self, images: Images) -> Float[Array, "b ..."]:
        """Return the codes; ``vae`` and ``autoencoder`` give images with black at 0 and white at 1."""
        ...


class Decoder(Protocol):
    """A network from vectors [b d], or from maps of vectors, to the outputs of every pixel.

    The optional field ``num_classes`` must be the encoder's; ``labels`` follow the vectors where it is above 0.
    """

    def __call__(self, z: Float[Array, "b ..."]) -> Float[Array, "b h w m"]:
        """Return the parameters of the pixels' distribution, or logits of the image for ``autoencoder``."""
        ...


class Generator(Protocol):
    """A network from noise to images; with the optional field ``num_classes`` as in ``Conditional``."""

    def __call__(self, z: Float[Array, "b d"], labels: Labels | None = None) -> Images:
        """Return images."""
        ...


class Discriminator(Protocol):
    """A network that tells data from generated images; with as many ``num_classes`` as the generator.

    Layers may sow auxiliary losses in the collection that ``models.gan`` reads (``genjax.nn.spectral``).
    """

    def __call__(self, images: Images, labels: Labels | None = None) -> Float[Array, "b 1"]:
        """Return one logit for each image."""
        ...


class Policy(Protocol):
    """A network from observations to the logits of actions."""

    def __call__(self, observations: Float[Array, "b o"]) -> Float[Array, "b a"]:
        """Return one logit for each action."""
        ...


class Value(Protocol):
    """A network from observations to the expected return."""

    def __call__(self, observations: Float[Array, "b o"]) -> Float[Array, "b 1"]:
        """Return V(s)."""
        ...


@runtime_checkable
class CausalNetwork(Protocol):
    """A network whose outputs at a pixel depend only on earlier pixels, in raster order.

    The four methods beside ``__call__`` go through an image once (``genjax.nn.pixelcnn``). With the optional field
    ``num_classes`` above 0, ``labels`` are given wherever they appear below.

    Attributes:
      colours: number of colours that a pixel is drawn in, one after the other; 1 for all colours at once.
    """

    colours: int

    def __call__(self, images: Images, labels: Labels | None = None) -> Float[Array, "b h w m"]:
        """Return the outputs of every pixel."""
        ...

    def embed(self, pixels: Float[Array, "... c"]) -> Float[Array, "... i"]:
        """Return the inputs of the first layer."""
        ...

    def cache(self, batch: int, width: int) -> Cache:
        """Return the state before the first row of images of this width."""
        ...

    def start_row(self, cache: Cache, row: Float[Array, "b w i"], labels: Labels | None = None) -> Cache:
        """Go to the next row; ``row`` is the embedded row above, zeros before the first."""
        ...

    def pixel(
        self, cache: Cache, left: Float[Array, "b i"], here: Float[Array, "b i"], column: Any, labels: Any = None
    ) -> tuple[Cache, Float[Array, "b m"]]:
        """Return the new cache and the outputs at a column, given the pixel to the left and the colours drawn here."""
        ...


def num_classes(network: nn.Module) -> int:
    """Number of classes of a network's labels; 0 for an unconditional network."""
    return network.num_classes if isinstance(network, Conditional) else 0


def takes_keys(network: nn.Module) -> bool:
    """True for a network with dropout, whose ``__call__`` takes one key per example as ``keys``."""
    return "keys" in inspect.signature(type(network).__call__).parameters


def check_causal(name: str, network: nn.Module) -> None:
    """Refuse a network that is not a ``CausalNetwork``.

    Raises:
      ValueError: a field or a method is missing; the message names it.
    """
    missing = [member for member in ("colours", "embed", "cache", "start_row", "pixel") if not hasattr(network, member)]
    if missing:
        raise ValueError(
            f"{name}: expected a causal network, got a {type(network).__name__} without {', '.join(missing)}; "
            "see genjax.nn.protocols.CausalNetwork"
        )


def output_shape(name: str, network: nn.Module, *inputs: Any, sown: Collection[str] = ()) -> Any:
    """Shape and type of a network's output, from a trace: nothing is computed.

    Models keep only ``params`` of a network's variables, and call it without random number streams. A network that
    needs more would silently lose its other variables, or fail in the middle of training, so it is refused here.

    >>> import jax.numpy as jnp
    >>> output_shape("network", nn.Dense(3), jnp.zeros((2, 4))).shape
    (2, 3)
    >>> output_shape("network", nn.BatchNorm(use_running_average=True), jnp.zeros((2, 4)))
    Traceback (most recent call last):
    ValueError: network: expected params as the only variables, got batch_stats as well; \
use genjax.nn.normalization.GroupNorm, or its BatchNorm, which has no running averages

    Args:
      name: argument that the network was given as, for the message.
      network: Linen module.
      inputs: arguments of its ``__call__``: arrays, or their ``jax.ShapeDtypeStruct``.
      sown: collections that the model reads and adds to its loss; layers may sow in them.

    Returns:
      ``jax.ShapeDtypeStruct``, or a tree of them.

    Raises:
      ValueError: the network has other variables than ``params``, or asks for a random number stream.
    """

    def trial(key: Key, inputs: tuple[Any, ...]) -> tuple[Any, Any]:
        variables = network.init(key, *inputs)
        params = variables.get("params", {})
        others = {collection: value for collection, value in variables.items() if collection != "params"}
        if sorted(set(others) - set(sown)):
            return None, others
        return network.apply({"params": params}, *inputs), others

    try:
        output, others = jax.eval_shape(trial, jax.eval_shape(lambda: jax.random.key(0)), inputs)
    except flax.errors.InvalidRngError as error:
        raise ValueError(
            f"{name}: expected a network that draws nothing by itself, as it is called without rngs; got: {error} "
            "Use genjax.nn.dropout.Dropout and take keys in __call__, or make the layer deterministic"
        ) from error
    if foreign := sorted(set(others) - set(sown)):
        advice = next(
            (_ADVICE[collection] for collection in foreign if collection in _ADVICE),
            "make its variables params, or leave the layer out",
        )
        raise ValueError(f"{name}: expected params as the only variables, got {', '.join(foreign)} as well; {advice}")
    return output
