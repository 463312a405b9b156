"""Vector quantisation: the nearest entry of a codebook, and gradients past it (van den Oord et al. 2017, §3)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Codebook = Float[Array, "k d"]
"""k vectors."""


def nearest(codebook: Codebook, z: Float[Array, "*b d"]) -> Int[Array, "*b"]:
    """argmin_k |z - e_k|², the first of equals (van den Oord et al. 2017, eq. 1).

    From |z|² - 2 z·e + |e|², without |z|², which is the same for all k.
    """
    scores = jnp.matmul(z, codebook.T, precision="highest") - jnp.sum(codebook**2, -1) / 2
    return jnp.argmax(scores, -1)


def straight_through(z: Float[Array, "*b d"], quantized: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """The value of ``quantized`` with the gradient of z: ∂L/∂z is ∂L/∂quantized, bit for bit (Bengio et al. 2013)."""
    return _pass(z, quantized)


@jax.custom_vjp
def _pass(z, quantized):
    return quantized


_pass.defvjp(lambda z, quantized: (quantized, None), lambda _, gradient: (gradient, jnp.zeros_like(gradient)))


def usage(indices: Int[Array, "..."], size: int) -> Float[Array, " k"]:
    """The share of each entry among the indices."""
    return jnp.bincount(indices.reshape(-1), length=size) / indices.size
