"""Full disks, folders that cannot be written, and two runs in one workdir (R5, R6)."""

import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
from programs import arguments, start
from test_main import ROOT, fails, root
from test_train import go, toy

from engine import checkpoint
from engine.workdir import hold

pytestmark = pytest.mark.slow  # many runs of the program

__all__ = ["root"]
_SECONDS = 20  # 5 on an idle machine: what it took stands in the table


def the_line(errors):
    """Among the log's; threads of tensorstore, which may go on for a while, say nothing."""
    text = errors.read_text(errors="replace")
    assert "Traceback" not in text
    (line,) = [line for line in text.splitlines() if line.startswith("error: ")]
    return line


def wait_until(there, running):
    while not there() and running.poll() is None:
        time.sleep(0.01)
    assert running.poll() is None


def can_mount():
    return subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode == 0


@pytest.fixture
def disk(tmp_path):
    """A disk of 20 MB in a folder, and a function that runs a shell's commands where it is seen."""
    if not can_mount():
        pytest.skip("no user namespaces, in which a small disk could be mounted")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = f"mount -t tmpfs -o size=20m tmpfs {folder}"
    # The namespace lives as long as the program in it.
    holder = subprocess.Popen(
        ["unshare", "-rm", "sh", "-c", f"{mount} && echo ready && exec sleep 1000"],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout.readline() == b"ready\n"
    yield (
        folder,
        ["nsenter", "--preserve-credentials", "-U", "-m", "-t", str(holder.pid), f"--wd={ROOT}"],
    )
    holder.kill()
    holder.communicate()


@pytest.mark.promise("R5")
@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.long)])
def test_disk_that_becomes_full(root, disk, tmp_path, times, tries):
    """Whatever is written next: a line of the log, an event, a picture or a checkpoint."""
    folder, inside = disk
    errors = tmp_path / "errors"
    for index in range(times):
        workdir = folder / str(index)
        command = arguments("AE", root, workdir, f"--config.every.log={7 + index}")
        with tries("disk full in training: ends with one line, checkpoints still load"):
            running = start(command, errors, before=inside)
            test = shlex.join(["test", "-e", str(workdir / "checkpoints/autoencoder/100")])
            wait_until(lambda t=test: run(inside, t).returncode == 0, running)
            run(inside, f"dd if=/dev/zero of={folder}/filler bs=64k")
            begun = time.monotonic()
            assert running.wait(30) == 1, errors.read_text()
            assert time.monotonic() - begun < _SECONDS
            line = the_line(errors)
            assert str(workdir) in line and "free space" in line
            run(inside, f"rm {folder}/filler && cp -r {workdir} {tmp_path}/copy{index}")
            copy = tmp_path / f"copy{index}"
            assert checkpoint.newest(str(copy), "autoencoder")["step"] >= 100


def test_tasks_that_failed_in_the_background_print_no_traceback():
    """Orbax writes arrays in tasks; of those that nobody waited for asyncio prints the errors."""
    script = """
import logging
import main
from absl import logging as absl_logging
absl_logging.use_absl_handler()
absl_logging.get_absl_handler().addFilter(main._worth_reading)
for name in ("asyncio", "other"):
    logging.getLogger(name).error("Task exception was never retrieved: %s", name)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "retrieved: other" in done.stderr and "retrieved: asyncio" not in done.stderr


def run(inside, line):
    return subprocess.run([*inside, "sh", "-c", line], capture_output=True)


@pytest.mark.promise("R5", "workdir that cannot be written: found before training")
def test_read_only_workdir(root, tmp_path):
    workdir = tmp_path / "w"
    workdir.mkdir(mode=0o555)
    command, errors = arguments("AE", root, workdir), tmp_path / "errors"
    if os.geteuid():
        running = start(command, errors)
    elif can_mount():  # root writes everywhere, but not on a disk that is read-only
        script = f"mount --bind -r {workdir} {workdir} && exec {shlex.join(program(command))}"
        running = start([], errors, instead=["unshare", "-rm", "sh", "-c", script])
    else:
        pytest.skip("root, and no user namespaces: nothing is read-only")
    assert running.wait() == 1
    line = the_line(errors)
    assert "Traceback" not in errors.read_text()
    assert str(workdir) in line and "cannot be written" in line and "another workdir" in line
    assert "Stage" not in errors.read_text()


@pytest.mark.promise("R5", "a file in the way of the workdir or of its folders: one line")
@pytest.mark.parametrize("name", ["", "checkpoints", "tensorboard", "pictures", "config.json/x"])
def test_file_in_the_way(root, tmp_path, name):
    path = tmp_path / "w" / name if name else tmp_path / "w"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    line = fails(*arguments("AE", root, tmp_path / "w", "--config.training.num_steps=20"))
    assert str(tmp_path / "w") in line


def program(command):
    return [sys.executable, str(ROOT / "main.py"), *map(str, command)]


@pytest.mark.promise("R6")
@pytest.mark.parametrize("times", [1, pytest.param(20, marks=pytest.mark.long)])
def test_two_runs_in_one_workdir(root, tmp_path, times, tries):
    for index in range(times):
        workdir, errors = tmp_path / str(index), tmp_path / "errors"
        command = arguments("AE", root, workdir, "--config.training.num_steps=100000")
        running = start(command, errors)
        wait_until(lambda w=workdir: (w / "metrics.jsonl").exists(), running)
        with tries("a second run in a workdir: ends with the holder's process and host"):
            begun = time.monotonic()
            line = fails(*command)
            assert time.monotonic() - begun < _SECONDS
            assert f"process {running.pid} on " in line and str(workdir) in line
            assert running.poll() is None
        with tries("the workdir of a killed run is taken over"):
            running.send_signal(signal.SIGKILL)
            running.wait()
            go_on = start(command, errors)
            wait_until(lambda e=errors: "Stage autoencoder: at step" in e.read_text(), go_on)
            go_on.kill()
            go_on.wait()


@pytest.mark.promise("R6", "predict and export read a workdir that a run holds")
def test_a_held_workdir_can_be_read(tmp_path):
    go(toy(), tmp_path)
    with hold(str(tmp_path)):
        assert checkpoint.newest(str(tmp_path), "toy")["step"] == 4
        with pytest.raises(OSError, match="in use by process"), hold(str(tmp_path)):
            pass
    with hold(str(tmp_path)):
        pass
