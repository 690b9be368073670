"""Which files a run was made from, and in words what has changed."""

import os

import pytest

from commands.runs import refuse_changed
from engine.sources import Sources, changes, read_sources, write_sources
from engine.workdir import Facts, claim

BEFORE = Sources(
    train={"train/good/0.png": "a", "train/good/1.png": "b"},
    calibration={"train/good/2.png": "c"},
    test={"test/hole/0.png": "d", "test/good/0.png": "e"},
)


def test_changes_by_hand():
    many = {f"train/good/{index}.png": "x" for index in range(7)}
    assert changes(BEFORE.all(), BEFORE.all()) == ""
    now = {**BEFORE.all(), **many, "test/hole/1.png": "f", "top.png": "g"}
    del now["test/good/0.png"]
    assert changes(BEFORE.all(), now) == (
        ".: 1 added (top.png); test/good: 1 removed (0.png); test/hole: 1 added (1.png); "
        "train/good: 4 added (3.png, 4.png, 5.png and 1 more), 3 changed (0.png, 1.png, 2.png)"
    )


def test_what_is_written_is_read(tmp_path):
    assert read_sources(str(tmp_path)) is None
    odd = BEFORE._replace(test={os.fsdecode(b"test/caf\xe9/0.png"): "d"})
    write_sources(str(tmp_path), odd)
    assert read_sources(str(tmp_path)) == odd
    for damage in ("{", "[]", '{"train": {}}', '{"train": 1, "calibration": 2, "test": 3}'):
        (tmp_path / "sources.json").write_text(damage)
        with pytest.raises(ValueError, match="sources.json is damaged .*--mode=evaluate"):
            read_sources(str(tmp_path))


def test_networks_depend_on_the_images_of_training_alone(tmp_path):
    workdir, facts = str(tmp_path), Facts(2, "digest")
    refuse_changed(workdir, facts, BEFORE)  # nothing is trained there
    claim(workdir, {}, facts, free=(), main=True)
    write_sources(workdir, BEFORE)
    changed = BEFORE._replace(train={**BEFORE.train, "train/good/1.png": "corrected"})
    refuse_changed(workdir, Facts(2, "other"), changed)  # nothing is saved yet
    (tmp_path / "checkpoints/gan/20").mkdir(parents=True)
    for other in (
        BEFORE._replace(test={"test/hole/0.png": "corrected"}),
        BEFORE._replace(calibration={"train/good/2.png": "corrected"}),
    ):
        refuse_changed(workdir, facts, other)
    with pytest.raises(ValueError, match=r"have changed \(train/good: 1 changed \(1.png\)\)"):
        refuse_changed(workdir, Facts(2, "other"), changed)
    # Of another seed other images are held out: that is another config, not other images.
    swapped = Sources(BEFORE.calibration, BEFORE.train, {})
    refuse_changed(workdir, Facts(1, "other"), swapped)
