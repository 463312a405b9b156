"""A model from outside: trained, drawn from, scored and judged through the public seams; and the laws of a flow."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import train
from train import classifier, evaluate, judge, sample
from train.checkpoint import store
from train.run import command, config, registry

FILE = pathlib.Path(__file__).parents[2] / "examples" / "realnvp" / "realnvp.py"
RECIPE = registry.from_module(str(FILE))
realnvp = sys.modules[RECIPE.config.__module__]
TINY = "--steps 4 --every 4 --log-every 2 --steps-per-call 2 --num-couplings 2 --features 4 --num-samples 4".split()


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    command.trainer(RECIPE)([*TINY, "--config", "digits", "--workdir", str(folder / "flow")])
    classifier.main(["--steps", "2", "--every", "2", "--features", "4", "--workdir", str(folder / "classifier")])
    return folder


def test_it_is_drawn_from_where_the_user_names_its_file(runs, tmp_path):
    argv = ["--workdir", str(runs / "flow"), "--recipe", str(FILE), "--num", "3", "--out", str(tmp_path / "a.npz")]
    sample.main(argv)
    drawn = np.load(tmp_path / "a.npz")["images"]
    assert drawn.shape == (3, 8, 8, 1)
    assert np.array_equal(drawn[:2], sample.draw(sample.Sample(str(runs / "flow"), num=2)))  # registered by now
    assert (runs / "flow" / "samples" / "latest.png").exists()


def test_nothing_that_a_run_names_is_imported(runs):
    with pytest.raises(store.CheckpointError, match="trained by train.realnvp, which is no recipe .* --recipe"):
        sample.draw(sample.Sample(str(runs / "flow"), num=1))
    train.register(RECIPE)
    assert sample.draw(sample.Sample(str(runs / "flow"), num=1)).shape == (1, 8, 8, 1)


def test_it_is_scored_and_has_a_row_in_the_ledger(runs, tmp_path):
    out = tmp_path / "row.json"
    argv = ["--workdir", str(runs / "flow"), "--recipe", str(FILE), "--num", "8", "--samples", "4", "--out", str(out)]
    evaluate.main(argv)
    row = json.loads(out.read_text())
    assert row["pixels"] == "17 levels, dequantised" and row["dimensions"] == 64
    assert row["elbo"]["nats"] < row["bound"]["nats"] < row["elbo"]["nats"] + 64
    one = evaluate.scores(evaluate.Evaluate(str(runs / "flow"), num=8, samples=1))
    assert one["bound"]["nats"] == pytest.approx(one["elbo"]["nats"], rel=1e-6)  # of one u the two are one
    assert one["bound"]["standard_error"] == pytest.approx(one["elbo"]["standard_error"], rel=1e-6)
    assert f"{row['elbo']['bits_per_dim']:.4f}" in evaluate.ledger([row])


def test_numbers_that_are_not_of_the_images_are_refused(runs):
    def score(options, settings, shape):
        made = RECIPE.score(options, settings, shape)
        return made._replace(values=lambda *args: {"elbo": made.values(*args)["elbo"][:3]})

    train.register(RECIPE._replace(score=score))
    with pytest.raises(config.UsageError, match=r"recipe realnvp: elbo: expected a number.* 8 images, got .*\(3,\)"):
        evaluate.scores(evaluate.Evaluate(str(runs / "flow"), num=8, samples=2))


def test_it_is_judged(runs):
    options = judge.Judge(str(runs / "flow"), classifier=str(runs / "classifier"), recipe=str(FILE), num=20)
    assert judge.judge(options)["num"] == 20


def test_it_is_loaded(runs):
    run = train.load(runs / "flow", recipe=RECIPE)
    assert run.settings.levels == 17 and len(run.params) == 2
    assert run.model.sample(jax.random.key(0), run.params, 2).shape == (2, 8, 8, 1)


def test_its_options_and_settings_are_checked_as_those_of_train(runs, tmp_path):
    with pytest.raises(config.UsageError, match="--eta: has no effect here; .* of a run of train.ddpm or train.edm"):
        sample.draw(sample.Sample(str(runs / "flow"), eta=0.5, recipe=str(FILE)))
    with pytest.raises(config.UsageError, match="--config nothing: expected one of digits, or the path"):
        command.trainer(RECIPE)(["--config", "nothing"])
    with pytest.raises(config.UsageError, match="digits has pixels of 17 levels, which are not among 4"):
        command.trainer(RECIPE)([*TINY, "--config", "digits", "--levels", "4", "--workdir", str(tmp_path / "run")])
    with pytest.raises(config.UsageError, match="is the recipe realnvp; .* was trained by classifier"):
        sample.draw(sample.Sample(str(runs / "classifier"), recipe=str(FILE)))


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "there is no file"), ("1 / 0", "ZeroDivisionError"), ("x = 1", "expected a module with RECIPE")],
)
def test_a_file_that_holds_no_recipe_is_refused(text, message, tmp_path):
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(config.UsageError, match=f"--recipe .*mine.py: .*{message}"):
        registry.from_module(str(path))


def test_no_recipe_takes_the_name_of_another():
    with pytest.raises(ValueError, match="recipe vae: expected a name that no recipe of train has"):
        train.register(RECIPE._replace(name="vae"))


def test_its_own_file_is_its_command():
    env = {**os.environ, "PYTHONPATH": str(FILE.parents[2])}
    done = subprocess.run([sys.executable, str(FILE), "--help"], capture_output=True, text=True, check=True, env=env)
    assert "--num-couplings" in done.stdout and "realnvp.py" in done.stdout


SHAPE = (3, 2, 2)


@pytest.fixture(scope="module")
def flow():
    """A flow whose couplings do something, in float64."""
    with jax.enable_x64(True):
        made = realnvp.build(SHAPE, num_couplings=3, features=3, num_levels=4)
        params = made.init(jax.random.key(0))
        key = iter(jax.random.split(jax.random.key(1), 100))
        params = jax.tree.map(lambda leaf: 0.3 * jax.random.normal(next(key), leaf.shape, jnp.float64), params)
        yield made, params


def test_the_inverse_undoes_the_flow(flow):
    made, params = flow
    with jax.enable_x64(True):
        w = jax.random.normal(jax.random.key(2), (5, *SHAPE), jnp.float64)
        z = made.forward(params, w)[0]
        assert np.abs(z - w).max() > 0.1
        assert np.allclose(made.inverse(params, z), w, atol=1e-12)


def test_the_log_determinant_is_that_of_the_jacobian(flow):
    made, params = flow
    with jax.enable_x64(True):
        w = jax.random.normal(jax.random.key(3), SHAPE, jnp.float64)
        flat = lambda w: made.forward(params, w.reshape(1, *SHAPE))[0].ravel()
        expected = np.linalg.slogdet(jax.jacrev(flat)(w.ravel()))[1]
        assert np.allclose(made.forward(params, w[None])[1], expected, atol=1e-12)
        y = jax.random.uniform(jax.random.key(4), (1, *SHAPE), jnp.float64)
        jacobian = jax.jacrev(lambda y: realnvp.squeeze(y.reshape(1, *SHAPE))[0].ravel())(y.ravel())
        assert np.allclose(realnvp.squeeze(y)[1], np.linalg.slogdet(jacobian)[1], atol=1e-12)


def test_the_density_of_two_numbers_integrates_to_one():
    with jax.enable_x64(True):
        made = realnvp.build((1, 1, 2), num_couplings=2, features=3, num_levels=4)
        key = iter(jax.random.split(jax.random.key(5), 100))
        params = jax.tree.map(
            lambda leaf: 0.3 * jax.random.normal(next(key), leaf.shape, jnp.float64), made.init(jax.random.key(0))
        )
        # y = (σ(w) - α) / (1 - 2α) over all w: beyond [0, 1] too, where a flow has mass that no image has
        w = np.linspace(-10, 10, 201)
        p = 1 / (1 + np.exp(-w))
        y, weight = (p - realnvp.ALPHA) / (1 - 2 * realnvp.ALPHA), p * (1 - p) / (1 - 2 * realnvp.ALPHA) * (w[1] - w[0])
        grid = np.stack(np.meshgrid(y, y), -1).reshape(-1, 1, 1, 2)
        density = np.exp(made.log_density(params, jnp.asarray(grid))).reshape(201, 201)
        assert np.isclose(weight @ density @ weight, 1, atol=1e-4)  # relu has kinks, which the sum over the grid cuts


def test_bits_are_those_of_the_bytes():
    """An untrained flow is the identity: by hand, log p(y) is that of logits that are N(0, I)."""
    made = realnvp.build((2, 2, 1), num_couplings=2, features=3, num_levels=4)
    params = made.init(jax.random.key(0))
    x = jnp.full((1, 2, 2, 1), -1 + 2 * 2 / 3)  # level 2 of 0 to 3
    keys = jax.random.split(jax.random.key(1), 1)
    u = jax.random.uniform(keys[0], (2, 2, 1))
    p = 0.05 + 0.9 * (2 + np.asarray(u, np.float64)) / 4
    w = np.log(p / (1 - p))
    by_hand = (-(w**2) / 2 - np.log(2 * np.pi) / 2 + np.log(0.9 / (p * (1 - p)))).sum() - 4 * np.log(4)
    assert np.isclose(made.log_prob(keys, params, x)[0], by_hand, atol=1e-5)
    assert np.isclose(made.loss(keys, params, {"image": x})[0], -by_hand / 4 / np.log(2), atol=1e-5)


def test_samples_lie_on_the_levels():
    made = realnvp.build((2, 2, 1), num_couplings=2, features=3, num_levels=4)
    drawn = made.sample(jax.random.key(0), made.init(jax.random.key(0)), 50)
    levels = (np.asarray(drawn) + 1) * 3 / 2
    assert np.allclose(levels, levels.round(), atol=1e-5) and {*levels.round().astype(int).ravel()} == {0, 1, 2, 3}
