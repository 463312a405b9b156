"""Integrals over the plane of densities whose place and width are not known before.

The midpoint rule on an even grid is exact but for e^{-2π²σ²/h²} for a Gaussian of deviation σ and a spacing h, so what
matters is that the grid is fine where the mass is. ``log_integral`` moves its window there, and looks at its own
answer: the grid is nine coarser ones in one, of three times the spacing, and it is done where these nine agree.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from genjax import checks, lapack

Points = Float[Array, "b 2"]
NEGLIGIBLE = 40.0  # nats below the highest point: what is left out has less than a part in 10¹³ of the integral
ROUNDS = 12  # moves of the window; each narrows it at least by a third, or is the last
FINEST = 3  # doublings of the grid, where the window cannot be narrowed


class Integral(NamedTuple):
    """An integral for each of b densities.

    Fields:
      log_value: its logarithm, nats.
      error: by how much the nine coarser grids disagree, nats; that of the value is far below it.
      converged: whether ``error`` is within the tolerance.
    """

    log_value: Float[Array, " b"]
    error: Float[Array, " b"]
    converged: Bool[Array, " b"]


class _Window(NamedTuple):
    """Parallelograms centre + axes · [-1, 1]²."""

    centre: Float[Array, "b 2"]
    axes: Float[Array, "b 2 2"]


def log_integral(
    log_density: Callable[[Points], Float[Array, " b"]],
    num: int,
    *,
    width: float | int = 5.0,
    num_points: int = 96,
    tolerance: float | int = 1e-3,
) -> Integral:
    """log ∫ f(z) dz over the plane, for b densities at once; under ``jit`` too.

    The window starts as [-width, width]². As long as the nine grids disagree it is drawn around the cells that can
    hold more than e⁻⁴⁰ of the highest value, along the main axes of the mass (or is doubled, where mass lies at its
    edge), and where it cannot be narrowed the grid is doubled. Whether that was enough is a part of the answer.

    >>> peak = lambda z: -0.5 * jnp.sum((z - jnp.array([0.3, -1.0])) ** 2, -1) / 0.002**2
    >>> found = log_integral(peak, 1)
    >>> bool(found.converged[0]), round(float(found.log_value[0] - 2 * jnp.log(0.002)), 4)  # log 2π
    (True, 1.8379)

    Args:
      log_density: log f, ``(points [b 2]) -> [b]``: of each density at a point of its own; smooth.
      num: b.
      width: of the first window; only peaks that show on its grid are found.
      num_points: of the grid, in each direction.
      tolerance: nats that the nine may differ by.

    Raises:
      ValueError: ``num`` below 1, ``num_points`` below 9, ``width`` or ``tolerance`` not positive.
    """
    checks.count("num", num)
    checks.count("num_points", num_points, 9)
    checks.positive("width", width)
    checks.positive("tolerance", tolerance)
    side = -(-num_points // 3) * 3
    zeros = log_density(jnp.zeros((num, 2)))
    square = jnp.broadcast_to(width * jnp.eye(2, dtype=zeros.dtype), (num, 2, 2))
    start = _Window(jnp.zeros((num, 2), zeros.dtype), square)
    look = functools.partial(_look, log_density, side, tolerance)

    def unfinished(loop):
        found, _, narrowing, rounds = loop
        return jnp.any(~found.converged & narrowing) & (rounds < ROUNDS)

    def again(loop):
        found, window, narrowing, rounds = loop
        new, following, narrows = look(window)
        done = found.converged | ~narrowing
        keep = lambda old, new: jnp.where(done.reshape(-1, *[1] * (new.ndim - 1)), old, new)
        return jax.tree.map(keep, (found, window, narrowing), (new, following, narrows)) + (rounds + 1,)

    nothing = Integral(zeros, jnp.full_like(zeros, jnp.inf), jnp.zeros(num, bool))
    found, window, _, _ = jax.lax.while_loop(unfinished, again, (nothing, start, jnp.ones(num, bool), 0))

    def rough(loop):
        found, times = loop
        return jnp.any(~found.converged) & (times < 2**FINEST)

    def finer(loop):
        found, times = loop
        new = _refined(log_density, side, tolerance, window, 2 * times)
        keep = lambda old, new: jnp.where(found.converged, old, new)
        return jax.tree.map(keep, found, new), 2 * times

    return jax.lax.while_loop(rough, finer, (found, 1))[0]


def _look(
    log_density, side: int, tolerance: float | int, window: _Window
) -> tuple[Integral, _Window, Bool[Array, " b"]]:
    """The integral over a window, the next window, and whether that is another."""
    unit = (jnp.arange(side) + 0.5) / side * 2 - 1
    unit = unit.astype(window.centre.dtype)
    at = lambda x, y: log_density(_place(window, x, y))
    table = jax.lax.map(lambda x: jax.lax.map(lambda y: at(x, y), unit), unit)  # [side side b]
    nine = table.reshape(side // 3, 3, side // 3, 3, -1)
    parts = jax.nn.logsumexp(nine, (0, 2)).reshape(9, -1)
    found = _integral(parts, window, side, tolerance)

    share = jax.nn.softmax(table.reshape(side * side, -1), 0)
    points = _place(window, *(axis.reshape(-1, 1) for axis in jnp.meshgrid(unit, unit, indexing="ij")))  # [s·s b 2]
    mean = jnp.einsum("nb,nbi->bi", share, points)
    off = points - mean
    cell = window.axes * (2 / side)
    covariance = jnp.einsum("nb,nbi,nbj->bij", share, off, off) + jnp.einsum("bik,bjk->bij", cell, cell) / 12
    axes = lapack.eigh(covariance)[1]  # columns

    # A cell may hold more than its midpoint says, at most about by as much as its neighbours differ from it.
    steep = lambda axis: jnp.abs(jnp.diff(table, axis=axis))
    pad = lambda x, axis, side: jnp.pad(x, [(0, 0) if a != axis else side for a in range(3)])
    slopes = [pad(steep(axis), axis, edge) for axis in (0, 1) for edge in ((0, 1), (1, 0))]
    rise = functools.reduce(jnp.maximum, slopes)
    counts = (table + rise > table.max((0, 1)) - NEGLIGIBLE).reshape(side * side, -1)
    along = jnp.einsum("bij,nbi->nbj", axes, points)
    reach = jnp.sum(jnp.abs(jnp.einsum("bij,bik->bjk", axes, cell)), -1)  # of a cell along the axes
    low = jnp.min(jnp.where(counts[..., None], along, jnp.inf), 0) - reach
    high = jnp.max(jnp.where(counts[..., None], along, -jnp.inf), 0) + reach
    centre = jnp.einsum("bij,bj->bi", axes, (low + high) / 2)
    around = _Window(centre, axes * ((high - low) / 2)[:, None, :])

    edge = jnp.ones((side, side), bool).at[1:-1, 1:-1].set(False).reshape(-1, 1)
    outside = jnp.sum(share * edge, 0) > 1e-5
    twice = window._replace(axes=2 * window.axes)
    pick = lambda a, b: jnp.where(outside.reshape(-1, *[1] * (a.ndim - 1)), a, b)
    following = jax.tree.map(pick, twice, around)
    narrows = outside | (_area(around) < 2 / 3 * _area(window))
    return found._replace(converged=found.converged & ~outside), following, narrows


def _refined(log_density, side: int, tolerance: float | int, window: _Window, times) -> Integral:
    """The integral on ``times`` as many points in each direction, shifted grid by shifted grid."""
    dtype = window.centre.dtype
    zeros = jnp.full((9, window.centre.shape[0]), -jnp.inf, dtype)

    def row(i, parts):
        x = ((i + 0.5) / (side * times) * 2 - 1).astype(dtype)

        def point(j, parts):
            value = log_density(_place(window, x, ((j + 0.5) / (side * times) * 2 - 1).astype(dtype)))
            which = (i % 3) * 3 + j % 3
            return parts.at[which].set(jnp.logaddexp(parts[which], value))

        return jax.lax.fori_loop(0, side * times, point, parts)

    parts = jax.lax.fori_loop(0, side * times, row, zeros)
    return _integral(parts, window, side * times, tolerance)


def _integral(parts: Float[Array, "9 b"], window: _Window, side, tolerance: float | int) -> Integral:
    """Of the nine sums of values on the coarser grids."""
    error = parts.max(0) - parts.min(0)
    error = jnp.where(jnp.isfinite(error), error, jnp.inf)
    cell = jnp.log(_area(window)) + math.log(4) - 2 * jnp.log(jnp.asarray(side, error.dtype))
    return Integral(jax.nn.logsumexp(parts, 0) + cell, error, error <= tolerance)


def _area(window: _Window) -> Float[Array, " b"]:
    """A quarter of it: the determinant of the axes."""
    (a, b), (c, d) = jnp.moveaxis(window.axes, 0, -1)
    return jnp.abs(a * d - b * c)


def _place(window: _Window, x, y) -> Float[Array, "*n b 2"]:
    """The point (x, y) of [-1, 1]² in each window."""
    x, y = jnp.asarray(x)[..., None], jnp.asarray(y)[..., None]
    return window.centre + window.axes[:, :, 0] * x + window.axes[:, :, 1] * y
