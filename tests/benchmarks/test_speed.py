"""The suites run at toy size, agree with their peers, and say what they measured; no time is asserted."""

import dataclasses
import json
import math
import time

import numpy as np
import pytest

from benchmarks import harness, peers, provenance, quality, report, speed, workload
from genjax import diffusion

SLOW = ("training", "startup", "scaling")
SETTINGS = harness.Settings(repeats=1, seconds=0.0, without=("torch.compile",))


@pytest.fixture(autouse=True)
def one_thread():
    """Tests run beside each other, and PyTorch's threads wait for each other in vain."""
    if notes := peers.adapter("notes"):
        notes.torch.set_num_threads(1)


# The harness.


def waiting(name, seconds, log=None):
    def run():
        if log is not None:
            log.append(name)
        time.sleep(seconds)
        return name

    return harness.Variant(name, lambda: run)


def test_the_median_of_what_is_timed_and_how_often():
    log = []
    case = harness.Case("work", "thing", 2, [waiting("ours", 0.01, log), waiting("theirs", 0.03, log)])
    found = harness.measure(case, harness.Settings(repeats=3, seconds=0.02))
    ours, theirs = found["rows"]
    assert 0.005 <= ours["seconds"] and 0.015 <= theirs["seconds"]  # a sleep is never shorter: seconds of one unit
    assert ours["times"] == 1 and theirs["times"] == theirs["seconds"] / ours["seconds"]
    assert ours["quartiles"][0] <= ours["seconds"] <= ours["quartiles"][1] and len(ours["samples"]) == 3
    first = ours["calls"], theirs["calls"]
    blocks = ["ours"] * first[0] + ["theirs"] * first[1]
    assert log == ["ours", "theirs"] * 2 + blocks + blocks[::-1] + blocks  # compiled, tried, then there and back


def test_units_of_a_variant_take_the_place_of_the_case():
    case = harness.Case("work", "thing", 1, [waiting("a", 0.01), waiting("b", 0.01)._replace(units=100)])
    one, many = harness.measure(case, SETTINGS)["rows"]
    assert one["seconds"] >= 0.01 and 1e-4 <= many["seconds"] < one["seconds"]


def test_a_busy_machine_is_seen(monkeypatch):
    """Others that use half a core are told from a quiet machine; where every sample is busy the row says so."""
    clock, spent = iter([0.0, 1.0]), iter([10.0, 10.5])
    monkeypatch.setattr(harness.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(harness, "_everyone", lambda: next(spent))
    monkeypatch.setattr(harness, "_own", lambda: 3.0)
    sample = harness._sample(lambda: None, 1)
    assert sample == harness.Sample(1.0, 0.5)
    row = harness._row("a", [sample, harness.Sample(9.0, 0.0)], 1, 0.0, {}, 1)
    assert row["seconds"] == 9.0 and row["quiet"] == 1
    assert harness._row("a", [sample], 1, 0.0, {}, 1)["quiet"] == 0


def test_where_the_system_does_not_tell_samples_count():
    row = harness._row("a", [harness.Sample(1.0, math.nan)], 1, 0.0, {}, 1)
    assert row["quiet"] == 1 and row["samples"] == [[1.0, None]]


def test_a_peer_that_breaks_is_a_line_of_the_result_and_ours_is_an_error():
    def broken():
        raise RuntimeError("no such device\nand more")

    ours = waiting("ours", 0.0)
    case = harness.Case("work", "thing", 1, [ours, harness.Variant("peer", broken)])
    found = harness.measure(case, SETTINGS)
    assert found["failed"] == {"peer": "RuntimeError: no such device"} and len(found["rows"]) == 1
    with pytest.raises(RuntimeError):
        harness.measure(case._replace(variants=[harness.Variant("ours", broken)]), SETTINGS)


def test_programs_that_do_not_do_the_same_are_not_timed():
    check = lambda outputs: {"b": harness.close([1.0, 2.1], [1.0, 2.0], 1e-3, "b")}
    with pytest.raises(AssertionError, match="b: differ by 0.05"):
        harness.measure(harness.Case("work", "thing", 1, [waiting("a", 0.0)], check), SETTINGS)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_numbers_that_are_none_do_not_agree(wrong):
    with pytest.raises(AssertionError):
        harness.close([wrong], [1.0], 1e-3, "x")


# The suites.


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of diffusers' DPM-Solver
@pytest.mark.parametrize("name", [name for name in speed.SUITES if name not in SLOW])
def test_a_suite_runs(name, tmp_path):
    found = list(speed.measure(name, "toy", "cpu", SETTINGS))
    assert found and all(case["rows"] and not case["failed"] for case in found)
    told = provenance.record(["--suite", name], workload.SEED)
    told |= {"suite": name, "size": "toy", "absent": {}, "seconds": 1.0, "cases": found}
    text = report.section(json.loads(json.dumps(told)), [told])
    for case in found:
        assert case["name"] in text and all(row["name"] in text for row in case["rows"])


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_a_slow_suite_runs(name):
    found = list(speed.measure(name, "toy", "cpu", SETTINGS))
    assert found and all(case["rows"] and not case["failed"] for case in found)


def test_suites_compare_with_every_peer_that_is_installed():
    for name in peers.NEEDS:
        if name not in peers.absent():
            assert peers.adapter(name).__doc__


def test_an_absent_peer_is_named_and_skipped(monkeypatch):
    there = peers.importlib.util.find_spec
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None if name == "torch" else there(name))
    assert peers.adapter("notes") is None and "torch" in peers.absent()["notes"]
    rows = [case["rows"] for case in speed.measure("gan", "toy", "cpu", SETTINGS)]
    assert [len(row) for row in rows] == [2]  # our scan and the Python loop over the jitted step


@pytest.mark.parametrize("wrong", ["time", "transposed", "bias"])
def test_weights_that_are_put_in_the_wrong_place_are_noticed(wrong, monkeypatch):
    pytest.importorskip("torch")
    from benchmarks.peers import notes
    from benchmarks.suites import training

    size = workload.UNetSize(8, 1, 8, (1, 2))
    network = workload.simple(size)
    params = workload.weights(network, size.shape)

    def peer(params):
        return notes.simple_unet(params, size.widths, 1, "batch", notes.device("cpu"))

    assert training._same_prediction(network, params, size, peer, "cpu") < 1e-4
    if wrong == "transposed":
        right = notes.kernel
        monkeypatch.setattr(notes, "kernel", lambda array, transposed=False: right(array))
    elif wrong == "time":
        right = notes.SimpleUNet.forward
        monkeypatch.setattr(notes.SimpleUNet, "forward", lambda self, x, t: right(self, x, t + 5))
    else:
        right = notes.fill

        def fill(module, params, **more):
            right(module, {**params, "bias": 0 * params["bias"]}, **more)

        monkeypatch.setattr(notes, "fill", fill)
    with pytest.raises(AssertionError):
        training._same_prediction(network, params, size, peer, "cpu")


def test_the_network_of_ho_is_that_of_diffusers():
    pytest.importorskip("diffusers")
    from benchmarks.peers import hub, notes
    from benchmarks.suites import training

    size = workload.UNetSize(8, 1, 8, (1, 2))
    network = workload.ho(size)
    peer = lambda params: hub.ho(params, network, size.side, notes.device("cpu"))
    assert training._same_prediction(network, workload.weights(network, size.shape), size, peer, "cpu") < 1e-4


def test_a_chain_with_other_noise_levels_is_noticed(monkeypatch):
    pytest.importorskip("torch")
    from benchmarks.peers import notes
    from benchmarks.suites import sampling

    size = sampling.SIZES["toy"]
    case = next(sampling.cases(size, "cpu"))
    assert case.check({})
    right = notes.Chain
    monkeypatch.setattr(notes, "Chain", lambda beta, where: right(1.05 * np.asarray(beta), where))
    with pytest.raises(AssertionError):
        case.check({})


# The report.


def test_the_exponent_of_a_power_law():
    row = lambda seconds: {"rows": [{"name": "genjax", "seconds": seconds}], "axis": "batch"}
    cases = [row(3.0 * value**1.5) | {"value": value} for value in (1, 2, 4)] + [{"axis": "", "rows": []}]
    assert report.exponents(cases) == {("batch", "genjax"): pytest.approx(1.5)}


def test_a_goal_that_is_not_met_says_so_with_its_reason():
    row = {"name": "peer", "seconds": 1.0, "quartiles": [1.0, 1.0], "times": 0.8, "quiet": 3}
    row |= {"memory_mib": {"process": 10.0}, "compile_seconds": 0.0}
    case = {"flops": 0.0, "goals": {"peer": {"times": 1.0, "reason": "because"}}}
    assert report._line(row, case, 0.0).endswith("| 1: **not met**. because |")
    assert report._line(row | {"times": 1.2}, case, 0.0).endswith("| 1: met |")
    assert report._line(row | {"quiet": 0}, case, 0.0).count("(busy)") == 1


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.5, "2.50 s"), (0.0123, "12.3 ms"), (4.56e-5, "45.6 µs"), (123.4, "123 s")]
)
def test_times_have_three_digits(seconds, text):
    assert report.time(seconds) == text


def test_tables_and_figures_come_from_the_files_alone(tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text("before\n<!-- quality speed -->\nold\n<!-- end -->\nafter\n", encoding="utf-8")
    monkeypatch.setattr(quality, "HERE", tmp_path)
    cases = [harness.measure(harness.Case("work", "thing", 1, [waiting("a", 0.0), waiting("b", 0.0)]), SETTINGS)]
    told = provenance.record([], 0) | {"suite": "vae", "size": "cpu", "absent": {"hub": ["diffusers"]}, "seconds": 1.0}
    (tmp_path / "speed-vae-cpu.json").write_text(json.dumps({**told, "cases": cases}), encoding="utf-8")
    report.write(tmp_path)
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert page.startswith("before\n") and page.endswith("<!-- end -->\nafter\n") and "old" not in page
    assert "### vae, cpu" in page and "not installed: diffusers" in page and "| a |" in page
    assert (tmp_path / "speed-cpu.png").stat().st_size > 1000


def test_flags_say_what_the_settings_are():
    settings = speed.Speed(suite=("vae",), size="toy", repeats=2, without=("a", "b"))
    again = speed.tyro.cli(speed.Speed, args=speed._flags(settings))
    assert again == settings and set(dataclasses.asdict(again)) == set(dataclasses.asdict(settings))


def test_the_networks_have_the_cost_that_is_counted_by_hand():
    """A convolution of h x w pixels costs 2 k² c f h w; what else there is in the network is little beside it."""
    size = workload.UNetSize(16, 1, 8, (1, 2))
    by_hand = 2 * 16 * 16 * (9 * 8 + 9 * 8 * 16 + 9 * 16 * 16 + 8) + 2 * 64 * (
        16 * 16 * 16 + 9 * 32 * 8 + 9 * 8 * 8 + 16 * 8 * 8
    )
    assert 0.9 < workload.forward_flops(workload.simple(size), size.shape) / by_hand < 1.5


def test_the_python_loop_of_one_step_has_the_variance_of_the_chain():
    """Where the network predicts nothing, the deviation of a step is that of the posterior."""
    from benchmarks.suites import sampling

    jax = sampling.jax
    schedule = diffusion.linear_schedule(300)
    keys, x = jax.random.split(jax.random.key(0), 4000), jax.numpy.zeros((4000, 1, 1, 1))
    found = jax.jit(lambda x: sampling._step(lambda x, t: 0 * x, schedule, keys, x, 150))(x)
    assert abs(float(found.std()) / float(schedule.posterior_variance[150]) ** 0.5 - 1) < 0.05
