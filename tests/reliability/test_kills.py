"""kill -9 at any moment, then the same command: it ends as an unbroken run, to the bit (R1)."""

import random
import signal
import subprocess

import pytest
from programs import METHODS, arguments, assert_same_run, finish, start
from test_main import root

pytestmark = pytest.mark.slow  # many runs of the program

__all__ = ["root"]
_KILLS = 2  # of each run
_SECONDS = 8  # that a whole run takes, about


def kill_at_random(command, errors, rng):
    """Kills a run at any moment from its start on; whether it was still there."""
    running = start(command, errors)
    try:
        running.wait(rng.uniform(0.2, _SECONDS))
    except subprocess.TimeoutExpired:
        running.kill()
    running.wait()
    assert running.returncode in (0, -signal.SIGKILL), errors.read_text()
    return running.returncode != 0


@pytest.mark.promise("R1")
@pytest.mark.parametrize(
    ("method", "runs"),
    [("f-AnoGAN", 1), *(pytest.param(name, 25, marks=pytest.mark.long) for name in METHODS)],
)
def test_killed_runs_end_with_the_same_bits(root, tmp_path, method, runs, tries):
    errors, unbroken = tmp_path / "errors", tmp_path / "unbroken"
    finish(arguments(method, root, unbroken), errors)
    for seed in range(runs):
        rng, workdir = random.Random(seed), tmp_path / str(seed)
        command = arguments(method, root, workdir)
        with tries(f"kill -9, {method}: the same command ends with the same bits", times=_KILLS):
            kills = 0
            while kills < _KILLS:
                kills += kill_at_random(command, errors, rng)
            finish(command, errors)
            assert_same_run(workdir, unbroken)


@pytest.mark.promise("R16")
@pytest.mark.parametrize(
    "method", ["AE", *(pytest.param(name, marks=pytest.mark.long) for name in ("f-AnoGAN", "SSAE"))]
)
def test_the_same_seed_gives_the_same_bits(root, tmp_path, method, tries):
    for name in ("one", "other"):
        finish(arguments(method, root, tmp_path / name), tmp_path / "errors")
    with tries(f"{method}: two runs of one seed end with the same bits"):
        assert_same_run(tmp_path / "one", tmp_path / "other")
