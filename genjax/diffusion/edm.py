"""The design of Karras et al. 2022 (arXiv:2206.00364): a network told σ, which sees and says numbers of size one.

x = x_0 + σ ε, α = 1; D(x, σ) = c_skip x + c_out F(c_in x, c_noise) estimates x_0 (eq. 7). Samplers run it on
``grids.karras``; ``samplers.variance_preserving`` makes it a process of T steps.
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


def precondition(network: Network, deviation: float | Scalar) -> Callable[[Arrays, Sigmas], Prediction]:
    """The denoiser ``(x, σ) -> Prediction`` made of F (Karras et al. 2022, Table 1).

    c_skip = s²/(σ² + s²), c_out = σ s/√(σ² + s²), c_in = 1/√(σ² + s²), c_noise = ¼ log σ

    Args:
      network: F.
      deviation: s, the standard deviation of the data.

    Raises:
      ValueError: a deviation that is not positive and finite.
    """
    checks.positive("deviation", deviation)

    def denoise(x: Arrays, sigma: Sigmas) -> Prediction:
        wide = sigma.reshape(-1, *[1] * (x.ndim - 1))
        total = jnp.hypot(wide, deviation)  # no square overflows
        share = deviation / total
        x0 = share**2 * x + wide * share * network(x / total, 0.25 * jnp.log(sigma))
        return Prediction(x0, (x - x0) / wide)

    return denoise


def weight(sigma: Sigmas, deviation: float | Scalar) -> Sigmas:
    """λ(σ) = (σ² + s²)/(σ s)², which makes the error of F count alike at every σ (Table 1).

    Raises:
      ValueError: σ or a deviation that is not positive and finite.
    """
    checks.positive("sigma", sigma)
    checks.positive("deviation", deviation)
    return 1 / deviation**2 + 1 / sigma**2  # which no square overflows
