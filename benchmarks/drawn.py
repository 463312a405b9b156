"""Sample quality of several models by the same metrics: ``python -m benchmarks.drawn --config digits``.

Trains a classifier and every model on the same data, each with the config of that name, and writes
``results/drawn-CONFIG.json`` and the table in ``README.md`` of this folder. Existing runs are only judged.
"""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tyro

from benchmarks import quality
from train import judge
from train.run import features, process, sweep


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Train, judge, and write the table."""

    config: str = "digits"
    """Config of every script."""
    models: tuple[str, ...] = ("ddpm", "vae", "pixelcnn", "gan")
    """Scripts of the models."""
    many: tuple[str, ...] = ("vae", "gan")
    """Models with several seeds, trained in one program."""
    num_seeds: int = 3
    """Number of seeds of each of these models."""
    variants: tuple[str, ...] = ("",)
    """Other settings for the models, a row of the table for each: "", "r1_weight=0", "loss=hinge spectral_norm"."""
    name: str = ""
    """Name of the table; that of the config by default."""
    data_dir: str = ""
    """Folder of the data sets."""
    workdir: str = "runs"
    """Folder of the runs."""
    traceback: bool = False
    """Show where in the code an error arose."""


def train(script: str, settings: Drawn, num_seeds: int = 1, variant: str = "") -> pathlib.Path:
    """Train a script unless its run exists, and return the workdir."""
    argv = ["--config", settings.config, "--num-seeds", str(num_seeds)]
    argv += ["--data-dir", settings.data_dir] if settings.data_dir else []
    argv += [flag for part in variant.split() for flag in f"--{part}".split("=", 1)]
    workdir = quality.workdir(settings.workdir, script, argv)
    quality.train(script, [*argv, "--workdir", str(workdir)])
    return workdir


def main(argv: Sequence[str]) -> None:
    """Run the command."""
    settings = tyro.cli(Drawn, prog="python -m benchmarks.drawn", args=argv)
    extractor, classifier = features.from_classifier(str(train("classifier", settings)), settings.data_dir)
    metrics = features.metrics(extractor, classifier, k=5)
    num = len(metrics.real.heldout["image"])
    rows: list[dict[str, Any]] = []
    for script, variant in itertools.product(settings.models, settings.variants):
        seeds = settings.num_seeds if script in settings.many else 1
        workdir = str(train(script, settings, seeds, variant))
        each = [judge.judge(judge.Judge(workdir, member=i), metrics)["drawn"] for i in range(seeds)]
        rows.append({"model": f"{script} {variant}".strip(), "seeds": each, "num": num})
    rows.append({"model": "real, held out", "seeds": [metrics.reference(num)], "num": num})
    name = settings.name or settings.config
    path = quality.HERE / "results" / f"drawn-{name}.json"
    path.write_text(json.dumps({"features": metrics.title, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    quality.write_table(f"drawn {name}", table(rows))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Format the rows as a Markdown table."""
    names = ("frechet", "precision", "recall", "density", "coverage", "classes", "copies_ratio")
    lines = ["| drawn by | Fréchet | precision | recall | density | coverage | classes | distance ratio |"]
    lines.append("|---" * (1 + len(names)) + "|")
    for row in rows:
        cells = [_show(np.array([seed[name] for seed in row["seeds"]], np.float64)) for name in names]
        lines.append(f"| {row['model']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _show(values: np.ndarray) -> str:
    mean = f"{values.mean():.3g}"
    return mean if len(values) < 2 else f"{mean} ± {sweep.standard_error(values):.2g}"


if __name__ == "__main__":
    process.main(main)
