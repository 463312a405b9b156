"""Predictions of a network (ε, x_0, v or the score), and the conversions between them.

x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε ties image and noise together, so any one of ε, x_0, v and the score determines both.
Samplers and objectives work on the pair (x_0, ε).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from genjax import checks
from genjax.diffusion.schedules import Schedule, Times, at

Arrays = Float[Array, "b ..."]


class Prediction(NamedTuple):
    """Predicted image and noise in x_t.

    Attributes:
      x0: x̂_0, the image.
      noise: ε̂, the noise.
      variance_interpolation: v of the reverse step's variance, log σ² = v log β_t + (1 - v) log β̃_t (Nichol & Dhariwal
        2021, eq. 15); None where the variance is fixed.
    """

    x0: Arrays
    noise: Arrays
    variance_interpolation: Arrays | None = None


ToPrediction = Callable[[Schedule, Arrays, Arrays, Times], Prediction]
"""``(schedule, output of a network, x_t, t) -> Prediction``: ``from_noise``, ``from_x0``, ``from_v``, ..."""


Predict = Callable[[Arrays, Int[Array, " b"]], Prediction]
"""``(x_t, t) -> Prediction``."""


def to_prediction(schedule: Schedule, output: Arrays | Prediction, x_t: Arrays, t: Times) -> Prediction:
    """Return a denoiser's output as a ``Prediction``; an array is taken as the noise."""
    return output if isinstance(output, Prediction) else from_noise(schedule, output, x_t, t)


def with_learned_variance(inner: ToPrediction) -> ToPrediction:
    """Extend ``inner`` to a network with twice the channels, whose second half is the learned variance.

    The second half u in [-1, 1] gives v = (u + 1)/2, the ``variance_interpolation``.

    Raises:
      ValueError: an odd number of channels, when the result is called.
    """

    def convert(schedule: Schedule, output: Arrays, x_t: Arrays, t: Times) -> Prediction:
        if output.shape[-1] % 2:
            raise ValueError(f"output: expected twice the channels of an image, got {output.shape[-1]}")
        mean, variance = jnp.split(output, 2, -1)
        return inner(schedule, mean, x_t, t)._replace(variance_interpolation=(variance + 1) / 2)

    return convert


def from_noise(schedule: Schedule, noise: Arrays, x_t: Arrays, t: Times) -> Prediction:
    """Predict from ε: x_0 = (x_t - √(1 - ᾱ_t) ε) / √ᾱ_t (Ho et al. 2020, eq. 4 solved for x_0).

    Raises:
      ValueError: nothing of the image is left at one of the times, or may be if the times are traced.
    """
    empty = schedule.zero_snr_times
    if empty.size and (not checks.is_concrete(t) or np.isin(t, empty).any()):
        raise ValueError(
            f"noise: nothing of the image is left at time {empty[0]}, ᾱ = 0, so noise (or the score) does not tell x_0 "
            "there; let the network predict v or x_0, as from_v and from_x0 read them"
        )
    return Prediction(
        (x_t - at(schedule.sqrt_one_minus_alpha_bar, t, x_t) * noise) / at(schedule.sqrt_alpha_bar, t, x_t), noise
    )


def from_x0(schedule: Schedule, x0: Arrays, x_t: Arrays, t: Times) -> Prediction:
    """Predict from x_0: ε = (x_t - √ᾱ_t x_0) / √(1 - ᾱ_t)."""
    return Prediction(
        x0, (x_t - at(schedule.sqrt_alpha_bar, t, x_t) * x0) / at(schedule.sqrt_one_minus_alpha_bar, t, x_t)
    )


def from_v(schedule: Schedule, v: Arrays, x_t: Arrays, t: Times) -> Prediction:
    """Predict from v: x_0 = √ᾱ_t x_t - √(1 - ᾱ_t) v,  ε = √(1 - ᾱ_t) x_t + √ᾱ_t v (Salimans & Ho 2022, App. D)."""
    alpha, sigma = at(schedule.sqrt_alpha_bar, t, x_t), at(schedule.sqrt_one_minus_alpha_bar, t, x_t)
    return Prediction(alpha * x_t - sigma * v, sigma * x_t + alpha * v)


def from_score(schedule: Schedule, score: Arrays, x_t: Arrays, t: Times) -> Prediction:
    """Predict from the score: ε = -√(1 - ᾱ_t) ∇ log q(x_t) (Vincent 2011; Song et al. 2021)."""
    return from_noise(schedule, -at(schedule.sqrt_one_minus_alpha_bar, t, x_t) * score, x_t, t)


def to_v(schedule: Schedule, prediction: Prediction, t: Times) -> Arrays:
    """Convert to v = √ᾱ_t ε - √(1 - ᾱ_t) x_0 (Salimans & Ho 2022, §4)."""
    x0 = prediction.x0
    return at(schedule.sqrt_alpha_bar, t, x0) * prediction.noise - at(schedule.sqrt_one_minus_alpha_bar, t, x0) * x0


def to_score(schedule: Schedule, prediction: Prediction, t: Times) -> Arrays:
    """Convert to the score, ∇ log q(x_t) = -ε / √(1 - ᾱ_t)."""
    return -prediction.noise / at(schedule.sqrt_one_minus_alpha_bar, t, prediction.noise)
