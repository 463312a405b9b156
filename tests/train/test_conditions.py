"""No setting is ignored: what a kind of run does not read is refused by name, and what is not refused is read."""

import dataclasses
import json
import pathlib
import sys

import jax
import numpy as np
import pytest

from genjax import data
from train import ae, evaluate, gan, judge, sample, vae
from train.run import conditions, config, load, loop, plots, registry, sources, sweep

SHAPE = (8, 8, 1)
OF_LOOP = {field.name for field in dataclasses.fields(config.Run)} - {"lr", "warmup", "schedule", "grad_clip"}
ELSEWHERE = {"config", "override_resume", "traceback"}
"""Read by ``config.parse``, by ``record`` where a run goes on, and by ``runtime.main``."""
LOOKED_AT = {"flip", "binarization", "num_classes", "size", "channels"}
"""What readers of images and labels look at for every run, also where it is refused beforehand."""
UNET = {"width": 4, "channel_mults": (1, 2), "num_res_blocks": 1, "num_samples": 1, "timesteps": 4}
DIFFUSERS = {
    "network": "diffusers",
    "unet_config": json.dumps(
        {
            "in_channels": 1, "out_channels": 1, "block_out_channels": [4], "down_block_types": ["DownBlock2D"],
            "up_block_types": ["UpBlock2D"], "layers_per_block": 1, "norm_num_groups": 2, "add_attention": False,
        }
    ),
}  # fmt: skip
RUNS = [
    ("ddpm", UNET),
    ("ddpm", {**UNET, "beta_schedule": "cosine", "weighting": "vlb", "num_classes": 10}),
    ("ddpm", {**UNET, "width": 8, "network": "simple", "variance": "learned"}),
    ("ddpm", {**UNET, **DIFFUSERS}),
    ("vdm", UNET),
    ("edm", UNET),
    ("ae", {}),
    ("ae", {"network": "conv", "exclude_class": 3}),
    ("vae", {}),
    ("vae", {"likelihood": "gaussian", "network": "conv"}),
    ("vae", {"likelihood": "logistic", "levels": 17, "num_classes": 10}),
    ("vqvae", {"codebook_size": 4}),
    ("vqvae", {"codebook_size": 4, "codebook_update": "gradient", "likelihood": "logistic", "levels": 17}),
    ("pixelcnn", {"levels": 17}),
    ("pixelcnn", {"likelihood": "mixture", "stacks": "plain"}),
    ("pixelcnn", {"likelihood": "bernoulli", "binarization": "dynamic"}),
    ("pixelrnn", {"levels": 17, "layers": 1}),
    ("gan", {}),
    ("gan", {"data": "ring", "num_classes": 8, "conv_channels": ()}),
    ("classifier", {}),
    ("actor_critic", {}),
    ("actor_critic", {"algorithm": "ppo"}),
]


def watched(settings):
    """The settings, and the set of names that somebody has read of them."""
    seen = set()

    class Watched(type(settings)):
        def __getattribute__(self, name):
            if sys._getframe(1).f_globals["__name__"] != "dataclasses":  # copies are no use
                seen.add(name)
            return super().__getattribute__(name)

    return Watched(**vars(settings)), seen


def names(settings):
    return {field.name for field in dataclasses.fields(settings)}


def refused(settings):
    return set(conditions.without_effect(conditions.table(type(settings)), settings, names(settings)))


@pytest.mark.parametrize(("script", "changes"), RUNS)
def test_what_a_run_does_not_read_is_refused_and_nothing_else(script, changes):
    recipe = registry.get(script)
    settings = dataclasses.replace(recipe.config(), **changes)
    assert not settings.problems()
    them, seen = watched(settings)
    dataset = recipe.source.load(them)
    task = recipe.build(them, recipe.source.shape_of(dataset))
    task.check(dataset)
    if recipe.source.has_images:
        rows = {name: array[:2] for name, array in dataset.train.items()}
        jax.eval_shape(lambda: sources.training_images(them, jax.random.key(0), rows))
    idle = refused(settings)
    assert names(settings) - seen - idle - OF_LOOP == set(), "neither read nor refused"
    assert idle & seen - LOOKED_AT - {"override_resume"} == set(), "read, and yet refused"


@pytest.mark.parametrize(
    ("kind", "idle"),
    [
        ("digits", {"data_dir", "on_bad_image"}),
        ("ring", {"data_dir", "on_bad_image", "size", "channels", "flip"}),
        ("npz:x.npz", {"data_dir", "on_bad_image"}),
        ("folder:x", {"data_dir"}),
        ("tfds:mnist", {"on_bad_image"}),
        ("tfds:binarized_mnist", {"on_bad_image", "size", "channels"}),
        ("tfds:flowers", {"on_bad_image"}),
        ("codes:x", {"on_bad_image", "size", "channels", "flip", "exclude_class"}),
    ],
)
def test_what_a_kind_of_data_does_not_read_is_refused(kind, idle, monkeypatch):
    digits = data.digits()
    for reader in ("npz", "folder", "tfds"):
        monkeypatch.setattr(data, reader, lambda *_, **__: digits)
    settings = gan.Config(data=kind, exclude_class=3)
    of_data = {"data_dir", "size", "channels", "on_bad_image", "flip", "exclude_class"}
    assert refused(settings) & of_data == idle
    if not kind.startswith("codes"):
        them, seen = watched(settings)
        sources.load(them)
        assert of_data - {"flip"} - seen <= idle, "neither read nor refused"


def test_the_loop_reads_what_is_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "curves", lambda *_: None)
    settings = ae.Config(hidden=(2,), steps=1, every=1, workdir=str(tmp_path / "run"))
    them, seen = watched(settings)
    loop.run("ae", them, lambda *of: ae.build(*of)._replace(write_figures=lambda *_: None))
    assert names(settings) & OF_LOOP - seen == ELSEWHERE


def asked(script, **changes):
    """A run that left nothing but its settings."""
    tiny = {"ddpm": UNET, "vdm": UNET, "edm": UNET, "pixelcnn": {"levels": 17, "features": 2, "layers": 1}}
    recipe = registry.get(script)
    settings = dataclasses.replace(recipe.config(), **{**tiny.get(script, {}), **changes})
    return load.Record(pathlib.Path("runs/x"), recipe, settings, SHAPE, sweep.ensemble(settings), 0)


def idle(options, run):
    readable = run.recipe.sampler_options if isinstance(options, sample.Sample) else run.recipe.score_options
    return set(load.unread(options, run, readable, names(options)))


@pytest.mark.parametrize(
    ("run", "changes"),
    [
        (asked("ddpm"), {}),
        (asked("ddpm", num_classes=3), {"sampler": "ddim", "steps": 2}),
        (asked("ddpm", variance="learned"), {"sampler": "pndm", "steps": 4}),
        pytest.param(asked("vdm"), {}, marks=pytest.mark.slow),
        (asked("edm"), {"sampler": "ddim"}),
        (asked("vae"), {}),
        (asked("pixelcnn"), {}),
    ],
)
def test_what_drawing_does_not_read_is_refused(run, changes):
    settings = sample.Sample("runs/x", **changes)
    them, seen = watched(settings)
    sampler = run.recipe.sampler(them, run.settings, run.shape)
    keys = jax.random.split(jax.random.key(0), 2)
    jax.eval_shape(lambda keys, first: sampler.draw(keys, sampler.init(keys[0]), 2, first), keys, 0)
    everywhere = {"workdir", "out", "num", "seed", "member", "checkpoint", "recipe", "batch_size", "columns"}
    everywhere |= {"traceback"}
    assert names(settings) - seen - everywhere - idle(settings, run) == set()


@pytest.mark.parametrize(
    "script", ["vae", "ddpm", "pixelcnn", *(pytest.param(name, marks=pytest.mark.slow) for name in ("vdm", "edm"))]
)
def test_what_scoring_does_not_read_is_refused(script):
    run, settings = asked(script), evaluate.Evaluate("runs/x")
    them, seen = watched(settings)
    score = run.recipe.score(them, run.settings, run.shape)
    rows = {"image": np.zeros((2, *SHAPE), np.uint8), "label": np.zeros(2, np.int32)}
    keys = jax.random.split(jax.random.key(0), 2)
    jax.eval_shape(lambda keys: score.values(score.init(keys[0]), keys, rows), keys)
    everywhere = {"workdir", "num", "seed", "member", "checkpoint", "recipe", "data_dir", "out", "traceback"}
    assert names(settings) - everywhere - seen == idle(settings, run) - everywhere
    assert "labels" not in idle(settings, asked("ddpm", num_classes=3))


@pytest.mark.parametrize("argv", [["--std", "0.25"], ["--std=0.25"], ["--no-flip", "--std", "1"]])
def test_a_flag_is_refused_in_all_its_forms_and_at_its_default(argv):
    with pytest.raises(
        config.UsageError, match="--std: has no effect here; it is read only with --likelihood gaussian"
    ):
        config.parse(vae.Config, "vae", argv)
    config.parse(vae.Config, "vae", [*argv, "--likelihood", "gaussian"])


@pytest.mark.parametrize(
    ("script", "argv", "words"),
    [
        ("ddpm", "--beta_start 1e-4 --beta-schedule cosine", "--beta-start: .* with --beta-schedule linear"),
        ("ddpm", "--p-uncond 0.1", "--p-uncond: .* with --num-classes"),
        (
            "ddpm",
            "--network simple --num-res-blocks 1 --dropout .1",
            "--dropout: .* with --network unet\n--num-res-blocks: .* with --network unet",
        ),
        ("ddpm", "--attention-resolutions 5", "--attention-resolutions: .* at heights that the U-Net has"),
        ("edm", "--attention-resolutions 8 5", "--attention-resolutions: "),
        ("ddpm", "--data-dir x", "--data-dir: .* with --data tfds:NAME"),
        ("vae", "--sweep beta=1,2 --beta 3", "--beta: --sweep beta says its values"),
        ("vae", "--restart --override-resume", "--override-resume: .* without --restart"),
        ("gan", "--config ring --flip", "--flip: has no effect"),
        ("actor_critic", "--clip-eps .1", "--clip-eps: .* with --algorithm ppo"),
        ("pixelcnn", "--config codes --exclude-class 3", "--exclude-class: has no effect"),
    ],
)
def test_a_flag_without_effect_is_refused_with_what_would_read_it(script, argv, words):
    with pytest.raises(config.UsageError, match=words):
        config.parse(registry.get(script).config, script, argv.split())


def test_what_a_file_says_is_refused_unless_it_or_the_flags_make_it_read(tmp_path):
    mine = tmp_path / "mine.toml"
    mine.write_text("std = 0.3\n")
    with pytest.raises(config.UsageError, match="mine.toml: --std: has no effect"):
        config.parse(vae.Config, "vae", ["--config", str(mine)])
    assert config.parse(vae.Config, "vae", ["--config", str(mine), "--likelihood", "gaussian"]).std == 0.3
    mine.write_text('std = 0.3\nlikelihood = "gaussian"\n')  # which the flags then make idle: nobody typed it
    assert config.parse(vae.Config, "vae", ["--config", str(mine), "--likelihood", "bernoulli"]).std == 0.3
    mine.write_text("std = 0.25\n")  # the default
    config.parse(vae.Config, "vae", ["--config", str(mine)])
    record = tmp_path / "config.json"
    record.write_text(json.dumps({"script": "vae", "config": dataclasses.asdict(vae.Config(std=0.3))}))
    assert config.parse(vae.Config, "vae", ["--config", str(record)]).std == 0.3


@pytest.mark.parametrize("recipe", [registry.get(name) for name in registry.BUILT_IN])
def test_a_recipe_reads_options_that_the_commands_have(recipe):
    assert {*recipe.sampler_options} <= {*sample.Sample.BY_RECIPE} <= names(sample.Sample("runs/x"))
    assert {*recipe.score_options} <= {*evaluate.Evaluate.BY_RECIPE} <= names(evaluate.Evaluate("runs/x"))
    assert not judge.Judge.BY_RECIPE
    assert bool(recipe.sampler_options) <= (recipe.sampler is not None)
    assert bool(recipe.score_options) <= (recipe.score is not None)
