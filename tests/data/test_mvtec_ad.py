"""The TFDS data set: its examples, and when its copy is made, kept and replaced."""

import itertools
import shutil
import socket

import numpy as np
import pytest
import tensorflow as tf
from trees import SIZE, load, make_tree, oriented, picture, save, watch_opening

from data import images, mvtec_ad, scan


@pytest.fixture
def folder(tmp_path):
    return make_tree(tmp_path / "root")


def prepare(folder):
    data_dir = folder.parent.parent / "tfds"
    return mvtec_ad.prepare_tfrecords(folder.name, folder.parent, data_dir)


def fails(folder, kind):
    """The message of the error that preparing ends with: always one line."""
    with pytest.raises(kind) as caught:
        prepare(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def examples(builder, split):
    """Of the split, by name."""
    each = builder.as_dataset(split=split).as_numpy_iterator()
    return {example["path"].decode(): example for example in each}


def digest_of(folder):
    samples = [sample for part in scan.scan_layout(folder.parent, folder.name) for sample in part]
    return scan.digest([sample.name for sample in samples], scan.sums_of(samples))


def copies(folder):
    return sorted((folder.parent.parent / "tfds").glob("*/mvtec_ad/*/1.1.0"))


def test_examples_are_what_runs_are_trained_on_and_scored_with(folder):
    (folder / "ground_truth/broken/001_mask.png").unlink()
    save(folder / "train/good/x.jpg", picture(7, (97, 61, 3)), quality=90)
    splits, builder = load(folder, calibration=0), prepare(folder)
    for split, expected in (("train", splits.train), ("test", splits.test)):
        by_name = examples(builder, split)
        assert sorted(by_name) == expected.paths
        for index, name in enumerate(expected.paths):
            example = by_name[name]
            resized = images.resize(example["image"], SIZE)
            np.testing.assert_array_equal(resized, expected.images[index])
            assert example["image"].shape[:2] == tuple(expected.sizes[index])
            assert example["defect"].decode() == expected.defects[index]
            assert example["label"] == expected.labels[index]
    for index, name in enumerate(splits.test.paths):
        mask, expected = by_name[name]["mask"][..., 0], splits.test.masks[index]
        assert by_name[name]["has_mask"] == (name in ("test/broken/000.png", "test/broken/002.png"))
        assert set(np.unique(mask)) <= {0, 255}
        if expected is not None:
            np.testing.assert_array_equal(mask > 0, expected)
    assert builder.info.metadata["digest"] == digest_of(folder)


def test_orientation_and_16_bits_are_as_in_runs(folder):
    for index, largest in ((3, 900), (11, 4000)):
        values = np.full((SIZE, SIZE), largest, np.uint16)
        values[:, 3] = 100 * index
        save(folder / f"train/good/{index:03}.png", values, exif=oriented(6))
    mask = np.pad(np.full((2, 2), 255, np.uint8), ((3, 11), (9, 5)))
    save(folder / "test/broken/000.png", picture(9, (SIZE, SIZE, 3)), exif=oriented(8))
    save(folder / "ground_truth/broken/000_mask.png", mask)
    splits, builder = load(folder, calibration=0), prepare(folder)
    assert splits.white_level == 4095
    train, test = (examples(builder, split) for split in ("train", "test"))
    assert len(train) == 12 and len(test) == 5
    for name, image in zip(splits.train.paths, splits.train.images, strict=True):
        np.testing.assert_array_equal(images.resize(train[name]["image"], SIZE), image)
    broken = test["test/broken/000.png"]
    np.testing.assert_array_equal(broken["image"], splits.test.images[0])
    np.testing.assert_array_equal(broken["mask"][..., 0] > 0, np.rot90(mask) > 0)
    assert builder.info.metadata["digest"] == digest_of(folder)


def test_preparing_is_silent_and_stays_off_the_network(folder, capsys, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    prepare(folder)
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == ""


def test_the_source_is_only_read_and_prepared_once(folder, monkeypatch):
    before = sorted(folder.parent.rglob("*"))
    first = prepare(folder)
    monkeypatch.setattr(mvtec_ad, "inspect", None)  # would fail if it were called again
    second = prepare(folder)
    assert sorted(folder.parent.rglob("*")) == before
    assert first.data_dir == second.data_dir == str(copies(folder)[0])
    assert (copies(folder)[0] / "dataset_info.json").is_file()


def test_each_file_is_read_once(folder, monkeypatch):
    sources = sorted(folder.rglob("*.png"))
    for _ in range(2):  # decoded, and held against the copy
        with monkeypatch.context() as patch:
            opened = watch_opening(patch)
            prepare(folder)
        assert sorted(path for path in opened if path in sources) == sources


def test_changed_files_are_prepared_anew_and_the_old_copy_goes(folder):
    other, own = make_tree(folder.parent, "other"), folder.parent.parent / "tfds/own"
    for each in (folder, other):
        prepare(each)
    save(own / "notes.txt.png", picture(0))
    moved = folder.parent.parent / "elsewhere"
    shutil.copytree(folder.parent, moved)
    mvtec_ad.prepare_tfrecords("bottle", moved, folder.parent.parent / "tfds")
    (kept,) = (path for path in copies(folder) if path == prepare(folder).data_path)
    before = {path: path.stat().st_mtime_ns for path in copies(folder) if path != kept}
    assert len(before) == 2
    save(folder / "test/good/000.png", picture(7))
    builder = prepare(folder)
    np.testing.assert_array_equal(
        examples(builder, "test")["test/good/000.png"]["image"], picture(7)
    )
    assert builder.info.metadata["digest"] == digest_of(folder)
    after = {path: path.stat().st_mtime_ns for path in copies(folder) if path != kept}
    assert after == before and kept in copies(folder)
    assert sorted(path.name for path in own.iterdir()) == ["notes.txt.png"]
    assert len(list(own.parent.iterdir())) == 4  # three copies and what is not ours


@pytest.mark.parametrize("reason", ["bad file", "crash"])
def test_the_old_copy_stays_until_the_new_one_is_complete(folder, reason, monkeypatch):
    old = examples(prepare(folder), "test")
    if reason == "crash":
        save(folder / "test/good/000.png", picture(7))
        monkeypatch.setattr(mvtec_ad.os, "rename", None)
        with pytest.raises(TypeError):
            prepare(folder)
    else:
        names = ("train/good/000.png", "train/good/001.png", "test/good/001.png")
        for name in names:
            (folder / name).write_text("no image")
        message = fails(folder, ValueError)
        assert message.startswith("3 bad files, repair or remove them: ")
        assert all(f"{folder / name}: not a readable" in message for name in names)
    (place,) = (folder.parent.parent / "tfds").iterdir()
    there = examples(mvtec_ad._builder("bottle", str(place)), "test")
    np.testing.assert_array_equal(
        there["test/good/000.png"]["image"], old["test/good/000.png"]["image"]
    )


def test_a_category_without_test_images(folder):
    shutil.rmtree(folder / "test")
    shutil.rmtree(folder / "ground_truth")
    builder = prepare(folder)
    assert len(examples(builder, "train")) == 12 and list(builder.info.splits) == ["train"]


def test_a_crash_while_preparing_leaves_nothing_that_is_trusted(folder, monkeypatch):
    encode, calls = mvtec_ad._png, itertools.count()

    def crash(pixels):
        if next(calls) == 5:
            raise RuntimeError("crash")
        return encode(pixels)

    with monkeypatch.context() as patch:
        patch.setattr(mvtec_ad, "_png", crash)
        with pytest.raises(RuntimeError, match="crash"):
            prepare(folder)
    data_dir = folder.parent.parent / "tfds"
    assert list(data_dir.iterdir()) == []
    left = data_dir / ".mvtec_ad-abc/new/mvtec_ad/bottle/1.0.0.incompleteABC"  # by kill -9
    left.mkdir(parents=True)
    (left / "mvtec_ad-train.tfrecord-00000-of-00001").write_text("junk")
    assert len(examples(prepare(folder), "train")) == 12


@pytest.mark.parametrize("damage", ["cut", "flip", "delete", "empty"])
def test_damaged_records_are_not_read(folder, damage):
    builder = prepare(folder)
    (record,) = builder.data_path.glob("*train.tfrecord*")
    data = bytearray(record.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "delete":
        record.unlink()
    else:
        record.write_bytes({"cut": data[:-100], "flip": data, "empty": b""}[damage])
    with pytest.raises((AssertionError, ValueError, OSError, tf.errors.OpError)):
        examples(prepare(folder), "train")


@pytest.mark.parametrize("damage", ["cut", "delete", "no digest"])
def test_a_copy_without_its_description_is_made_anew(folder, damage, monkeypatch):
    lines = []
    monkeypatch.setattr(
        mvtec_ad.logging, "warning", lambda text, *values: lines.append(text % values)
    )
    path = prepare(folder).data_path
    description = path / ("metadata.json" if damage == "no digest" else "dataset_info.json")
    before = description.read_text()
    if damage == "delete":
        description.unlink()
    else:
        description.write_text({"cut": "", "no digest": "{}"}[damage])
    assert len(examples(prepare(folder), "train")) == 12
    assert len(lines) == 1 and f"{path.parents[2]} is damaged" in lines[0]
    assert "\n" not in lines[0] and description.read_text() == before


def test_a_data_dir_that_cannot_be_written_is_named(folder, tmp_path):
    (tmp_path / "tfds").write_text("a file in the way")
    message = fails(folder, OSError)
    assert str(tmp_path / "tfds") in message and "data_dir" in message


@pytest.mark.parametrize("changed", [False, True])
def test_another_process_may_prepare_at_the_same_time(folder, changed, monkeypatch):
    if changed:
        prepare(folder)
        save(folder / "test/good/000.png", picture(7))
    rename, calls = mvtec_ad.os.rename, []

    def second(source, target):
        """The rival is done just before this process puts its own copy in place."""
        if source.endswith("new") and not calls:
            calls.append(source)
            prepare(folder)
        rename(source, target)

    monkeypatch.setattr(mvtec_ad.os, "rename", second)
    builder = prepare(folder)
    assert len(calls) == 1 and len(copies(folder)) == 1
    assert builder.info.metadata["digest"] == digest_of(folder)
    assert len(examples(builder, "train")) == 12


def test_what_is_missing_is_named_as_in_training(folder):
    message = fails(folder.parent / "carpet", FileNotFoundError)
    assert str(folder.parent / "carpet") in message and "CC BY-NC-SA 4.0" in message
    save(folder / "ground_truth/broken/007_mask.png", np.zeros((20, 18), np.uint8))
    assert "broken/007_mask.png" in fails(folder, ValueError)
