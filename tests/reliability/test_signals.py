"""SIGTERM, as a cloud sends it half a minute before a machine goes: exit code 143 in time (R2)."""

import json
import random
import signal
import subprocess
import sys
import time

import pytest
from programs import arguments, assert_same_run, finish, start
from test_main import ROOT, root

pytestmark = pytest.mark.slow  # many runs of the program

__all__ = ["root"]
_NOTICE = 30  # seconds
_MANY = [1, pytest.param(5, marks=pytest.mark.long)]


@pytest.fixture(scope="module")
def unbroken(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    finish(arguments("f-AnoGAN", root, folder / "w"), folder / "errors")
    return folder / "w"


def wait_for(running, condition, *given):
    while running.poll() is None and not condition(*given):
        time.sleep(0.002)
    assert running.poll() is None


def ends(running, errors, number=signal.SIGTERM):
    """Sends the signal; exit code 143, in time, with one line that says so."""
    begun = time.monotonic()
    running.send_signal(number)
    assert running.wait(_NOTICE) == 128 + number, errors.read_text()
    assert time.monotonic() - begun < _NOTICE
    said = errors.read_text(errors="replace")
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if "Stopped by" in line]
    assert f"Stopped by {number.name}" in line and "the same command goes on" in line
    return line


def steps(workdir):
    """Stage -> newest step in the log."""
    log = workdir / "metrics.jsonl"
    lines = log.read_text().split("\n")[:-1] if log.exists() else []
    return {(line := json.loads(text))["stage"]: line["step"] for text in lines}


def saved(workdir, stage):
    return max((int(path.name) for path in (workdir / "checkpoints" / stage).iterdir()), default=0)


@pytest.mark.promise("R2")
@pytest.mark.parametrize("times", _MANY)
@pytest.mark.parametrize("stage", ["gan", pytest.param("encoder", marks=pytest.mark.long)])
def test_in_training(root, unbroken, tmp_path, stage, times, tries):
    rng = random.Random(0)
    for index in range(times):
        workdir, errors = tmp_path / str(index), tmp_path / "errors"
        command = arguments("f-AnoGAN", root, workdir)
        running, some = start(command, errors), rng.randrange(0, 380)
        wait_for(running, lambda w, last: steps(w).get(stage, 0) > last, workdir, some)
        logged = steps(workdir)[stage]
        with tries("SIGTERM in training: the step is saved, exit code 143"):
            line = ends(running, errors)
            if f"of stage {stage}, saved" in line:  # else it came between the stages
                assert saved(workdir, stage) >= logged
                assert f"at step {saved(workdir, stage)} of" in line
        with tries("after SIGTERM the same command ends as an unbroken run, to the bit"):
            finish(command, errors)
            assert_same_run(workdir, unbroken)


@pytest.mark.promise("R2")
@pytest.mark.parametrize("times", _MANY)
def test_in_a_save_and_twice(root, unbroken, tmp_path, times, tries):
    for index in range(times):
        workdir, errors = tmp_path / str(index), tmp_path / "errors"
        command = arguments("f-AnoGAN", root, workdir)
        running = start(command, errors)
        wait_for(running, (workdir / "checkpoints" / "gan.tmp").exists)
        with tries("SIGTERM during a save, and a second one: exit code 143"):
            running.send_signal(signal.SIGTERM)
            ends(running, errors)
        with tries("after SIGTERM the same command ends as an unbroken run, to the bit"):
            finish(command, errors)
            assert_same_run(workdir, unbroken)


@pytest.mark.promise("R2")
@pytest.mark.parametrize("times", _MANY)
def test_in_evaluation(root, unbroken, tmp_path, times, tries):
    rng = random.Random(0)
    for index in range(times):
        workdir, errors = tmp_path / str(index), tmp_path / "errors"
        command = arguments("f-AnoGAN", root, workdir)
        running = start(command, errors)
        wait_for(running, (workdir / "checkpoints" / "encoder" / "400").exists)
        time.sleep(rng.uniform(0, 0.4))
        with tries("SIGTERM in evaluation: exit code 143"):
            ends(running, errors)
        with tries("after SIGTERM the same command ends as an unbroken run, to the bit"):
            finish(command, errors)
            assert_same_run(workdir, unbroken)


@pytest.mark.promise("R2", "Ctrl-C in training: saves, exit code 130")
def test_ctrl_c(root, tmp_path):
    command = arguments("f-AnoGAN", root, tmp_path / "w")
    running = start(command, tmp_path / "errors")
    wait_for(running, lambda: steps(tmp_path / "w").get("gan", 0) > 20)
    assert "saved" in ends(running, tmp_path / "errors", signal.SIGINT)


@pytest.mark.long
@pytest.mark.promise("R2", "SIGTERM while the program is in code that does not listen: 143 in 30 s")
def test_by_force(tmp_path):
    """As in a long compilation: the main thread never comes back to Python."""
    code = (
        "import ctypes, os, signal; from engine import preemption; preemption.install();"
        "signal.siginterrupt(signal.SIGTERM, False); print('ready', flush=True);"
        "ctypes.CDLL(None).read(os.pipe()[0], ctypes.create_string_buffer(1), 1)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout.readline() == "ready\n"
        running.send_signal(signal.SIGTERM)
        assert running.wait(_NOTICE) == 143
        assert "ended by force" in running.stderr.read()


FINALISER = """
import os, signal, sys, time
import main
from engine import preemption
sys.unraisablehook = main._ended_nothing
preemption.install()
class Finalised:
    def __del__(self):
        os.kill(os.getpid(), signal.SIG{name})
        time.sleep(0.01)
Finalised()
print("going on", flush=True)
time.sleep(20)
print("not stopped")
"""


@pytest.mark.promise("R2", "a signal while a finaliser runs, in which exceptions are lost")
@pytest.mark.parametrize(("name", "code"), [("TERM", 143), ("INT", 130)])
def test_a_signal_in_a_finaliser_is_not_lost(name, code):
    command = [sys.executable, "-c", FINALISER.format(name=name)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "going on\n"
    assert done.returncode == (code if name == "TERM" else -signal.SIGINT), done.stderr
