"""Distances between two sets of points: of images, or of what a feature extractor makes of them.

Zero is only reached by equal laws, and sets of finite size keep their distance: state the number of points, and beside
every score the same score of real points that were held out, its floor.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from genjax import checks
from genjax.theory.estimates import Estimate
from genjax.types import Key, Scalar

Points = Any
"""Points [n d]: an array of real numbers of any type."""
LEAST = 10  # points, for an error bar
CHUNK = 1000  # points whose kernels with others are held at a time


def frechet_distance(a: Points, b: Points) -> float:
    """|μ_a - μ_b|² + tr(Σ_a + Σ_b - 2 (Σ_a^½ Σ_b Σ_a^½)^½): the Fréchet distance of two Gaussians, squared.

    With Inception features it is called FID (Heusel et al. 2017, eq. 6); it falls as 1/n, so sets must be equally large
    to be compared. The second part is min |R_a - U R_b|² over rotations U, of any factors Σ = RᵀR (Bhatia, Jain & Lim
    2019, thm. 1), and is computed so: from the points' triangular factors in float64, no covariance is formed, and
    neither near laws nor singular ones lose their digits.

    >>> x = np.array([[-1.0], [1.0]])
    >>> round(frechet_distance(x, 3 * x + 2), 9)  # means 0 and 2, variances 2 and 18: 4 + (3 √2 - √2)²
    12.0

    Raises:
      ValueError: fewer than 2 points, another number of features, or numbers that are not finite or whose squares are
        not.
    """
    a, b = point_sets(2, a=a, b=b)
    scale = power_of_two(a, b)
    a, b = a / scale - a[0] / scale, b / scale - a[0] / scale
    first, second = _factor(a), _factor(b)
    left, _, right = np.linalg.svd(second @ first.T)
    rotation = (left @ right).T
    mean = a.mean(0) - b.mean(0)
    return _finite(float(np.sum(mean**2) + np.sum((first - rotation @ second) ** 2)) * scale * scale)


def kernel_distance(key: Key, a: Points, b: Points, *, num_blocks: Any = 100, size: Any = 1000) -> Estimate:
    """The squared kernel distance of kernel (x·y / d + 1)³, without bias, with its standard error over fresh sets.

    Called KID with Inception features (Bińkowski et al. 2018, §4). Standardise features beforehand: it has their scale.
    The mean over all pairs, of different points within the sets (Gretton et al. 2012, lemma 6), and the root of its
    variance, each term of which is estimated without bias (Hoeffding 1948; Song et al. 2012, eq. 5): for points drawn
    independently, so not where one set was chosen by the other. Near equal laws two standard errors cover 97 to 100 in
    a hundred fresh sets; far from them 87 to 96 from 50 points on, but in 1 or 2 dimensions, where few points carry the
    cubes, 77 to 95.

    Args:
      key: of the choice of points, where not all are taken.
      a, b: the sets.
      num_blocks, size: bound the work to the pairs in so many blocks of that size: of either set at most
        size √num_blocks points are taken, drawn without replacement.

    Raises:
      ValueError: fewer than 10 points, or fewer that are taken; another number of features; or numbers that are not
        finite or whose kernels are not.
    """
    checks.count("num_blocks", num_blocks)
    checks.count("size", size)
    most = math.isqrt(num_blocks * size * size)
    a, b = (
        x if len(x) <= most else x[np.sort(np.asarray(jax.random.permutation(part, len(x)))[:most])]
        for x, part in zip(point_sets(2, a=a, b=b), jax.random.split(key), strict=True)
    )
    if (least := min(len(a), len(b))) < LEAST:
        raise ValueError(
            f"a, b: expected at least {LEAST} points of both, or the error bar would not cover; got {least}"
        )
    centre = a[0] + (np.mean(a - a[0], 0) * len(a) + np.mean(b - a[0], 0) * len(b)) / (len(a) + len(b))
    a, b = a - centre, b - centre
    with np.errstate(over="ignore", invalid="ignore"):
        within_a, within_b, across = _sums(a, a, centre), _sums(b, b, centre), _sums(a, b, centre)
        found = Estimate(*map(jnp.asarray, _unbiased(within_a, within_b, across)))
    _finite(float(found.mean + found.standard_error))
    return found


def energy_distance(a: Points, b: Points) -> Scalar:
    """2 E|x - y| - E|x - x'| - E|y - y'| ≥ 0 of the two empirical laws (Székely & Rizzo 2013, eq. 5); jittable.

    Its gradient takes |x - y| to be flat where two points coincide.

    >>> float(energy_distance(jnp.array([[0.0], [1.0]]), jnp.array([[0.0], [1.0]])))
    0.0

    Raises:
      ValueError: no points, another number of features, or numbers that are not finite.
    """
    _check({"a": a, "b": b}, 1)
    a, b = (_differing(x) for x in (a, b))
    value = 2 * _mean_distance(a, b) - _mean_distance(a, a) - _mean_distance(b, b)
    return value + jax.lax.stop_gradient(jnp.maximum(value, 0) - value)  # never below 0 by rounding


def standardise(reference: Points, *others: Points) -> tuple[Float[np.ndarray, "_ _"], ...]:
    """The other sets in units where the reference has mean 0 and standard deviation 1, in float64.

    A feature that hardly varies is not blown up: no deviation counts as less than a hundredth of the largest.

    Raises:
      ValueError: fewer than 2 points in the reference or none elsewhere, another number of features, or numbers that
        are not finite.
    """
    named = {"reference": reference, **{f"others[{i}]": x for i, x in enumerate(others)}}
    checks.min_rows("reference", reference, 2)
    origin, *rest = point_sets(**named)
    centre = origin[0] + np.mean(origin - origin[0], 0)
    spread = (origin - centre).std(0)
    least = spread.max(initial=0) / 100
    return tuple((x - centre) / np.maximum(spread, least if least > 0 else 1) for x in rest)


def point_sets(least: int = 1, **named: Any) -> list[Float[np.ndarray, "_ _"]]:
    """Sets of points in one space, in float64.

    >>> point_sets(a=np.zeros((2, 3)), b=np.zeros((2, 4)))
    Traceback (most recent call last):
    ValueError: b: expected points of 3 features, as a has; got 4

    Raises:
      ValueError: a set has fewer than ``least`` points, no or other numbers of features, or numbers that are not
        finite.
    """
    _check(named, least)
    return [np.asarray(x, np.float64) for x in named.values()]


def _check(named: dict[str, Any], least: int) -> None:
    first = next(iter(named))
    for name, x in named.items():
        checks.finite(name, x)
        if np.ndim(x) != 2 or np.shape(x)[0] < least or not np.shape(x)[1]:
            raise ValueError(f"{name}: expected at least {least} points [n d], got the shape {np.shape(x)}")
        if np.shape(x)[1] != (wanted := np.shape(named[first])[1]):
            raise ValueError(f"{name}: expected points of {wanted} features, as {first} has; got {np.shape(x)[1]}")


def _factor(x: np.ndarray) -> np.ndarray:
    """R [d d] with RᵀR the covariance of the points."""
    d = x.shape[1]
    triangle = np.linalg.qr((x - x.mean(0)) / math.sqrt(len(x) - 1), "r")
    return np.concatenate([triangle, np.zeros((d - len(triangle), d))])


def _sums(x: np.ndarray, y: np.ndarray, centre: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Sums over rows and over columns of the kernel of sets less their centre, and of its squares; no x_i with itself.

    The kernel k(x, y) - k(x, c) - k(c, y) + k(c, c), c the centre, has the same distance of laws. With t = 1 + |c|²/d,
    a = x·c/d, b = y·c/d, w = x·y/d and q = t + a + b it is w (3 q² + 3 q w + w²) + 3 a b (2 t + a + b): no constant is
    left in it to cancel.
    """
    d, own = len(centre), x is y
    t, b = 1 + centre @ centre / d, y @ centre / d
    rows, columns, squares = np.zeros(len(x)), np.zeros(len(y)), 0.0
    for start in range(0, len(x), CHUNK):
        part = slice(start, start + CHUNK)
        a, w = (x[part] @ centre / d)[:, None], x[part] @ y.T / d
        q = t + a + b
        k = w * (3 * q * (q + w) + w * w) + 3 * a * b * (q + t)
        if own:
            np.fill_diagonal(k[:, start:], 0)
        rows[part] = k.sum(1)
        columns += k.sum(0)
        squares += np.vdot(k, k)
    return rows, columns, squares


def _unbiased(
    within_a: tuple[np.ndarray, np.ndarray, float],
    within_b: tuple[np.ndarray, np.ndarray, float],
    across: tuple[np.ndarray, np.ndarray, float],
) -> tuple[float, float]:
    """The squared distance and its standard error.

    With δ the difference of the means in feature space and A, B the covariances there, the variance is
    4 δᵀAδ / n + 4 δᵀBδ / m + 2 tr A² / n(n-1) + 2 tr B² / m(m-1) + 4 tr AB / nm. The jackknife's variances over the
    points of a and b have the means δᵀAδ + tr A² / (n-2) + tr AB / m, and likewise with B.
    """
    (of_a, _, squares_a), (of_b, _, squares_b), (rows, columns, squares) = within_a, within_b, across
    n, m = len(of_a), len(of_b)
    total = rows.sum()
    value = of_a.sum() / (n * (n - 1)) + of_b.sum() / (m * (m - 1)) - 2 * total / (n * m)

    def own(sums: np.ndarray, squares: float) -> float:
        n, total = len(sums), sums.sum()
        found = squares + total**2 / ((n - 1) * (n - 2)) - 2 / (n - 2) * (sums @ sums)
        return max(found / (n * (n - 3)), 0.0)

    aa, bb = own(of_a, squares_a), own(of_b, squares_b)
    ab = max(squares - rows @ rows / m - columns @ columns / n + total**2 / (n * m), 0.0) / ((n - 1) * (m - 1))
    first = (np.var(of_a / (n - 2) - rows / m, ddof=1) - aa / (n - 2) - ab / m) * 4 / n
    first += (np.var(of_b / (m - 2) - columns / n, ddof=1) - bb / (m - 2) - ab / n) * 4 / m
    second = 2 * aa / (n * (n - 1)) + 2 * bb / (m * (m - 1)) + 4 * ab / (n * m)
    return float(value), math.sqrt(max(first, 0.0) + second)


def _differing(x: Any) -> Any:
    """The same numbers in a type whose differences neither wrap nor round: in float64 where they are known."""
    if checks.is_concrete(x) and not (isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.floating)):
        return np.asarray(x, np.float64)
    floating = x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))
    return floating.astype(jnp.promote_types(floating.dtype, jnp.float32))


def _mean_distance(x: Any, y: Any) -> Scalar:
    """The mean of |x_i - y_j|, in units of the largest difference: no square leaves the range of floats."""
    difference = jnp.asarray(x[:, None] - y)
    unit = jax.lax.stop_gradient(jnp.max(jnp.abs(difference)))
    unit = jnp.where(unit > 0, unit, 1)
    squares = jnp.sum((difference / unit) ** 2, -1)
    apart = squares > 0
    return unit * jnp.mean(jnp.where(apart, jnp.sqrt(jnp.where(apart, squares, 1)), 0))


def power_of_two(*points: np.ndarray) -> float:
    """The power of 2 next to the largest number: to divide by it is exact."""
    return math.ldexp(1.0, math.frexp(max(float(np.abs(x).max()) for x in points))[1] - 1)


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("a, b: expected numbers whose distance is in the range of floats; standardise them first")
    return value
