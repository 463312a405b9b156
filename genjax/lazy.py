"""Packages whose modules are imported at first use (PEP 562)."""


def attach(package: str, names: list[str]) -> tuple:  # of two functions; to name their types takes longer than the rest
    """Make the ``__getattr__`` and the ``__dir__`` of a package.

    A package with ``__getattr__, __dir__ = attach(__name__, __all__)`` imports each of its submodules when it is first
    asked for: ``import genjax.theory`` is cheap, and ``genjax.theory.markov`` works without another import.

    Args:
        package: full name of the package, its ``__name__``.
        names: public names of the package, its ``__all__``. A name that the package does not define itself is that
            of a submodule.

    Returns:
        getattr: function that imports the submodule of a name, and raises AttributeError for every other name.
        dir: function that lists the public names.
    """

    def __getattr__(name: str) -> object:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}; its public names: {', '.join(names)}")
        import importlib

        return importlib.import_module(f"{package}.{name}")

    def __dir__() -> list[str]:
        return sorted(names)

    return __getattr__, __dir__
