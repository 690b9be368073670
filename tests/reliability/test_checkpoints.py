"""What becomes of damaged checkpoints and of what does not belong among them (R3, R4)."""

import shutil
import subprocess

import numpy as np
import pytest
from absl import logging
from test_train import go, toy

from engine import checkpoint
from storage.files import SUMS

CHANGES = {
    "cut in half": lambda data, rng: data[: len(data) // 2],
    "emptied": lambda data, rng: b"",
    "deleted": lambda data, rng: None,
    "one bit flipped": lambda data, rng: flipped(data, rng),
}


def flipped(data, rng):
    place = int(rng.integers(8 * len(data)))
    changed = bytearray(data)
    changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


@pytest.fixture
def folder(tmp_path):
    """Of a toy's checkpoints at steps 3 and 4."""
    go(toy(), tmp_path)
    return tmp_path / "checkpoints" / "toy"


@pytest.fixture
def warnings(monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: said.append(text % values))
    return said


def files(step):
    return sorted(path for path in step.rglob("*") if path.is_file())


def spoil(path, change, rng):
    """Changes a file; what undoes it."""
    data = path.read_bytes()
    changed = CHANGES[change](data, rng)
    if changed is None:
        path.unlink()
    else:
        path.write_bytes(changed)
    return lambda: path.write_bytes(data)


@pytest.mark.promise("R3")
@pytest.mark.parametrize(
    ("change", "times"),
    [
        ("cut in half", 1),
        ("emptied", 1),
        ("deleted", 1),
        ("one bit flipped", 3),
        pytest.param("one bit flipped", 100, marks=pytest.mark.long),
    ],
)
def test_every_damage_of_every_file_is_found(folder, tmp_path, change, times, tries, warnings):
    rng = np.random.default_rng(0)
    assert len(files(folder / "4")) > 5
    for path in files(folder / "4"):
        if not path.stat().st_size and change != "deleted":
            continue  # nothing in it to change
        for _ in range(times):
            with tries(f"a file of a checkpoint {change}: found, the one before is used"):
                undo = spoil(path, change, rng)
                warnings.clear()
                assert checkpoint.newest_step(str(tmp_path), "toy") == 3
                (line,) = warnings
                assert "step 3 is used" in line and "\n" not in line
                # A changed line of sums may be taken for a change of the file it names.
                assert path.name == SUMS or path.relative_to(folder / "4").as_posix() in line
                undo()
    warnings.clear()
    assert checkpoint.newest_step(str(tmp_path), "toy") == 4 and not warnings


@pytest.mark.promise("R3", "a damaged checkpoint in training and scoring: the good one's weights")
def test_training_and_scoring_take_the_weights_of_the_good_one(folder, tmp_path, warnings):
    good = checkpoint.newest(str(tmp_path), "toy")
    spoil(next(path for path in files(folder / "4") if path.name == "_METADATA"), "emptied", None)
    older = checkpoint.newest(str(tmp_path), "toy")
    assert older["step"] == 3
    np.testing.assert_allclose(older["variables"]["w"]["params"]["mean"], 1 - 0.5**3)
    go(toy(), tmp_path)  # step 4 anew
    again = checkpoint.newest(str(tmp_path), "toy")
    assert again["step"] == 4
    assert again["variables"]["w"]["params"]["mean"] == good["variables"]["w"]["params"]["mean"]
    assert (folder / "4.aside").exists()  # what was damaged is not thrown away


@pytest.mark.promise("R3", "all checkpoints damaged: stops and says so, trains nothing")
@pytest.mark.parametrize("change", CHANGES)
def test_none_left_stops(folder, tmp_path, change):
    rng = np.random.default_rng(1)
    for step in ("3", "4"):
        spoil(folder / step / "SHA256SUMS", change, rng)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    for read in (lambda: go(toy(), tmp_path), lambda: checkpoint.newest(str(tmp_path), "toy")):
        with pytest.raises(ValueError, match="no checkpoint that is whole: 4 .*, 3 ") as error:
            read()
        assert str(folder) in str(error.value) and "delete that folder" in str(error.value)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def nothing(folder):
    (folder / "9").mkdir()


def junk(folder):
    (folder / "9").mkdir()
    (folder / "9" / "data.bin").write_bytes(b"junk")


def a_file(folder):
    (folder / "9").write_text("")


def orbax_left(folder):
    (folder / "9.orbax-checkpoint-tmp-123").mkdir()


def a_copy(folder):
    shutil.copytree(folder / "4", folder / "4 (copy)")


def hidden(folder):
    (folder / ".DS_Store").write_text("")


def padded(folder):
    shutil.copytree(folder / "3", folder / "009")


@pytest.mark.promise("R4")
@pytest.mark.parametrize("put", [nothing, junk, a_file, orbax_left, a_copy, hidden, padded])
def test_foreign_things_are_ignored_and_named(folder, tmp_path, put, tries, warnings):
    before = {path.name for path in folder.iterdir()}
    with tries("a foreign file or folder among checkpoints: named in a warning, left alone"):
        put(folder)
        (name,) = {path.name for path in folder.iterdir()} - before
        assert checkpoint.newest_step(str(tmp_path), "toy") == 4
        (line,) = warnings
        assert name in line and "step 4 is used" in line
        go(toy(num_steps=9), tmp_path)  # comes to the step of that name
        assert checkpoint.newest(str(tmp_path), "toy")["step"] == 9
        assert any((folder / kept).exists() for kept in (name, f"{name}.aside"))


def test_a_foreign_file_within_a_checkpoint_does_no_harm(folder, tmp_path):
    (folder / "4" / "state" / ".DS_Store").write_text("")
    assert checkpoint.newest(str(tmp_path), "toy")["step"] == 4


def test_sha256sum_agrees(folder):
    """Coreutils' program, where there is one, as an independent reader."""
    if not shutil.which("sha256sum"):
        pytest.skip("no sha256sum")
    command = ["sha256sum", "--check", "--strict", SUMS]
    done = subprocess.run(command, cwd=folder / "4", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": OK") == len(files(folder / "4")) - 1
