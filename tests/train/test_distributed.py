"""Several processes of one run: they agree or end together, with one sentence and one exit code."""

import os
import pathlib
import signal
import socket
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]

RUN = """
import os, sys, time
import jax
from genjax import data
from train.run import config, distributed, process

def script(argv):
    distributed.join()
    settings = config.ImageRun(lr=float(argv[0]), data_dir=argv[1])
    if argv[2] == "broken":
        raise data.DataError("the data are broken")
    distributed.agree(settings, {"data": argv[2]})
    print("agreed", flush=True)
    if argv[3] == "wait":
        jax.experimental.multihost_utils.process_allgather(jax.numpy.zeros(1))
        print("waiting", flush=True)
        if jax.process_index() == int(argv[4]):
            time.sleep(600)
        jax.experimental.multihost_utils.process_allgather(jax.numpy.zeros(1))

process.main(script)
"""


def start(*argvs, script=("-c", RUN)):
    """A process for each list of arguments, on one coordinator."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    several = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2", "JAX_PLATFORMS": "cpu"}
    return [
        subprocess.Popen(
            [sys.executable, *script, *map(str, argv)],
            cwd=ROOT,
            env=os.environ | several | {"JAX_PROCESS_ID": str(i), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i, argv in enumerate(argvs)
    ]


def ends(processes):
    """(exit code, stdout, last line on stderr) of each; and what else was said there is the collectives' own."""
    found = []
    for process in processes:
        out, err = process.communicate(timeout=240)
        assert "Traceback" not in err
        found.append((process.returncode, out, err.strip()))
    return found


def test_processes_that_do_not_agree_are_all_told_so():
    for code, out, err in ends(start(["1", "a", "one", ""], ["2", "b", "other", ""])):
        assert code == 2 and "agreed" not in out
        assert "--lr: 1.0 on process 0, 2.0 on process 1" in err and "data: one on process 0, other on process 1" in err
        assert "data-dir" not in err and "jax" not in err


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1])
def test_a_failure_of_one_ends_the_other_with_its_code_and_its_words(which):
    argvs = [["1", "", "broken" if i == which else "", ""] for i in range(2)]
    for i, (code, out, err) in enumerate(ends(start(*argvs))):
        assert code == 3 and "agreed" not in out
        said = "the data are broken"
        assert err.splitlines()[-1] == (said if i == which else f"process {which} of this run stopped: {said}")


@pytest.mark.slow
def test_processes_that_agree_end_well():
    """Though one reads its data elsewhere."""
    for code, out, _ in ends(start(["1", "a", "same", ""], ["1", "b", "same", ""])):
        assert (code, out) == (0, "agreed\n")


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(("number", "codes"), [(signal.SIGKILL, (-9, 75)), (signal.SIGINT, (130, 130))])
def test_where_one_is_gone_the_other_ends_with_a_sentence(which, number, codes):
    processes = start(*[["1", "", "same", "wait", str(which)]] * 2)
    for process in processes:
        assert any(line == "waiting\n" for line in process.stdout)  # the collectives speak there, too
    processes[which].send_signal(number)
    found = ends(processes)
    assert (found[which][0], found[1 - which][0]) == codes
    gone = "another machine of this run is gone; start it again on all"
    said = f"process {which} of this run stopped: interrupted" if number == signal.SIGINT else gone
    assert found[1 - which][2].splitlines()[-1] == said


ALONE = (
    "from train.run import distributed, process; distributed.START = 3; "
    "process.main(lambda argv: distributed.join(), [])"
)


@pytest.mark.slow
def test_a_machine_that_finds_no_other_says_so():
    for address, code, said in [
        ("127.0.0.1:0", 75, "not all machines of this run came within 3 s; start it again on all"),
        ("nowhere", 2, "--distributed: expected host:port of the first machine; set JAX_COORDINATOR_ADDRESS"),
        ("", 2, "set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID"),
    ]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        env = {"JAX_COORDINATOR_ADDRESS": address.replace(":0", f":{port}"), "JAX_NUM_PROCESSES": "2"}
        env = os.environ | {name: value for name, value in env.items() if value} | {"JAX_PROCESS_ID": "0"}
        command = [sys.executable, "-c", ALONE]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == code and said in done.stderr.splitlines()[-1], done.stderr


@pytest.mark.slow
def test_training_commands_that_differ_in_steps_write_nothing(tmp_path):
    argv = ["--distributed", "--workdir", tmp_path / "run", "--batch-size", 16]
    both = start([*argv, "--steps", 20], [*argv, "--steps", 30], script=("-m", "train.vae"))
    for code, _, err in ends(both):
        assert code == 2 and "--steps: 20 on process 0, 30 on process 1" in err
    assert not list(tmp_path.rglob("*.json"))
