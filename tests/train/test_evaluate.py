"""What a trained VAE is asked afterwards: its likelihood, and images."""

import json

import jax
import numpy as np
import pytest

from genjax import data
from train import ae, vae
from train.run import config, networks


@pytest.fixture(scope="module")
def runs(tmp_path_factory, command):
    folder = tmp_path_factory.mktemp("vae")
    tiny = ("--steps", 200, "--every", 200, "--log-every", 50)
    for name, flags in {
        "two": ("--binarization", "dynamic"),
        "many": ("--latent-dim", 4, "--num-classes", 10, "--num-seeds", 2),
    }.items():
        code, _, err = command("vae", "--workdir", folder / name, *tiny, *flags)
        assert code == 0, err
    return folder


def test_bounds_are_in_order_and_the_pixels_are_named(runs, tmp_path, command):
    out = tmp_path / "row.json"
    code, told, err = command("evaluate", "--workdir", runs / "two", "--samples", 300, "--num", 60, "--out", out)
    assert code == 0, err
    row = json.loads(out.read_text())
    assert row["pixels"] == "binarised dynamically, one draw" and "60 of 197" in row["split"] and "quadrature" in told
    elbo, bound, exact = (row[name]["nats"] for name in ("elbo", "bound", "exact"))
    assert elbo < bound < exact + 0.02 and abs(bound - exact) < 0.1
    for name in ("elbo", "bound", "exact"):
        assert np.isclose(row[name]["bits_per_dim"], -row[name]["nats"] / np.log(2) / 64)
        assert 0 < row[name]["standard_error"] < 3
    titles, _, cells = ([cell.strip() for cell in line.split("|")[1:-1]] for line in told.splitlines()[-3:])
    ledger = dict(zip(titles, cells, strict=True))
    assert (ledger["pixels"], ledger["split"]) == (row["pixels"], row["split"])
    value, rest = ledger["log p(x)"].split(" ± ")
    assert float(value) == round(row["exact"]["bits_per_dim"], 4) and rest.endswith("(quadrature)")
    error = row["elbo"]["standard_error"] / row["elbo"]["nats"] * row["elbo"]["bits_per_dim"]
    assert ledger["ELBO"] == f"{row['elbo']['bits_per_dim']:.4f} ± {abs(error):.4f}"
    assert ledger["bound of K draws"].endswith("(K = 300)")
    assert not any(ledger[title] for title in ("variational bound", "probability flow", "code in two parts"))


def test_a_member_is_scored_and_drawn_from(runs, tmp_path, command):
    found = []
    for member in (0, 1):
        out = tmp_path / f"{member}.npz"
        code, _, err = command("sample", "--workdir", runs / "many", "--member", member, "--num", 12, "--out", out)
        assert code == 0, err
        found.append(np.load(out)["images"])
        assert found[-1].shape == (12, 8, 8, 1)
    assert not np.array_equal(*found)
    code, told, err = command("evaluate", "--workdir", runs / "many", "--member", 1, "--samples", 5, "--num", 20)
    assert code == 0 and "grey, cross-entropy: no likelihood" in told and "quadrature" not in told, err
    code, _, err = command("evaluate", "--workdir", runs / "many", "--member", 2)
    assert code == 2 and "member 2:" in err and "has 2, numbered from 0" in err


def test_a_score_that_is_no_number_is_no_row(runs, tmp_path, command, monkeypatch):
    """As the evidence is, under ``jit``, of a posterior too narrow for any grid."""
    monkeypatch.setattr(vae.vae, "log_evidence", lambda model, params, batch: batch["image"][:, 0, 0, 0] * np.nan)
    out = tmp_path / "row.json"
    argv = ("evaluate", "--workdir", runs / "two", "--samples", 2, "--num", 5, "--out", out)
    code, _, err = command(*argv)
    assert code == 5 and "exact is no number at 0; nothing is written" in err and not out.exists()


@pytest.mark.parametrize(
    ("script", "argv", "code", "message"),
    [
        ("evaluate", ("--samples", 0), 2, "samples: expected at least 1, got 0"),
        ("vae", ("--latent-dim", 0), 2, "latent_dim: expected at least 1, got 0"),
        ("vae", ("--binarization", "static"), 2, "has 17 levels, not black and white alone"),
        (
            "vae",
            ("--binarization", "dynamic", "--likelihood", "logistic"),
            2,
            "dynamic pixels want --likelihood bernoulli",
        ),
        ("vae", ("--likelihood", "logistic", "--levels", 9), 2, "has pixels of 17 levels, which are not among 9"),
        ("vqvae", ("--likelihood", "logistic", "--levels", 1), 2, "levels: expected at least 2, got 1"),
        ("vqvae", ("--codebook-size", 100_000), 2, "has 25600 vectors to choose from; use fewer entries"),
        ("vae", ("--free-bits", "nan"), 2, "free_bits: expected at least 0, got nan"),
        ("evaluate", ("--num", -1, "--seed", -1), 2, "seed: expected at least 0, got -1"),
        ("ae", ("--exclude-class", 12), 2, r"--exclude-class 12: expected one of the classes"),
    ],
)
def test_bad_input_is_refused_before_anything_slow(script, argv, code, message, runs, tmp_path, command):
    workdir = runs / "two" if script == "evaluate" else tmp_path / "run"
    got, _, err = command(script, "--workdir", workdir, *argv)
    assert got == code and message in err


def test_a_conditional_model_wants_labels(tmp_path, command):
    images = np.random.default_rng(0).integers(0, 256, (200, 8, 8, 1)).astype(np.uint8)
    np.savez(tmp_path / "unlabelled.npz", images=images)
    code, _, err = command(
        "vae", "--workdir", tmp_path / "run", "--num-classes", 10, "--data", f"npz:{tmp_path}/unlabelled.npz"
    )
    assert code == 2 and "has no labels; use --num-classes 0" in err


def dataset(train, heldout):
    split = lambda labels: {"image": np.zeros((len(labels), 8, 8, 1), np.uint8), "label": np.array(labels, np.int32)}
    return data.Dataset("these", split(train), split(heldout))


@pytest.mark.parametrize(("train", "heldout"), [([0, 3], [1]), ([0, 1], [3]), ([0, -1], [1])])
def test_labels_must_be_among_the_classes_in_both_splits(train, heldout):
    networks.check_labels(4, dataset(train, heldout) if min(train) >= 0 else dataset([0], [0]))
    with pytest.raises(config.UsageError, match="classes 3: these has labels from"):
        networks.check_labels(3, dataset(train, heldout))


@pytest.mark.parametrize("heldout", [[], [1, 2], [7, 7]])
def test_an_anomaly_needs_both_kinds_held_out(heldout):
    check = ae.build(ae.Config(exclude_class=7), (8, 8, 1)).check
    check(dataset([1, 2], [1, 7]))
    with pytest.raises(config.UsageError, match="exclude-class 7: .* telling them apart needs both"):
        check(dataset([1, 2], heldout))


@pytest.mark.parametrize("num", [1, 2, 5])
def test_pictures_are_drawn_of_however_few_images_there_are(num, tmp_path):
    settings = vae.Config(num_samples=2)
    task = vae.build(settings, (8, 8, 1))
    task.write_figures(tmp_path, 1, task.init(jax.random.key(0)), dataset([1] * num, []))
    assert (tmp_path / "interpolation.png").exists() == (num > 1)
