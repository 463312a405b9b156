"""A step is used only if it is what was saved: damage, strangers, other configurations and malice are refused."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoint_states import FIXTURES, ROOT, everything, listing, reseal, restored, same, save, state_at

from train.checkpoint import manifest, store

steps, workdir, warnings, opened = FIXTURES


# ---------------------------------------------------------------- damage


def files(step):
    return sorted(path for path in step.rglob("*") if path.is_file())


def truncate(path, part):
    os.truncate(path, int(path.stat().st_size * part))


DAMAGES = {"empty": lambda path: truncate(path, 0), "half": lambda path: truncate(path, 0.5), "gone": os.unlink}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_any_file_is_reported_by_its_name_and_the_step_before_is_used(workdir, warnings, damage):
    paths = files(workdir / "checkpoints/4")
    assert len(paths) > 10
    for path in paths:
        content = path.read_bytes()
        DAMAGES[damage](path)
        assert same(store.read(workdir, state_at(0), on_warning=warnings.append), 2)
        assert "checkpoint of step 4 is damaged" in warnings[-1] and str(path) in warnings[-1]
        if damage == "half" and not path.name.startswith("manifest."):
            assert f"expected {len(content)} bytes, got {len(content) // 2}" in warnings[-1]
        path.write_bytes(content)
    assert same(store.read(workdir, state_at(0)), 4) and len(warnings) == len(paths)


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256", "state/_METADATA", "_CHECKPOINT_METADATA"])
def test_run_that_goes_back_saves_the_lost_steps_again(workdir, warnings, name):
    truncate(workdir / "checkpoints/4" / name, 0.5)
    with store.Checkpoints(workdir, run_id="run", on_warning=warnings.append) as checkpoints:
        assert same(checkpoints.restore(state_at(0)), 2)
        assert listing(workdir / "checkpoints") == ["2", "4.corrupt"]
        for step in 3, 4:
            checkpoints.save(step, state_at(step), {})
            checkpoints.wait()
            assert same(checkpoints.restore(state_at(0)), step)
    assert listing(workdir / "checkpoints") == ["3", "4", "4.corrupt"] and len(warnings) == 1


def test_damage_everywhere_is_an_error_and_never_a_fresh_start(workdir, opened):
    for step in 2, 4:
        truncate(files(workdir / "checkpoints" / str(step))[-1], 0.5)
    before = everything(workdir)
    for attempt in opened.restore, lambda template: store.read(workdir, template):
        with pytest.raises(store.CheckpointError, match=r"every checkpoint is damaged(.|\n)*checkpoints/2/"):
            attempt(state_at(0))
    assert everything(workdir) == before


def flip_bits(workdir, count, seed):
    """How many of so many flips of one bit in the newest step go unnoticed."""
    generator, unnoticed = random.Random(seed), []
    for _ in range(count):
        path = generator.choice(files(workdir / "checkpoints/4"))
        content = path.read_bytes()
        place = generator.randrange(8 * len(content))
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        warnings: list[str] = []
        restored = store.read(workdir, state_at(0), on_warning=warnings.append)
        if not (same(restored, 2) and len(warnings) == 1 and str(path) in warnings[0]):
            unnoticed.append((path, place))
        path.write_bytes(content)
    assert same(store.read(workdir, state_at(0)), 4)
    return unnoticed


def test_one_flipped_bit_anywhere_is_noticed(workdir):
    assert flip_bits(workdir, 40, seed=0) == []


@pytest.mark.slow
def test_any_of_three_hundred_flipped_bits_is_noticed(workdir):
    assert flip_bits(workdir, 300, seed=1) == []


def test_file_that_does_not_belong_is_noticed(workdir, opened, warnings):
    (workdir / "checkpoints/4/state/more").write_text("?")
    assert same(opened.restore(state_at(0)), 2) and "state/more: not in the manifest" in warnings[0]


def test_step_under_another_number_is_noticed(workdir, opened, warnings):
    (workdir / "checkpoints/4").rename(workdir / "checkpoints/40")
    assert same(opened.restore(state_at(0)), 2) and "not a manifest of step 40" in warnings[0]


def test_only_the_newest_set_aside_step_of_a_number_stays(workdir, warnings):
    for _ in range(2):
        with store.Checkpoints(workdir, run_id="run", on_warning=warnings.append) as checkpoints:
            truncate(files(workdir / "checkpoints/4")[0], 0)
            assert same(checkpoints.restore(state_at(0)), 2)
            checkpoints.save(4, state_at(4), {})
    assert listing(workdir / "checkpoints") == ["2", "4", "4.corrupt"] and len(warnings) == 2


# ---------------------------------------------------------------- strangers


def test_step_of_another_run_is_refused_by_its_name(workdir, tmp_path):
    save(tmp_path / "other", 9, run_id="stranger")
    shutil.copytree(tmp_path / "other/checkpoints/9", workdir / "checkpoints/9")
    with pytest.raises(store.CheckpointError, match="checkpoints/9 belongs to run stranger, this is run run"):
        store.Checkpoints(workdir, run_id="run")
    with pytest.raises(store.CheckpointError, match="belongs to run stranger"):
        store.read(workdir, state_at(0), run_id="run")
    assert same(store.read(workdir, state_at(0)), 9)
    with store.lock(workdir):  # which the failed start has let go
        pass


def test_step_that_arrives_from_another_run_later_is_refused_too(workdir, opened, tmp_path):
    save(tmp_path / "other", 9, run_id="stranger")
    shutil.copytree(tmp_path / "other/checkpoints/9", workdir / "checkpoints/9")
    with pytest.raises(store.CheckpointError, match="belongs to run stranger"):
        opened.restore(state_at(0))
    assert listing(workdir / "checkpoints") == ["2", "4", "9"]


def test_format_of_a_newer_version_is_refused_and_not_taken_for_damage(workdir):
    reseal(workdir / "checkpoints/4", format=manifest.FORMAT + 1)
    for attempt in (
        lambda: store.Checkpoints(workdir, run_id="run"),
        lambda: store.read(workdir, state_at(0)),
    ):
        with pytest.raises(store.CheckpointError, match=f"format {manifest.FORMAT + 1}, this program reads"):
            attempt()


def test_checkpoint_of_format_1_can_still_be_read():
    golden = ROOT / "tests/train/golden"
    template = {
        "step": np.int32(0),
        "params": {"kernel": np.zeros((2, 3), np.float32), "bias": jnp.zeros(3, jnp.bfloat16)},
    }
    step, state, meta = store.read(golden, template)
    assert step == 3 and meta == {"loss": 0.1}
    np.testing.assert_array_equal(state["params"]["kernel"], np.arange(6, dtype=np.float32).reshape(2, 3) / 7)
    np.testing.assert_array_equal(state["params"]["bias"], np.full(3, 0.5, jnp.bfloat16))


# ---------------------------------------------------------------- another configuration


def test_other_tree_type_or_shape_is_listed_leaf_by_leaf_and_nothing_is_cast(workdir, opened):
    before = everything(workdir)
    state = state_at(0)
    other = state._replace(
        step=jnp.float32(0),
        params={
            "Dense_0": {**state.params["Dense_0"], "kernel": jnp.zeros((2, 4))},
            "Dense_2": state.params["Dense_1"],
        },
        ema_params=jax.tree.map(lambda leaf: leaf.astype(jnp.float16), state.ema_params),
    )
    with pytest.raises(store.CheckpointError) as caught:
        opened.restore(other)
    lines = {line.strip() for line in str(caught.value).splitlines()}
    assert lines > {
        "step: int32[] -> float32[]",
        "params/Dense_0/kernel: float32[2,3] -> float32[2,4]",
        "params/Dense_1/bias: bfloat16[3] -> absent",
        "params/Dense_2/bias: absent -> bfloat16[3]",
        "ema_params/Dense_0/none: float32[0,3] -> float16[0,3]",
    }
    assert everything(workdir) == before


def test_long_list_of_differences_is_cut(tmp_path):
    with store.Checkpoints(tmp_path, run_id="run") as checkpoints:
        checkpoints.save(1, {str(i): np.ones(1) for i in range(50)}, {})
        with pytest.raises(store.CheckpointError, match="and 30 more$"):
            checkpoints.restore({str(i): np.ones(2) for i in range(50)})


DEVICES = """
import sys
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from train.checkpoint import store
jax.config.update("jax_num_cpu_devices", 8)
everywhere = NamedSharding(Mesh(np.array(jax.devices()), ("x",)), PartitionSpec())
step, state, _ = store.read(sys.argv[1], {"w": np.zeros(5, np.float32), "step": np.int32(0)})
advance = jax.pmap(lambda s, x: jax.tree.map(lambda leaf: leaf + 1, s), in_axes=(None, 0), out_axes=None)
state = advance(jax.device_put(state, everywhere), np.zeros(8))
assert len(state["w"].sharding.device_set) == 8
with store.Checkpoints(sys.argv[1], run_id="run") as checkpoints:
    checkpoints.save(2, state, {})
"""


def test_state_moves_from_one_device_to_eight_and_back(tmp_path):
    with store.Checkpoints(tmp_path, run_id="run") as checkpoints:
        checkpoints.save(1, {"w": np.arange(5, dtype=np.float32), "step": np.int32(1)}, {})
    subprocess.run([sys.executable, "-c", DEVICES, tmp_path], cwd=ROOT, check=True, timeout=60)
    with store.Checkpoints(tmp_path, run_id="run") as checkpoints:
        step, state, _ = restored(checkpoints, {"w": np.zeros(5, np.float32), "step": np.int32(0)})
    assert step == 2
    np.testing.assert_array_equal(jax.device_put(state, jax.devices()[0])["w"], np.arange(5) + 1)


# ---------------------------------------------------------------- malice: seals that fit


def refused(workdir, template=None):
    with pytest.raises(store.CheckpointError) as caught:
        store.read(workdir, state_at(0) if template is None else template, step=4)
    return str(caught.value)


def seal_text(step, text):
    (step / "manifest.json").write_text(text)
    (step / "manifest.sha256").write_text(f"{hashlib.sha256(text.encode()).hexdigest()}  manifest.json\n")


def test_program_smuggled_into_a_step_does_not_run(workdir):
    marker = workdir / "marker"
    step = workdir / "checkpoints/4"
    for name in "state/_METADATA", "_CHECKPOINT_METADATA", "state/array.npy":
        (step / name).write_bytes(f"cos\nsystem\n(S'touch {marker}'\ntR.".encode())
    reseal(step)
    refused(workdir)
    assert not marker.exists() and "pickle" not in refused(workdir)


@pytest.mark.parametrize("name", ["state/_METADATA", "state/link", "manifest.json", "manifest.sha256"])
def test_link_out_of_a_step_is_not_followed(workdir, tmp_path, name):
    path = workdir / "checkpoints/4" / name
    outside = tmp_path / "outside"
    outside.write_bytes(path.read_bytes() if path.exists() else b"secret")
    path.unlink(missing_ok=True)
    path.symlink_to(outside)
    assert str(path) in refused(workdir)


def test_step_or_folder_that_is_a_link_is_not_followed(workdir, tmp_path):
    step = workdir / "checkpoints/4"
    shutil.move(step / "state", tmp_path / "state")
    (step / "state").symlink_to(tmp_path / "state")
    assert str(step / "state") in refused(workdir)
    shutil.rmtree(step)
    save(tmp_path / "other", 4)
    step.symlink_to(tmp_path / "other/checkpoints/4")
    assert str(step) in refused(workdir)


def test_names_that_leave_the_step_are_not_opened(workdir, tmp_path):
    step = workdir / "checkpoints/4"
    (workdir / "secret").write_text("secret")
    record = json.loads((step / "manifest.json").read_text())
    for name in "../../secret", str(workdir / "secret"):
        entry = [6, hashlib.sha256(b"secret").hexdigest()]
        seal_text(step, json.dumps(record | {"files": record["files"] | {name: entry}}))
        assert "missing" in refused(workdir)


def test_pipe_in_a_step_does_not_hang_the_reader(workdir):
    os.mkfifo(workdir / "checkpoints/4/state/pipe")
    assert "state/pipe: expected a plain file" in refused(workdir)


DEEP = "[" * 100_000
BAD_MANIFESTS = {
    "deep": DEEP,
    "deep in place": '{"format": 1, "run_id": ' + DEEP + "]" * 100_000 + "}",
    "list": "[]",
    "number": "1",
    "empty": "",
    "not text": "\udcff",
    "other fields": '{"format": 1, "step": 4}',
    "format is text": '{"format": "2"}',
}


@pytest.mark.parametrize("kind", BAD_MANIFESTS)
def test_nonsense_under_a_good_seal_is_damage(workdir, kind):
    content = BAD_MANIFESTS[kind].encode(errors="surrogateescape")
    step = workdir / "checkpoints/4"
    (step / "manifest.json").write_bytes(content)
    (step / "manifest.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  manifest.json\n")
    assert "manifest.json: not a manifest of step 4" in refused(workdir)


@pytest.mark.parametrize(
    "field, value", [("run_id", 3), ("step", "4"), ("files", []), ("meta", None), ("layout", 7), ("score", "1")]
)
def test_field_of_the_wrong_type_is_damage(workdir, field, value):
    step = workdir / "checkpoints/4"
    seal_text(step, json.dumps(json.loads((step / "manifest.json").read_text()) | {field: value}))
    assert "not a manifest of step 4" in refused(workdir)


def test_deep_json_where_orbax_reads_it_is_no_traceback(workdir):
    for name in "state/_METADATA", "_CHECKPOINT_METADATA":
        (workdir / "checkpoints/4" / name).write_text(DEEP)
    reseal(workdir / "checkpoints/4")
    assert "cannot be read" in refused(workdir)


def test_huge_shape_in_the_manifest_is_refused_by_the_template(workdir):
    record = json.loads((workdir / "checkpoints/4/manifest.json").read_text())
    reseal(workdir / "checkpoints/4", layout=record["layout"] | {"params/Dense_0/kernel": "float32[1099511627776]"})
    assert "params/Dense_0/kernel: float32[1099511627776] -> float32[2,3]" in refused(workdir)


@pytest.mark.parametrize(
    "field, value", [("shape", [1 << 20, 1 << 20]), ("chunks", [1 << 20, 1 << 20]), ("dtype", "<i4")]
)
def test_array_that_orbax_declares_otherwise_is_refused_before_it_is_allocated(workdir, field, value):
    import tensorstore

    step = workdir / "checkpoints/4"
    zarr = tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{step}/state/"}).result()
    array = json.loads(zarr["params.Dense_0.kernel/.zarray"])
    zarr["params.Dense_0.kernel/.zarray"] = json.dumps(array | {field: value})
    reseal(step)
    assert "orbax describes other arrays than the manifest" in refused(workdir)


EVIL = """
import pathlib
pathlib.Path(__file__).with_name("marker").write_text("ran")
class Handler: pass
"""


@pytest.mark.parametrize("where", ["handler", "type", "namedtuple"])
def test_names_of_code_in_a_step_are_not_looked_up(workdir, monkeypatch, where):
    monkeypatch.chdir(workdir)
    monkeypatch.syspath_prepend(str(workdir))
    (workdir / "evil.py").write_text(EVIL)
    step = workdir / "checkpoints/4"
    whole, state = (json.loads((step / name).read_text()) for name in ("_CHECKPOINT_METADATA", "state/_METADATA"))
    if where == "handler":
        whole["item_handlers"]["state"] = "evil.Handler"
    if where == "type":
        for leaf in state["tree_metadata"].values():
            leaf["value_metadata"]["value_type"] = "evil.Handler"
    if where == "namedtuple":
        entry = {"category": "namedtuple", "module": "evil", "clazz": "Handler", "entries": []}
        state["value_metadata_tree"] = {"params": entry}
    (step / "_CHECKPOINT_METADATA").write_text(json.dumps(whole))
    (step / "state/_METADATA").write_text(json.dumps(state))
    reseal(step)
    assert "names other parts than numpy arrays" in refused(workdir)
    assert "evil" not in sys.modules and not (workdir / "marker").exists()


def test_what_a_step_says_cannot_act_on_the_terminal(workdir):
    reseal(workdir / "checkpoints/4", run_id="\x1b[2J")
    with pytest.raises(store.CheckpointError, match="belongs to run") as caught:
        store.read(workdir, state_at(0), step=4, run_id="run")
    assert "\x1b" not in str(caught.value)
