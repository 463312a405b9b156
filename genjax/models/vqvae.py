"""The vector-quantised variational autoencoder (van den Oord, Vinyals & Kavukcuoglu 2017).

An encoder makes a map of vectors z of an image, each is replaced by the nearest entry e of a codebook, and a decoder
gives p(x|e). With sg for "no gradient", and per pixel and code respectively, minimises (eq. 3)
    L = -log p(x|e) + |sg(z) - e|² + β |z - sg(e)|²,
where the decoder's gradient passes e as if it were z. Images become maps of indices, for a prior to learn.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from genjax import checks, statistics
from genjax.nn import quantizer
from genjax.theory import information
from genjax.theory.pixels import Likelihood
from genjax.types import Batch, Images, Key, Loss, Number, Params, Scalar

Indices = Int[Array, "b h2 w2"]
"""A map of entries of the codebook for each image."""


class VQVAE(NamedTuple):
    """A VQ-VAE as pure functions.

    Fields:
      init: ``(key) -> params``.
      loss: ``(key, params, batch) -> (scalar, metrics)``; the batch has ``image``; nothing is random. Metrics:
        ``distortion`` (nats per pixel and channel), ``commitment``, ``perplexity`` of the batch's indices.
      encode: ``(params, images) -> indices [b h2 w2]``.
      decode: ``(params, indices) -> images``, the means of p(x|indices). Draws of a prior over indices become samples.
      reconstruct: ``(params, images) -> images``.
      log_prob: ``(params, images, indices) -> [b]``: log p(x|indices), nats; with a prior's log p(indices) it makes the
        length of a two-part code.
    """

    init: Callable[[Key], Params]
    loss: Loss
    encode: Callable[[Params, Any], Indices]
    decode: Callable[[Params, Any], Images]
    reconstruct: Callable[[Params, Any], Images]
    log_prob: Callable[[Params, Any, Any], Float[Array, " b"]]


class Codebook(NamedTuple):
    """How the entries of a codebook are held and learned.

    Fields:
      init: ``(key, num_features) -> params``.
      vectors: ``(params) -> [k d]``.
      loss: ``(params, z [n d], indices [n]) -> scalar``; its gradient moves the entries.
      decay: γ where the parameters are running means, which descend at the rate 1 - γ (``genjax.statistics``).
    """

    init: Callable[[Key, int], Params]
    vectors: Callable[[Params], quantizer.Codebook]
    loss: Callable[[Params, Float[Array, "n d"], Int[Array, " n"]], Scalar]
    decay: float | None = None


def gradient_codebook(size: int) -> Codebook:
    """Entries learned by the gradient of mean |sg(z) - e|² (eq. 3, second term).

    Raises:
      ValueError: ``size`` < 1.
    """
    _check_size(size)

    def loss(params: Params, z: Float[Array, "n d"], indices: Int[Array, " n"]) -> Scalar:
        return jnp.mean(jnp.sum((z - params[indices]) ** 2, -1))

    return Codebook(lambda key, d: _first(key, size, d), lambda params: params, loss)


def ema_codebook(
    size: int,
    *,
    decay: Number = 0.99,
    dead_code_threshold: Number = 0.0,
    epsilon: Number = 1e-5,
    num_vectors: int = 8192,
) -> Codebook:
    """Entries that are running means of what was nearest to them (appendix A.1), as gradient descent.

    N ← γ N + (1 - γ) n;  m ← γ m + (1 - γ) Σ z;  e = m / N

    with n and Σ z the share of each entry in a batch and the sum of its vectors, over the number of vectors. That is
    gradient descent with rate 1 - γ, which ``optimizer`` gives it, on ½ (N - n)² + ½ |m - Σ z|²: so the recursion needs
    no state beside the parameters, and gradients averaged over devices make it that of the whole batch.

    An entry whose N falls below ``dead_code_threshold`` times its fair share 1/k begins anew beside a much used one,
    and the two share the vectors: the split of Linde, Buzo & Gray (1980). Nothing is random, so devices agree about it.

    Args:
      size: k.
      decay: γ.
      dead_code_threshold: 0 leaves dead entries dead.
      epsilon: ε of Laplace smoothing, which keeps N from 0, in vectors as the N of the paper and of its code are:
        there (N + ε) / (n + k ε) n, with n = Σ N the vectors of a batch; here N is a share, and ε / n is added to it.
      num_vectors: n, over all devices: b·h2·w2 for a batch of b images. By default the paper's for CIFAR-10, 128·8·8.

    Raises:
      ValueError: ``size`` or ``num_vectors`` < 1, ``decay`` outside (0, 1), ``dead_code_threshold`` outside [0, 1) or
        ``epsilon`` negative.
    """
    _check_size(size)
    checks.nonnegative("epsilon", epsilon)
    checks.count("num_vectors", num_vectors)
    least = epsilon / num_vectors
    if not 0 < decay < 1:
        raise ValueError(f"decay: expected a number in (0, 1), such as 0.99; got {decay:g}")
    if not 0 <= dead_code_threshold < 1:
        raise ValueError(
            f"dead_code_threshold: expected 0 (never) to below 1, a part of the fair share; got {dead_code_threshold:g}"
        )

    def init(key: Key, d: int) -> Params:
        share = jnp.full(size, 1 / size)
        return {"share": share, "sum": _first(key, size, d) * share[:, None]}

    def vectors(params: Params) -> quantizer.Codebook:
        total = params["share"].sum()
        share = (params["share"] + least) / (total + size * least) * total
        return params["sum"] / share[:, None]

    def loss(params: Params, z: Float[Array, "n d"], indices: Int[Array, " n"]) -> Scalar:
        checks.min_rows("indices", indices)
        num = indices.shape[0]
        target = {
            "share": quantizer.usage(indices, size),
            "sum": jax.ops.segment_sum(z, indices, size) / num,
        }
        if dead_code_threshold:
            target = _split(params, vectors(params), target, dead_code_threshold / size, decay)
        squares = jax.tree.map(lambda p, t: 0.5 * jnp.sum((p - jax.lax.stop_gradient(t)) ** 2), params, target)
        pull = squares["share"] + squares["sum"]
        return pull - jax.lax.stop_gradient(pull)  # a gradient, and no part of the loss

    return Codebook(init, vectors, loss, float(decay))


def optimizer(inner: optax.GradientTransformation, decay: float | None = None) -> optax.GradientTransformation:
    """``inner``, but for an EMA codebook gradient descent of rate 1 - γ, which makes it the recursion.

    Args:
      inner: for the networks, and for a codebook of gradients.
      decay: may repeat that of ``ema_codebook``, which the parameters know.

    Raises:
      ValueError: at the start of training, where ``decay`` is not that of the codebook.
    """
    both = statistics.optimizer({"network": inner}, lambda path: "network")

    def init(params: Params) -> optax.OptState:
        rates = set(statistics.running(params).values())
        if decay is not None and not all(math.isclose(rate, 1 - decay) for rate in rates or {math.nan}):
            found = f"decay {1 - min(rates):g}" if rates else "no running means"
            raise ValueError(f"decay: expected that of the codebook, which has {found}, got {decay:g}; leave it out")
        return (both if rates else inner).init(params)

    def update(gradients: Params, state: optax.OptState, params: Params | None = None, **more: Any):
        return (both if statistics.running(gradients) else inner).update(gradients, state, params, **more)

    return statistics.Optimizer(init, update)


def build(
    encoder: nn.Module,
    decoder: nn.Module,
    codebook: Codebook,
    likelihood: Likelihood,
    shape: tuple[int, int, int],
    *,
    commitment: Number = 0.25,
) -> VQVAE:
    """A VQ-VAE of two networks and a codebook.

    Args:
      encoder: ``network(images) -> z [b h2 w2 d]``.
      decoder: ``network(z) -> [b h w likelihood.num_outputs(c)]``.
      codebook: ``ema_codebook(size)`` or ``gradient_codebook(size)``.
      likelihood: of ``theory.pixels``.
      shape: (h, w, c) of an image.
      commitment: β of eq. 3.

    Raises:
      ValueError: the networks' outputs do not fit, or ``commitment`` is negative or not finite.
    """
    checks.counts("shape", shape, length=3)
    checks.nonnegative("commitment", commitment)
    outputs = (*shape[:2], likelihood.num_outputs(shape[2]))
    num_pixels = shape[0] * shape[1] * shape[2]

    def features(params: Params, images: Images) -> Float[Array, "b h2 w2 d"]:
        return jnp.asarray(encoder.apply({"params": params["encoder"]}, images))

    def output(params: Params, quantized: Float[Array, "b h2 w2 d"]) -> Float[Array, "b h w m"]:
        return jnp.asarray(decoder.apply({"params": params["decoder"]}, quantized))

    def init(key: Key) -> Params:
        encoder_key, codebook_key, decoder_key = jax.random.split(key, 3)
        z, variables = encoder.init_with_output(encoder_key, jnp.zeros((1, *shape)))
        params = {
            "encoder": variables["params"],
            "codebook": codebook.init(codebook_key, z.shape[-1]),
            "decoder": decoder.init(decoder_key, z)["params"],
        }
        return params if codebook.decay is None else statistics.mark(params, _means(params, 1 - codebook.decay))

    def encode(params: Params, images: Any) -> Indices:
        images = checks.images("images", images, shape)
        return quantizer.nearest(codebook.vectors(params["codebook"]), features(params, images))

    def entries(params: Params, indices: Any) -> Float[Array, "b h2 w2 d"]:
        vectors = codebook.vectors(params["codebook"])
        checks.integers("indices", indices, 0, vectors.shape[0])
        if np.shape(indices)[1:] != size:
            raise ValueError(f"indices: expected maps of shape {size}, got {np.shape(indices)[1:]}")
        checks.min_rows("indices", indices)
        return vectors[jnp.asarray(indices)]

    def decode(params: Params, indices: Any) -> Images:
        return likelihood.mean(output(params, entries(params, indices)))

    def reconstruct(params: Params, images: Any) -> Images:
        return decode(params, encode(params, images))

    def log_prob(params: Params, images: Any, indices: Any) -> Float[Array, " b"]:
        images = checks.images("images", images, shape)
        return likelihood.log_prob(output(params, entries(params, indices)), images)

    def loss(key: Key, params: Params, batch: Batch):
        images = checks.images("images", batch["image"], shape)
        if codebook.decay is not None:
            statistics.require(params, _means(params, 1 - codebook.decay))
        z = features(params, images)
        vectors = jax.lax.stop_gradient(codebook.vectors(params["codebook"]))
        indices = quantizer.nearest(vectors, jax.lax.stop_gradient(z))
        out = output(params, quantizer.straight_through(z, vectors[indices]))
        distortion = -likelihood.log_prob(out, images).mean() / num_pixels
        distance = jnp.mean(jnp.sum((z - vectors[indices]) ** 2, -1))
        flat = jax.lax.stop_gradient(z).reshape(-1, z.shape[-1])
        learn = codebook.loss(params["codebook"], flat, indices.reshape(-1))
        metrics = {
            "distortion": distortion,
            "commitment": distance,
            "perplexity": jnp.exp(information.entropy(quantizer.usage(indices, vectors.shape[0]))),
        }
        return distortion + learn + commitment * distance, metrics

    def trial(key: Key):
        z = features(params := init(key), jnp.zeros((1, *shape)))
        return z, output(params, z)

    z, out = jax.eval_shape(trial, jax.eval_shape(lambda: jax.random.key(0)))
    size = z.shape[1:3]
    if out.shape[1:] != outputs:
        raise ValueError(f"decoder: expected outputs of shape {outputs}, got {out.shape[1:]}")
    return VQVAE(init, loss, encode, decode, reconstruct, log_prob)


def _means(params: Params, rate: float) -> dict[statistics.Path, float]:
    return {("codebook", name): rate for name in params["codebook"]}


def _split(params: Params, vectors: quantizer.Codebook, target: Params, least: Number, decay: Number) -> Params:
    """The target, but where entry i is dead and j is among the most used, one that makes them share j's vectors."""
    share, size = params["share"], params["share"].shape[0]
    order = jnp.argsort(-share)
    used, dead = order[: size // 2], order[::-1][: size // 2]
    split = (share[dead] < least) & (share[used] > 2 * least)
    aside = 0.01 * jax.random.normal(jax.random.key(0), vectors.shape, vectors.dtype)[dead]  # any fixed directions
    beside = vectors[used] * (1 + aside)
    half = share[used] / 2
    # Descent of rate 1 - γ lands on p - (1 - γ)(p - t); this is the t for which that is the wanted value.
    land = lambda p, wanted: p - (p - wanted) / (1 - decay)
    choose = lambda entries, p, wanted, t: t.at[entries].set(
        jnp.where(split.reshape(-1, *[1] * (p.ndim - 1)), land(p[entries], wanted), t[entries])
    )
    new_share = choose(used, share, half, choose(dead, share, half, target["share"]))
    halves = half[:, None]
    new_sum = choose(dead, params["sum"], halves * beside, target["sum"])
    return {"share": new_share, "sum": choose(used, params["sum"], halves * vectors[used], new_sum)}


def _first(key: Key, size: int, num_features: int) -> quantizer.Codebook:
    return jax.random.normal(key, (size, num_features)) / num_features**0.5


def _check_size(size: int) -> None:
    if size < 1:
        raise ValueError(f"size: expected a codebook of at least 1 entry, got {size}")
