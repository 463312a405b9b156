"""Old names of settings: read wherever they were written down, and refused where they are typed."""

import dataclasses
import importlib
import json
import pathlib

import pytest

from train import ddpm, vdm
from train.run import config, record, renamed

OLD = {"ema": 0.9, "clip": 1.0, "without": 3, "multipliers": [1, 2], "blocks": 1, "attention": [4]}
NEW = ddpm.Config(
    ema_decay=0.9, grad_clip=1.0, exclude_class=3, channel_mults=(1, 2), num_res_blocks=1, attention_resolutions=(4,)
)


def test_a_file_with_old_names_means_what_it_meant(tmp_path):
    path = tmp_path / "old.toml"
    path.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in OLD.items()))
    settings = config.read(ddpm.Config, "ddpm", str(path))
    assert {name: getattr(settings, name) for name in vars(NEW) if name != "config"} == {
        name: value for name, value in vars(NEW).items() if name != "config"
    }


def test_a_record_with_old_names_goes_on_and_is_no_other_run(tmp_path):
    described = {"run_id": "x", "script": "ddpm", "config": OLD | {"sweep": ""}, "data": {"fingerprint": "y"}}
    (tmp_path / "config.json").write_text(json.dumps(described | {"starts": []}))
    record.check(tmp_path, NEW, "ddpm")
    with pytest.raises(config.UsageError, match=r"ema_decay: 0\.9 -> 0\.5"):
        record.check(tmp_path, ddpm.Config(**{**vars(NEW), "ema_decay": 0.5}), "ddpm")


def test_a_sweep_of_an_old_name_is_one_of_the_new_name():
    assert renamed.translate("vdm", {"sweep": "clip=1,2"}) == {"sweep": "grad_clip=1,2"}
    assert renamed.translate("vdm", {"sweep": "dropout=0,0.1"}) == {"sweep": "dropout=0,0.1"}


def test_a_typed_old_flag_is_refused_with_its_new_name():
    with pytest.raises(config.UsageError, match="--ema: renamed; use --ema-decay\n--blocks: renamed; use --num-res-bl"):
        config.parse(vdm.Config, "vdm", ["--ema", "0.9", "--blocks=2"])


def test_both_names_in_one_file_are_refused(tmp_path):
    path = tmp_path / "both.toml"
    path.write_text("ema = 0.9\nema_decay = 0.8\n")
    with pytest.raises(config.UsageError, match="ema: is the old name of ema_decay"):
        config.read(ddpm.Config, "ddpm", str(path))


GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden/settings.json").read_text(encoding="utf-8"))
"""The settings of a default run of every trainer, as written before any setting was renamed."""


@pytest.mark.parametrize("script", GOLDEN)
def test_records_of_before_the_renames_are_read_and_compared_as_today(script, tmp_path):
    schema = importlib.import_module(f"train.{script}").Config
    fields = {field.name for field in dataclasses.fields(schema)}
    assert not fields & renamed.new_names(script).keys()  # or an old name could not be told from a new one
    assert {*renamed.RENAMED.get(script, {}).values()} <= fields
    described = {"run_id": "x", "script": script, "config": GOLDEN[script], "data": {"fingerprint": "y"}}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(described | {"starts": []}))
    assert config.read(schema, script, str(path)) == schema(config=str(path))
    record.check(tmp_path, schema(), script)
