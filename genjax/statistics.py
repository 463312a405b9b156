"""Running statistics among the parameters: numbers that follow the data instead of descending a loss.

No loss has the running means of a codebook, or the running singular vector of a kernel, at its minimum. They are
parameters all the same, so that the state of a model is one tree, and their gradient is that of a pseudo-loss,
½ |p - t|², for the target t of the batch (``pseudo_loss``). Descent of rate r takes a statistic r of the way,
p ← p + r (t - p), and gradients averaged over devices take it towards the average of the targets.

Only this descent does so: Adam would turn the pseudo-gradient into another step. So a tree of parameters says which of
its leaves are statistics, and at which rates (``mark``). ``optimizer`` gives statistics these rates, whatever the other
leaves get, and a training step refuses marked parameters under any other optimizer (``check``).
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from genjax import checks
from genjax.types import Scalar

Path = tuple[str, ...]
"""The place of a leaf: the names from the root to the leaf."""

_RUNNING = "running"


class Marked(dict):
    """Parameters of which some are running statistics: a dictionary in every other respect.

    ``jax.tree.map``, gradients and ``|`` keep the marks; ``{**params}`` and ``dict(params)`` lose them.

    Attributes:
      rates: path and rate of each statistic.
    """

    def __init__(self, tree: Mapping[str, Any], rates: tuple[tuple[Path, float], ...]):
        super().__init__(tree)
        self.rates = rates

    def __or__(self, other: Any) -> "Marked":
        """The union, with the marks of the left side."""
        return Marked({**self, **other}, self.rates)


def _children(tree: Marked) -> tuple[list[tuple[Any, Any]], Any]:
    names = sorted(tree)
    return [(jax.tree_util.DictKey(name), tree[name]) for name in names], (tuple(names), tree.rates)


def _unflatten(names_and_rates: Any, children: Any) -> Marked:
    names, rates = names_and_rates
    return Marked(dict(zip(names, children, strict=True)), rates)


jax.tree_util.register_pytree_with_keys(Marked, _children, _unflatten)


class Optimizer(optax.GradientTransformationExtraArgs):
    """A transformation that knows running statistics; made by ``optimizer``."""


def mark(tree: Mapping[str, Any], rates: Mapping[Path, float]) -> Any:
    """The tree with marks; the tree itself where there is nothing to mark.

    >>> params = mark({"codebook": {"share": 0.5}, "encoder": 1.0}, {("codebook", "share"): 0.01})
    >>> running(jax.tree.map(lambda p: 2 * p, params)), params["encoder"]
    ({('codebook', 'share'): 0.01}, 1.0)

    Args:
      tree: parameters by name.
      rates: rates r of the statistics by path, each in (0, 1].

    Raises:
      ValueError: a rate is out of range.
    """
    for path, rate in rates.items():
        checks.positive(f"rate of {'/'.join(path)}", rate)
        checks.within(f"rate of {'/'.join(path)}", rate, 0, 1)
    return Marked(tree, tuple(sorted(rates.items()))) if rates else tree


def running(tree: Any) -> dict[Path, float]:
    """The rates of all statistics in a tree, by path."""
    rates: dict[Path, float] = {}
    for path, node in jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda node: isinstance(node, Marked)):
        if isinstance(node, Marked):
            rates |= {_names(path) + inner: rate for inner, rate in (*node.rates, *running(dict(node)).items())}
    return rates


def descending(tree: Any) -> list[Any]:
    """The leaves that are no statistics: in a tree of gradients, the true gradients."""
    rates = running(tree)
    return [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree) if _names(path) not in rates]


def pseudo_loss(params: Any, targets: Any) -> Scalar:
    """½ |p - sg(t)|² less itself as a constant: value 0, gradient p - t.

    >>> jax.value_and_grad(pseudo_loss)(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0]))
    (Array(0., dtype=float32), Array([ 0., -2.], dtype=float32))

    Args:
      params: tree of statistics.
      targets: tree of their targets.
    """
    squares = jax.tree.map(lambda p, t: 0.5 * jnp.sum((p - jax.lax.stop_gradient(t)) ** 2), params, targets)
    loss: Scalar = jax.tree.reduce(jnp.add, squares)
    return loss - jax.lax.stop_gradient(loss)


def optimizer(
    inner: Mapping[str, optax.GradientTransformation], label: Callable[[Path], str], *, rate: float | None = None
) -> Optimizer:
    """Combine optimizers by label, with the statistics' own descent.

    Args:
      inner: optimizers by label.
      label: ``(path of a leaf) -> label``, asked for leaves that are no statistics.
      rate: rate of all statistics, in place of the rates in their marks.
    """

    def descend(gradients: Any, params: Any) -> Any:
        rates = running(gradients)
        return jax.tree_util.tree_map_with_path(
            lambda path, gradient: -(rates[_names(path)] if rate is None else rate) * gradient, gradients
        )

    def labels(tree: Any) -> Any:
        rates = running(tree)
        name = lambda names: _RUNNING if names in rates else label(names)
        return jax.tree_util.tree_map_with_path(lambda path, _: name(_names(path)), tree)

    return Optimizer(*optax.multi_transform({**inner, _RUNNING: optax.stateless(descend)}, labels))


def check(params: Any, optimizer: optax.GradientTransformation) -> None:
    """Refuse an optimizer that would take pseudo-gradients for gradients.

    Raises:
      ValueError: parameters are marked, and ``optimizer`` was not made for running statistics.
    """
    if (rates := running(params)) and not isinstance(optimizer, Optimizer):
        names = ", ".join("/".join(path) for path in rates)
        raise ValueError(
            f"optimizer: {names} are running statistics, which have a descent of their own; expected the model's own "
            "optimizer, such as model.optimizer(optax.adam(1e-3)), outermost"
        )


def require(params: Any, paths: Any) -> None:
    """Refuse parameters that have lost the marks of their statistics.

    Raises:
      ValueError: a parameter at one of the paths is not marked.
    """
    if missing := set(paths) - set(running(params)):
        names = ", ".join(sorted("/".join(path) for path in missing))
        raise ValueError(
            f"params: expected {names} marked as running statistics, as init does; a dictionary written anew "
            "has lost the marks: change parameters by jax.tree.map, or by | on them"
        )


def _names(path: tuple[Any, ...]) -> Path:
    return tuple(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)
