"""From the start of a process: importing, and the first training step with an empty and with a full cache."""

import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks import harness, peers

Variant = harness.Variant
ROOT = pathlib.Path(__file__).parent.parent.parent


class Size(NamedTuple):
    """Channels of the first level of the notes' U-Net, and its images."""

    width: int
    side: int


SIZES = {"toy": Size(8, 8), "cpu": Size(16, 32), "gpu": Size(64, 64)}

OURS = """
import jax, numpy as np, optax
from benchmarks import work
size = work.UNetSize({side}, 1, {width}, (1, 2, 4))
network = work.simple(size)
ours = work.denoising(network, size.shape)
params = jax.jit(ours.init)(jax.random.key(0))
work.training(params, ours.loss, optax.adam(1e-3), work.random_images(16, size.shape), 16, 1)[0]()
"""
THEIRS = """
import torch
from benchmarks.peers import notes
from genjax import diffusion
network = notes.SimpleUNet([{width}, 2 * {width}, 4 * {width}], 1).to(notes.device("{device}"))
x = torch.rand(16, 1, {side}, {side}, device=notes.device("{device}"))
chain = notes.Chain(diffusion.linear_schedule(300).beta, x.device)
notes.trainer(network, lambda x: chain.loss(network, x), 1e-3)(x).item()
"""


def cases(size: Size, device: str) -> Iterator[harness.Case]:
    """The cases, one at a time."""
    imports = {"genjax": "import genjax.models.ddpm, genjax.training.steps", "PyTorch": "import torch"}
    imports |= {"diffusers' networks and schedulers": "from diffusers import UNet2DModel, DDPMScheduler"}
    wanted = {"genjax": "gym", "PyTorch": "notes", "diffusers' networks and schedulers": "hub"}
    chosen = [name for name in imports if name == "genjax" or peers.adapter(wanted[name])]
    yield harness.Case(
        "import in a new process", "start", 1, [Variant(n, lambda n=n: _process(imports[n], device)) for n in chosen]
    )
    ours = OURS.format(side=size.side, width=size.width)
    with tempfile.TemporaryDirectory() as kept:
        variants = [
            Variant("genjax: compiled before, from the cache", lambda: _process(ours, device, kept)),
            Variant("genjax: compiled now", lambda: _process(ours, device)),
        ]
        if peers.adapter("notes"):
            theirs = THEIRS.format(side=size.side, width=size.width, device=device)
            variants.append(Variant("PyTorch, eager", lambda: _process(theirs, device)))
        yield harness.Case("a new process to the end of its first step of U-Net training", "start", 1, variants)


def _process(program: str, device: str, cache: str = "") -> harness.Run:
    """A Python process that runs a program; with a folder, compiled programs are kept there."""
    platform = {"cpu": "cpu", "gpu": "cuda"}[device]
    more = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"} if cache else {}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION_CACHE")}

    def run() -> None:
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env=inherited | {"JAX_PLATFORMS": platform} | more,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])

    return run
