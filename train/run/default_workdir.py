"""Folders of runs by what they are runs of: ``runs/vae-digits-latent_dim=8``."""

import hashlib
import pathlib
import re
from collections.abc import Mapping
from typing import Any

LONGEST = 40
"""Letters of a value; of what is longer a digest tells the rest."""


def default_workdir(script: str, config: str, differs: Mapping[str, Any]) -> str:
    """The folder of a run under ``runs``: the same for the same settings, another for others.

    >>> default_workdir("vae", "digits", {})
    'runs/vae-digits'
    >>> default_workdir("vae", "digits", {"latent_dim": 8, "hidden": (64, 64), "flip": True, "data": "tfds:mnist"})
    'runs/vae-digits-latent_dim=8-hidden=64,64-flip-data=tfds,mnist'

    Args:
      script: that trains it.
      config: name or path of the configuration.
      differs: the settings that are not as the configuration says.
    """
    path = pathlib.Path(config)
    name = f"{path.absolute().parent.name}-again" if path.suffix.lower() == ".json" else path.stem
    parts = [_short(f"{script}-{name}", 80), *(_part(key, value) for key, value in differs.items())]
    return str(pathlib.Path("runs") / _short("-".join(parts), 200))


def _part(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return name if value else f"no_{name}"
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f"{name}={_short(text.replace('tfds:', 'tfds,', 1), LONGEST)}"


def _short(text: str, most: int) -> str:
    """The text as part of a file's name, on any system; what that loses is in a digest at its end."""
    safe = re.sub(r"[^A-Za-z0-9._,=+-]+", "-", text)
    if safe == text and len(text) <= most:
        return text
    return f"{safe[: most - 9].rstrip('-.')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
