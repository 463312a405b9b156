"""Given images changed by a reverse chain: filled in, redrawn from a rough one, mixed."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from genjax import checks, random
from genjax.diffusion.grids import Grid, PartialGrid
from genjax.diffusion.samplers import Clip, Denoise, Sample, begin, chain, evaluate_denoiser
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
) -> Sample:
    """Fill in what is not known (Lugmayr et al. 2022, Algorithm 1): one evaluation per scan step.

    x_s = m (α_s x_0 + σ_s z) + (1 - m) x'_s, where x'_s is an ancestral step (small variance) from x_t. After every
    ``jump`` steps but the last the chain is noised back by as many and repeated, ``resample`` - 1 times over; ``keep``
    counts every step walked.

    Args:
      denoise: ``(x_t, t) -> ε``.
      grid: of K steps.
      images: x_0 [b ...], used where known.
      known: m, 1 or True where the image is known, 0 or False where not, between them a blend; of a shape that
        broadcasts to the images'.
      resample: r >= 1, how often each stretch is walked. About r K evaluations.
      jump: j in 1 to K, the length of a stretch.
      clip: clip x̂_0 to [-1, 1], or a function of x̂_0.

    Raises:
      ValueError: a mask that does not fit the images or is not in [0, 1]; images that are not of floating point, or
        not finite where known; ``resample`` or ``jump`` out of range; or see ``samplers.begin``.
    """
    checks.floating("images", images, "genjax.data.scale makes them of bytes")
    checks.within("known", known, 0, 1)
    images, known = jnp.asarray(images), jnp.asarray(known)
    share = known.astype(jnp.promote_types(images.dtype, jnp.float32))
    try:
        fits = np.broadcast_shapes(known.shape, images.shape) == images.shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"known: expected a shape that broadcasts to the images' {images.shape}, got {known.shape}")
    images = jnp.where(share > 0, images, 0)
    checks.finite("images", images)
    denoise = begin(denoise, grid)
    checks.count("resample", resample)
    checks.count("jump", jump, 1, grid.num_steps)
    came, now = resample_schedule(grid.num_steps, jump, resample)
    back, here, after = (Grid(*(table[i] for table in grid)) for i in (came, now, now + 1))
    still = came == now  # nothing is noised back; α may be 0 there
    lift = np.where(still, 1, here.alpha / np.where(still, 1, back.alpha))
    again = root((here.sigma**2 - (lift * back.sigma) ** 2).clip(0))
    fade = here.alpha / after.alpha
    variance = (after.sigma / here.sigma) ** 2 * (here.sigma**2 - (fade * after.sigma) ** 2)
    steps = (lift, again), here, after, root((after.sigma**2 - variance).clip(0)), root(variance)

    def kernel(keys, x, step):
        (lift, again), here, after, direction, deviation = step
        up, down, seen = (random.normal(k, x.shape[1:], x.dtype) for k in random.split(keys, 3))
        x = lift * x + again * up
        guess = evaluate_denoiser(denoise, x, here.cond, here.alpha, here.sigma, clip)
        drawn = after.alpha * guess.x0 + direction * guess.noise + deviation * down
        told = (after.alpha * images + after.sigma * seen).astype(x.dtype)
        return jnp.where(share > 0, share * told + (1 - share) * drawn, drawn).astype(x.dtype), None

    return chain(kernel, steps)


def resample_schedule(num_steps: int, jump: int, resample: int) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """For each step of ``repaint``: the place the chain is at, and the noisier or same place it steps down from.

    >>> [places.tolist() for places in resample_schedule(4, 2, 2)]
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
      sampler: makes the chain on what is left of the grid, as ``lambda grid: ddim_on_grid(denoise, grid)``. It gets a
        ``grids.PartialGrid``, so nothing is said of where it begins.
      grid: of K steps.
      strength: 0 gives the images back; 1 keeps of them only what the first place does.

    Raises:
      ValueError: ``strength`` outside [0, 1], or above 0 but too little for one of the K steps.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength: expected 0 (nothing changes) to 1 (all steps), got {strength:g}")
    left = round(strength * grid.num_steps)
    if strength and not left:
        raise ValueError(
            f"strength: {strength:g} of {grid.num_steps} steps is none, and the images would come back as they are; "
            f"give 0 for that, or at least {1 / grid.num_steps:.3g}, or a grid of more steps"
        )
    rest = PartialGrid(*(table[grid.num_steps - left :] for table in grid))
    run = sampler(rest) if left else chain(lambda keys, x, step: (x, None), np.zeros(0))

    def sample(key: Key, x_T: ArrayLike, keep: Sequence[int] | None = None, *, segment: int | None = None):
        checks.floats("x_T", x_T)
        x_T = jnp.asarray(x_T, jnp.promote_types(jnp.asarray(x_T).dtype, jnp.float32))
        noise_keys, chain_keys = random.split(random.example_keys(key, x_T.shape[0]), 2)
        noise = random.normal(noise_keys, x_T.shape[1:], x_T.dtype)
        signal, deviation = (jnp.asarray(table[0], x_T.dtype) for table in (rest.alpha, rest.sigma))
        return run(chain_keys, signal * x_T + deviation * noise if left else x_T, keep, segment=segment)

    return sample


def slerp(start: ArrayLike, end: ArrayLike, share: float | Float[Array, ""]) -> Arrays:
    """[sin((1 - s) θ) a + sin(s θ) b] / sin θ, θ the angle of a and b, per image (Shoemake 1985).

    Noises of length √n stay at that length, where a straight line would cut the corner. Straight where there is no one
    arc: parallel ones, opposite ones, and where one is 0.

    Args:
      start, end: a and b [b ...].
      share: s, in [0, 1].

    Raises:
      ValueError: arrays of different shapes, not of floating point, or not finite; or a share outside [0, 1].
    """
    checks.floats("start", start)
    checks.floats("end", end)
    checks.within("share", share, 0, 1)
    start, end = jnp.asarray(start), jnp.asarray(end)
    if start.shape != end.shape:
        raise ValueError(f"start, end: expected one shape, got {start.shape} and {end.shape}")
    axes = tuple(range(1, start.ndim))
    wide = lambda a: a.astype(jnp.promote_types(a.dtype, jnp.float32))
    unit = lambda a: _over(
        a, jnp.max(jnp.abs(a), axis=axes, keepdims=True)
    )  # whose squares neither over- nor underflow
    a, b = unit(wide(start)), unit(wide(end))
    dot = lambda a, b: jnp.sum(a * b, axis=axes, keepdims=True)
    lengths = jnp.asarray(root(dot(a, a) * dot(b, b)))
    cosine = _over(dot(a, b), lengths)
    straight = (jnp.abs(cosine) > 1 - 1e-6) | (lengths == 0)
    angle = jnp.arccos(jnp.where(straight, 0.0, cosine))
    bent = (jnp.sin((1 - share) * angle) * start + jnp.sin(share * angle) * end) / jnp.sin(angle)
    return jnp.where(straight, (1 - share) * start + share * end, bent).astype(jnp.result_type(start, end))


def _over(a: Array, b: Array) -> Array:
    """a/b, and 0 with slope 0 where b is 0."""
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)
