"""Newton's method for the maximum of a smooth function of a few variables, and a test that a point is a maximum.

Lengths are measured in coordinates in which the curvature is 1, so neither the units of the variables nor a constant
added to the function matter. B with B Bᵀ = |∇²f|⁻¹ maps these coordinates to the variables; ‖Bᵀ∇f‖²/2 is the expected
gain of a step (Boyd & Vandenberghe 2004, §9.5: the Newton decrement).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from genjax import lapack
from genjax.types import Scalar

Vector = Float[Array, " p"]
Matrix = Float[Array, "p p"]
Function = Callable[[Vector], Scalar]


class Verification(NamedTuple):
    """Result of ``verify``.

    Attributes:
      deviation: root of the diagonal of (-∇²f)⁻¹; NaN where -∇²f is not positive definite.
      is_maximum: True where the point is a maximum.
    """

    deviation: Vector
    is_maximum: Bool[Array, ""]


def newton(f: Function, start: Vector, size: int, *, num_steps: int, limit: float) -> Vector:
    """Damped Newton's method: a step without gain is tried again at a tenth of its length.

    The sign of the curvature is dropped, so a direction in which f curves upwards is climbed too. A step is accepted
    where f grows; where rounding hides the growth, it is accepted where the gradient falls.

    Args:
      f: the function, a sum of ``size`` terms.
      start: first point; f and its gradient are finite there.
      size: number of terms.
      num_steps: maximum number of steps, rejected ones included.
      limit: length of a step of one term, ‖Bᵀ∇f‖ / √size, after which one more step is the last.
    """
    value_and_gradient = jax.value_and_grad(f)
    eps = float(jnp.finfo(start.dtype).eps)

    def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
        x, value, gradient, basis, damping, was_near, steps, _ = state
        new_x = x + _matmul(basis, _matmul(basis.T, gradient)) / (1 + damping)
        new_value, new_gradient = value_and_gradient(new_x)
        rounding = 16 * eps * jnp.abs(value)
        before, after = _norm(basis, gradient), _norm(basis, new_gradient)
        is_higher = (new_value > value + rounding) | ((new_value >= value - rounding) & (after <= before))
        is_accepted = is_higher & jnp.isfinite(new_value) & jnp.isfinite(after)
        select = lambda new, old: jnp.where(is_accepted, new, old)
        has_moved = jnp.any(new_x != x) & jnp.isfinite(before)
        x, value, gradient = select(new_x, x), select(new_value, value), select(new_gradient, gradient)
        basis = whiten(jax.hessian(f)(x))[0]
        is_near = _norm(basis, gradient) <= limit * size**0.5
        damping = jnp.where(is_accepted, 0, 9 + 10 * damping)  # a tenth of the step
        return x, value, gradient, basis, damping, is_near, steps + 1, has_moved & ~(is_near & was_near)

    is_unfinished = lambda state: state[-1] & (state[-2] < num_steps)
    first = (*value_and_gradient(start), whiten(jax.hessian(f)(start))[0])
    no_damping = jnp.zeros((), start.dtype)
    state = (start, *first, no_damping, jnp.array(False), 0, jnp.array(True))
    return jax.lax.while_loop(is_unfinished, step, state)[0]


def verify(f: Function, x: Vector, size: int, limit: float) -> Verification:
    """Test that x is a maximum: the gradient is 0, f curves downwards, and still does one Newton step further.

    The last condition tells a maximum from a slope that flattens out for ever. On such a slope the gradient vanishes,
    but the curvature falls with it, by a factor of about e within a step, however far out. The curvature is taken in
    the coordinates of the first one, where rounding would not give 1 again, and also a tenth of a deviation to either
    side along each axis, where rounding alone would differ even if the gradient is exactly 0.

    The gradient counts as 0 where the step is at most ``limit`` deviations of one term, at most the error of gradients
    of special functions (4 √ε of a deviation), or at most the spacing of floats at x. A deviation below this spacing is
    rounding too.

    Args:
      f: the function, a sum of ``size`` terms.
      x: the point.
      size: number of terms.
      limit: largest step in deviations of one term.
    """
    eps = float(jnp.finfo(x.dtype).eps)
    gradient = jax.grad(f)(x)
    basis, definite = whiten(jax.hessian(f)(x))
    step = _matmul(basis, _matmul(basis.T, gradient))
    new_x = x + step

    def curvature(shift: Vector) -> tuple[Vector, Matrix]:
        return lapack.eigh(-jax.hessian(lambda shift: f(new_x + _matmul(basis, shift)))(shift))

    shifts = 0.1 * jnp.eye(len(x), dtype=x.dtype)
    curvatures, axes = jax.lax.map(curvature, jnp.concatenate([0 * shifts[:1], shifts, -shifts]))
    is_steady = jnp.all((curvatures > 0.5) & (curvatures < 2))
    spacing = eps * jnp.abs(x)
    is_flat = (_norm(basis, gradient) <= max(limit * size**0.5, 4 * eps**0.5)) | jnp.all(jnp.abs(step) <= spacing)
    columns = _matmul(basis, axes[0]) / jnp.sqrt(jnp.where(is_steady, curvatures[0], 1))
    deviation = jnp.where(definite, jnp.sqrt(jnp.sum(columns**2, 1)), jnp.nan)
    is_maximum = definite & is_flat & is_steady & jnp.all(deviation > spacing) & jnp.isfinite(f(x))
    return Verification(deviation, is_maximum)


def whiten(hessian: Matrix) -> tuple[Matrix, Bool[Array, ""]]:
    """B with B Bᵀ = |∇²f|⁻¹, and True where -∇²f, scaled by its diagonal, is positive definite beyond rounding."""
    scale = jnp.sqrt(jnp.abs(jnp.diagonal(hessian)))
    scale = jnp.where(scale > 0, scale, 1)
    curvature, axes = lapack.eigh(-hessian / scale / scale[:, None])
    rounding = 8 * len(scale) * jnp.finfo(hessian.dtype).eps
    return axes / scale[:, None] / jnp.sqrt(jnp.maximum(jnp.abs(curvature), rounding)), jnp.all(curvature > rounding)


def _norm(basis: Matrix, gradient: Vector) -> Scalar:
    return jnp.sqrt(jnp.sum(_matmul(basis.T, gradient) ** 2))


def _matmul(a: Matrix, b: Vector | Matrix) -> Any:
    return jnp.matmul(a, b, precision="highest")  # accelerators would round the factors
