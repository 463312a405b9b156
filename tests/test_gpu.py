"""What only a GPU can show: ``JAX_PLATFORMS=cuda,cpu python -m pytest -m gpu``."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax import diffusion
from genjax.models import ddpm
from genjax.nn import convolution, unet
from genjax.training import parallel, state, steps

pytestmark = pytest.mark.gpu
KEY = jax.random.key(0)
SHAPE = (16, 16, 3)
NETWORK = unet.UNet(channels=32, channel_mults=(1, 2), num_res_blocks=1, attention_resolutions=(8,), dropout=0.0)
SCHEDULE = diffusion.linear_schedule(50)


@pytest.fixture(scope="module")
def gpu():
    try:
        return jax.devices("cuda")[0]
    except RuntimeError:
        pytest.skip("there is no GPU, or JAX_PLATFORMS does not name it")


@pytest.fixture(autouse=True)
def float32(gpu):
    """Products in float32 proper, not in TensorFloat-32."""
    with jax.default_matmul_precision("highest"):
        yield


@pytest.fixture(scope="module")
def params():
    """Weights that predict something: the last convolution starts at zero."""
    like = jax.eval_shape(NETWORK.init, KEY, jnp.zeros((1, *SHAPE)), jnp.zeros(1))["params"]
    draw = lambda leaf: np.random.default_rng(leaf.size).normal(0, 0.05, leaf.shape).astype(np.float32)
    return jax.tree.map(draw, like)


def on(device, function, *arguments):
    """What it gives there, as NumPy arrays."""
    with jax.default_device(device):
        return jax.tree.map(np.asarray, jax.jit(function)(*jax.device_put(arguments, device)))


def distance(output, expected):
    """The largest difference, as a share of the largest value, over a tree."""
    share = lambda a, b: np.max(np.abs(a - b)) / max(np.max(np.abs(b)), 1e-6)
    return max(jax.tree.leaves(jax.tree.map(share, output, expected)))


@pytest.mark.parametrize("operation", [convolution.conv, convolution.conv_transpose])
@pytest.mark.parametrize(("size", "strides"), [(3, 1), (4, 2)])
def test_convolutions_and_their_gradients_are_those_of_the_cpu_in_float64(operation, size, strides, gpu):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(4, 16, 12, 8)), rng.normal(size=(size, size, 8, 16))

    def both(x, kernel):
        y, pull = jax.vjp(lambda x, kernel: operation(x, kernel, strides), x, kernel)
        return y, *pull(jnp.cos(y))

    with jax.enable_x64(True):
        exact = on(jax.devices("cpu")[0], both, x, kernel)
    assert distance(on(gpu, both, np.float32(x), np.float32(kernel)), exact) < 2e-5


def test_the_stock_convolution_is_what_is_lowered(gpu, params):
    """cuDNN's, inside a compiled loop too."""
    denoise = lambda x, t: NETWORK.apply({"params": params}, x, t)
    sample = jax.jit(diffusion.ddim(denoise, SCHEDULE, num_steps=5))
    program = sample.lower(KEY, jax.device_put(jnp.zeros((2, *SHAPE)), gpu)).compile().as_text()
    assert "__cudnn$conv" in program and "while(" in program


def test_the_chain_is_that_of_the_cpu(gpu, params):
    def sample(params, x):
        denoise = lambda x, t: NETWORK.apply({"params": params}, x, t)
        return diffusion.ddim(denoise, SCHEDULE, num_steps=10)(KEY, x)

    noise = np.random.default_rng(1).normal(size=(4, *SHAPE)).astype(np.float32)
    on_gpu, on_cpu = on(gpu, sample, params, noise), on(jax.devices("cpu")[0], sample, params, noise)
    assert np.std(on_cpu) > 0.1 and np.max(np.abs(on_gpu - on_cpu)) < 1e-3


def test_image_i_depends_on_the_seed_and_i_only(gpu, params):
    model = ddpm.build(NETWORK, SCHEDULE, SHAPE)
    drawn = {num: on(gpu, lambda params, num=num: model.sample(KEY, params, num), params) for num in (1, 8, 64)}
    assert np.max(np.abs(drawn[1] - drawn[64][:1])) < 1e-3 and np.max(np.abs(drawn[8] - drawn[64][:8])) < 1e-3
    assert np.max(np.abs(drawn[64][0] - drawn[64][1])) > 0.1


def test_bfloat16_loses_little(gpu, params):
    batch = {"image": np.random.default_rng(2).uniform(-1, 1, (16, *SHAPE)).astype(np.float32)}

    def loss(network):
        model = ddpm.build(network, SCHEDULE, SHAPE)
        return on(gpu, jax.value_and_grad(lambda params, batch: model.loss(KEY, params, batch)[0]), params, batch)

    (wide, slope), (narrow, other) = loss(NETWORK), loss(NETWORK.clone(dtype=jnp.bfloat16))
    assert np.isclose(narrow, wide, rtol=2e-2) and wide > 0
    flat = lambda tree: np.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(tree)])
    assert {leaf.dtype for leaf in jax.tree.leaves(other)} == {np.dtype(np.float32)}
    assert np.linalg.norm(flat(other) - flat(slope)) < 0.1 * np.linalg.norm(flat(slope))


def test_steps_in_one_scan_over_devices_are_steps_one_by_one(gpu, params):
    model, optimizer = ddpm.build(NETWORK, SCHEDULE, SHAPE), optax.sgd(0.1)
    images = {"image": np.random.default_rng(3).uniform(-1, 1, (64, *SHAPE)).astype(np.float32)}
    step = lambda axis=None: steps.gradient_step(model.loss, optimizer, axis_name=axis)
    at_once = parallel.distribute(steps.repeat(step(parallel.AXIS), steps.rows(32, axis_name=parallel.AXIS), 4), [gpu])
    start = lambda: state.create(jax.tree.map(jnp.asarray, params), optimizer)  # a run consumes its state
    end, metrics = at_once(KEY, *parallel.replicate((start(), images), [gpu]))
    one = jax.jit(steps.repeat(step(), steps.rows(32), 1))
    carry = jax.device_put(start(), gpu)
    for i in range(4):
        carry, one_step = one(KEY, carry, jax.device_put(images, gpu))
        assert np.isclose(one_step["loss"][0], metrics["loss"][i], rtol=1e-4)
    assert distance(jax.tree.map(np.asarray, end.params), jax.tree.map(np.asarray, carry.params)) < 1e-4


def test_segments_save_memory(gpu, params):
    def memory(segment):
        chain = diffusion.ancestral(lambda x, t: NETWORK.apply({"params": params}, x, t), SCHEDULE)
        end = jax.jit(jax.grad(lambda x: chain(KEY, x, segment=segment).sum()))
        return end.lower(jax.device_put(jnp.zeros((16, *SHAPE)), gpu)).compile().memory_analysis().temp_size_in_bytes

    assert memory(7) < 0.4 * memory(None)


def test_a_run_that_was_cut_resumes_to_the_same_bits(gpu, tmp_path):
    """With XLA's deterministic operations: without them the order of sums on a GPU is free."""
    env = os.environ | {"JAX_PLATFORMS": "cuda", "XLA_FLAGS": "--xla_gpu_deterministic_ops=true"}
    env |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}

    def train(folder, number):
        flags = f"--steps {number} --every 10 --log-every 10 --steps-per-call 10 --timesteps 20 --num-samples 4"
        command = [sys.executable, "-m", "train.ddpm", *flags.split(), "--schedule", "constant", "--workdir", folder]
        root = pathlib.Path(__file__).parents[1]
        done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr

    for folder, numbers in (("cut", (20, 40)), ("whole", (40,))):
        for number in numbers:
            train(str(tmp_path / folder), number)
    saved = lambda name: json.loads((tmp_path / name / "checkpoints/40/manifest.json").read_text())["digest"]
    assert saved("cut") == saved("whole")
