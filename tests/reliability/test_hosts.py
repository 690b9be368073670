"""Two processes, as of two hosts: one dies, or is told to stop (R1, R2)."""

import json
import signal
import socket
import time

import pytest
from programs import arguments, start
from test_main import root

__all__ = ["root"]
_STATED = 60  # seconds within which the others end; docs/many_devices.md


def both(root, workdir, *others):
    """Starts the two processes; process -> (process, the file of its stderr)."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = arguments("AE", root, workdir, "--config.training.num_steps=300", *others)
    running = []
    for index in range(2):
        flags = [f"--coordinator_address=localhost:{port}", "--num_processes=2"]
        errors = workdir.parent / f"{workdir.name} errors {index}"
        process = start([*command, *flags, f"--process_id={index}"], errors, devices=2)
        running.append((process, errors))
    return running


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
@pytest.mark.parametrize("dead", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_one_dies(root, tmp_path, dead, tries):
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
    with tries("one of two processes killed: the same command on both goes on to the end"):
        finish_both(root, workdir)


@pytest.mark.promise("R2")
@pytest.mark.parametrize("told", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_one_is_told_to_stop(root, tmp_path, told, tries):
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
    with tries("SIGTERM to one of two processes: the same command on both goes on to the end"):
        finish_both(root, workdir)
