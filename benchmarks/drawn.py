"""What the models draw, judged alike: ``python -m benchmarks.drawn --config digits``.

Trains a classifier and every model that draws on the same data, each with the config of that name, and writes
``results/drawn-CONFIG.json`` and the table in ``README.md`` of this folder. Runs that are there are only judged.
"""

import dataclasses
import json
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import tyro

from benchmarks import quality
from train import judge, members, runtime


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Train, judge, and write the table."""

    config: str = "digits"
    """Of all the scripts; it must exist for each."""
    models: tuple[str, ...] = ("ddpm", "vae", "pixelcnn", "gan")
    """Which scripts."""
    many: tuple[str, ...] = ("vae", "gan")
    """Of which several seeds are trained, in one program."""
    num_seeds: int = 3
    """How many."""
    data_dir: str = ""
    """Where data sets lie."""
    workdir: str = "runs"
    """Folder of the runs."""
    traceback: bool = False
    """Show where in the code an error arose."""


def train(script: str, settings: Drawn, num_seeds: int = 1) -> pathlib.Path:
    """The workdir of a run of a script, trained where it is not."""
    suffix = f"-{num_seeds}-seeds" if num_seeds > 1 else ""
    workdir = pathlib.Path(settings.workdir) / f"{script}-{settings.config}{suffix}"
    argv = ["--config", settings.config, "--num-seeds", str(num_seeds), "--workdir", str(workdir)]
    argv += ["--data-dir", settings.data_dir] if settings.data_dir else []
    subprocess.run([sys.executable, "-m", f"train.{script}", *argv], check=True)
    return workdir


def main(argv: Sequence[str]) -> None:
    """Judge what the command line says."""
    settings = tyro.cli(Drawn, prog="python -m benchmarks.drawn", args=argv)
    classifier = str(train("classifier", settings))
    rows: list[dict[str, Any]] = []
    for script in settings.models:
        num = settings.num_seeds if script in settings.many else 1
        workdir = str(train(script, settings, num))
        judged = [
            judge.judge(judge.Judge(workdir, classifier=classifier, member=i, data_dir=settings.data_dir))
            for i in range(num)
        ]
        rows.append({"model": script, "seeds": [one["drawn"] for one in judged], "num": judged[0]["num"]})
        floor, features = judged[0]["floor"], judged[0]["features"]
    rows.append({"model": "real, held out", "seeds": [floor], "num": rows[0]["num"]})
    path = quality.HERE / "results" / f"drawn-{settings.config}.json"
    path.write_text(json.dumps({"features": features, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    quality.write_table(f"drawn {settings.config}", table(rows))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    names = ("frechet", "precision", "recall", "density", "coverage", "classes", "copies_ratio")
    lines = ["| drawn by | Fréchet | precision | recall | density | coverage | classes | distance ratio |"]
    lines.append("|---" * (1 + len(names)) + "|")
    for row in rows:
        cells = [_show(np.array([seed[name] for seed in row["seeds"]], np.float64)) for name in names]
        lines.append(f"| {row['model']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _show(values: np.ndarray) -> str:
    mean = f"{values.mean():.3g}"
    return mean if len(values) < 2 else f"{mean} ± {members.standard_error(values):.2g}"


if __name__ == "__main__":
    runtime.main(main)
