"""The diffusion options of the commands: every one trains, draws and is scored; what cannot be is refused."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import diffusion
from genjax.diffusion import likelihood
from train import ddpm, edm, evaluate, sample, vdm
from train.run import config, load

TINY = (
    "--timesteps 8 --width 8 --channel-mults 1 --num-res-blocks 1 --attention-resolutions --batch-size 16 "
    "--num-samples 4 "
    "--steps 4 --every 4 --log-every 1 --steps-per-call 1 --lr 0.02 --ema-decay 0"
).split()


def train(workdir, *argv):
    ddpm.main([*TINY, *argv, "--workdir", str(workdir)])
    return str(workdir)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A model with labels, of v, with everything else that goes together."""
    folder = tmp_path_factory.mktemp("labelled")
    return train(
        folder, "--num-classes", "10",
        "--prediction-type", "v", "--weighting", "min_snr", "--timestep-sampling", "stratified",
        "--beta-schedule", "sigmoid", "--rescale-zero-terminal-snr", "--variance", "learned",
    )  # fmt: skip


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A model that learns its variance and where to look."""
    return train(tmp_path_factory.mktemp("learned"), "--variance", "learned", "--timestep-sampling", "loss_aware")


def test_labels_are_drawn_and_guided(labelled):
    plain, guided = (
        sample.draw(sample.Sample(labelled, num=4, sampler="ddim", steps=3, guidance_scale=weight))
        for weight in (None, 4.0)
    )
    assert plain.shape == (4, 8, 8, 1) and not np.array_equal(plain, guided)
    same = sample.draw(sample.Sample(labelled, num=4, sampler="ddim", steps=3, guidance_scale=1.0))
    assert np.array_equal(plain, same)


def test_negative_guidance_acts_and_labels_are_scored_unless_they_are_left_out(labelled, tmp_path):
    away, none = (
        sample.draw(sample.Sample(labelled, num=4, sampler="ddim", steps=3, guidance_scale=w)) for w in (-2.0, 0.0)
    )
    assert not np.array_equal(away, none)
    rows = []
    for flags, said in (([], "labels: given"), (["--no-labels"], "labels: not given")):
        out = tmp_path / "row.json"
        evaluate.main(["--workdir", labelled, "--num", "3", "--out", str(out), *flags])
        rows.append(json.loads(out.read_text()))
        assert f"labels: {rows[-1]['labels']}" == said
    assert rows[0]["vlb"]["nats"] != rows[1]["vlb"]["nats"] and np.isfinite(rows[0]["vlb"]["nats"])


def test_what_is_no_number_is_neither_drawn_nor_written(learned, tmp_path, monkeypatch, command):
    broken = lambda run, init, which="latest": jax.tree.map(
        lambda leaf: jnp.full(leaf.shape, jnp.nan, leaf.dtype), jax.eval_shape(init, jax.random.key(0))
    )
    monkeypatch.setattr(load, "params", broken)
    for script, name in (("sample", "x.npz"), ("evaluate", "x.json")):
        code, _, err = command(script, "--workdir", learned, "--num", 3, "--out", tmp_path / name)
        assert code == 5 and ("no number" in err or "NaN or infinite" in err), err
    assert list(tmp_path.iterdir()) == []


def test_what_the_library_refuses_while_it_traces_is_a_usage_error(labelled, tmp_path, monkeypatch, command):
    """Of a process at whose end nothing of the image is left; an error from below the library stays a defect."""
    flags = ("--sampler", "ddim", "--steps", 4, "--spacing", "karras")
    code, _, err = command("sample", "--workdir", labelled, "--num", 2, "--out", tmp_path / "x.png", *flags)
    assert code == 2 and "space the times evenly" in err and not (tmp_path / "x.png").exists()
    monkeypatch.setattr(diffusion, "ancestral", lambda *_, **__: np.zeros(3).reshape(2, 2))
    with pytest.raises(ValueError, match="reshape"):
        command("sample", "--workdir", labelled, "--num", 2, "--out", tmp_path / "x.png")


def test_a_neighbours_file_stays_and_outputs_are_looked_at_first(learned, tmp_path, command):
    (tmp_path / "a.partial").write_text("precious")
    (tmp_path / "d.png").mkdir()
    code, _, err = command("sample", "--workdir", learned, "--num", 2, "--out", tmp_path / "a.png")
    assert code == 0, err
    assert (tmp_path / "a.partial").read_text() == "precious" and (tmp_path / "a.png").is_file()
    for script, name in (("sample", "d.png"), ("evaluate", "no/e.json"), ("judge", "no/e.json"), ("judge", "d.png")):
        code, _, err = command(script, "--workdir", tmp_path / "no run", "--out", tmp_path / name)
        assert code == 2 and f"--out {tmp_path / name}" in err  # before the run is looked for
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.partial", "a.png", "d.png"]


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"by_time": 3}', '{"by_time": {"squared_error": [[1]]}}', '{"by_time": {"squared_error": [NaN]}}',
     '{"by_time": {"squared_error": ["1"]}}', '{"by_time": {"squared_error": [-1.0]}}', "[" * 3000, "9" * 5000,
     '{"by_time": {"squared_error": [1' + "0" * 400 + "]}}"],
    ids=range(11),
)  # fmt: skip
def test_terms_that_are_none_are_named(plain, content, tmp_path):
    (tmp_path / "terms.json").write_text(content)
    with pytest.raises(config.UsageError, match="terms.json is not what train.evaluate --out writes"):
        sample.draw(sample.Sample(plain[0], num=2, terms=str(tmp_path / "terms.json")))


def test_guidance_leaves_learned_variances_as_they_are(labelled):
    guided, plain = (sample.draw(sample.Sample(labelled, num=2, guidance_scale=weight)) for weight in (3.0, 1.0))
    assert guided.shape == (2, 8, 8, 1) and not np.array_equal(plain, guided)


@pytest.mark.parametrize("sampler", ["ancestral", "heun", "dpm_solver", "pndm"])
def test_every_sampler_draws(learned, sampler):
    drawn = sample.draw(sample.Sample(learned, num=2, sampler=sampler, steps=4))
    assert drawn.shape == (2, 8, 8, 1) and drawn.dtype == np.uint8


def test_euler_is_ddim_without_noise(learned):
    one, other = (sample.draw(sample.Sample(learned, num=2, sampler=name, steps=4)) for name in ("euler", "ddim"))
    assert np.array_equal(one, other)


def test_the_ledger_has_the_bound_its_parts_and_the_flow(learned, tmp_path):
    out = tmp_path / "row.json"
    evaluate.main(["--workdir", learned, "--num", "3", "--flow", "--out", str(out)])
    row = json.loads(out.read_text())
    parts = sum(row[name]["nats"] for name in ("prior", "steps", "decoder"))
    assert np.isclose(row["vlb"]["nats"], parts, rtol=1e-5) and row["pixels"] == "17 levels"
    assert np.isclose(row["vlb"]["bits_per_dim"], -row["vlb"]["nats"] / 64 / np.log(2), rtol=1e-5)
    assert row["flow"]["standard_error"] > 0


@pytest.fixture(scope="module")
def variational(tmp_path_factory):
    """A variational diffusion model, with everything that goes together."""
    folder = tmp_path_factory.mktemp("variational")
    vdm.main([*TINY, "--dropout", "0.1", "--fourier", "3", "4", "--workdir", str(folder)])
    return str(folder)


def test_a_variational_model_trains_and_shows_its_schedule(variational):
    lines = [json.loads(line) for line in (pathlib.Path(variational) / "metrics.jsonl").read_text().splitlines()]
    parts = sum(lines[-1][f"heldout_{name}"] for name in ("prior", "diffusion", "decoder"))
    assert np.isclose(lines[-1]["heldout_loss"], parts, rtol=1e-5)
    assert (pathlib.Path(variational) / "samples/schedule.png").is_file()


def test_a_variational_model_has_its_row_in_the_ledger(variational, tmp_path):
    rows = []
    for times in ("2", "64"):
        evaluate.main(["--workdir", variational, "--num", "40", "--times", times, "--out", str(tmp_path / "row")])
        rows.append(json.loads((tmp_path / "row").read_text()))
    few, many = (row["vlb"] for row in rows)
    assert rows[0]["pixels"] == "17 levels" and many["standard_error"] < few["standard_error"]
    assert abs(few["nats"] - many["nats"]) < 5 * few["standard_error"]
    parts = sum(rows[1][name]["nats"] for name in ("prior", "steps", "decoder"))
    assert np.isclose(many["nats"], parts, rtol=1e-5)


@pytest.fixture(scope="module")
def karras(tmp_path_factory):
    """A model that is told σ."""
    folder = tmp_path_factory.mktemp("karras")
    edm.main([*TINY, "--dropout", "0.1", "--workdir", str(folder)])
    return str(folder)


def test_a_model_told_sigma_trains_and_draws(karras):
    assert (pathlib.Path(karras) / "samples/latest.png").is_file()
    usual, same, more, other = (
        sample.draw(sample.Sample(karras, num=2, sampler=name, steps=steps))
        for name, steps in (("", 0), ("heun", 8), ("heun", 16), ("dpm_solver_sde", 8))
    )
    assert np.array_equal(usual, same) and not np.array_equal(usual, more) and not np.array_equal(usual, other)


@pytest.mark.slow
def test_a_model_told_sigma_has_its_row_in_the_ledger(karras, tmp_path):
    rows = []
    for times in ("4", "64"):
        evaluate.main(["--workdir", karras, "--num", "20", "--times", times, "--flow", "--out", str(tmp_path / "row")])
        rows.append(json.loads((tmp_path / "row").read_text()))
    few, many = rows
    assert many["vlb"]["nats"] > few["vlb"]["nats"] + 10 * many["vlb"]["standard_error"]  # finer steps, tighter bound
    parts = sum(many[name]["nats"] for name in ("prior", "steps", "decoder"))
    assert np.isclose(many["vlb"]["nats"], parts, rtol=1e-5) and many["flow"]["standard_error"] > 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sigma-min", "2", "--sigma-max", "1"], "sigma_min, sigma_max: expected 0 < min < max, got 2.0 and 1.0"),
        (["--sigma-data", "0"], "sigma_data, p_std: expected positive numbers, got 0.0"),
    ],
)
def test_sigmas_that_cannot_be_are_refused(flags, message, tmp_path):
    with pytest.raises(config.UsageError, match=message):
        edm.main([*TINY, *flags, "--workdir", str(tmp_path / "run")])


@pytest.mark.parametrize("flags", [{}, {"steps": 12}, {"sampler": "heun", "steps": 4}, {"sampler": "dpm_solver_sde"}])
def test_a_variational_model_draws_by_any_sampler_of_a_grid(variational, flags):
    drawn = sample.draw(sample.Sample(variational, num=2, **flags))
    assert drawn.shape == (2, 8, 8, 1) and not np.array_equal(drawn[0], drawn[1])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"sampler": "pndm"}, "sampler: pndm wants a process of T steps; expected ancestral, ddim"),
        ({"spacing": "karras"}, "--spacing: has no effect here; .* of a run of train.ddpm"),
        ({"eta": 0.5}, "--eta: has no effect here; .* with --sampler ddim"),
        ({"guidance_scale": 2.0}, "--guidance-scale: has no effect here; .* of a run of train.ddpm"),
        ({"temperature": 0.5}, "--temperature: has no effect here; .* of a run of train.pixelcnn or train.pixelrnn"),
    ],
)
def test_draws_of_a_variational_model_that_cannot_be_are_refused(variational, flags, message):
    with pytest.raises(config.UsageError, match=message):
        sample.draw(sample.Sample(variational, num=2, **flags))


def test_ends_in_the_wrong_order_are_refused(tmp_path):
    with pytest.raises(config.UsageError, match="gamma_min, gamma_max: expected min < max, got 5.0 and -3.0"):
        vdm.main([*TINY, "--gamma-min", "5", "--gamma-max", "-3", "--workdir", str(tmp_path / "run")])


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A model with fixed variances, and what train.evaluate says of each of its times."""
    folder = train(tmp_path_factory.mktemp("plain"))
    evaluate.main(["--workdir", folder, "--num", "20", "--out", f"{folder}/row.json"])
    return folder, f"{folder}/row.json"


def test_the_row_has_the_terms_of_every_time(plain):
    row = json.loads(pathlib.Path(plain[1]).read_text())
    nats, errors = (np.array(row["by_time"][name]) for name in ("nats", "squared_error"))
    assert nats.shape == errors.shape == (8,) and np.all(errors > 0)
    assert np.isclose(-nats.sum() + row["prior"]["nats"], row["vlb"]["nats"], rtol=1e-5)


def test_terms_give_optimal_variances_and_the_best_times(plain, monkeypatch):
    seen = {}
    real = diffusion.ancestral

    def spy(denoise, schedule, *, variance, clip):
        seen["table"], seen["schedule"] = variance, schedule
        return real(denoise, schedule, variance=variance, clip=clip)

    monkeypatch.setattr(diffusion, "ancestral", spy)
    folder, terms = plain
    errors = np.array(json.loads(pathlib.Path(terms).read_text())["by_time"]["squared_error"])
    whole = ddpm.schedule(ddpm.Config(timesteps=8, beta_schedule="cosine"))
    best = likelihood.optimal_timesteps(whole, errors, 4)[::-1]
    drawn = [
        sample.draw(sample.Sample(folder, num=2, steps=steps, spacing=spacing, terms=terms))
        for steps, spacing in ((0, ""), (4, "best"))
    ]
    alpha_bar = whole.alpha_bar[best]
    before = np.append(1.0, alpha_bar[:-1])
    beta = 1 - alpha_bar / before
    weight = np.sqrt(before) * beta / (1 - alpha_bar)  # of x̂_0 in the posterior's mean
    expected = (1 - before) / (1 - alpha_bar) * beta + weight**2 * errors[best]
    assert np.allclose(seen["table"], expected, rtol=1e-4)
    assert drawn[0].shape == drawn[1].shape == (2, 8, 8, 1)


def test_terms_of_something_else_are_refused(plain, learned, tmp_path):
    (tmp_path / "other.json").write_text('{"vlb": 3}')
    (tmp_path / "long.json").write_text(json.dumps({"by_time": {"squared_error": [0.1] * 9}}))
    for name, message in (("other", "is not what train.evaluate"), ("long", "of 9 times; .* has 8"), ("no", "is not")):
        with pytest.raises(config.UsageError, match=message):
            sample.draw(sample.Sample(plain[0], num=2, terms=str(tmp_path / f"{name}.json")))
    with pytest.raises(config.UsageError, match="--terms: .* with --sampler ancestral or --spacing best"):
        sample.draw(sample.Sample(plain[0], num=2, steps=4, sampler="ddim", terms=plain[1]))
    with pytest.raises(config.UsageError, match="spacing: best wants --terms FILE"):
        sample.draw(sample.Sample(plain[0], num=2, steps=4, spacing="best"))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--rescale-zero-terminal-snr"], "rescale_zero_terminal_snr: .* use --prediction-type v"),
        (["--attention-resolutions", "99"], "--attention-resolutions: .* at heights that the U-Net has"),
        (["--guidance-scale", "2"], "guidance_scale: expected a model conditional on labels"),
        (["--num-classes", "10", "--network", "simple"], "num_classes: the network simple takes no labels"),
        (["--network", "diffusers"], "unet_config: expected with --network diffusers"),
        (["--p-uncond", "2"], "p_uncond: expected 0 to 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(argv, message, tmp_path):
    with pytest.raises(config.UsageError, match=message):
        train(tmp_path / "run", *argv)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"sampler": "ddim", "steps": 9}, "steps: expected 1 to 8"),
        ({"sampler": "heun", "eta": 0.5}, "--eta: has no effect here; .* with --sampler ddim"),
        ({"sampler": "ddim", "eta": 1.5}, "eta: expected 0 to 1, got 1.5"),
        (
            {"guidance_scale": 2.0},
            "--guidance-scale: has no effect here; .* of a run that was trained with --num-classes",
        ),
        ({"guidance_scale": float("inf")}, "guidance_scale: expected a finite number"),
        ({"spacing": "linspace"}, "--spacing: .* with --steps, or with a --sampler other than ancestral"),
        ({"terms": "x.json"}, "--terms: .* of a run whose network does not say the variances itself"),
        ({"batch_size": 10**10}, "batch_size: expected at most"),
        ({"sampler": "pndm", "spacing": "karras"}, "spacing: pndm wants even steps"),
        ({"sampler": "pndm", "steps": 3}, "num_steps: expected at least 4"),
        ({"sampler": "ddim", "steps": 8, "spacing": "karras"}, "use at most .* steps, or even spacing"),
    ],
)
def test_draws_that_cannot_be_are_refused(learned, flags, message):
    with pytest.raises((config.UsageError, ValueError), match=message):
        sample.draw(sample.Sample(learned, num=2, **flags))
