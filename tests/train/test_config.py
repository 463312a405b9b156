"""Configurations: files and flags, and everything that can be wrong with them."""

import dataclasses
import json
import os
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genjax import data
from train import actor_critic, ae, classifier, ddpm, edm, gan, judge, pixelcnn, pixelrnn, sample, vae, vdm, vqvae
from train.run import config, documents, record, sources

SCRIPTS = {
    script.__name__.removeprefix("train."): script
    for script in (actor_critic, ae, classifier, ddpm, edm, gan, pixelcnn, pixelrnn, vae, vdm, vqvae)
}
SHIPPED = sorted((path.parent.name, path.stem) for path in config.CONFIGS.glob("*/*.toml"))


def parse(*argv):
    return config.parse(ddpm.Config, "ddpm", argv)


def written(tmp_path, text, name="mine.toml"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(("script", "name"), SHIPPED)
def test_every_shipped_config_says_what_it_is_and_can_be_used(script, name):
    text = (config.CONFIGS / script / f"{name}.toml").read_text(encoding="utf-8")
    assert text.startswith("# ") and "Source:" in text and "Time:" in text
    settings = config.parse(SCRIPTS[script].Config, script, ["--config", name])
    assert settings.config == name and settings.workdir == f"runs/{script}-{name}"
    known = isinstance(settings, config.ImageRun) and sources.shape(settings)
    shape = known or (4, 4, 1)  # of codes what the run has, of episodes nothing
    assert SCRIPTS[script].build(settings, shape).sample_batch


def test_flags_override_the_file_and_the_file_the_defaults(tmp_path):
    path = written(tmp_path, "lr = 3e-4\nsteps = 7\nmultipliers = [1, 3]\n")
    got = parse("--config", path, "--steps", "9")
    assert (got.lr, got.steps, got.channel_mults) == (3e-4, 9, (1, 3))
    assert got.batch_size == ddpm.Config().batch_size and got.workdir == "runs/ddpm-mine"
    assert parse("--lr=0.5").lr == 0.5 and parse().config == "digits"


def test_the_record_of_a_run_is_a_config(tmp_path):
    made = dataclasses.replace(ddpm.Config(), lr=0.25, workdir="runs/old", channel_mults=(1, 2, 4))
    path = written(tmp_path, json.dumps({"config": dataclasses.asdict(made), "run_id": "x"}), "config.json")
    again = parse("--config", path)
    assert dataclasses.replace(again, config=made.config, workdir=made.workdir) == made
    assert again.workdir != "runs/old"


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.floats(1e-8, 10), st.integers(1, 10**9), st.lists(st.integers(1, 9), min_size=1, max_size=5), st.booleans())
def test_what_is_written_is_read_back(tmp_path_factory, lr, steps, channel_mults, flip):
    text = f"lr = {lr!r}\nsteps = {steps}\nmultipliers = {channel_mults}\nflip = {str(flip).lower()}\n"
    got = parse("--config", written(tmp_path_factory.mktemp("config"), text))
    assert (got.lr, got.steps, list(got.channel_mults), got.flip) == (lr, steps, channel_mults, flip)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lerning_rate = 1e-3", ["mine.toml", "lerning_rate"]),
        ("batchsize = 3", ["batchsize", "did you mean batch_size"]),
        ("steps = 3.5", ["steps", "whole number", "3.5"]),
        ("steps = true", ["steps", "whole number", "True"]),
        ('lr = "1e-3"', ["lr", "a number", "'1e-3'"]),
        ('loss = "l3"', ["loss", "'l1'", "'l3'"]),
        ("flip = 1", ["flip", "true or false"]),
        ("channel_mults = 2", ["channel_mults", "list"]),
        ('channel_mults = [1, "2"]', ["channel_mults", "whole number"]),
        ("steps = 1\nsteps = 2", ["mine.toml", "not a configuration"]),
        ("steps = ", ["mine.toml", "not a configuration"]),
        ("timesteps = 0", ["timesteps", "0"]),
        ("beta_start = 0.0", ["beta_start"]),
        ("beta_end = 1.0", ["beta_end"]),
        ("beta_start = 0.5\nbeta_end = 0.1", ["beta_start"]),
        ("lr = -1.0", ["lr"]),
        ("lr = nan", ["lr", "nan"]),
        ("ema_decay = 1.0", ["ema_decay"]),
        ("dropout = 1.0", ["dropout"]),
        ("batch_size = 0", ["batch_size"]),
        ("seed = -1", ["seed"]),
        ("channel_mults = []", ["channel_mults"]),
        ("steps = 0\nlr = 0.0\nema = 2.0", ["steps", "lr", "ema_decay"]),
        ("stepz = 1\nflip = 3", ["stepz", "flip"]),
        ("restart = true", ["restart", "type --restart"]),
        ('config = "mnist"', ["config", "type --config"]),
        ("mean = nan", ["mean: no such setting"]),
        ("guidance_scale = nan", ["guidance_scale", "a finite number", "nan"]),
        ("lr = inf", ["lr", "a finite number", "inf"]),
        ("timesteps = 1_000_000_000_000", ["timesteps", "at most 1000000"]),
        ("size = 1_000_000", ["size", "at most 8192"]),
        ("steps = 0x" + "f" * 5000, ["steps", "too large to show"]),
        ("seed = 4294967296", ["seed", "4294967295"]),
        ("channel_mults = [" + "1," * 101 + "]", ["channel_mults", "at most 100"]),
        ("[steps]\nx = 1", ["steps", "whole number"]),
        ("x = " + "[" * 3000, ["mine.toml", "nested too deeply"]),
    ],
)
def test_mistakes_in_a_file_are_named_all_at_once(tmp_path, text, words):
    with pytest.raises(config.UsageError) as caught:
        parse("--config", written(tmp_path, text))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ("[1]", "expected an object"),
        ("{}", "config: expected an object, got None"),
        ('{"config": "x"}', "config: expected an object, got 'x'"),
        ('{"config": null}', "config: expected an object, got None"),
        ('{"config": {"steps": 1, "steps": 2}}', "'steps' twice"),
        ('{"config": {"steps": ' + "9" * 5000 + "}}", "not JSON"),
        ('{"config": {"steps": 1e999}}', "steps: expected a whole number, got inf"),
        ('{"config": {"data": "folder:a\\u0000b"}}', "data: expected text"),
        ("[" * 200_000 + "]" * 200_000, "nested too deeply"),
        ('{"script": "vae", "config": {}}', "written by train.vae; expected one of train.ddpm"),
        ('{"config": {"\\u001b[2J": 1}}', "\\x1b"),
    ],
)
def test_a_record_that_is_none_is_named(tmp_path, text, words):
    with pytest.raises(config.UsageError) as caught:
        parse("--config", written(tmp_path, text, "config.json"))
    assert words in str(caught.value) and "config.json" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_config_is_a_plain_text_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.toml")  # nobody writes to it: reading would wait for ever
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "latin.toml").write_bytes(b"# \xe9")
    (tmp_path / "large.toml").write_bytes(b"#" * (documents.LARGEST + 1))
    for name in ("pipe", "folder", "latin", "large"):
        with pytest.raises(config.UsageError, match=f"{name}.toml"):
            parse("--config", str(tmp_path / f"{name}.toml"))
    (tmp_path / "MARKED.TOML").write_bytes(b"\xef\xbb\xbfsteps = 7\n")
    assert parse("--config", str(tmp_path / "MARKED.TOML")).steps == 7


@pytest.mark.parametrize("word", ["restarts", "resart", "override_resumes", "learning_rate"])
def test_nothing_destructive_is_proposed(tmp_path, word):
    with pytest.raises(config.UsageError) as caught:
        parse("--config", written(tmp_path, f"{word} = 1"))
    assert "did you mean" not in str(caught.value)


def test_home_is_expanded_wherever_a_path_stands(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = written(tmp_path, 'workdir = "~/run"\ndata = "folder:~/pictures"\n')
    got = parse("--config", "~/mine.toml")
    assert (got.config, got.workdir, got.data) == (path, f"{tmp_path}/run", f"folder:{tmp_path}/pictures")
    got = parse("--workdir=~/a", "--data", "tfds:mnist", "--data-dir", "~/b")
    assert (got.workdir, got.data_dir, got.data) == (f"{tmp_path}/a", f"{tmp_path}/b", "tfds:mnist")
    asked, _ = config.command(sample.Sample, "sample", ["--workdir", "~/a", "--out=~/b.png", "--terms", "~/c"])
    assert (asked.workdir, asked.out, asked.terms) == tuple(f"{tmp_path}/{name}" for name in ("a", "b.png", "c"))
    asked, _ = config.command(judge.Judge, "judge", ["--workdir", "~/a", "--classifier", "~/c", "--out", "~/o"])
    assert (asked.classifier, asked.out) == (f"{tmp_path}/c", f"{tmp_path}/o")
    with pytest.raises(config.UsageError, match="no such home folder; ./~nobodyatall/x is a file of that name"):
        parse("--workdir", "~nobodyatall/x")
    assert parse("--workdir", "./~nobodyatall/x").workdir == "./~nobodyatall/x"


def test_runs_of_other_settings_have_folders_of_their_own():
    folder = lambda *argv: config.parse(vae.Config, "vae", argv).workdir
    assert folder() == folder("--latent-dim", "2", "--steps", "9", "--lr", "1") == "runs/vae-digits"
    assert folder("--num-seeds", "8") == "runs/vae-digits-num_seeds=8"
    sweep = ("--latent-dim", "8", "--num-seeds", "3", "--sweep", "beta=0.05,0.1,0.2,0.5,1,2,3")
    assert folder(*sweep) == "runs/vae-digits-num_seeds=3-sweep=beta=0.05,0.1,0.2,0.5,1,2,3-latent_dim=8"
    assert folder("--data", "tfds:mnist") == "runs/vae-digits-data=tfds,mnist"
    assert folder("--schedule", "cosine", "--steps", "9") == "runs/vae-digits-steps=9-schedule=cosine"  # it ends there
    with pytest.raises(config.UsageError, match="--override-resume: say by --workdir .* with other latent_dim"):
        folder("--latent-dim", "3", "--override-resume")
    long = [folder("--data", f"folder:{'very/' * 90}{name}/pictures") for name in "ab"]
    assert long[0] != long[1] and all(len(name) < 250 and name.count("/") == 1 for name in long)
    assert all(set(name) <= set(string.ascii_letters + string.digits + "/._,=+-") for name in long)


def test_a_config_of_your_own_images_says_how_to_name_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(data.DataError, match="images: there is no such folder; .* with --data folder:PATH"):
        ddpm.main(["--config", "notes", "--norm", "group"])
    assert not list(tmp_path.iterdir())


def test_an_unknown_config_lists_those_there_are():
    with pytest.raises(config.UsageError, match="did you mean mnist"):
        parse("--config", "mnits")
    with pytest.raises(config.UsageError, match="cifar10, digits"):
        parse("--config", "nowhere/x.toml")


@pytest.mark.parametrize("argv", [["--lr", "abc"], ["--steps", "10.5"], ["--loss", "l3"]])
def test_a_wrong_flag_exits_2(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(*argv)
    assert caught.value.code == 2
    assert argv[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "meant"),
    [("--lrr", "--lr"), ("--batch_sise=3", "--batch-size"), ("--restrt", ""), ("--resume", ""), ("--no-overide", "")],
)
def test_a_word_that_is_no_flag_is_refused_and_nothing_destructive_is_proposed(word, meant):
    with pytest.raises(config.UsageError, match=f"{word.partition('=')[0]}: no such flag") as caught:
        parse(word)
    assert ("did you mean" in str(caught.value)) == bool(meant) and meant in str(caught.value)
    assert "restart" not in str(caught.value) and "override" not in str(caught.value)


def test_changes_are_sorted_into_allowed_and_refused():
    old = dataclasses.asdict(ddpm.Config())
    new = dataclasses.asdict(ddpm.Config(lr=0.5, seed=3, channel_mults=(1, 4)))
    allowed, refused = config.changes(json.loads(json.dumps(old)), new, config.CHANGEABLE)
    assert allowed == ["lr: 0.001 -> 0.5"]
    assert refused == ["channel_mults: [1, 2, 2] -> (1, 4)", "seed: 0 -> 3"]


def test_a_run_older_than_a_setting_goes_on(tmp_path):
    """What its record lacks had the default."""
    then = dataclasses.asdict(ddpm.Config())
    del then["num_seeds"], then["exclude_class"]
    described = {"run_id": "x", "script": "ddpm", "config": then, "data": {"fingerprint": "y"}, "starts": []}
    written(tmp_path, json.dumps(described), "config.json")
    record.check(tmp_path, ddpm.Config(), "ddpm")
    with pytest.raises(config.UsageError, match="num_seeds: 1 -> 2"):
        record.check(tmp_path, ddpm.Config(num_seeds=2), "ddpm")
