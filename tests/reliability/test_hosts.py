"""Two processes, as of two hosts: one dies, or is told to stop (R1, R2)."""

import json
import signal
import subprocess
import sys
import time

import pytest
from programs import arguments, free_port, start_both
from test_main import ROOT, root

from engine import hosts

pytestmark = pytest.mark.slow  # many runs of the program

__all__ = ["root"]
_STATED = 60  # seconds within which the others end; docs/research/many_devices.md
_LONG = [pytest.param(process, True, marks=pytest.mark.long) for process in (0, 1)]


def both(root, workdir, *of_the_second):
    command = arguments("AE", root, workdir, "--config.training.num_steps=300")
    return start_both(command, workdir, *of_the_second)


def wait_for_step(running, workdir, step):
    log = workdir / "metrics.jsonl"
    while not (log.exists() and f'"step": {step}' in log.read_text()):
        assert all(process.poll() is None for process, _ in running)
        time.sleep(0.02)


def finish_both(root, workdir):
    running = both(root, workdir)
    assert [process.wait() for process, _ in running] == [0, 0], running[0][1].read_text()
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == list(range(20, 301, 20))
    assert (workdir / "results.json").exists()


@pytest.mark.promise("R1")
@pytest.mark.parametrize(("dead", "goes_on"), [(1, False), *_LONG])
def test_one_dies(root, tmp_path, dead, goes_on, tries):
    workdir = tmp_path / "w"
    running = both(root, workdir)
    wait_for_step(running, workdir, 100)
    (killed, _), (left, errors) = running[dead], running[1 - dead]
    with tries("one of two processes killed: the other ends with one line that says so"):
        killed.kill()
        assert left.wait(_STATED) != 0
    time.sleep(0.5)  # the line comes from a process that outlives it
    last = errors.read_text(errors="replace").strip().splitlines()[-1]
    assert last.startswith("error: another process of this run has stopped")
    assert "start the same command on every host again" in last
    killed.wait()
    if goes_on:
        with tries("one of two processes killed: the same command on both goes on to the end"):
            finish_both(root, workdir)


@pytest.mark.promise("R2")
@pytest.mark.parametrize(("told", "goes_on"), [(1, False), *_LONG])
def test_one_is_told_to_stop(root, tmp_path, told, goes_on, tries):
    workdir = tmp_path / "w"
    running = both(root, workdir)
    wait_for_step(running, workdir, 100)
    with tries("SIGTERM to one of two processes: both save the same step and exit 143"):
        running[told][0].send_signal(signal.SIGTERM)
        codes = [process.wait(30) for process, _ in running]
        assert codes == [143, 143], [errors.read_text() for _, errors in running]
    said = [
        [line for line in errors.read_text().splitlines() if "Stopped by SIGTERM" in line]
        for _, errors in running
    ]
    newest = max(int(path.name) for path in (workdir / "checkpoints/autoencoder").iterdir())
    assert newest >= 100
    for lines in said:
        assert len(lines) == 1 and f"at step {newest} of stage autoencoder, saved" in lines[0]
    if goes_on:
        with tries("SIGTERM to one of two processes: the same command on both goes on to the end"):
            finish_both(root, workdir)


@pytest.mark.long
@pytest.mark.promise("R7", "two processes with different configs: both end and say so")
def test_two_configs(root, tmp_path):
    running = both(root, tmp_path / "w", "--config.seed=1")
    for process, errors in running:
        assert process.wait(_STATED) == 1
        (line,) = [line for line in errors.read_text().splitlines() if line.startswith("error: ")]
        assert "process 1 of 2 has not the config and the images of process 0" in line
    assert not (tmp_path / "w" / "config.json").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("localhost:1", 2, None), "go together"),
        ((None, None, 1), "go together"),
        (("localhost", 2, 1), "has no port"),
        (("localhost:99999", 2, 1), "has no port"),
        (("localhost:1", 2, 2), "process_id"),
    ],
)
def test_flags_that_make_no_sense(flags, said):
    with pytest.raises(ValueError, match=said):
        hosts.start(*flags)


@pytest.mark.parametrize("index", [1, pytest.param(0, marks=pytest.mark.long)])
def test_the_others_do_not_come(index):
    """JAX's C++ ends the process; the last line is ours, says what was waited for and names it."""
    address = f"localhost:{free_port()}"
    code = f"from engine import hosts; hosts._JOINING = 2; hosts.start({address!r}, 2, {index})"
    alone = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=_STATED
    )  # ends with its watcher, which has the same stderr
    assert alone.returncode != 0
    last = alone.stderr.strip().splitlines()[-1]
    assert last.startswith("error: the processes of this run did not come together")
    assert f"see that {address} can be reached" in last
