"""``--help`` in groups: every setting once, under its group, with its own words."""

import dataclasses
import re

import pytest

from train import ae, ddpm, vdm
from train.run import config, grouped_help


@pytest.mark.parametrize("schema", [ae.Config, ddpm.Config, vdm.Config])
def test_every_setting_has_a_group_and_a_text_of_its_own(schema):
    for field in dataclasses.fields(schema):
        assert grouped_help.group_of(schema, field.name) in grouped_help.ORDER
        text = grouped_help.text_of(schema, field.name)
        assert text.endswith((".", ")")) and "\n" not in text, field.name
    named = {name for part in schema.__mro__ for name in vars(part).get("GROUPS", {})}
    assert named - {field.name for field in dataclasses.fields(schema)} <= {"num_samples"}


def test_help_shows_each_setting_once_under_its_group_with_the_value_of_the_config(capsys):
    with pytest.raises(SystemExit) as caught:
        config.parse(ddpm.Config, "ddpm", ["--config", "digits", "--help"])
    assert caught.value.code == 0
    parts = re.split(r"(?m)^\W*(\w+) options\W*$", capsys.readouterr().out)
    assert tuple(parts[1::2]) == grouped_help.ORDER
    parts = dict(zip(parts[1::2], parts[2::2], strict=True))
    settings = config.read(ddpm.Config, "ddpm", "digits")
    for field in dataclasses.fields(settings):
        flag = f"--{field.name.replace('_', '-')}"
        shown = [title for title, part in parts.items() if re.search(rf"(?m)^\W*{flag}\b(?!-)", part)]
        assert shown == [grouped_help.group_of(ddpm.Config, field.name)], flag
    assert f"(default: {settings.timesteps})" in parts["model"] and settings.timesteps != ddpm.Config.timesteps


def test_a_class_that_declares_a_setting_anew_without_words_keeps_those_of_its_base():
    @dataclasses.dataclass(frozen=True)
    class Mine(config.Run):
        lr: float = 0.5
        mine: int = 1
        """Setting of mine."""

    assert grouped_help.text_of(Mine, "lr") == "Learning rate after the warm-up."
    assert grouped_help.text_of(Mine, "mine") == "Setting of mine."
    assert grouped_help.group_of(Mine, "mine") == "model" and grouped_help.group_of(Mine, "lr") == "training"
