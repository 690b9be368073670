"""Clips: which there are, what is wrong with them, and windows that cross no border."""

import csv
import shutil

import numpy as np
import pytest
from PIL import Image

from data.clip_demo import CLIP_KINDS, generate_clips, render_clip
from data.clips import ClipSettings, load_clips
from data.new_clips import find_clips, read_frames
from data.video_files import can_decode
from data.windows import Windows, centred_starts, clip_slices, every_start

SETTINGS = ClipSettings((16, 24), 4, 7)


def write_clip(folder, count, *, first=1, size=(16, 24), value=0):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        pixels = np.full(size, value + number, np.uint8)
        Image.fromarray(pixels).save(folder / f"f{number:03d}.png")


def write_labels(root, rows):
    with open(root / "frame_labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([("clip", "frame", "abnormal"), *rows])


@pytest.fixture
def root(tmp_path):
    """'set': 4 training clips of 8 to 11 frames, 2 test clips of 9, the later frames abnormal."""
    place = tmp_path / "set"
    for number in range(4):
        write_clip(place / f"training/frames/{number}", 8 + number, value=20 * number)
    for name in ("x", "y"):
        write_clip(place / f"testing/frames/{name}", 9, value=100)
    write_labels(place, [(name, i, int(i > 6)) for name in "xy" for i in range(1, 10)])
    return tmp_path


def load(root, **options):
    arguments = {"calibration": 0.5, "seed": 0, "data_dir": root / "prepared", **options}
    return load_clips("set", root, SETTINGS, **arguments)


def test_windows_are_of_consecutive_frames_of_one_clip():
    frames = np.arange(9, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    windows = Windows(frames, every_start([5, 4], 3), 3)
    assert [window[0, 0].tolist() for window in windows] == [
        [0, 1, 2],
        [1, 2, 3],
        [2, 3, 4],
        [5, 6, 7],
        [6, 7, 8],
    ]
    np.testing.assert_array_equal(np.asarray(windows)[1:4], windows[1:4])
    assert windows.shape == (5, 2, 2, 3) and windows[np.array([4, 0])].shape == (2, 2, 2, 3)


def test_a_frame_lies_in_the_middle_of_its_window_but_at_the_ends():
    starts = centred_starts([6, 4], 4)
    assert starts.tolist() == [0, 0, 0, 1, 2, 2, 6, 6, 6, 6]
    assert starts[3] + 4 // 2 == 3


def test_whole_clips_are_held_out_and_frames_keep_their_labels(root):
    splits = load(root)
    trained, held_out = (set(clip_slices(part.paths)) for part in splits[:2])
    assert len(trained) == len(held_out) == 2 and not trained & held_out
    counts = [place.stop - place.start for place in clip_slices(splits.train.paths).values()]
    assert len(splits.train.images) == sum(count - SETTINGS.span + 1 for count in counts)
    assert len(splits.calibration.images) == len(splits.calibration.paths)
    assert splits.test.labels.tolist() == 2 * (6 * [0] + 3 * [1])
    assert splits.test.defects[5:7] == ["good", "abnormal"]
    np.testing.assert_array_equal(splits.test.images.shown()[4, 0, 0], [105] * 3)
    assert [mask is None for mask in splits.test.masks[:9]] == 6 * [False] + 3 * [True]


def test_the_copy_gives_the_same_and_is_made_anew_when_a_frame_changes(root, monkeypatch):
    first = load(root)
    with monkeypatch.context() as patch:
        patch.setattr("data.clips.decode_clip", None)
        again = load(root)
    np.testing.assert_array_equal(first.train.images.frames, again.train.images.frames)
    assert first.test.sums == again.test.sums and first.test.paths == again.test.paths
    write_clip(root / "set/testing/frames/x", 9, value=50)
    np.testing.assert_array_equal(load(root).test.images.frames[0, 0, 0], 51)


def test_labels_may_be_arrays_and_kinds_names(root):
    (root / "set/frame_labels.csv").unlink()
    (root / "set/testing/labels").mkdir()
    for name in "xy":
        np.save(root / f"set/testing/labels/{name}.npy", np.arange(9) % 2)
    assert load(root).test.labels[:4].tolist() == [0, 1, 0, 1]


def test_masks_are_those_of_the_frames_numbers(root):
    folder = root / "set/testing/masks/x"
    folder.mkdir(parents=True)
    mask = np.zeros((16, 24), np.uint8)
    mask[2:4, 3:5] = 255
    Image.fromarray(mask).save(folder / "m8.png")
    masks = load(root).test.masks
    assert masks[6] is None and masks[7].sum() == 4


def test_without_labels_test_clips_are_left_out_with_a_warning(root, warned):
    (root / "set/frame_labels.csv").unlink()
    assert not len(load(root).test.images)
    assert "test clips and no labels" in warned[0] and "frame_labels.csv" in warned[0]


def test_a_folder_of_good_clips_alone(root):
    splits = load(root, folder=root / "set/training/frames")
    assert len(clip_slices(splits.train.paths)) == 2 and not len(splits.test.images)


def broken_short(place):
    shutil.rmtree(place / "training/frames/1")
    write_clip(place / "training/frames/1", 6)


def broken_test_short(place):
    shutil.rmtree(place / "testing/frames/x")
    write_clip(place / "testing/frames/x", 3)
    write_labels(place, [("x", i, 0) for i in range(1, 4)] + [("y", i, 0) for i in range(1, 10)])


def broken_size(place):
    write_clip(place / "training/frames/2", 1, first=5, size=(20, 24))


def broken_gap(place):
    (place / "testing/frames/y/f004.png").unlink()


def broken_labels(place):
    write_labels(place, [(name, i, 0) for name in "xy" for i in range(1, 9)])


def broken_numbers(place):
    write_labels(place, [(name, i, 0) for name in "xy" for i in range(9)])


def broken_missing(place):
    write_labels(place, [("x", i, 0) for i in range(1, 10)])


def broken_value(place):
    write_labels(place, [("x", 1, 2)])


def broken_name(place):
    Image.fromarray(np.zeros((16, 24), np.uint8)).save(place / "training/frames/0/extra.png")


def broken_file(place):
    (place / "training/frames/3/f002.png").write_bytes(b"no image")


BROKEN = {
    broken_short: "training/frames/1 has 6 frames, fewer than the 7 of a training span",
    broken_test_short: "testing/frames/x has 3 frames, fewer than the 4 of a window",
    broken_size: "training/frames/2: f005.png has 24x20 px and the frames before it 24x16",
    broken_gap: "testing/frames/y: frame numbers jump from 3 to 5",
    broken_labels: "testing/frames/x has 9 frames, and .*frame_labels.csv labels of 8",
    broken_numbers: "has the frames 1 to 9, and .*frame_labels.csv labels of 0 to 8",
    broken_missing: "test clips without labels: y",
    broken_value: "line 2: abnormal is '2', not 0 or 1",
    broken_name: "frames without a number at the end of their names: extra.png",
    broken_file: "training/frames/3/f002.png",
}


@pytest.mark.parametrize("break_it", BROKEN, ids=lambda function: function.__name__)
def test_what_is_wrong_is_told_in_one_line(root, break_it):
    break_it(root / "set")
    with pytest.raises(ValueError, match=BROKEN[break_it]) as told:
        load(root)
    assert "\n" not in str(told.value)


def test_a_folder_without_training_clips_says_what_is_wanted(tmp_path):
    with pytest.raises(FileNotFoundError, match="training/frames/<clip>/"):
        load(tmp_path)


def test_a_new_clip_is_found_as_a_folder_of_frames_or_of_clips(root):
    one, _ = find_clips(str(root / "set/testing/frames/x"))
    assert [clip.name for clip in one] == ["x"]
    both, faults = find_clips(str(root / "set/testing/frames"))
    assert [clip.name for clip in both] == ["x", "y"] and not faults
    frames = read_frames(both, faults, SETTINGS)
    assert len(frames) == 18 and frames[9].place == 0 and frames[9].size == (16, 24)
    with pytest.raises(ValueError, match="is no clip"):
        find_clips(str(root / "nothing"))


def test_a_bad_new_clip_costs_its_own_frames_alone(root):
    (root / "set/testing/frames/y/f004.png").unlink()
    frames = read_frames(*find_clips(str(root / "set/testing/frames")), SETTINGS)
    assert [frame.windows is None for frame in frames] == 9 * [False] + 8 * [True]
    assert "jump from 3 to 5" in frames[-1].reason


def test_a_video_file_without_pyav_names_what_to_install(root, monkeypatch):
    monkeypatch.setattr("data.video_files.can_decode", lambda: False)
    (root / "set/training/frames/z.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match="pip install -r requirements-video.txt"):
        load(root)


@pytest.mark.skipif(not can_decode(), reason="PyAV is an extra")
def test_a_video_file_is_a_clip(root):
    from data.video_files import write_mp4

    pictures = [np.full((32, 48, 3), 20 * i, np.uint8) for i in range(9)]
    write_mp4(root / "set/training/frames/0.mp4", pictures, 10)
    splits = load(root, calibration=0.0)
    place = clip_slices(splits.train.paths)["training/frames/0.mp4"]
    frames = splits.train.images.frames[place]
    np.testing.assert_allclose(frames.mean(axis=(1, 2)), 20 * np.arange(9), atol=3)
    (root / "bad.mp4").write_bytes(b"no video")
    frames = read_frames(*find_clips(str(root / "bad.mp4")), SETTINGS)
    assert "cannot be read as a video" in frames[0].reason


@pytest.mark.parametrize("kind", CLIP_KINDS)
def test_a_demo_clip_is_a_good_one_until_something_goes_wrong(kind):
    good, none = render_clip([0, 0, 0], "good", size=48, frames=16)
    clip, masks = render_clip([0, 0, 0], kind, size=48, frames=16)
    abnormal = masks.any(axis=(1, 2))
    assert not none.any() and 2 <= abnormal.sum() <= 6
    first = int(abnormal.argmax())
    np.testing.assert_array_equal(clip[:first], good[:first])
    assert (clip != good).any()


def test_the_demo_is_a_data_set_and_generated_once(tmp_path):
    options = {"size": 32, "frames": 8, "train": 2, "good": 1, "bad": 1}
    generate_clips(str(tmp_path), **options)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    generate_clips(str(tmp_path), **options)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")} == before
    splits = load_clips(
        *("demo", tmp_path, ClipSettings((16, 16), 4, 7)),
        calibration=0.5,
        seed=0,
        data_dir=tmp_path / "prepared",
    )
    assert set(splits.test.defects) <= {"good", *CLIP_KINDS}
    assert not any(mask is None for mask in splits.test.masks)
    with pytest.raises(ValueError, match="not a complete demo data set of these settings: delete"):
        generate_clips(str(tmp_path), **(options | {"train": 3}))
