"""A state as leaves by path, ``params/Dense_0/kernel`` → array; two states are compared by paths."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np


def named(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by path, sorted.

    Raises:
      ValueError: a name contains "/", or two leaves share a path.
    """
    leaves: dict[str, Any] = {}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if any("/" in _name(key) for key in keys):
            raise ValueError(f"state: expected names without '/', got {path(keys)!r}")
        leaves[path(keys)] = leaf
    if len({name.replace("/", ".") for name in leaves}) < len(jax.tree.leaves(tree)):  # orbax joins them by dots
        raise ValueError(f"state: expected one name per leaf, got some twice among {sorted(leaves)}")
    return dict(sorted(leaves.items()))


def path(keys: tuple) -> str:
    """The path of a leaf as text, from the keys of ``jax.tree_util``."""
    return "/".join(map(_name, keys))


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The tree of plain dictionaries with these leaves; the inverse of ``named``."""
    return flax.traverse_util.unflatten_dict(leaves, sep="/")


def struct(leaf: Any) -> jax.ShapeDtypeStruct:
    """The shape and the type of an array, a ShapeDtypeStruct or a number."""
    value = leaf if hasattr(leaf, "dtype") and hasattr(leaf, "shape") else np.asarray(leaf)
    return jax.ShapeDtypeStruct(value.shape, value.dtype)


def zeros(tree: Any) -> dict[str, np.ndarray]:
    """An array of zeros for every leaf by path, of its shape and type."""
    structs = {name: struct(leaf) for name, leaf in named(tree).items()}
    return {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in structs.items()}


def layout(tree: Any) -> dict[str, str]:
    """The type and the shape of every leaf by path: ``{"params/Dense_0/kernel": "float32[784,128]"}``."""
    return {name: _describe(leaf) for name, leaf in named(tree).items()}


def is_empty(leaf: str) -> bool:
    """True if a leaf of a layout has no elements, such as ``float32[0,3]``."""
    return "0" in leaf.partition("[")[2].rstrip("]").split(",")


def digest(tree: Any) -> str:
    """SHA-256 over path, type, shape and bytes of every leaf, in the order of the paths; equal for equal trees only."""
    total = hashlib.sha256()
    for name, leaf in named(tree).items():
        array = np.asarray(leaf)
        total.update(json.dumps([name, _describe(array)]).encode() + b"\n")
        total.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def differences(saved: Mapping[str, str], expected: Mapping[str, str]) -> list[str]:
    """``path: saved -> expected`` for every leaf of two layouts that differs in presence, type or shape."""
    either = sorted(saved.keys() | expected.keys())
    lines = [(name, saved.get(name, "absent"), expected.get(name, "absent")) for name in either]
    return [f"{name}: {old} -> {new}" for name, old, new in lines if old != new]


def on_host(tree: Any) -> dict[str, Any]:
    """Copy every leaf to host memory; a tree of plain dictionaries.

    Raises:
      ValueError: a leaf is not an array of numbers.
    """
    copies = {}
    for name, leaf in named(jax.device_get(tree)).items():
        try:
            copies[name] = np.array(leaf)
        except TypeError as error:  # a typed key
            raise ValueError(f"state: expected arrays, got something else at {name}: {error}") from None
        if (kind := copies[name].dtype).hasobject or kind.kind in "SUMm":
            raise ValueError(f"state: expected arrays of numbers, got {kind} at {name}")
    return nested(copies)


def not_finite(tree: Any) -> list[str]:
    """The paths of the arrays that hold NaN or infinity."""
    floats = {name: leaf for name, leaf in named(tree).items() if jnp.issubdtype(leaf.dtype, jnp.inexact)}
    return [name for name, leaf in floats.items() if not np.isfinite(leaf).all()]


def _describe(leaf: Any) -> str:
    shape = struct(leaf).shape
    return f"{struct(leaf).dtype.name}[{','.join(map(str, shape))}]"


def _name(key: Any) -> str:
    return jax.tree_util.keystr((key,), simple=True)
