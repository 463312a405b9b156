"""Adaptive integrals over the plane, for densities of unknown location and width.

For a Gaussian of standard deviation σ and a grid of spacing h the midpoint rule has a relative error of e^{-2π²σ²/h²},
so the grid must be fine where the mass is. ``log_integral`` moves its window there and estimates its own error: the
grid consists of nine coarser grids of three times the spacing, and the result has converged where the nine agree.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from genjax import checks, lapack

Points = Float[Array, "b 2"]
LogDensity = Callable[[Points], Float[Array, " b"]]
NEGLIGIBLE = 40.0  # nats below the highest point; the rest is less than a part in 10¹³ of the integral
MAX_ROUNDS = 12  # moves of the window; each narrows it at least by a third, or is the last
MAX_DOUBLINGS = 3  # doublings of the grid, where the window cannot be narrowed


class Integral(NamedTuple):
    """Integrals of b densities.

    Attributes:
      log_value: logarithm of the integral, nats.
      error: range of the values of the nine coarser grids, nats; the error of ``log_value`` is far smaller.
      converged: True where ``error`` is within the tolerance.
    """

    log_value: Float[Array, " b"]
    error: Float[Array, " b"]
    converged: Bool[Array, " b"]


class _Window(NamedTuple):
    """Parallelograms centre + axes · [-1, 1]²."""

    centre: Float[Array, "b 2"]
    axes: Float[Array, "b 2 2"]


def log_integral(
    log_density: LogDensity,
    num: int,
    *,
    width: float | int = 5.0,
    num_points: int = 96,
    tolerance: float | int = 1e-3,
) -> Integral:
    """log ∫ f(z) dz over the plane, for b densities at once; works under ``jit``.

    The first window is [-width, width]². While the nine grids disagree, the window is moved to the cells that can hold
    more than e⁻⁴⁰ of the highest value, along the principal axes of the mass; if mass lies at its edge, it is doubled.
    Where the window cannot be narrowed, the grid is doubled. ``converged`` tells whether this was enough.

    >>> peak = lambda z: -0.5 * jnp.sum((z - jnp.array([0.3, -1.0])) ** 2, -1) / 0.002**2
    >>> integral = log_integral(peak, 1)
    >>> bool(integral.converged[0]), round(float(integral.log_value[0] - 2 * jnp.log(0.002)), 4)  # log 2π
    (True, 1.8379)

    Args:
      log_density: log f, ``(points [b 2]) -> [b]``, each density at its own point; smooth.
      num: b, the number of densities.
      width: half the side of the first window; peaks that do not show on its grid are missed.
      num_points: number of grid points in each direction.
      tolerance: largest range of the values of the nine grids, nats.

    Raises:
      ValueError: ``num`` is below 1, ``num_points`` below 9, or ``width`` or ``tolerance`` not positive.
    """
    checks.count("num", num)
    checks.count("num_points", num_points, 9)
    checks.positive("width", width)
    checks.positive("tolerance", tolerance)
    side = -(-num_points // 3) * 3
    zeros = log_density(jnp.zeros((num, 2)))
    square = jnp.broadcast_to(width * jnp.eye(2, dtype=zeros.dtype), (num, 2, 2))
    start = _Window(jnp.zeros((num, 2), zeros.dtype), square)
    evaluate = functools.partial(_evaluate_window, log_density, side, tolerance)

    def may_move(loop: tuple[Any, ...]) -> Bool[Array, ""]:
        integral, _, is_narrowing, rounds = loop
        return jnp.any(~integral.converged & is_narrowing) & (rounds < MAX_ROUNDS)

    def move(loop: tuple[Any, ...]) -> tuple[Any, ...]:
        integral, window, is_narrowing, rounds = loop
        new_integral, new_window, narrows = evaluate(window)
        done = integral.converged | ~is_narrowing
        keep = lambda old, new: jnp.where(done.reshape(-1, *[1] * (new.ndim - 1)), old, new)
        kept = jax.tree.map(keep, (integral, window, is_narrowing), (new_integral, new_window, narrows))
        return *kept, rounds + 1

    unknown = Integral(zeros, jnp.full_like(zeros, jnp.inf), jnp.zeros(num, bool))
    integral, window, _, _ = jax.lax.while_loop(may_move, move, (unknown, start, jnp.ones(num, bool), 0))

    def may_refine(loop: tuple[Any, ...]) -> Bool[Array, ""]:
        integral, factor = loop
        return jnp.any(~integral.converged) & (factor < 2**MAX_DOUBLINGS)

    def refine(loop: tuple[Any, ...]) -> tuple[Any, ...]:
        integral, factor = loop
        new = _refined(log_density, side, tolerance, window, 2 * factor)
        keep = lambda old, new: jnp.where(integral.converged, old, new)
        return jax.tree.map(keep, integral, new), 2 * factor

    return jax.lax.while_loop(may_refine, refine, (integral, 1))[0]


def _evaluate_window(
    log_density: LogDensity, side: int, tolerance: float | int, window: _Window
) -> tuple[Integral, _Window, Bool[Array, " b"]]:
    """The integral over a window, the next window, and True where the next window differs."""
    unit = (jnp.arange(side) + 0.5) / side * 2 - 1
    unit = unit.astype(window.centre.dtype)
    value = lambda x, y: log_density(_points(window, x, y))
    table = jax.lax.map(lambda x: jax.lax.map(lambda y: value(x, y), unit), unit)  # [side side b]
    nine = table.reshape(side // 3, 3, side // 3, 3, -1)
    sums = jax.nn.logsumexp(nine, (0, 2)).reshape(9, -1)
    integral = _integral(sums, window, side, tolerance)

    share = jax.nn.softmax(table.reshape(side * side, -1), 0)
    points = _points(window, *(axis.reshape(-1, 1) for axis in jnp.meshgrid(unit, unit, indexing="ij")))  # [s·s b 2]
    mean = jnp.einsum("nb,nbi->bi", share, points)
    centred = points - mean
    cell = window.axes * (2 / side)
    covariance = jnp.einsum("nb,nbi,nbj->bij", share, centred, centred) + jnp.einsum("bik,bjk->bij", cell, cell) / 12
    axes = lapack.eigh(covariance)[1]  # columns

    # A cell may exceed its midpoint by about as much as its neighbours differ from it.
    difference = lambda axis: jnp.abs(jnp.diff(table, axis=axis))
    pad = lambda x, axis, side: jnp.pad(x, [(0, 0) if a != axis else side for a in range(3)])
    differences = [pad(difference(axis), axis, edge) for axis in (0, 1) for edge in ((0, 1), (1, 0))]
    rise = functools.reduce(jnp.maximum, differences)
    is_relevant = (table + rise > table.max((0, 1)) - NEGLIGIBLE).reshape(side * side, -1)
    coordinates = jnp.einsum("bij,nbi->nbj", axes, points)
    half_cell = jnp.sum(jnp.abs(jnp.einsum("bij,bik->bjk", axes, cell)), -1)
    low = jnp.min(jnp.where(is_relevant[..., None], coordinates, jnp.inf), 0) - half_cell
    high = jnp.max(jnp.where(is_relevant[..., None], coordinates, -jnp.inf), 0) + half_cell
    centre = jnp.einsum("bij,bj->bi", axes, (low + high) / 2)
    narrowed = _Window(centre, axes * ((high - low) / 2)[:, None, :])

    edge = jnp.ones((side, side), bool).at[1:-1, 1:-1].set(False).reshape(-1, 1)
    has_mass_at_edge = jnp.sum(share * edge, 0) > 1e-5
    doubled = window._replace(axes=2 * window.axes)
    pick = lambda a, b: jnp.where(has_mass_at_edge.reshape(-1, *[1] * (a.ndim - 1)), a, b)
    next_window = jax.tree.map(pick, doubled, narrowed)
    differs = has_mass_at_edge | (_area(narrowed) < 2 / 3 * _area(window))
    return integral._replace(converged=integral.converged & ~has_mass_at_edge), next_window, differs


def _refined(log_density: LogDensity, side: int, tolerance: float | int, window: _Window, factor: Any) -> Integral:
    """The integral on a grid with ``factor`` times as many points in each direction."""
    dtype = window.centre.dtype
    zeros = jnp.full((9, window.centre.shape[0]), -jnp.inf, dtype)

    def add_row(i: Int[Array, ""], sums: Float[Array, "9 b"]) -> Float[Array, "9 b"]:
        x = ((i + 0.5) / (side * factor) * 2 - 1).astype(dtype)

        def add_point(j: Int[Array, ""], sums: Float[Array, "9 b"]) -> Float[Array, "9 b"]:
            value = log_density(_points(window, x, ((j + 0.5) / (side * factor) * 2 - 1).astype(dtype)))
            grid = (i % 3) * 3 + j % 3
            return sums.at[grid].set(jnp.logaddexp(sums[grid], value))

        return jax.lax.fori_loop(0, side * factor, add_point, sums)

    sums = jax.lax.fori_loop(0, side * factor, add_row, zeros)
    return _integral(sums, window, side * factor, tolerance)


def _integral(sums: Float[Array, "9 b"], window: _Window, side: Any, tolerance: float | int) -> Integral:
    """The integral from the logarithms of the nine sums of values on the coarser grids."""
    error = sums.max(0) - sums.min(0)
    error = jnp.where(jnp.isfinite(error), error, jnp.inf)
    log_cell = jnp.log(_area(window)) + math.log(4) - 2 * jnp.log(jnp.asarray(side, error.dtype))
    return Integral(jax.nn.logsumexp(sums, 0) + log_cell, error, error <= tolerance)


def _area(window: _Window) -> Float[Array, " b"]:
    """A quarter of the area: the determinant of the axes."""
    (a, b), (c, d) = jnp.moveaxis(window.axes, 0, -1)
    return jnp.abs(a * d - b * c)


def _points(window: _Window, x: Any, y: Any) -> Float[Array, "*n b 2"]:
    """The point (x, y) of [-1, 1]² in each window."""
    x, y = jnp.asarray(x)[..., None], jnp.asarray(y)[..., None]
    return window.centre + window.axes[:, :, 0] * x + window.axes[:, :, 1] * y
