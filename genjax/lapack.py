"""Factorisations and linear solvers that handle one matrix of a batch after the other on CPU.

On CPU, jaxlib 0.10 spreads the matrices of a batch over the threads that run the program, and waits for them on one of
these threads: two calls at the same time can wait for each other for ever. So a batch, whether an axis or ``vmap``, is
a loop over calls of one matrix here. On other platforms it stays a batch. All functions but ``eigh`` are
differentiable.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float

Matrix = Float[Array, "_ _"]


def one_by_one(run: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function of arrays so that its ``vmap`` is a loop on CPU; the result has no gradients."""
    looped = custom_vmap(run)

    @looped.def_vmap
    def loop(axis_size: int, in_batched: Sequence[bool], *args: Array) -> tuple[Any, Any]:
        rows = [arg for arg, batched in zip(args, in_batched, strict=True) if batched]

        def fill(row: Sequence[Array]) -> list[Array]:
            batched_args = iter(row)
            return [next(batched_args) if batched else arg for arg, batched in zip(args, in_batched, strict=True)]

        batch = jax.vmap(run, [0 if batched else None for batched in in_batched])
        out = jax.lax.platform_dependent(
            rows,
            cpu=lambda rows: jax.lax.map(lambda row: looped(*fill(row)), rows),
            default=lambda rows: batch(*fill(rows)),
        )
        return out, jax.tree.map(lambda _: True, out)

    return looped


_factor = one_by_one(jnp.linalg.cholesky)
_solve = one_by_one(jnp.linalg.solve)
_lower = one_by_one(functools.partial(jax.scipy.linalg.solve_triangular, lower=True))
_eigen = one_by_one(lambda a: tuple(jnp.linalg.eigh(a)))
_upper = one_by_one(functools.partial(jax.scipy.linalg.solve_triangular, lower=True, trans="T"))


def cholesky(a: Float[Array, "... d d"]) -> Float[Array, "... d d"]:
    """Cholesky factor: the lower triangular L with L Lᵀ = A; NaN where A is not positive definite.

    >>> float(cholesky(jnp.array([[4.0]]))[0, 0])
    2.0
    """
    return jnp.vectorize(_cholesky, signature="(d,d)->(d,d)")(a)


def eigh(a: Float[Array, "... d d"]) -> tuple[Float[Array, "... d"], Float[Array, "... d d"]]:
    """Eigenvalues of a symmetric matrix in ascending order, and its eigenvectors as columns; no gradients.

    >>> [float(value) for value in eigh(jnp.array([[2.0, 0.0], [0.0, 1.0]]))[0]]
    [1.0, 2.0]
    """
    return jnp.vectorize(_eigen, signature="(d,d)->(d),(d,d)")(a)


def solve_lower(
    tril: Float[Array, "... d d"], rhs: Float[Array, "... d m"], *, transposed: bool = False
) -> Float[Array, "... d m"]:
    """L⁻¹ B, or L⁻ᵀ B where ``transposed``; entries above the diagonal of L are ignored."""
    run = functools.partial(_solve_lower, transposed=transposed)
    return jnp.vectorize(run, signature="(d,d),(d,m)->(d,m)")(tril, rhs)


def solve(a: Float[Array, "... d d"], rhs: Float[Array, "... d m"]) -> Float[Array, "... d m"]:
    """A⁻¹ B."""
    return jnp.vectorize(_solve_square, signature="(d,d),(d,m)->(d,m)")(a, rhs)


def orthogonal(scale: float) -> Callable[..., Array]:
    """Initialiser of network weights: ``scale`` times a matrix with orthonormal rows or columns, by QR."""
    initializer = jax.nn.initializers.orthogonal(scale)
    return lambda key, shape, dtype: one_by_one(lambda key: initializer(key, shape, dtype))(key)


@jax.custom_jvp
def _cholesky(a: Matrix) -> Matrix:
    return _factor(a)


@_cholesky.defjvp
def _cholesky_jvp(primals: tuple[Matrix], tangents: tuple[Matrix]) -> tuple[Matrix, Matrix]:
    """dL = L Φ(L⁻¹ dA L⁻ᵀ), Φ the lower triangle with half of the diagonal (Murray 2016, eq. 8)."""
    (a,), (da,) = primals, tangents
    low = _cholesky(a)
    inner = _solve_lower(low, _solve_lower(low, (da + da.T) / 2).T)
    return low, _matmul(low, jnp.tril(inner, -1) + jnp.diag(jnp.diagonal(inner)) / 2)


def _solve_lower(tril: Matrix, rhs: Matrix, transposed: bool = False) -> Matrix:
    matrix = jnp.tril(tril).T if transposed else jnp.tril(tril)
    plain = lambda _, b: _lower(tril, b)
    transpose = lambda _, b: _upper(tril, b)
    solvers = (transpose, plain) if transposed else (plain, transpose)
    return jax.lax.custom_linear_solve(lambda x: _matmul(matrix, x), rhs, *solvers)


def _solve_square(a: Matrix, rhs: Matrix) -> Matrix:
    return jax.lax.custom_linear_solve(
        lambda x: _matmul(a, x), rhs, lambda _, b: _solve(a, b), lambda _, b: _solve(a.T, b)
    )


def _matmul(a: Matrix, b: Matrix) -> Matrix:
    return jnp.matmul(a, b, precision="highest")
