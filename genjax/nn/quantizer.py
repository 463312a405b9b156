"""Vector quantisation: the nearest entry of a codebook, and gradients past it (van den Oord et al. 2017, §3)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from genjax import checks

Codebook = Float[Array, "k d"]
"""k vectors."""


def nearest(codebook: Codebook, z: Shaped[Array, "*b e"]) -> Int[Array, "*b"]:
    """argmin_k |z - e_k|², the first of equals (van den Oord et al. 2017, eq. 1).

    The differences are squared and summed in one pass. The form |z|² - 2 z·e + |e|² would lose in rounding whatever is
    small beside |z|², such as the distances between vectors far from 0 and close together.

    Raises:
      ValueError: there is no entry, or vectors are not finite numbers or have another length than entries.
    """
    checks.min_rows("codebook", codebook)
    checks.floating("z", z)
    checks.finite("codebook", codebook)
    checks.finite("z", z)
    if z.shape[-1] != codebook.shape[-1]:
        raise ValueError(f"z: expected vectors of {codebook.shape[-1]} numbers, as the entries are, got {z.shape[-1]}")
    return _nearest(codebook, z)


@jax.jit  # without jit the differences would be held in memory
def _nearest(codebook: Codebook, z: Shaped[Array, "*b e"]) -> Int[Array, "*b"]:
    wide = jnp.promote_types(jnp.promote_types(codebook.dtype, z.dtype), jnp.float32)
    differences = z[..., None, :].astype(wide) - codebook.astype(wide)
    return jnp.argmin(jnp.sum(jnp.square(differences), -1), -1)


def straight_through(z: Float[Array, "*b d"], quantized: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """The value of ``quantized`` with the gradient of z: ∂L/∂z is ∂L/∂quantized, bit for bit (Bengio et al. 2013)."""
    return _pass(z, quantized)


@jax.custom_vjp
def _pass(z: Float[Array, "*b d"], quantized: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    return quantized


_pass.defvjp(lambda z, quantized: (quantized, None), lambda _, gradient: (gradient, jnp.zeros_like(gradient)))


def usage(indices: Shaped[Array, "..."], size: int) -> Float[Array, " k"]:
    """The share of each entry among the indices.

    Raises:
      ValueError: there is no index, or one is not among the entries.
    """
    checks.count("size", size)
    checks.integers("indices", indices, 0, size)
    checks.min_rows("indices", indices.reshape(-1))
    return jnp.bincount(indices.reshape(-1), length=size) / indices.size
