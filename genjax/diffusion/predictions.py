"""What a network may predict, and how each reads as the others.

x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε ties image and noise together, so any one of ε, x_0, v and the score tells both.
Samplers and objectives work on the pair.
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
    """A guess of the image x_0 and of the noise ε that make up x_t.

    Fields:
      x0: the image.
      noise: ε.
      fraction: where between the least variance of the reverse step and the largest, in logarithms: 0 is β̃_t, 1 is β_t
        (Nichol & Dhariwal 2021, eq. 15); None where the variance is fixed.
    """

    x0: Arrays
    noise: Arrays
    fraction: Arrays | None = None


Read = Callable[[Schedule, Arrays, Arrays, Times], Prediction]
"""``(schedule, output of a network, x_t, t) -> Prediction``: ``from_noise``, ``from_x0``, ``from_v``, ..."""


Predict = Callable[[Arrays, Int[Array, " b"]], Prediction]
"""``(x_t, t) -> Prediction``."""


def read(schedule: Schedule, output: Arrays | Prediction, x_t: Arrays, t: Times) -> Prediction:
    """What a denoiser said: a ``Prediction`` as it is, anything else as the noise."""
    return output if isinstance(output, Prediction) else from_noise(schedule, output, x_t, t)


def with_fraction(inner: Read) -> Read:
    """For a network with twice the channels: the second half, from -1 to 1, tells the ``fraction``."""

    def both(schedule: Schedule, output: Arrays, x_t: Arrays, t: Times) -> Prediction:
        if output.shape[-1] % 2:
            raise ValueError(f"output: expected twice the channels of an image, got {output.shape[-1]}")
        first, second = jnp.split(output, 2, -1)
        return inner(schedule, first, x_t, t)._replace(fraction=(second + 1) / 2)

    return both


def from_noise(schedule: Schedule, noise: Arrays, x_t: Arrays, t: Times) -> Prediction:
    """x_0 = (x_t - √(1 - ᾱ_t) ε) / √ᾱ_t (Ho et al. 2020, eq. 4 solved for x_0).

    Raises:
      ValueError: nothing of the image is left at a time, or may be where times are traced.
    """
    if (faint := schedule.faint).size and (not checks.is_concrete(t) or np.isin(t, faint).any()):
        raise ValueError(
            f"noise: nothing of the image is left at time {faint[0]}, ᾱ = 0, so noise (or the score) does not tell x_0 "
            "there; let the network predict v or x_0, as from_v and from_x0 read them"
        )
    return Prediction((x_t - at(schedule.noise, t, x_t) * noise) / at(schedule.signal, t, x_t), noise)


def from_x0(schedule: Schedule, x0: Arrays, x_t: Arrays, t: Times) -> Prediction:
    """ε = (x_t - √ᾱ_t x_0) / √(1 - ᾱ_t)."""
    return Prediction(x0, (x_t - at(schedule.signal, t, x_t) * x0) / at(schedule.noise, t, x_t))


def from_v(schedule: Schedule, v: Arrays, x_t: Arrays, t: Times) -> Prediction:
    """x_0 = √ᾱ_t x_t - √(1 - ᾱ_t) v,  ε = √(1 - ᾱ_t) x_t + √ᾱ_t v (Salimans & Ho 2022, App. D)."""
    signal, noise = at(schedule.signal, t, x_t), at(schedule.noise, t, x_t)
    return Prediction(signal * x_t - noise * v, noise * x_t + signal * v)


def from_score(schedule: Schedule, score: Arrays, x_t: Arrays, t: Times) -> Prediction:
    """ε = -√(1 - ᾱ_t) ∇ log q(x_t) (Vincent 2011; Song et al. 2021)."""
    return from_noise(schedule, -at(schedule.noise, t, x_t) * score, x_t, t)


def to_v(schedule: Schedule, prediction: Prediction, t: Times) -> Arrays:
    """v = √ᾱ_t ε - √(1 - ᾱ_t) x_0 (Salimans & Ho 2022, §4)."""
    x0 = prediction.x0
    return at(schedule.signal, t, x0) * prediction.noise - at(schedule.noise, t, x0) * x0


def to_score(schedule: Schedule, prediction: Prediction, t: Times) -> Arrays:
    """∇ log q(x_t) = -ε / √(1 - ᾱ_t)."""
    return -prediction.noise / at(schedule.noise, t, prediction.noise)
