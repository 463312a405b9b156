"""Generative models in JAX and Flax: pure functions, exact numbers, one scan.

Each package is imported when it is first asked for: ``import genjax``, then ``genjax.diffusion.linear_schedule(1000)``.
"""

from genjax.lazy import attach

__all__ = ["__version__", "data", "diffusion", "envs", "metrics", "models", "nn", "theory", "training"]

TYPE_CHECKING = False
if TYPE_CHECKING:  # read by editors and type checkers alone
    from genjax import data, diffusion, envs, metrics, models, nn, theory, training

    __version__: str
else:
    _package, __dir__ = attach(__name__, __all__)

    def __getattr__(name: str) -> object:
        return _version() if name == "__version__" else _package(name)


def _version() -> str:
    """Read the version in the pyproject.toml of a checkout, or else the version of the installed package."""
    import importlib.metadata
    import pathlib
    import tomllib

    try:
        text = (pathlib.Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
        project = tomllib.loads(text)["project"]
    except (OSError, ValueError, KeyError):
        project = {}
    own = project.get("name") == "jax-genmodels"  # another project's file may lie beside an installed package
    return project["version"] if own else importlib.metadata.version("jax-genmodels")
