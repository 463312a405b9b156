"""The maximum of a smooth function of a few variables, by Newton's method; and whether there is one where it stopped.

All is measured in coordinates in which the curvature at hand is 1, so neither the units of the variables nor a constant
added to the function count. B with B Bᵀ = |∇²f|⁻¹ leads from these coordinates to the variables; ‖Bᵀ∇f‖²/2 is what a
step promises (Boyd & Vandenberghe 2004, §9.5: the Newton decrement).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from genjax import lapack
from genjax.types import Scalar

Vector = Float[Array, " p"]
Matrix = Float[Array, "p p"]
Function = Callable[[Vector], Scalar]


class Verification(NamedTuple):
    """What is known of a point.

    Fields:
      deviation: root of the diagonal of (-∇²f)⁻¹; NaN where that is not positive definite.
      is_maximum: whether it is one.
    """

    deviation: Vector
    is_maximum: Bool[Array, ""]


def newton(f: Function, start: Vector, size: int, *, num_steps: int, limit: float) -> Vector:
    """Newton's method, damped: a step that brings nothing is tried again, a tenth as long.

    Directions in which f curves upwards are climbed too, for the curvature's sign is dropped. A step is taken where f
    grows, or, where f cannot tell for rounding, where the gradient falls.

    Args:
      f: the function, a sum of ``size`` terms.
      start: where f and its gradient are finite.
      size: number of terms.
      num_steps: at most so many, tries included.
      limit: ends where a step of one term alone would be so long, ‖Bᵀ∇f‖ / √size, and one more step is taken.
    """
    value_and_gradient = jax.value_and_grad(f)
    eps = float(jnp.finfo(start.dtype).eps)

    def step(state):
        x, value, gradient, basis, damping, was_near, steps, _ = state
        there = x + _times(basis, _times(basis.T, gradient)) / (1 + damping)
        new_value, new_gradient = value_and_gradient(there)
        rounding = 16 * eps * jnp.abs(value)
        before, after = _norm(basis, gradient), _norm(basis, new_gradient)
        higher = (new_value > value + rounding) | ((new_value >= value - rounding) & (after <= before))
        taken = higher & jnp.isfinite(new_value) & jnp.isfinite(after)
        kept = lambda new, old: jnp.where(taken, new, old)
        moved = jnp.any(there != x) & jnp.isfinite(before)
        x, value, gradient = kept(there, x), kept(new_value, value), kept(new_gradient, gradient)
        basis = whiten(jax.hessian(f)(x))[0]
        near = _norm(basis, gradient) <= limit * size**0.5
        damping = jnp.where(taken, 0, 9 + 10 * damping)  # a tenth of the step
        return x, value, gradient, basis, damping, near, steps + 1, moved & ~(near & was_near)

    going = lambda state: state[-1] & (state[-2] < num_steps)
    begun = (*value_and_gradient(start), whiten(jax.hessian(f)(start))[0])
    nothing = jnp.zeros((), start.dtype)
    state = (start, *begun, nothing, jnp.array(False), 0, jnp.array(True))
    return jax.lax.while_loop(going, step, state)[0]


def verify(f: Function, x: Vector, size: int, limit: float) -> Verification:
    """Whether x is a maximum: the gradient is gone, f curves downwards, and still does so one Newton step further.

    The last tells a maximum from a slope that flattens out for ever: there the gradient vanishes too, but the curvature
    with it, and by a factor of e or so within a step, however far out. It is also taken in the coordinates that
    the first curvature gave, where what was rounding does not come out as 1 again; and a tenth of a deviation to either
    side along each axis, where rounding alone would be another, though it had made a gradient of 0.

    The gradient is gone where what is left of it moves x by ``limit`` of a deviation of one term, by no more than
    gradients of special functions are off (4 √ε of a deviation), or by no more than the type of x can hold. A deviation
    that is below that itself is rounding too.
    """
    eps = float(jnp.finfo(x.dtype).eps)
    gradient = jax.grad(f)(x)
    basis, definite = whiten(jax.hessian(f)(x))
    step = _times(basis, _times(basis.T, gradient))
    further = x + step

    def curvature(move: Vector) -> tuple[Vector, Matrix]:
        return lapack.eigh(-jax.hessian(lambda move: f(further + _times(basis, move)))(move))

    aside = 0.1 * jnp.eye(len(x), dtype=x.dtype)
    curvatures, axes = jax.lax.map(curvature, jnp.concatenate([0 * aside[:1], aside, -aside]))
    steady = jnp.all((curvatures > 0.5) & (curvatures < 2))
    spacing = eps * jnp.abs(x)
    near = (_norm(basis, gradient) <= max(limit * size**0.5, 4 * eps**0.5)) | jnp.all(jnp.abs(step) <= spacing)
    columns = _times(basis, axes[0]) / jnp.sqrt(jnp.where(steady, curvatures[0], 1))
    deviation = jnp.where(definite, jnp.sqrt(jnp.sum(columns**2, 1)), jnp.nan)
    return Verification(deviation, definite & near & steady & jnp.all(deviation > spacing) & jnp.isfinite(f(x)))


def whiten(hessian: Matrix) -> tuple[Matrix, Bool[Array, ""]]:
    """B with B Bᵀ = |∇²f|⁻¹, and whether -∇²f is positive definite beyond rounding, in units of its diagonal."""
    scale = jnp.sqrt(jnp.abs(jnp.diagonal(hessian)))
    scale = jnp.where(scale > 0, scale, 1)
    curvature, axes = lapack.eigh(-hessian / scale / scale[:, None])
    rounding = 8 * len(scale) * jnp.finfo(hessian.dtype).eps
    return axes / scale[:, None] / jnp.sqrt(jnp.maximum(jnp.abs(curvature), rounding)), jnp.all(curvature > rounding)


def _norm(basis: Matrix, gradient: Vector) -> Scalar:
    return jnp.sqrt(jnp.sum(_times(basis.T, gradient) ** 2))


def _times(a, b):
    return jnp.matmul(a, b, precision="highest")  # accelerators would round the factors
