"""Factorisations and solutions of linear systems, of many matrices one after the other.

On CPU, jaxlib 0.10 spreads the matrices of a batch over the threads that run the program, and waits for them on one of
those threads: two such calls at once can wait for each other for ever. So here a batch, whether it is an axis or comes
from ``vmap``, is a loop over calls of one matrix; on other platforms it stays a batch. All are differentiable but
``eigh``.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float


def one_by_one(run: Callable) -> Callable:
    """``run`` of arrays, whose ``vmap`` is a loop on CPU; no gradients."""
    looped = custom_vmap(run)

    @looped.def_vmap
    def loop(axis_size, in_batched, *args):
        rows = [arg for arg, batched in zip(args, in_batched, strict=True) if batched]

        def fill(row):
            left = iter(row)
            return [next(left) if batched else arg for arg, batched in zip(args, in_batched, strict=True)]

        together = jax.vmap(run, [0 if batched else None for batched in in_batched])
        out = jax.lax.platform_dependent(
            rows,
            cpu=lambda rows: jax.lax.map(lambda row: looped(*fill(row)), rows),
            default=lambda rows: together(*fill(rows)),
        )
        return out, jax.tree.map(lambda _: True, out)

    return looped


_factor = one_by_one(jnp.linalg.cholesky)
_solve = one_by_one(jnp.linalg.solve)
_lower = one_by_one(functools.partial(jax.scipy.linalg.solve_triangular, lower=True))
_eigen = one_by_one(lambda a: tuple(jnp.linalg.eigh(a)))
_upper = one_by_one(functools.partial(jax.scipy.linalg.solve_triangular, lower=True, trans="T"))


def cholesky(a: Float[Array, "... d d"]) -> Float[Array, "... d d"]:
    """The lower triangular L with L Lᵀ = A; NaN where A is not positive definite.

    >>> float(cholesky(jnp.array([[4.0]]))[0, 0])
    2.0
    """
    return jnp.vectorize(_cholesky, signature="(d,d)->(d,d)")(a)


def eigh(a: Float[Array, "... d d"]) -> tuple[Float[Array, "... d"], Float[Array, "... d d"]]:
    """Eigenvalues of a symmetric A, the least first, and its eigenvectors, which are columns; no gradients.

    >>> [float(value) for value in eigh(jnp.array([[2.0, 0.0], [0.0, 1.0]]))[0]]
    [1.0, 2.0]
    """
    return jnp.vectorize(_eigen, signature="(d,d)->(d),(d,d)")(a)


def solve_lower(
    tril: Float[Array, "... d d"], rhs: Float[Array, "... d m"], *, transposed: bool = False
) -> Float[Array, "... d m"]:
    """L⁻¹ B, or L⁻ᵀ B; what stands above the diagonal of L is not read."""
    run = functools.partial(_solve_lower, transposed=transposed)
    return jnp.vectorize(run, signature="(d,d),(d,m)->(d,m)")(tril, rhs)


def solve(a: Float[Array, "... d d"], rhs: Float[Array, "... d m"]) -> Float[Array, "... d m"]:
    """A⁻¹ B."""
    return jnp.vectorize(_solve_square, signature="(d,d),(d,m)->(d,m)")(a, rhs)


def orthogonal(scale: float) -> Callable:
    """An initialiser: ``scale`` times a matrix with orthonormal rows or columns, by a QR decomposition."""
    initializer = jax.nn.initializers.orthogonal(scale)
    return lambda key, shape, dtype: one_by_one(lambda key: initializer(key, shape, dtype))(key)


@jax.custom_jvp
def _cholesky(a):
    return _factor(a)


@_cholesky.defjvp
def _cholesky_jvp(primals, tangents):
    """dL = L Φ(L⁻¹ dA L⁻ᵀ), Φ the lower triangle with half of the diagonal (Murray 2016, eq. 8)."""
    (a,), (da,) = primals, tangents
    low = _cholesky(a)
    inner = _solve_lower(low, _solve_lower(low, (da + da.T) / 2).T)
    return low, _times(low, jnp.tril(inner, -1) + jnp.diag(jnp.diagonal(inner)) / 2)


def _solve_lower(tril, rhs, transposed=False):
    matrix = jnp.tril(tril).T if transposed else jnp.tril(tril)
    forth = lambda _, b: _lower(tril, b)
    back = lambda _, b: _upper(tril, b)
    return jax.lax.custom_linear_solve(
        lambda x: _times(matrix, x), rhs, *((back, forth) if transposed else (forth, back))
    )


def _solve_square(a, rhs):
    return jax.lax.custom_linear_solve(
        lambda x: _times(a, x), rhs, lambda _, b: _solve(a, b), lambda _, b: _solve(a.T, b)
    )


def _times(a, b):
    return jnp.matmul(a, b, precision="highest")
