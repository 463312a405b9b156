"""Running statistics among the parameters: what follows the data instead of descending a loss.

The running means of a codebook, or the running singular vector of a kernel, are moved by no gradient of a loss. They
stand among the parameters all the same, so that the state of a model is one tree, and get a pull: the gradient of
½ |p - t|² for the target t that the batch at hand gives. Descent of rate r takes them r of the way, p ← p + r (t - p),
and pulls averaged over devices take them to the average of the targets.

That holds for this descent alone: Adam makes something else of a pull. So a tree of parameters says which of its leaves
are statistics, and at which rates (``mark``); ``optimizer`` gives them these rates, whatever the others get; and a
training step refuses marked parameters under any other optimizer (``check``).
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from genjax import checks

Path = tuple[str, ...]
"""Where a leaf stands: the names from the root to it."""

_RUNNING = "running"


class Marked(dict):
    """Parameters of which some are running statistics: a dictionary in every other respect.

    ``jax.tree.map``, gradients and ``|`` keep the marks; ``{**params}`` and ``dict(params)`` lose them.

    Fields:
      rates: the path and the rate of each statistic.
    """

    def __init__(self, tree: Mapping[str, Any], rates: tuple[tuple[Path, float], ...]):
        super().__init__(tree)
        self.rates = rates

    def __or__(self, other: Any) -> "Marked":
        """The union, with these marks."""
        return Marked({**self, **other}, self.rates)


def _children(tree: Marked) -> tuple[list[tuple[Any, Any]], Any]:
    names = sorted(tree)
    return [(jax.tree_util.DictKey(name), tree[name]) for name in names], (tuple(names), tree.rates)


def _again(names_and_rates: Any, children: Any) -> Marked:
    names, rates = names_and_rates
    return Marked(dict(zip(names, children, strict=True)), rates)


jax.tree_util.register_pytree_with_keys(Marked, _children, _again)


class Optimizer(optax.GradientTransformationExtraArgs):
    """A transformation that knows running statistics; made by ``optimizer``."""


def mark(tree: Mapping[str, Any], rates: Mapping[Path, float]) -> Any:
    """The tree with marks; the tree itself where there is nothing to mark.

    >>> params = mark({"codebook": {"share": 0.5}, "encoder": 1.0}, {("codebook", "share"): 0.01})
    >>> running(jax.tree.map(lambda p: 2 * p, params)), params["encoder"]
    ({('codebook', 'share'): 0.01}, 1.0)

    Args:
      tree: parameters by name.
      rates: r of each statistic, in (0, 1].

    Raises:
      ValueError: a rate is elsewhere.
    """
    for path, rate in rates.items():
        checks.positive(f"rate of {'/'.join(path)}", rate)
        checks.within(f"rate of {'/'.join(path)}", rate, 0, 1)
    return Marked(tree, tuple(sorted(rates.items()))) if rates else tree


def running(tree: Any) -> dict[Path, float]:
    """The rates of all statistics in a tree, by path."""
    found: dict[Path, float] = {}
    for path, node in jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda node: isinstance(node, Marked)):
        if isinstance(node, Marked):
            found |= {_names(path) + inner: rate for inner, rate in (*node.rates, *running(dict(node)).items())}
    return found


def descending(tree: Any) -> list[Any]:
    """The leaves that are no statistics: of a tree of gradients, those that are gradients."""
    at = running(tree)
    return [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree) if _names(path) not in at]


def optimizer(
    inner: Mapping[str, optax.GradientTransformation], label: Callable[[Path], str], *, rate: float | None = None
) -> Optimizer:
    """Each leaf with the optimizer that its label names, but running statistics with their own descent.

    Args:
      inner: optimizers by label.
      label: ``(path of a leaf) -> label``.
      rate: of all statistics, in place of those that they are marked with.
    """

    def follow(pulls: Any, params: Any) -> Any:
        rates = running(pulls)
        return jax.tree_util.tree_map_with_path(
            lambda path, pull: -(rates[_names(path)] if rate is None else rate) * pull, pulls
        )

    def labels(tree: Any) -> Any:
        at = running(tree)
        name = lambda names: _RUNNING if names in at else label(names)
        return jax.tree_util.tree_map_with_path(lambda path, _: name(_names(path)), tree)

    return Optimizer(*optax.multi_transform({**inner, _RUNNING: optax.stateless(follow)}, labels))


def check(params: Any, optimizer: optax.GradientTransformation) -> None:
    """Refuse an optimizer that would take pulls for gradients.

    Raises:
      ValueError: parameters are marked, and ``optimizer`` was not made for them.
    """
    if (at := running(params)) and not isinstance(optimizer, Optimizer):
        names = ", ".join("/".join(path) for path in at)
        raise ValueError(
            f"optimizer: {names} are running statistics, which no gradient moves; expected what the model's own "
            "function makes of an optimizer, as vqvae.optimizer(inner) or gan.optimizer(inner, inner), outermost"
        )


def require(params: Any, at: Any) -> None:
    """Refuse parameters whose marks were lost on the way, in a loss that pulls at some.

    Raises:
      ValueError: they are not those that ``init`` marked.
    """
    if missing := set(at) - set(running(params)):
        names = ", ".join(sorted("/".join(path) for path in missing))
        raise ValueError(
            f"params: expected {names} marked as running statistics, as init does; a dictionary written anew "
            "has lost the marks: change parameters by jax.tree.map, or by | on them"
        )


def _names(path: tuple[Any, ...]) -> Path:
    return tuple(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)
