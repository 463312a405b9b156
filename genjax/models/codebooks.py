"""Codebooks of a VQ-VAE, learned by gradients or as running means (van den Oord et al. 2017, eq. 3 and App. A.1)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from genjax import checks, statistics
from genjax.nn import quantizer
from genjax.types import Key, Number, Params, Scalar

Vectors = Float[Array, "n d"]
"""Outputs of the encoder."""
Entry = Int[Array, " n"]
"""The nearest entry of each vector."""


class Codebook(NamedTuple):
    """The entries of a codebook: their parameters, and a loss that moves them.

    Attributes:
      init: ``(key, num_features) -> params``.
      vectors: ``(params) -> [k d]``.
      loss: ``(params, z [n d], indices [n]) -> scalar``; its gradient moves the entries.
      decay: γ if the parameters are running means, which descend at the rate 1 - γ (``genjax.statistics``).
    """

    init: Callable[[Key, int], Params]
    vectors: Callable[[Params], quantizer.Codebook]
    loss: Callable[[Params, Vectors, Entry], Scalar]
    decay: float | None = None


def codebook_loss(entries: quantizer.Codebook, z: Vectors, indices: Entry) -> Scalar:
    """The mean of |sg(z) - e|² (eq. 3, second term); z is a constant here.

    >>> float(codebook_loss(jnp.array([[0.0], [1.0]]), jnp.array([[0.5], [3.0]]), jnp.array([0, 1])))
    2.125
    """
    return jnp.mean(jnp.sum((z - entries[indices]) ** 2, -1))


def gradient_codebook(size: int) -> Codebook:
    """Entries learned by the gradient of ``codebook_loss``.

    Raises:
      ValueError: ``size`` < 1.
    """
    _check_size(size)
    return Codebook(
        init=lambda key, num_features: _random_entries(key, size, num_features),
        vectors=lambda params: params,
        loss=codebook_loss,
    )


def batch_means(z: Vectors, indices: Entry, size: int) -> Params:
    """n and Σ z of a batch: the share of each entry, and the sum of its vectors over the number of all vectors."""
    return {"share": quantizer.usage(indices, size), "sum": jax.ops.segment_sum(z, indices, size) / indices.shape[0]}


def smoothed_means(params: Params, epsilon: Number) -> quantizer.Codebook:
    """e = m / N, with Laplace smoothing of the shares: (N + ε) / (Σ N + k ε) Σ N in place of N."""
    share, total = params["share"], params["share"].sum()
    return params["sum"] / ((share + epsilon) / (total + share.shape[0] * epsilon) * total)[:, None]


def ema_codebook(
    size: int,
    *,
    decay: Number = 0.99,
    dead_code_threshold: Number = 0.0,
    epsilon: Number = 1e-5,
    num_vectors: int = 8192,
) -> Codebook:
    """Entries that are running means of their nearest vectors (appendix A.1), as gradient descent.

    N ← γ N + (1 - γ) n;  m ← γ m + (1 - γ) Σ z;  e = m / N

    with n and Σ z of ``batch_means``. That is gradient descent on ½ (N - n)² + ½ |m - Σ z|² with rate 1 - γ, which the
    optimizer of the model applies. So the recursion needs no state beside the parameters, and gradients averaged over
    devices make it that of the whole batch.

    An entry whose N falls below ``dead_code_threshold`` times its fair share 1/k begins anew beside a much used entry,
    and the two share the vectors: the split of Linde, Buzo & Gray (1980). Nothing is random, so devices agree about it.

    Args:
      size: k.
      decay: γ.
      dead_code_threshold: part of the fair share below which an entry is dead; 0 leaves dead entries dead.
      epsilon: ε of Laplace smoothing, which keeps N from 0. It counts vectors, as the N of the paper and of its code
        does: (N + ε) / (n + k ε) n there, with n = Σ N the vectors of a batch. Here N is a share, and gets ε / n.
      num_vectors: n, over all devices: b·h2·w2 for a batch of b images. By default the paper's for CIFAR-10, 128·8·8.

    Raises:
      ValueError: ``size`` or ``num_vectors`` < 1, ``decay`` outside (0, 1), ``dead_code_threshold`` outside [0, 1) or
        ``epsilon`` negative.
    """
    _check_size(size)
    checks.nonnegative("epsilon", epsilon)
    checks.count("num_vectors", num_vectors)
    if not 0 < decay < 1:
        raise ValueError(f"decay: expected a number in (0, 1), such as 0.99; got {decay:g}")
    if not 0 <= dead_code_threshold < 1:
        raise ValueError(
            f"dead_code_threshold: expected 0 (never) to below 1, a part of the fair share; got {dead_code_threshold:g}"
        )

    def init(key: Key, num_features: int) -> Params:
        share = jnp.full(size, 1 / size)
        return {"share": share, "sum": _random_entries(key, size, num_features) * share[:, None]}

    def vectors(params: Params) -> quantizer.Codebook:
        return smoothed_means(params, epsilon / num_vectors)

    def loss(params: Params, z: Vectors, indices: Entry) -> Scalar:
        checks.min_rows("indices", indices)
        target = batch_means(z, indices, size)
        if dead_code_threshold:
            target = split_dead_codes(params, vectors(params), target, dead_code_threshold / size, decay)
        return statistics.pseudo_loss(params, target)

    return Codebook(init=init, vectors=vectors, loss=loss, decay=float(decay))


def split_dead_codes(
    params: Params, vectors: quantizer.Codebook, target: Params, least: Number, decay: Number
) -> Params:
    """The targets of ``batch_means``, but dead entries and much used entries each share the vectors of the latter.

    The i-th least used entry, if it is dead, is paired with the i-th most used entry. Descent of rate 1 - γ takes both
    to half of the share, and the dead entry to a place beside the used one.

    Args:
      params: running means.
      vectors: entries [k d].
      target: n and Σ z of the batch.
      least: share below which an entry is dead.
      decay: γ.
    """
    share, size = params["share"], params["share"].shape[0]
    order = jnp.argsort(-share)
    used, dead = order[: size // 2], order[::-1][: size // 2]
    is_split = (share[dead] < least) & (share[used] > 2 * least)
    offset = 0.01 * jax.random.normal(jax.random.key(0), vectors.shape, vectors.dtype)[dead]  # any fixed directions
    beside = vectors[used] * (1 + offset)
    half = share[used] / 2

    def move(entries: Int[Array, " m"], p: Array, value: Array, target: Array) -> Array:
        """Set the target of the entries that are split, so that descent from p lands on the value.

        Descent of rate 1 - γ lands on p - (1 - γ) (p - t); solved for t.
        """
        there = p[entries] - (p[entries] - value) / (1 - decay)
        chosen = is_split.reshape(-1, *[1] * (p.ndim - 1))
        return target.at[entries].set(jnp.where(chosen, there, target[entries]))

    new_share = move(used, share, half, move(dead, share, half, target["share"]))
    new_sum = move(dead, params["sum"], half[:, None] * beside, target["sum"])
    return {"share": new_share, "sum": move(used, params["sum"], half[:, None] * vectors[used], new_sum)}


def _random_entries(key: Key, size: int, num_features: int) -> quantizer.Codebook:
    return jax.random.normal(key, (size, num_features)) / num_features**0.5


def _check_size(size: int) -> None:
    if size < 1:
        raise ValueError(f"size: expected a codebook of at least 1 entry, got {size}")
