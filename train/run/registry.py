"""All recipes: those of ``train``, each imported when it is first asked for, and those that the user registers.

A recipe from outside is known only once somebody has registered it or named its module: no name that stands in a
run's folder is ever imported.
"""

import importlib
import importlib.util
import pathlib
import sys
from types import ModuleType

from train.checkpoint import manifest
from train.run import files, usage
from train.run.recipe import Predicate, Recipe

BUILT_IN = ("actor_critic", "ae", "classifier", "ddpm", "edm", "gan", "pixelcnn", "pixelrnn", "vae", "vdm", "vqvae")
"""Names of the recipes of ``train``; the module ``train.<name>`` holds each as ``RECIPE``."""

_registered: dict[str, Recipe] = {}


def register(recipe: Recipe) -> None:
    """Make a recipe from outside known to ``train.sample``, ``train.evaluate``, ``train.judge`` and ``train.load``.

    A recipe that is registered again takes the place of the earlier one.

    Raises:
      ValueError: a recipe of ``train`` has the same name.
    """
    if recipe.name in BUILT_IN:
        raise ValueError(f"recipe {recipe.name}: expected a name that no recipe of train has; choose another")
    _registered[recipe.name] = recipe


def find(name: str) -> Recipe | None:
    """Return the recipe of a name, or None where it is neither built in nor registered."""
    if name in BUILT_IN:
        return importlib.import_module(f"train.{name}").RECIPE
    return _registered.get(name)


def get(name: str) -> Recipe:
    """Return a recipe that is known to exist.

    Raises:
      LookupError: there is none of this name.
    """
    recipe = find(name)
    if recipe is None:
        raise LookupError(f"recipe {name}: expected one of {', '.join([*BUILT_IN, *_registered])}")
    return recipe


def names(fits: Predicate) -> list[str]:
    """List the names of the recipes that meet a requirement."""
    return [name for name in (*BUILT_IN, *_registered) if fits(get(name))]


def commands(fits: Predicate) -> str:
    """Name the recipes that meet a requirement, for a message: "train.ddpm or train.vae"."""
    return " or ".join(f"train.{name}" if name in BUILT_IN else name for name in names(fits))


def from_module(module: str) -> Recipe:
    """Import a module or a file that the user names, and register its ``RECIPE``.

    Args:
      module: dotted name of a module, or the path of a ``.py`` file.

    Raises:
      UsageError: it cannot be imported, or holds no recipe.
    """
    shown = files.shown(module)
    try:
        loaded = _from_file(pathlib.Path(module)) if module.endswith(".py") else importlib.import_module(module)
    except Exception as error:  # whatever the user's own code raises
        raise usage.UsageError(f"--recipe {shown}: cannot be imported: {manifest.brief(error)}") from error
    recipe = getattr(loaded, "RECIPE", None)
    if not isinstance(recipe, Recipe):
        raise usage.UsageError(f"--recipe {shown}: expected a module with RECIPE = Recipe(...), got none in it")
    try:
        register(recipe)
    except ValueError as error:
        raise usage.UsageError(f"--recipe {shown}: {error}") from error
    return recipe


def _from_file(path: pathlib.Path) -> ModuleType:
    """Import a file once, under a name that no installed module has."""
    name = f"recipe:{path.resolve()}"
    if name in sys.modules:
        return sys.modules[name]
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # the name ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up by name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
