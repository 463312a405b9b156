"""Startup times of a process: import, and first training step with an empty and with a full cache."""

import functools
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
    """Sizes of the work.

    Attributes:
      width: number of channels of the first level of the lecture notes' U-Net.
      side: height and width of the images.
    """

    width: int
    side: int


SIZES = {"toy": Size(8, 8), "cpu": Size(16, 32), "gpu": Size(64, 64)}

OURS = """
import jax, numpy as np, optax
from benchmarks import workload
size = workload.UNetSize({side}, 1, {width}, (1, 2, 4))
network = workload.simple(size)
ours = workload.denoising(network, size.shape)
params = jax.jit(ours.init)(jax.random.key(0))
workload.training(params, ours.loss, optax.adam(1e-3), workload.random_images(16, size.shape), 16, 1)[0]()
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
    """Yield the cases."""
    imports = {"genjax": "import genjax.models.ddpm, genjax.training.steps", "PyTorch": "import torch"}
    imports |= {"diffusers' networks and schedulers": "from diffusers import UNet2DModel, DDPMScheduler"}
    adapters = {"genjax": "gym", "PyTorch": "notes", "diffusers' networks and schedulers": "hub"}
    chosen = [name for name in imports if name == "genjax" or peers.adapter(adapters[name])]
    variants = [Variant(name, functools.partial(_process, imports[name], device)) for name in chosen]
    yield harness.Case("import in a new process", "start", 1, variants)
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
    """Run a program in a new Python process; ``cache`` is the folder of its compiled programs."""
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
