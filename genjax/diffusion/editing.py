"""Given images changed by a reverse chain: filled in, redrawn from a rough one, mixed."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from genjax import random
from genjax.diffusion.grids import Grid
from genjax.diffusion.samplers import Clip, Denoise, Sample, chain, look
from genjax.types import Key

Arrays = Float[Array, "b ..."]


def repaint(
    denoise: Denoise,
    grid: Grid,
    images: Arrays,
    known: Array,
    *,
    resample: int = 1,
    jump: int = 1,
    clip: Clip = True,
) -> Sample:
    """Fill in what is not known (Lugmayr et al. 2022, Algorithm 1): one evaluation per scan step.

    x_s = m (α_s x_0 + σ_s z) + (1 - m) x'_s, where x'_s is an ancestral step (small variance) from x_t. After every
    ``jump`` steps but the last the chain is noised back by as many and repeated, ``resample`` - 1 times over; ``keep``
    counts every step walked.

    Args:
      denoise: ``(x_t, t) -> ε``.
      grid: of K steps.
      images: x_0 [b ...], used where known.
      known: m, 1 or True where the image is known; of a shape that broadcasts to the images'.
      resample: r >= 1, how often each stretch is walked. About r K evaluations.
      jump: j in 1 to K, the length of a stretch.
      clip: clip x̂_0 to [-1, 1], or a function of x̂_0.

    Raises:
      ValueError: a mask that does not fit the images, ``resample`` or ``jump`` out of range.
    """
    try:
        fits = np.broadcast_shapes(known.shape, images.shape) == images.shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"known: expected a shape that broadcasts to the images' {images.shape}, got {known.shape}")
    if resample < 1 or not 1 <= jump <= grid.num_steps:
        raise ValueError(f"expected resample >= 1 and jump in 1 to {grid.num_steps}, got {resample} and {jump}")
    came, now = travel(grid.num_steps, jump, resample)
    back, here, after = (Grid(*(table[i] for table in grid)) for i in (came, now, now + 1))
    lift = here.signal / back.signal
    again = (here.noise**2 - (lift * back.noise) ** 2).clip(0) ** 0.5
    fade = here.signal / after.signal
    variance = (after.noise / here.noise) ** 2 * (here.noise**2 - (fade * after.noise) ** 2)
    steps = (lift, again), here, after, (after.noise**2 - variance).clip(0) ** 0.5, variance**0.5

    def kernel(keys, x, step):
        (lift, again), here, after, direction, deviation = step
        up, down, seen = (random.normal(k, x.shape[1:], x.dtype) for k in random.split(keys, 3))
        x = lift * x + again * up
        guess = look(denoise, x, here.time, here.signal, here.noise, clip)
        drawn = after.signal * guess.x0 + direction * guess.noise + deviation * down
        return jnp.where(known, after.signal * images + after.noise * seen, drawn), None

    return chain(kernel, steps)


def travel(num_steps: int, jump: int, resample: int) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """For each step of ``repaint``: the place the chain is at, and the noisier or same place it steps down from.

    >>> [places.tolist() for places in travel(4, 2, 2)]
    [[0, 1, 2, 1, 2, 3], [0, 1, 0, 1, 2, 3]]
    """
    came, now = [], []
    for first in range(0, num_steps, jump):
        last = min(first + jump, num_steps)
        for turn in range(resample if last < num_steps else 1):
            stretch = list(range(first, last))
            came += [last if turn else first, *stretch[1:]]
            now += stretch
    return np.array(came), np.array(now)


def sdedit(sampler: Callable[[Grid], Sample], grid: Grid, strength: float) -> Sample:
    """Redraw given images (Meng et al. 2022, Algorithm 1): noise them to a place on the way and sample from there.

    x = α x_0 + σ z at the place that leaves round(strength · K) steps to do. The result's x_T is the images.

    Args:
      sampler: makes the chain on what is left of the grid, as ``lambda grid: implicit(denoise, grid)``.
      grid: of K steps.
      strength: 0 gives the images back; 1 keeps of them only what the first place does.

    Raises:
      ValueError: ``strength`` outside [0, 1].
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength: expected 0 (nothing changes) to 1 (all steps), got {strength:g}")
    left = round(strength * grid.num_steps)
    rest = Grid(*(table[grid.num_steps - left :] for table in grid))
    run = sampler(rest) if left else chain(lambda keys, x, step: (x, None), np.zeros(0))

    def sample(key: Key, x_T: Arrays, keep: Sequence[int] | None = None, *, segment: int | None = None):
        noise_keys, chain_keys = random.split(random.per_example(key, x_T.shape[0]), 2)
        noise = random.normal(noise_keys, x_T.shape[1:], x_T.dtype)
        signal, deviation = (jnp.asarray(table[0], x_T.dtype) for table in (rest.signal, rest.noise))
        return run(chain_keys, signal * x_T + deviation * noise if left else x_T, keep, segment=segment)

    return sample


def slerp(start: Arrays, end: Arrays, share: float | Float[Array, ""]) -> Arrays:
    """[sin((1 - s) θ) a + sin(s θ) b] / sin θ, θ the angle of a and b, per image (Shoemake 1985).

    Noises of length √n stay at that length, where a straight line would cut the corner. Parallel ones: straight.
    """
    axes = tuple(range(1, start.ndim))
    dot = lambda a, b: jnp.sum(a * b, axis=axes, keepdims=True)
    cosine = dot(start, end) / jnp.sqrt(dot(start, start) * dot(end, end))
    straight = jnp.abs(cosine) > 1 - 1e-6
    angle = jnp.arccos(jnp.where(straight, 0.0, cosine))
    bent = (jnp.sin((1 - share) * angle) * start + jnp.sin(share * angle) * end) / jnp.sin(angle)
    return jnp.where(straight, (1 - share) * start + share * end, bent)
