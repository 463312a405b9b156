"""Editing with a reverse chain: images filled in, redrawn from a rough one, or mixed."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from genjax import checks, random
from genjax.diffusion.chains import Sample, Sampler, make_sampler
from genjax.diffusion.grids import Grid, PartialGrid
from genjax.diffusion.samplers import Clip, Denoise, evaluate_denoiser, prepare
from genjax.diffusion.schedules import root
from genjax.types import Key

Arrays = Float[Array, "b ..."]


def repaint(
    denoise: Denoise,
    grid: Grid,
    images: ArrayLike,
    known: ArrayLike,
    *,
    resample: int = 1,
    jump: int = 1,
    clip: Clip = True,
) -> Sampler:
    """Make the chain that fills in unknown pixels (Lugmayr et al. 2022, Algorithm 1), one evaluation per step.

    x_s = m (α_s x_0 + σ_s z) + (1 - m) x'_s, where x'_s is an ancestral step (small variance) from x_t. Every ``jump``
    steps but the last, the chain is noised back by as many steps and repeated, ``resample`` - 1 times over. The steps
    of the sampler include the repetitions.

    Args:
      denoise: denoiser, ``(x_t, cond) -> ε`` or a ``Prediction``.
      grid: the grid of K steps.
      images: x_0 [b ...], used where known.
      known: the mask m, in a shape that broadcasts to the images': 1 or True for known pixels, 0 or False for unknown
        ones; a number between blends.
      resample: r >= 1, the number of times that each stretch is sampled; about r K evaluations.
      jump: j in 1 to K, the length of a stretch.
      clip: clipping of x̂_0; True clips to [-1, 1].

    Raises:
      ValueError: the mask does not fit the images or is not in [0, 1]; images are not of floating point, or not finite
        where known; ``resample`` or ``jump`` is out of range; or see ``samplers.prepare``.
    """
    checks.floating("images", images, "genjax.data.scale makes them of bytes")
    checks.within("known", known, 0, 1)
    images, known = jnp.asarray(images), jnp.asarray(known)
    mask = known.astype(jnp.promote_types(images.dtype, jnp.float32))
    try:
        fits = np.broadcast_shapes(known.shape, images.shape) == images.shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"known: expected a shape that broadcasts to the images' {images.shape}, got {known.shape}")
    images = jnp.where(mask > 0, images, 0)
    checks.finite("images", images)
    denoise = prepare(denoise, grid)
    checks.count("resample", resample)
    checks.count("jump", jump, 1, grid.num_steps)
    previous_index, index = resample_schedule(grid.num_steps, jump, resample)
    previous, here, after = (Grid(*(table[i] for table in grid)) for i in (previous_index, index, index + 1))
    forward = previous_index == index  # no noise is added back; α may be 0 there
    back_scale = np.where(forward, 1, here.alpha / np.where(forward, 1, previous.alpha))
    back_std = root((here.sigma**2 - (back_scale * previous.sigma) ** 2).clip(0))
    ratio = here.alpha / after.alpha
    variance = (after.sigma / here.sigma) ** 2 * (here.sigma**2 - (ratio * after.sigma) ** 2)
    places = back_scale, back_std, here, after, root((after.sigma**2 - variance).clip(0)), root(variance)

    def step(keys: Key, x: Arrays, place: tuple[Any, ...]) -> Arrays:
        back_scale, back_std, here, after, direction, std = place
        back_noise, step_noise, known_noise = (random.normal(k, x.shape[1:], x.dtype) for k in random.split(keys, 3))
        x = back_scale * x + back_std * back_noise
        x0, noise, _ = evaluate_denoiser(denoise, x, here, clip)
        unknown_part = after.alpha * x0 + direction * noise + std * step_noise
        known_part = (after.alpha * images + after.sigma * known_noise).astype(x.dtype)
        mixed = jnp.where(mask > 0, mask * known_part + (1 - mask) * unknown_part, unknown_part)
        return mixed.astype(x.dtype)

    return make_sampler(step, places)


def resample_schedule(num_steps: int, jump: int, resample: int) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Compute the walk of ``repaint`` on the grid, for each of its steps.

    >>> [indices.tolist() for indices in resample_schedule(4, 2, 2)]
    [[0, 1, 2, 1, 2, 3], [0, 1, 0, 1, 2, 3]]

    Args:
      num_steps: K, the steps of the grid.
      jump: the length of a stretch.
      resample: the number of times that each stretch is sampled.

    Returns:
      The index of the place where the chain is, and the index of the noisier or same place that the step starts from.
    """
    previous, current = [], []
    for first in range(0, num_steps, jump):
        last = min(first + jump, num_steps)
        for turn in range(resample if last < num_steps else 1):
            stretch = list(range(first, last))
            previous += [last if turn else first, *stretch[1:]]
            current += stretch
    return np.array(previous), np.array(current)


def sdedit(sampler: Callable[[Grid], Sample], grid: Grid, strength: float) -> Sample:
    """Make SDEdit (Meng et al. 2022, Algorithm 1): noise given images to a place of the grid and sample from there.

    x = α x_0 + σ z at the place with round(strength · K) steps left. ``x_T`` of the result is the images x_0.

    Args:
      sampler: maker of the chain on the rest of the grid, as ``lambda grid: ddim_on_grid(denoise, grid)``. Its argument
        is a ``grids.PartialGrid``, which gives no ``StartWarning``.
      grid: the grid of K steps.
      strength: share of the steps in [0, 1]; 0 returns the images, 1 keeps only what is left of them at the first
        place.

    Raises:
      ValueError: ``strength`` is outside [0, 1], or above 0 but less than one of the K steps.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength: expected 0 (nothing changes) to 1 (all steps), got {strength:g}")
    steps_left = round(strength * grid.num_steps)
    if strength and not steps_left:
        raise ValueError(
            f"strength: {strength:g} of {grid.num_steps} steps is none, and the images would come back as they are; "
            f"give 0 for that, or at least {1 / grid.num_steps:.3g}, or a grid of more steps"
        )
    rest = PartialGrid(*(table[grid.num_steps - steps_left :] for table in grid))
    run = sampler(rest) if steps_left else make_sampler(lambda keys, x, place: x, np.zeros(0))

    def sample(key: Key, x_T: ArrayLike, keep: Sequence[int] | None = None, *, segment: int | None = None) -> Any:
        checks.floats("x_T", x_T)
        x_T = jnp.asarray(x_T, jnp.promote_types(jnp.asarray(x_T).dtype, jnp.float32))
        noise_keys, chain_keys = random.split(random.example_keys(key, x_T.shape[0]), 2)
        noise = random.normal(noise_keys, x_T.shape[1:], x_T.dtype)
        alpha, sigma = (jnp.asarray(table[0], x_T.dtype) for table in (rest.alpha, rest.sigma))
        return run(chain_keys, alpha * x_T + sigma * noise if steps_left else x_T, keep, segment=segment)

    return sample


def slerp(start: ArrayLike, end: ArrayLike, fraction: float | Float[Array, ""]) -> Arrays:
    """Interpolate on the sphere: [sin((1 - s) θ) a + sin(s θ) b] / sin θ, θ the angle of a and b (Shoemake 1985).

    Noises of length √n keep their length, which a straight line would shorten. The interpolation is straight if there
    is no unique arc: for parallel and opposite vectors, and if one is 0.

    Args:
      start: a [b ...].
      end: b [b ...].
      fraction: s, in [0, 1].

    Raises:
      ValueError: the arrays differ in shape, are not of floating point, or not finite; or ``fraction`` is outside
        [0, 1].
    """
    checks.floats("start", start)
    checks.floats("end", end)
    checks.within("fraction", fraction, 0, 1)
    start, end = jnp.asarray(start), jnp.asarray(end)
    if start.shape != end.shape:
        raise ValueError(f"start, end: expected one shape, got {start.shape} and {end.shape}")
    axes = tuple(range(1, start.ndim))
    widen = lambda a: a.astype(jnp.promote_types(a.dtype, jnp.float32))
    rescale = lambda a: _ratio(a, jnp.max(jnp.abs(a), axis=axes, keepdims=True))  # no square over- or underflows
    a, b = rescale(widen(start)), rescale(widen(end))
    dot = lambda a, b: jnp.sum(a * b, axis=axes, keepdims=True)
    lengths = jnp.asarray(root(dot(a, a) * dot(b, b)))
    cosine = _ratio(dot(a, b), lengths)
    straight = (jnp.abs(cosine) > 1 - 1e-6) | (lengths == 0)
    angle = jnp.arccos(jnp.where(straight, 0.0, cosine))
    arc = (jnp.sin((1 - fraction) * angle) * start + jnp.sin(fraction * angle) * end) / jnp.sin(angle)
    return jnp.where(straight, (1 - fraction) * start + fraction * end, arc).astype(jnp.result_type(start, end))


def _ratio(a: Array, b: Array) -> Array:
    """a/b; 0 with slope 0 if b is 0."""
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)
