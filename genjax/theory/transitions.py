"""Tables of transition probabilities: checks and operations for ``markov``."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from scipy.sparse import csgraph, csr_array

from genjax import checks
from genjax.theory import simplex


def check(transition: Any) -> None:
    """Refuse what is no square table of distributions."""
    if np.ndim(transition) != 2 or len({*np.shape(transition)}) != 1 or not np.size(transition):
        raise ValueError(f"transition: expected a square table, a row for each state; got shape {np.shape(transition)}")
    simplex.check("transition", transition)


def host_table(transition: Any) -> Float[np.ndarray, "s s"]:
    """The table in float64, with rows that sum to 1; refused inside ``jit``."""
    if not checks.is_concrete(transition):
        raise ValueError("transition: expected known values, got a tracer; call this outside jit, grad and vmap")
    check(transition)
    return normalise_rows(np.asarray(transition, np.float64))


def check_distribution(name: str, p: Any, transition: Any) -> None:
    """Refuse what is no distribution over the states of the chain."""
    simplex.check(name, p)
    if (size := np.shape(p)[-1]) != len(transition):
        raise ValueError(f"{name}: expected one probability of each of {len(transition)} states, got {size}")


def period(linked: Bool[np.ndarray, "s s"]) -> int:
    """Greatest common divisor of depth(i) + 1 - depth(j) over the links of a class (Denardo 1977).

    depth(i) is the distance of state i from the first state.
    """
    depth = csgraph.shortest_path(csr_array(linked), unweighted=True, indices=0).astype(int)
    i, j = np.nonzero(linked)
    return int(np.gcd.reduce(depth[i] + 1 - depth[j]))


def reachable(table: Float[Array, "s s"]) -> Bool[Array, "s s"]:
    """Matrix that is True where j can be reached from i; works under ``jit``."""
    reach = (table > 0) | jnp.eye(len(table), dtype=bool)
    for _ in range(len(table).bit_length()):
        reach = matmul(reach.astype(table.dtype), reach.astype(table.dtype)) > 0
    return reach


def normalise_rows(table: Any) -> Any:
    """Divide each row by its sum."""
    return table / table.sum(1, keepdims=True)


def matmul(a: Float[Array, "... s"], b: Float[Array, "s s"]) -> Float[Array, "... s"]:
    """a b in full precision: accelerators would round the factors."""
    return jnp.matmul(a, b, precision="highest")
