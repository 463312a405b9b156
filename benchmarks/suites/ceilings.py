"""Upper limits of the machine: matrix products and memory bandwidth, by JAX and by PyTorch."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks import harness, peers, workload

Variant = harness.Variant


class Size(NamedTuple):
    """Sizes of the work.

    Attributes:
      matrix: rows of the square matrices.
      megabytes: size of each added array, MiB.
    """

    matrix: int
    megabytes: int


SIZES = {"toy": Size(64, 1), "cpu": Size(2048, 128), "gpu": Size(8192, 1024)}


def cases(size: Size, device: str) -> Iterator[harness.Case]:
    """Yield the cases."""
    notes = peers.adapter("notes")
    for dtype in ("float32", "bfloat16") if device == "gpu" else ("float32",):  # most processors emulate bfloat16
        yield _product(size.matrix, dtype, device, notes)
    yield _triad(size.megabytes, device, notes)


def _product(n: int, dtype: str, device: str, notes: Any) -> harness.Case:
    a, b = workload.noise((n, n)), workload.noise((n, n), 1)

    def ours() -> harness.Run:
        multiply = jax.jit(lambda a, b: jnp.matmul(a, b, preferred_element_type=jnp.float32))
        x, y = jnp.asarray(a, dtype), jnp.asarray(b, dtype)
        return lambda: multiply(x, y).block_until_ready()

    def theirs() -> harness.Run:
        where = notes.device(device)
        x, y = (notes.tensor(array, where).to(getattr(notes.torch, dtype)) for array in (a, b))
        return notes.waiting(lambda: x @ y, where)

    def check(outputs: Any) -> dict[str, float]:
        tolerance = 1e-2 if dtype == "bfloat16" or device == "gpu" else 1e-4
        others = {name: notes.numpy(out) for name, out in outputs.items() if name != "JAX"}
        return {name: harness.close(out, outputs["JAX"], tolerance, name) for name, out in others.items()}

    variants = [Variant("JAX", ours), *([Variant("PyTorch", theirs)] if notes else [])]
    return harness.Case(f"matrix product, {dtype}, {n} by {n}", "product", 1, variants, check, flops=2 * n**3)


def _triad(megabytes: int, device: str, notes: Any) -> harness.Case:
    n = megabytes * 2**18
    a, b = workload.noise((n,)), workload.noise((n,), 1)

    def ours() -> harness.Run:
        add = jax.jit(lambda a, b: a + 2 * b)
        x, y = jnp.asarray(a), jnp.asarray(b)
        return lambda: add(x, y).block_until_ready()

    def theirs() -> harness.Run:
        where = notes.device(device)
        x, y = notes.tensor(a, where), notes.tensor(b, where)
        out = notes.torch.empty_like(x)
        return notes.waiting(lambda: notes.torch.add(x, y, alpha=2, out=out), where)

    variants = [Variant("JAX", ours), *([Variant("PyTorch, into memory that is there", theirs)] if notes else [])]
    return harness.Case("memory: a + 2 b, GB read and written", "GB", 12 * n / 1e9, variants)
