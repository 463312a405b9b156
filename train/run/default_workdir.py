"""The default folder of a run, named after its settings: ``runs/vae-digits-latent_dim=8``."""

import hashlib
import pathlib
import re
from collections.abc import Mapping
from typing import Any

LONGEST = 40
"""Letters of a value; a longer value is cut, and ends in a digest of all of it."""


def name(script: str, config: str, differing: Mapping[str, Any]) -> str:
    """The folder of a run below ``runs``: the same for the same settings, another for other settings.

    >>> name("vae", "digits", {})
    'runs/vae-digits'
    >>> name("vae", "digits", {"latent_dim": 8, "hidden": (64, 64), "flip": True, "data": "tfds:mnist"})
    'runs/vae-digits-latent_dim=8-hidden=64,64-flip-data=tfds,mnist'

    Args:
      script: command that trains the run.
      config: name or path of the configuration.
      differing: settings that differ from the configuration.
    """
    path = pathlib.Path(config)
    title = f"{path.absolute().parent.name}-again" if path.suffix.lower() == ".json" else path.stem
    parts = [_short(f"{script}-{title}", 80), *(_part(key, value) for key, value in differing.items())]
    return str(pathlib.Path("runs") / _short("-".join(parts), 200))


def _part(setting: str, value: Any) -> str:
    if isinstance(value, bool):
        return setting if value else f"no_{setting}"
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f"{setting}={_short(text.replace('tfds:', 'tfds,', 1), LONGEST)}"


def _short(text: str, most: int) -> str:
    """The text as part of a file name, on any system; where the text loses letters, a digest of it at the end."""
    safe = re.sub(r"[^A-Za-z0-9._,=+-]+", "-", text)
    if safe == text and len(text) <= most:
        return text
    return f"{safe[: most - 9].rstrip('-.')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
