"""All commands under one name: ``genjax ddpm --config digits``, or ``python -m train ddpm --config digits``."""

import difflib
import importlib
import pathlib
import re
import sys
from collections.abc import Sequence

import genjax
from train.run import startup

FOLDER = pathlib.Path(__file__).parent
RUNS = '\nif __name__ == "__main__":'
"""Line that the module of a command ends with."""


def commands() -> dict[str, str]:
    """List the commands, each with the first sentence of its module's docstring; no module is imported."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("[!_]*.py"))}
    return {name: _summary(text) for name, text in texts.items() if RUNS in text}


def _summary(text: str) -> str:
    paragraph = text.split('"""', 2)[1].split("\n\n")[0]
    return re.split(r": ``|\.(?: (?=[A-Z])|$)", " ".join(paragraph.split()), maxsplit=1)[0]


def overview(program: str) -> str:
    """Describe a program and its commands, one to a line."""
    lines = commands()
    width = max(map(len, lines))
    return "\n".join(
        [
            f"usage: {program} COMMAND [FLAGS]",
            "",
            "Train generative models, draw from them and score them.",
            "",
            *(f"  {name:{width}}  {line}" for name, line in lines.items()),
            "",
            f"{program} COMMAND --help lists the flags of a command; {program} --version says the version.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command that the first word names, with the words after it; without a word, list all commands."""
    words = list(sys.argv[1:] if argv is None else argv)
    if sys.argv[0] == __file__:  # python -m train, which was prepared when `train` was imported
        program = "python -m train"
    else:
        program = "genjax"
        startup.prepare()
    from train.run import terminal

    name = words[0] if words else "--help"
    if name in ("--help", "-h"):
        return terminal.write_line(overview(program))
    if name == "--version":
        return terminal.write_line(f"{program} {genjax.__version__}")
    if name not in (known := commands()):
        close = difflib.get_close_matches(name.replace("-", "_"), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(known)}"
        terminal.write_line(f"{program}: no command {name!r}; {hint}", sys.stderr)
        sys.exit(2)
    sys.argv = [f"{program} {name}", *words[1:]]
    from train.run import process

    process.main(importlib.import_module(f"train.{name}").main)


if __name__ == "__main__":
    main()
