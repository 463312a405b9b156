"""Preconditioning of Karras et al. 2022 (arXiv:2206.00364): a network of unit input and output, conditioned on σ.

x = x_0 + σ ε, α = 1; D(x, σ) = c_skip x + c_out F(c_in x, c_noise) estimates x_0 (eq. 7). Samplers run D on
``grids.karras``; ``samplers.variance_preserving`` turns D into the denoiser of a process of T steps.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from genjax import checks
from genjax.diffusion.predictions import Prediction
from genjax.types import Scalar

Arrays = Float[Array, "b ..."]
Sigmas = Float[Array, " b"]
Network = Callable[[Arrays, Sigmas], Arrays]
"""``F(c_in x, c_noise) -> output`` of unit size."""


def precondition(network: Network, sigma_data: float | Scalar) -> Callable[[Arrays, Sigmas], Prediction]:
    """Make the denoiser ``(x, σ) -> Prediction`` from F (Karras et al. 2022, Table 1).

    c_skip = s²/(σ² + s²), c_out = σ s/√(σ² + s²), c_in = 1/√(σ² + s²), c_noise = ¼ log σ

    Args:
      network: F.
      sigma_data: s, the standard deviation of the data.

    Raises:
      ValueError: ``sigma_data`` is not positive and finite.
    """
    checks.positive("sigma_data", sigma_data)

    def denoise(x: Arrays, sigma: Sigmas) -> Prediction:
        scale = sigma.reshape(-1, *[1] * (x.ndim - 1))
        total = jnp.hypot(scale, sigma_data)  # no square overflows
        share = sigma_data / total
        x0 = share**2 * x + scale * share * network(x / total, 0.25 * jnp.log(sigma))
        return Prediction(x0, (x - x0) / scale)

    return denoise


def weight(sigma: Sigmas, sigma_data: float | Scalar) -> Sigmas:
    """Compute the loss weight λ(σ) = (σ² + s²)/(σ s)², which weights the error of F equally at every σ (Table 1).

    Args:
      sigma: σ [b].
      sigma_data: s, the standard deviation of the data.

    Raises:
      ValueError: ``sigma`` or ``sigma_data`` is not positive and finite.
    """
    checks.positive("sigma", sigma)
    checks.positive("sigma_data", sigma_data)
    return 1 / sigma_data**2 + 1 / sigma**2  # no square overflows
