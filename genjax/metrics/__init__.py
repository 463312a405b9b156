"""Numbers that say how good a model is."""

from typing import TYPE_CHECKING

from genjax.lazy import attach

__all__ = ["classes", "distances", "neighbours", "roc"]

if TYPE_CHECKING:  # for editors and type checkers; the modules are imported at first use
    from genjax.metrics import classes, distances, neighbours, roc
else:
    __getattr__, __dir__ = attach(__name__, __all__)
