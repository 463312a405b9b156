"""Returns of actor-critic, seed by seed: ``python -m benchmarks.returns``.

Trains each config with all its seeds in one program, and writes ``results/returns.json`` and the table in ``README.md``
of this folder. Existing runs are only read. The settings of the configs were chosen on seeds from 1000 on, so the
seeds reported here, from 0 on, had no part in the choice.
"""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tyro

from benchmarks import drawn, quality
from train.run import process

SOLVED = 475.0
"""Mean return from which CartPole-v1 counts as solved."""
SEEDS = {"cartpole": 100, "cartpole_ppo": 100, "acrobot": 10}
"""Number of seeds of each config."""


@dataclasses.dataclass(frozen=True)
class Returns:
    """Train, read, and write the table."""

    configs: tuple[str, ...] = tuple(SEEDS)
    """Configs of train.actor_critic."""
    num_seeds: int = 0
    """Number of seeds of each config; 0 for the default of the config."""
    workdir: str = "runs"
    """Folder of the runs."""
    traceback: bool = False
    """Show where in the code an error arose."""


def main(argv: Sequence[str]) -> None:
    """Run the command."""
    settings = tyro.cli(Returns, prog="python -m benchmarks.returns", args=argv)
    rows: list[dict[str, Any]] = []
    for name in settings.configs:
        run = drawn.Drawn(config=name, workdir=settings.workdir)
        workdir = drawn.train("actor_critic", run, settings.num_seeds or SEEDS[name])
        last = json.loads((workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        config = json.loads((workdir / "config.json").read_text(encoding="utf-8"))
        returns = last.get("heldout_members", {}).get("return", [last["heldout_return"]])
        rows.append({"config": name, "returns": returns, "seconds": last["seconds"], "devices": config["devices"]})
    path = quality.HERE / "results" / "returns.json"
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    quality.write_table("returns", table(rows))


class Share(NamedTuple):
    """Share of the seeds that solve an environment.

    Attributes:
      share: share of the trained seeds.
      low: lower end of the 95 % interval of Wilson (1927) for the share of all seeds.
      high: upper end of the interval.
    """

    share: float
    low: float
    high: float


def solved(returns: Sequence[float] | np.ndarray, bar: float = SOLVED) -> Share:
    """Estimate the share of seeds whose mean return reaches the bar, with Wilson's interval.

    >>> [round(number, 3) for number in solved([500.0] * 96 + [400.0] * 4)]
    [0.96, 0.902, 0.984]
    """
    n, share, z2 = len(returns), float(np.mean(np.asarray(returns) >= bar)), 1.959964**2
    centre, half = share + z2 / (2 * n), (z2 * (share * (1 - share) / n + z2 / (4 * n * n))) ** 0.5
    return Share(share, (centre - half) / (1 + z2 / n), (centre + half) / (1 + z2 / n))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Format the rows as a Markdown table."""
    lines = [
        "| config | mean return, ± over seeds | worst seed | seeds at 475, 95 % interval | seeds | seconds for all |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        returns = np.array(row["returns"])
        mean = f"{returns.mean():.1f} ± {returns.std(ddof=1) / len(returns) ** 0.5:.1f}"
        interval = solved(returns)
        share = f"{interval.share:.0%}, {interval.low:.0%} to {interval.high:.0%}" if row["config"] != "acrobot" else ""
        lines.append(
            f"| {row['config']} | {mean} | {returns.min():.1f} | {share} | {len(returns)} | {row['seconds']:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    process.main(main)
