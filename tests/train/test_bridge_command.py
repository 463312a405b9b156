"""``python -m train.bridge``: folders of diffusers in and out, with images equal to diffusers' own."""

import json
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import diffusion
from genjax.nn import diffusers_unet
from train import bridge, ddpm, sample
from train.checkpoint import store
from train.run import config, diffusers_config, load
from train.run.recipe import named

KEY = jax.random.key(0)
UNET = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "norm_num_groups": 4,
    "norm_eps": 1e-6,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "attention_head_dim": None,
}
PROCESS = {
    "_class_name": "DDPMScheduler",
    "num_train_timesteps": 20,
    "beta_start": 1e-3,
    "beta_end": 0.4,
    "beta_schedule": "linear",
}


def folder(path, tensors=None, process=PROCESS, described=UNET):
    """A pipeline's folder with random weights."""
    safetensors = pytest.importorskip("safetensors.numpy")
    network = diffusers_unet.network(UNET)
    shapes = jax.eval_shape(network.init, KEY, jnp.zeros((1, 8, 8, 1)), jnp.zeros(1, jnp.int32))["params"]
    source = np.random.default_rng(0)
    params = jax.tree.map(lambda p: (0.2 * source.normal(size=p.shape)).astype(np.float32), shapes)
    for part in ("unet", "scheduler"):
        (path / part).mkdir(parents=True)
    found = diffusers_unet.tensors(params, 2) if tensors is None else tensors(diffusers_unet.tensors(params, 2))
    safetensors.save_file(found, path / "unet" / bridge.WEIGHTS)
    (path / "unet" / "config.json").write_text(json.dumps(described))
    (path / "scheduler" / "scheduler_config.json").write_text(json.dumps(process))
    return path


def read(source, workdir, *more):
    bridge.main(["--source", str(source), "--workdir", str(workdir), "--data", "digits", *more])
    return workdir


def params_of(workdir):
    run = load.record(workdir, named("ddpm"))
    return run, load.params(run, ddpm.model(run.settings, run.shape).init)


def test_a_folder_becomes_a_run_that_draws_and_goes_on_training(tmp_path):
    workdir = read(folder(tmp_path / "theirs"), tmp_path / "run")
    drawn = sample.draw(sample.Sample(str(workdir), num=3, sampler="ddim", steps=4))
    assert drawn.shape == (3, 8, 8, 1) and len(np.unique(drawn.reshape(3, -1), axis=0)) == 3
    argv = ["--config", str(workdir / "config.json"), "--workdir", str(workdir), "--steps", "2", "--every", "2"]
    ddpm.main([*argv, "--log-every", "1", "--steps-per-call", "1", "--num-samples", "4", "--batch-size", "8"])
    assert (workdir / "checkpoints" / "2").is_dir()


def test_there_and_back_is_bitwise_the_same(tmp_path):
    workdir = read(folder(tmp_path / "theirs"), tmp_path / "run")
    bridge.main(["--workdir", str(workdir), "--export", str(tmp_path / "back")])
    first, second = (bridge.tensors(tmp_path / name / "unet") for name in ("theirs", "back"))
    assert first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)
    again = read(tmp_path / "back", tmp_path / "again")
    one, other = (params_of(path)[1] for path in (workdir, again))
    assert jax.tree.all(jax.tree.map(np.array_equal, one, other))


def test_images_are_those_of_diffusers_under_the_same_noise(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch = pytest.importorskip("torch")
        diffusers = pytest.importorskip("diffusers")
        workdir = read(folder(tmp_path / "theirs"), tmp_path / "run")
        bridge.main(["--workdir", str(workdir), "--export", str(tmp_path / "back")])
        network = diffusers.UNet2DModel.from_pretrained(tmp_path / "back" / "unet")
        scheduler = diffusers.DDIMScheduler.from_pretrained(
            tmp_path / "back" / "scheduler", timestep_spacing="trailing", clip_sample=True
        )
        start = np.random.default_rng(1).normal(size=(2, 8, 8, 1)).astype(np.float32)
        scheduler.set_timesteps(5)
        x = torch.tensor(start.transpose(0, 3, 1, 2))
        with torch.no_grad():
            for t in scheduler.timesteps:
                x = scheduler.step(network(x, t).sample, t, x, use_clipped_model_output=True).prev_sample
        expected = x.numpy().transpose(0, 2, 3, 1)
    run, params = params_of(workdir)
    model, schedule = ddpm.model(run.settings, run.shape), ddpm.schedule(run.settings)
    draw = lambda params: jax.jit(diffusion.ddim(model.denoise(params), schedule, num_steps=5))(KEY, start)
    assert np.abs(draw(params) - expected).max() < 1e-4
    params["down_0_0"]["conv_1"]["kernel"] = params["down_0_0"]["conv_1"]["kernel"].transpose(1, 0, 2, 3)
    assert np.abs(draw(params) - expected).max() > 1e-2


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_half_precision_is_widened(tmp_path, dtype):
    half = folder(tmp_path / "half", lambda t: {name: array.astype(dtype) for name, array in t.items()})
    found, full = bridge.tensors(half / "unet"), bridge.tensors(folder(tmp_path / "full") / "unet")
    assert found.keys() == full.keys()
    for name, array in found.items():
        assert array.dtype == np.float32 and np.array_equal(array, full[name].astype(dtype).astype(np.float32))


def shards(source):
    """The same folder with its tensors in two files and an index."""
    safetensors = pytest.importorskip("safetensors.numpy")
    unet = source / "unet"
    tensors = safetensors.load_file(unet / bridge.WEIGHTS)
    (unet / bridge.WEIGHTS).unlink()
    files = {f"part-{i}.safetensors": dict(list(tensors.items())[i::2]) for i in (0, 1)}
    for name, part in files.items():
        safetensors.save_file(part, unet / name)
    where = {key: name for name, part in files.items() for key in part}
    (unet / f"{bridge.WEIGHTS}.index.json").write_text(json.dumps({"weight_map": where}))
    return source


def test_shards_are_one(tmp_path):
    one, other = folder(tmp_path / "one"), shards(folder(tmp_path / "many"))
    first, second = (params_of(read(path, tmp_path / f"run-{path.name}"))[1] for path in (one, other))
    assert jax.tree.all(jax.tree.map(np.array_equal, first, second))


def test_shards_that_are_missing_or_elsewhere_are_named(tmp_path):
    source = shards(folder(tmp_path / "many"))
    (source / "unet" / "part-1.safetensors").rename(source / "part-1.safetensors")
    with pytest.raises(store.CheckpointError, match="there is no part-1.safetensors"):
        read(source, tmp_path / "run")
    for wrong in ({}, {"weight_map": {"conv_in.bias": "../part-1.safetensors"}}):
        (source / "unet" / f"{bridge.WEIGHTS}.index.json").write_text(json.dumps(wrong))
        with pytest.raises(store.CheckpointError, match="expected a weight_map from tensors to files of this fo"):
            read(source, tmp_path / "run")


def test_a_run_with_waves_has_no_like_in_diffusers(tmp_path):
    workdir = read(folder(tmp_path / "theirs"), tmp_path / "run")
    settings = json.loads((workdir / "config.json").read_text())
    settings["config"] |= {"network": "unet", "fourier": [3]}
    (workdir / "config.json").write_text(json.dumps(settings))
    with pytest.raises(config.UsageError, match="diffusers has no such network: fourier: expected"):
        bridge.main(["--workdir", str(tmp_path / "run"), "--export", str(tmp_path / "back")])
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: (p / "unet" / bridge.WEIGHTS).unlink(), f"there is no {bridge.WEIGHTS}"),
        (lambda p: (p / "unet" / "config.json").unlink(), "config.json: No such file"),
        (lambda p: (p / "unet" / "config.json").write_text("{"), "not JSON"),
        (
            lambda p: (p / "unet" / bridge.WEIGHTS).write_bytes((p / "unet" / bridge.WEIGHTS).read_bytes()[:5000]),
            "damaged or cut off",
        ),
        (
            lambda p: (p / "unet" / bridge.WEIGHTS).rename(p / "unet" / "diffusion_pytorch_model.bin"),
            "is a pickle, which is not opened",
        ),
    ],
)
def test_a_broken_folder_is_refused_and_leaves_no_run(tmp_path, spoil, message):
    spoil(source := folder(tmp_path / "theirs"))
    with pytest.raises(store.CheckpointError, match=message):
        read(source, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_tensors_of_another_network_are_listed(tmp_path):
    def lose(tensors):
        tensors["other.weight"] = tensors.pop("conv_in.bias")
        return tensors

    with pytest.raises(store.CheckpointError, match=r"(?s)missing conv_in.bias.*unexpected other.weight"):
        read(folder(tmp_path / "theirs", lose), tmp_path / "run")


PROCESSES = [
    {},
    {"beta_schedule": "squaredcos_cap_v2", "variance_type": "fixed_large"},
    {"variance_type": "fixed_small_log", "clip_sample": False},
    {"clip_sample_range": 0.5, "prediction_type": "sample"},
    {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "clip_sample_range": 3},
    {"tensor_format": "np", "predict_epsilon": True, "trained_betas": None, "_diffusers_version": "0.1.1"},
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("more", PROCESSES)
def test_a_process_that_is_understood_has_the_tables_and_the_steps_of_diffusers(more):
    diffusers = pytest.importorskip("diffusers")
    torch = pytest.importorskip("torch")
    described = PROCESS | more
    known = {name: value for name, value in described.items() if name not in ("tensor_format", "predict_epsilon")}
    expected = diffusers.DDPMScheduler.from_config(known)
    settings = ddpm.Config(**diffusers_config.settings(described, "scheduler_config.json"))
    schedule = ddpm.schedule(settings)
    assert np.abs(schedule.alpha_bar - expected.alphas_cumprod.numpy()).max() < 1e-6
    stay = lambda x, t: read_as(schedule, 0.3 * jnp.tanh(x), x, t)
    read_as = {"noise": diffusion.from_noise, "x0": diffusion.from_x0, "v": diffusion.from_v}[settings.prediction_type]
    start = np.random.default_rng(1).normal(size=(2, 2, 2, 1)).astype(np.float32)
    one = lambda t: diffusion.posterior(
        schedule, bounded(settings, stay(jnp.asarray(start), jnp.full(2, t)).x0), jnp.asarray(start), jnp.full(2, t)
    )
    for t in (0, 1, 9, 19):
        mean = one(t).mean
        step = quiet(expected, torch, 0.3 * np.tanh(start), t, start)
        assert np.abs(np.asarray(mean) - step).max() < 2e-5 * max(1, np.abs(step).max())
        if t:
            table = {"small": one(t).variance, "large": 1 - schedule.alpha_bar[t] / schedule.alpha_bar[t - 1]}
            ours = np.asarray(table[settings.variance]).reshape(-1)[0]
            kind = {"fixed_small_log": "fixed_small"}.get(expected.config.variance_type, expected.config.variance_type)
            assert np.isclose(ours, float(expected._get_variance(t, variance_type=kind)), rtol=2e-4)
    again = diffusers_config.settings(diffusers_config.scheduler(settings), "back")
    assert again == diffusers_config.settings(described, "there")


def bounded(settings, x0):
    clip = ddpm.clip(settings)
    return clip(x0) if callable(clip) else jnp.clip(x0, -1, 1) if clip else x0


def quiet(scheduler, torch, output, t, x):
    """A step of expected without its noise, which is what a second one with the same seed adds as well."""
    as_theirs = lambda a: torch.tensor(np.asarray(a, np.float32).transpose(0, 3, 1, 2))
    draw = lambda output, x: scheduler.step(output, t, x, generator=torch.Generator().manual_seed(0)).prev_sample
    zero = torch.zeros_like(as_theirs(x))
    return (draw(as_theirs(output), as_theirs(x)) - draw(zero, zero)).numpy().transpose(0, 2, 3, 1)


NOT_UNDERSTOOD = [
    ({"_class_name": "DDIMScheduler"}, "_class_name: expected 'DDPMScheduler', got 'DDIMScheduler'"),
    ({"_class_name": None}, "_class_name: expected 'DDPMScheduler', got None"),
    ({"thresholding": True}, "thresholding: expected false, got True"),
    ({"clip_sample_range": -1}, "clip_sample_range: expected a positive number, got -1"),
    ({"clip_sample": "yes"}, "clip_sample: expected true or false, got 'yes'"),
    ({"clip_sample": 1}, "clip_sample: expected true or false, got 1"),
    ({"variance_type": "fixed_large_log"}, "variance_type: expected one of fixed_small, fixed_small_log, fixed_large"),
    ({"variance_type": "learned_range"}, "variance_type: expected one of"),
    ({"beta_schedule": "scaled_linear"}, "beta_schedule: expected one of linear, squaredcos_cap_v2"),
    ({"beta_schedule": "sigmoid"}, "beta_schedule: expected one of"),
    ({"beta_start": 0.3, "beta_end": 0.1}, "beta_start: expected at most beta_end 0.1, got 0.3"),
    ({"beta_end": 7}, "beta_end: expected a number between 0 and 1, got 7"),
    ({"trained_betas": [0.1, 0.2]}, "trained_betas: expected null"),
    ({"steps_offset": 1}, "steps_offset: expected 0, got 1"),
    ({"rescale_betas_zero_snr": True}, "with prediction_type 'epsilon' the last step tells nothing"),
    ({"num_train_timesteps": 10**12}, "num_train_timesteps: expected a whole number from 1 to 1000000"),
    ({"num_train_timesteps": True}, "num_train_timesteps: expected a whole number"),
    ({"predict_epsilon": False}, "predict_epsilon: expected true"),
    ({"timestep_spacing": "karras"}, "timestep_spacing: expected leading, linspace or trailing"),
    ({"use_beta_sigmas": True}, "use_beta_sigmas True: not a field that is understood"),
]


@pytest.mark.parametrize(("more", "message"), NOT_UNDERSTOOD)
def test_every_other_field_of_a_process_is_refused_by_name(more, message):
    with pytest.raises(config.UsageError, match=re.escape(message)):
        diffusers_config.settings(PROCESS | more, "scheduler_config.json")


NO_NETWORK = [
    ({"in_channels": 2, "out_channels": 2}, config.UsageError, "in_channels: expected 1 or 3"),
    ({"sample_size": [8, 8]}, config.UsageError, "names no sample_size"),
    ({"sample_size": True}, config.UsageError, "names no sample_size"),
    ({"_class_name": "UNet2DConditionModel"}, config.UsageError, "_class_name: expected UNet2DModel"),
    ({"cross_attention_dim": 8}, config.UsageError, "cross_attention_dim: expected no such field"),
    ({"block_out_channels": 8}, config.UsageError, "block_out_channels: expected up to 16 whole numbers"),
    ({"block_out_channels": [10**12, 10**12]}, config.UsageError, "block_out_channels: expected up to 16"),
    ({"layers_per_block": 10**9}, config.UsageError, "layers_per_block: expected a whole number from 1 to 64"),
    ({"norm_num_groups": 0}, config.UsageError, "norm_num_groups: expected a whole number"),
    ({"norm_num_groups": 3}, config.UsageError, "norm_num_groups: expected a divisor"),
    ({"down_block_types": None}, config.UsageError, "down_block_types: expected 2 of"),
    ({"down_block_types": [["DownBlock2D"], {}]}, config.UsageError, "down_block_types: expected 2 of"),
    ({"norm_eps": "small"}, config.UsageError, "norm_eps: expected a number"),
    ({"class_embed_type": "timestep"}, config.UsageError, "class_embed_type: expected one of"),
]


@pytest.mark.parametrize(("more", "error", "message"), NO_NETWORK)
def test_every_other_field_of_a_network_is_refused_by_name(tmp_path, more, error, message):
    with pytest.raises(error, match=re.escape(message)):
        read(folder(tmp_path / "theirs", described=UNET | more), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_network_without_its_process_is_refused(tmp_path):
    source = folder(tmp_path / "theirs")
    (source / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(config.UsageError, match="there is no scheduler/scheduler_config.json"):
        read(source, tmp_path / "run")


def test_a_pipeline_of_another_class_is_refused(tmp_path):
    source = folder(tmp_path / "theirs")
    (source / "model_index.json").write_text('{"_class_name": "DDIMPipeline"}')
    with pytest.raises(config.UsageError, match="_class_name: expected 'DDPMPipeline', got 'DDIMPipeline'"):
        read(source, tmp_path / "run")


def test_an_export_leaves_what_lies_beside_it(tmp_path):
    workdir = read(folder(tmp_path / "theirs"), tmp_path / "run")
    (tmp_path / "back.partial").mkdir()
    (tmp_path / "back.partial" / "mine").write_text("mine")
    bridge.main(["--workdir", str(workdir), "--export", str(tmp_path / "back")])
    assert (tmp_path / "back.partial" / "mine").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "back.partial", "run", "theirs"]


def test_a_chain_clips_as_its_scheduler_does(tmp_path):
    drawn = {}
    for reach in (None, 0.1, 1.0):
        more = {"clip_sample": False} if reach is None else {"clip_sample_range": reach}
        workdir = read(folder(tmp_path / f"expected-{reach}", process=PROCESS | more), tmp_path / f"run-{reach}")
        drawn[reach] = sample.draw(sample.Sample(str(workdir), num=2, sampler="ddim", steps=5)).astype(float)
    span = lambda images: images.max() - images.min()
    assert span(drawn[0.1]) <= 0.1 * 255 + 1 < span(drawn[1.0]) <= span(drawn[None])


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(config.UsageError, match="expected one of them"):
        bridge.main(["--workdir", str(tmp_path / "run")])
    workdir = read(folder(tmp_path / "good"), tmp_path / "run")
    with pytest.raises(config.UsageError, match="holds a run already"):
        read(tmp_path / "good", workdir)
    with pytest.raises(config.UsageError, match="it exists; name a folder that does not"):
        bridge.main(["--workdir", str(workdir), "--export", str(tmp_path / "good")])
