"""The command of a recipe: from a command line to a trained run."""

from collections.abc import Callable, Sequence

from train.run import config, loop, process
from train.run.recipe import Recipe


def trainer(recipe: Recipe) -> Callable[[Sequence[str]], None]:
    """Make the function that trains a recipe's model as a command line says."""

    def main(argv: Sequence[str]) -> None:
        """Train as the command line says."""
        settings = config.parse(recipe.config, recipe.name, argv, recipe.configs)
        loop.run(recipe.name, settings, recipe.build, recipe.source)

    return main


def main(recipe: Recipe) -> None:
    """Train a recipe's model as the command line of this process says, and end the process."""
    process.main(trainer(recipe))
