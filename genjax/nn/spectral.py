"""Layers of spectral norm one (Miyato et al. 2018), with the running vector among the parameters.

W̄ = W / σ, σ = vᵀ W u', where v and u' are one step of power iteration from u: v ∝ W u, u' ∝ Wᵀ v. The step from u to
u' is no gradient step, but the loss ½ |u - u'|² and gradient descent of rate 1 also take u to u', so that the state of
a network is still its parameters: a layer sows this loss as ``aux_loss``, and the field ``optimizer`` of ``models.gan``
descends it.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from genjax import checks
from genjax.nn import convolution
from genjax.types import Images

Kernel = Float[Array, "*inputs outputs"]


class Dense(nn.Module):
    """``flax.linen.Dense`` with its kernel divided by its largest singular value."""

    features: int

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        checks.count("features", self.features)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "b i"]) -> Float[Array, "b o"]:
        """Apply to vectors [b i]."""
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return x @ normalised(self, kernel) + bias


class Conv(nn.Module):
    """``convolution.Conv``, its kernel divided by its largest singular value as a matrix from patches to channels."""

    features: int
    kernel_size: tuple[int, int]
    strides: int = 1
    padding: Any = "SAME"

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        checks.count("features", self.features)
        checks.counts("kernel_size", self.kernel_size, length=2)
        checks.count("strides", self.strides)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "b h2 w2 o"]:
        """Convolve images [b h w c]."""
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return convolution.conv(x, normalised(self, kernel), self.strides, self.padding) + bias


def normalised(module: nn.Module, kernel: Kernel) -> Kernel:
    """The kernel over its running largest singular value, and 0 for a kernel of 0; to be called once in a layer."""
    matrix = kernel.reshape(-1, kernel.shape[-1])
    u = module.param("u", _unit_normal, (kernel.shape[-1],))
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(matrix), initial=0))
    root = jnp.sqrt(jnp.where(largest > 0, largest, 1))  # twice its root: 1 / largest may be below the range of floats
    matrix, kernel = matrix / root / root, kernel / root / root  # so that no square of W leaves it
    v, next_u = power_iteration(jax.lax.stop_gradient(matrix), jax.lax.stop_gradient(u))
    module.sow("aux_loss", "u", 0.5 * jnp.sum((u - next_u) ** 2))
    sigma = v @ matrix @ next_u
    return kernel / jnp.where(sigma > 0, sigma, 1)


def power_iteration(
    matrix: Float[Array, "i o"], u: Float[Array, " o"]
) -> tuple[Float[Array, " i"], Float[Array, " o"]]:
    """v ∝ W u and u' ∝ Wᵀ v, of unit length: towards the first singular vectors (Miyato et al. 2018, algorithm 1)."""
    v = _unit(matrix @ u)
    next_u = _unit(matrix.T @ v)
    return v, jnp.where(jnp.any(next_u != 0), next_u, u)  # every vector is a singular vector of W = 0


def _unit(x: Float[Array, " n"]) -> Float[Array, " n"]:
    """x / |x|, and 0 for x = 0; x is scaled first, so that squares neither vanish nor overflow."""
    largest = jnp.max(jnp.abs(x), initial=0)
    root = jnp.sqrt(jnp.where(largest > 0, largest, 1))
    x = x / root / root
    return x / jnp.maximum(jnp.linalg.norm(x), 1e-12)


_unit_normal: Callable = lambda key, shape: _unit(jax.random.normal(key, shape))
