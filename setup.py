"""The one thing that pyproject.toml cannot say: the README, for a package index.

There, a link to a file of the repository leads nowhere, so it becomes a link into the repository of the same version.
All else is in pyproject.toml.
"""

import pathlib
import re
import tomllib

from setuptools import setup

ROOT = pathlib.Path(__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def absolute(match: re.Match[str]) -> str:
    """Make the link to a file of the repository absolute: images to the file itself, all else to its page."""
    kind = "raw" if match["image"] else "blob"
    return (
        f"{match['image']}{match['text']}({PROJECT['urls']['Homepage']}/{kind}/v{PROJECT['version']}/{match['path']})"
    )


readme = re.sub(
    r"(?P<image>!?)(?P<text>\[[^\]]*\])\((?!https?://|#)(?P<path>[^)\s]+)\)",
    absolute,
    (ROOT / "README.md").read_text(encoding="utf-8"),
)

setup(long_description=readme, long_description_content_type="text/markdown")
