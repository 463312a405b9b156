"""Returns of actor-critic, seed by seed: ``python -m benchmarks.returns``.

Trains each config with all its seeds in one program, and writes ``results/returns.json`` and the table in ``README.md``
of this folder. Runs that are there are only read.
"""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import tyro

from benchmarks import drawn, quality
from train import runtime


@dataclasses.dataclass(frozen=True)
class Returns:
    """Train, read, and write the table."""

    configs: tuple[str, ...] = ("cartpole", "cartpole_ppo", "acrobot")
    """Of train.actor_critic."""
    num_seeds: int = 10
    """Of each."""
    workdir: str = "runs"
    """Folder of the runs."""
    traceback: bool = False
    """Show where in the code an error arose."""


def main(argv: Sequence[str]) -> None:
    """Write what the command line says."""
    settings = tyro.cli(Returns, prog="python -m benchmarks.returns", args=argv)
    rows: list[dict[str, Any]] = []
    for name in settings.configs:
        told = drawn.Drawn(config=name, workdir=settings.workdir)
        workdir = drawn.train("actor_critic", told, settings.num_seeds)
        last = json.loads((workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        config = json.loads((workdir / "config.json").read_text(encoding="utf-8"))
        found = last.get("heldout_members", {}).get("return", [last["heldout_return"]])
        rows.append({"config": name, "returns": found, "seconds": last["seconds"], "devices": config["devices"]})
    path = quality.HERE / "results" / "returns.json"
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    quality.write_table("returns", table(rows))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = ["| config | mean return | worst seed | seeds | seconds for all |", "|---|---|---|---|---|"]
    for row in rows:
        returns = np.array(row["returns"])
        mean = f"{returns.mean():.1f} ± {returns.std(ddof=1) / len(returns) ** 0.5:.1f}"
        lines.append(f"| {row['config']} | {mean} | {returns.min():.1f} | {len(returns)} | {row['seconds']:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    runtime.main(main)
