"""`--mode=check`: what is found, how it will be used, and all that is wrong in one go."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from test_bad_images import bomb
from test_main import ROOT, program
from trees import SIZE, make_tree, picture, save, square

from commands.check import check as check_config
from configs import fanogan, few_shot, ssae
from data import pipeline
from data.check import check_data

COSTS = {"cost_of_miss": 100.0, "cost_of_false_alarm": 1.0}


def config_of(root, category="part", **data):
    config = fanogan.get_config(category)
    config.data.update({"root": str(root), "image_size": SIZE, **data})
    return config


def said(capsys, config, workdir=""):
    """How many problems there are, and the lines that are printed."""
    count = check_config(config, str(workdir))
    captured = capsys.readouterr()
    assert captured.err == ""
    return count, captured.out.splitlines()


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    root = tmp_path_factory.mktemp("clean")
    make_tree(root, "part", num_train=20)
    return root


@pytest.fixture(scope="module")
def labelled_tree(tmp_path_factory):
    """Four defective images, of which two may be labelled."""
    root = tmp_path_factory.mktemp("labelled")
    part = make_tree(root, "part", num_train=20)
    save(part / "test/broken/more.png", picture(300))
    save(part / "ground_truth/broken/more_mask.png", square())
    return root


def own_images(root, *, bad):
    """Twenty good images, some in a folder of their own; perhaps three bad ones."""
    for index in range(20):
        place = "good/line 1" if index % 3 else "good"
        save(root / (place if bad else place[5:]) / f"{index:02}.png", picture(index))
    for name in ("scratch/a.png", "scratch/deep/b.png", "c.png") if bad else ():
        save(root / "bad" / name, picture(len(name)))


def make_odd(part):
    """Other names, deeper folders, masks beside images, outputs, images that nobody asks for."""
    (part / "train/good").rename(part / "train/OK")
    (part / "test/good").rename(part / "test/Normal")
    save(part / "train/OK/cam 1/x.png", picture(70))
    save(part / "test/broken/cam 2/y.png", picture(71))
    save(part / "test/broken/cam 2/y_mask.png", square())
    save(part / "train/NG/z.png", picture(72))
    save(part / "test/run/pictures/p.png", picture(73))
    for name in ("config.json", "facts.json"):
        (part / "test/run" / name).touch()
    return part.parent


def own_odd(root):
    """The same of own images."""
    own_images(root, bad=True)
    (root / "good").rename(root / "i.O.")
    (root / "bad").rename(root / "n.i.O.")
    save(root / "n.i.O./scratch/a_mask.png", square())
    save(root / "i.O./out/heat_maps/0.png", picture(74))
    (root / "i.O./out/predictions.csv").touch()
    return root


# ---------------------------------------------------------------- what is found


def by_use(images):
    return {
        use: sorted(image.name for image in images if image.use == use)
        for use in (
            *("trained on", "held out for the threshold"),
            *("tested as good", "tested as defective"),
        )
    }


def by_use_of(splits):
    good = splits.test.labels == 0
    paths = np.array(splits.test.paths, object)
    parts = splits.train.paths, splits.calibration.paths, paths[good], paths[~good]
    return dict(zip(by_use([]), map(sorted, parts), strict=True))


@pytest.mark.promise("R9")
@pytest.mark.parametrize(
    "kind",
    ["layout", "good and bad", "good", "copy", "copy of good and bad", "layout, odd", "bad, odd"],
)
def test_each_image_is_used_as_training_will_use_it(clean, tmp_path, kind, tries):
    root, options = clean, {}
    if "good" in kind:
        own_images(tmp_path / "own", bad="bad" in kind)
        options["folder"] = tmp_path / "own"
    if "odd" in kind:
        shutil.copytree(clean, tmp_path / "odd")
        root = make_odd(tmp_path / "odd/part")
        options = {"folder": own_odd(tmp_path / "own")} if "bad" in kind else {}
    prepared = tmp_path / "prepared"
    if "copy" in kind:
        pipeline.load_splits("part", root, SIZE, data_dir=prepared, **options)
        root, options = prepared / f"decoded/part_{SIZE}px.npz", {}
    for calibration, seed in ((0.1, 0), (0.1, 7), (0.34, 1), (0.02, 2), (0, 0)):
        split = {"calibration": calibration, "seed": seed, **options}
        with tries("--mode=check counts and names each image as training then uses it"):
            report = check_data("part", root, SIZE, **split)
            splits = pipeline.load_splits("part", root, SIZE, data_dir=prepared, **split)
            assert by_use(report.images) == by_use_of(splits)
            assert len(report.images) == sum(len(part.paths) for part in splits[:3])
            assert report.problems == []


def test_what_is_said_of_a_clean_data_set(clean, capsys):
    before = listing(clean)
    assert said(capsys, config_of(clean)) == (
        0,
        [
            f"Images in {clean}/part:",
            "  test/broken: 3 images: 3 tested as defective, 3 masks",
            "  test/good: 2 images: 2 tested as good",
            "  train/good: 20 images: 18 trained on, 2 held out for the threshold "
            "(calibration 0.1, seed 0)",
            "Of 18x20 px, resized to 16x16 px for the network.",
            "warning: 2 good images are held out, which can guarantee a false-alarm rate of "
            "33.3 % at the lowest, not the 5 % asked for: 19 would: photograph more good parts, "
            "for 20 are too few.",
            "No problem found.",
        ],
    )
    enough = config_of(clean, calibration=0.95)
    assert "19 held-out images can guarantee a false-alarm rate of 5 % or more" in "".join(
        said(capsys, enough)[1]
    )
    assert listing(clean) == before


def test_what_is_said_of_own_images(tmp_path, capsys):
    own_images(tmp_path / "own", bad=True)
    save(tmp_path / "own/bad/scratch/large.png", picture(0, (300, 9, 3)))
    count, lines = said(capsys, config_of(tmp_path, folder=str(tmp_path / "own"), calibration=0.2))
    assert count == 0
    assert lines[:6] == [
        f"Images in {tmp_path}/own:",
        "  bad: 1 images: 1 tested as defective",
        "  bad/scratch: 3 images: 3 tested as defective",
        *lines[3:5],
        "Of between 9x20 and 18x300 px, resized to 16x16 px for the network.",
    ]
    assert lines[3].startswith("  good: 7 images: ") and lines[4].startswith("  good/line 1: 13 ")
    assert "mask" not in "".join(lines)


def test_what_is_left_out_is_counted(clean, tmp_path, capsys):
    shutil.copytree(clean / "part", tmp_path / "part")
    part = tmp_path / "part"
    for name in ("train/good/a.heic", "train/good/b.HEIC", "notes.txt", "README", ".DS_Store"):
        (part / name).write_text("no image")
    for name in ("train/good/.hidden.png", "train/good/deeper/x.png", "train/bad/y.png"):
        save(part / name, picture(0))
    (part / ".git").mkdir()
    (part / ".git/config").write_text("hidden with its folder")
    (tmp_path / "empty").mkdir()
    (part / "test/elsewhere").symlink_to(tmp_path / "empty")  # followed: a defect, of no images
    count, lines = said(capsys, config_of(tmp_path))
    assert count == 0
    (line,) = [line for line in lines if line.startswith("Left out")]
    assert line.startswith("Left out 9 files: ")
    for part in ("hidden (3)", ".heic (2)", ".txt (1)", "no suffix (1)", "symlinked folder (1)"):
        assert part in line
    assert "images in bad/, where none are looked for (1)" in line
    assert "  train/good: 21 images: " in "\n".join(lines)
    (line,) = [line for line in lines if line.startswith("warning: ") and "not used" in line]
    assert "1 images are not used" in line and line.endswith(": train/bad/ (1)")


def test_the_same_file_in_training_and_test_is_a_warning(clean, tmp_path, capsys):
    shutil.copytree(clean / "part", tmp_path / "part")
    part = tmp_path / "part"
    shutil.copy(part / "train/good/003.png", part / "test/good/leak.png")
    shutil.copy(part / "test/broken/001.png", part / "test/broken/twice.png")  # used alike
    shutil.copy(part / "ground_truth/broken/001_mask.png", part / "ground_truth/broken/twice.png")
    count, lines = said(capsys, config_of(tmp_path))
    warnings = [line for line in lines if line.startswith("warning: the same")]
    assert count == 0 and warnings == [
        "warning: the same file, to the byte: train/good/003.png (trained on), "
        "test/good/leak.png (tested as good)"
    ]


@pytest.mark.promise("R10")
def test_missing_masks_are_a_warning(clean, tmp_path, capsys, tries):
    shutil.copytree(clean / "part", tmp_path / "part")
    with tries("a defective image without a mask: said by --mode=check, and no problem"):
        (tmp_path / "part/ground_truth/broken/001_mask.png").unlink()
        count, lines = said(capsys, config_of(tmp_path))
        assert count == 0 and "2 masks" in lines[1]
        assert [line for line in lines if "without a mask" in line] == [
            "warning: 1 defective images without a mask, so that there are no pixel metrics: "
            "test/broken/001.png"
        ]


@pytest.mark.promise("R10")
def test_inverted_masks_are_a_warning(clean, tmp_path, capsys, tries):
    shutil.copytree(clean / "part", tmp_path / "part")
    with tries("an inverted mask: said by --mode=check, with its file"):
        mask = save(tmp_path / "part/ground_truth/broken/001_mask.png", 255 - square(at=1))
        count, lines = said(capsys, config_of(tmp_path))
        assert count == 0 and [line for line in lines if "are they" in line] == [
            "warning: 1 masks call more than half of their image defective: are they inverted? "
            f"{mask} (97 %)"
        ]


# ---------------------------------------------------------------- what is wrong


def listing(*folders):
    return {
        path: (os.lstat(path).st_mtime_ns, os.lstat(path).st_size)
        for folder in folders
        for path in (folder, *sorted(folder.rglob("*")))
    }


def with_faults(root):
    """A data set with faults of every kind; file -> a part of the reason."""
    part = make_tree(root, "part", num_train=20)
    whole = (part / "train/good/000.png").read_bytes()
    (part / "train/good/000.png").write_bytes(b"")
    (part / "train/good/001.png").write_bytes(whole[:-12])
    (part / "train/good/002.png").write_bytes(bomb(12_000))
    save(part / "train/good/003.png", picture(0, (4, 4, 3)))
    (part / "train/good/004.png").unlink()
    (part / "train/good/004.png").symlink_to("gone")
    (part / "test/good/000.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    (part / "test/broken/000.png").write_text("<html>")
    save(part / "ground_truth/broken/001_mask.png", square((18, 20)))
    save(part / "ground_truth/broken/002_mask.png", np.zeros((20, 18), np.uint8))
    save(part / "ground_truth/good/001_mask.png", square())
    save(part / "ground_truth/broken/lost_mask.png", square())
    for suffix in ("png", "jpg"):
        save(part / f"test/broken/twin.{suffix}", picture(50))
    save(part / "ground_truth/broken/twin_mask.png", square())
    return {
        part / name: reason
        for name, reason in {
            "train/good/000.png": "not a readable PNG",
            "train/good/001.png": "no IEND",
            "train/good/002.png": "decompression bomb",
            "train/good/003.png": "4x4 px: too small",
            "train/good/004.png": "No such file",
            "test/good/000.png": "not a readable PNG",
            "test/broken/000.png": "not a readable PNG",
            "ground_truth/broken/001_mask.png": "a mask of 20x18 pixels, but its image",
            "ground_truth/broken/002_mask.png": "marks no pixel of the defective image",
            "ground_truth/good/001_mask.png": "marks pixels of the good image",
            "ground_truth/broken/lost_mask.png": "a mask of no image",
            "ground_truth/broken/twin_mask.png": "a mask of several images",
        }.items()
    }


def assert_listed(lines, expected):
    """Each problem once, on a line of its own, and none besides."""
    problems = [line.removeprefix("problem: ") for line in lines if line.startswith("problem: ")]
    assert len(problems) == len(expected)
    for path, reason in expected.items():
        (line,) = [line for line in problems if line.startswith(f"{path}: ")]
        assert reason in line


@pytest.mark.promise("R9")
def test_all_faults_are_listed_in_one_go_and_nothing_is_written(
    tmp_path, capsys, monkeypatch, tries
):
    expected = with_faults(tmp_path / "root")
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    config = config_of(tmp_path / "root")
    config.score.fn = "fanogan_jax.score:lost"
    before, settings = listing(tmp_path), config.to_dict()
    with tries("--mode=check of twelve faults of all kinds: each is listed, nothing is written"):
        count, lines = said(capsys, config)
        expected["fn='fanogan_jax.score:lost' names nothing ('module:attribute')"] = "no attribute"
        assert_listed(lines, expected)
        assert count == len(expected) == 13
        assert lines[-1] == "13 problems, with which no training begins."
        assert listing(tmp_path) == before and config.to_dict() == settings
    assert "  train/good: 20 images: 18 trained on, 2 held out" in "\n".join(lines)
    # Training refuses them too.
    with pytest.raises(ValueError, match=r"lost_mask.png"):
        pipeline.load_splits("part", tmp_path / "root", SIZE, data_dir=tmp_path / "home")


@pytest.mark.promise("R9")
def test_faults_of_own_images_are_listed_in_one_go(tmp_path, capsys, tries):
    own_images(tmp_path / "own", bad=True)
    own = tmp_path / "own"
    for index in range(7):
        save(own / f"new/{index}.png", picture(index))
    save(own / "good/bad/x.png", picture(60))
    save(own / "bad/good/x.png", picture(61))
    (own / "good/00.png").write_bytes(b"")
    (own / "bad/c.png").write_bytes(b"")
    config = config_of(tmp_path, folder=str(own))
    expected = {own / f"new/{index}.png": "neither in good/ nor in bad/" for index in range(7)} | {
        own / "good/bad/x.png": "would be taken for a good one",
        own / "good/00.png": "not a readable",
        own / "bad/c.png": "not a readable",
    }
    called_good = f"problem: {own}/bad/good/x.png is bad and called good: rename its folder"
    with tries("--mode=check of own images with faults of all kinds: each is listed"):
        count, lines = said(capsys, config)
        assert count == 11 and lines.count(called_good) == 1
        assert_listed([line for line in lines if line != called_good], expected)
        (own / "good").rename(own / "fine")
        count, lines = said(capsys, config)
        assert f"problem: {own} has a folder bad/ and none good/: move" in "\n".join(lines)
        assert f"problem: {own}/fine/00.png: not a readable" in "\n".join(lines)


@pytest.mark.promise("R11")
@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_images_are_a_problem(tmp_path, capsys, count, tries):
    part = make_tree(tmp_path, "part", num_train=count)
    with tries("--mode=check of 0, 1 or 2 training images: too few, with their count"):
        problems, lines = said(capsys, config_of(tmp_path))
        few = "problem: a threshold needs 2 held-out good images at least, and there are "
        empty = f"problem: No training images: {part}/train/good holds no PNG"
        assert sum(line.startswith(few + ("1" if count == 2 else "0")) for line in lines) == 1
        assert sum(line.startswith(empty) for line in lines) == (count == 0)
        assert problems == 1 + (count == 0)


@pytest.mark.promise("R11")
def test_without_test_images_nothing_is_a_problem(clean, tmp_path, capsys, tries):
    shutil.copytree(clean / "part/train", tmp_path / "part/train")
    with tries("--mode=check without test images, and without good ones"):
        assert said(capsys, config_of(tmp_path))[0] == 0
    shutil.copytree(clean / "part/test/broken", tmp_path / "part/test/broken")
    with tries("--mode=check without test images, and without good ones"):
        count, lines = said(capsys, config_of(tmp_path))
        assert count == 0 and "good" not in lines[1]


def test_what_else_a_config_gets_wrong(clean, tmp_path, capsys):
    count, lines = said(capsys, config_of(clean, image_size=18))
    assert count == 1 and "Generator makes 16 px of 18 px: choose 16 or 20 px" in "".join(lines)
    for data, message in (
        ({"calibration": 1.0}, "data.calibration=1.0 is not a number in"),
        ({"crop": 20}, "data.crop=20 does not fit images of 16x16"),
        ({"image_size": 0}, "data.image_size=0 is not a whole number from 8"),
        ({"category": "lost"}, "Unknown category 'lost'"),
        ({"folder": str(tmp_path / "lost")}, "lost does not exist"),
    ):
        config = config_of(clean)
        config.data.update(data)
        with pytest.raises((ValueError, OSError), match=message):
            check_config(config, "")


def test_the_demo_is_checked_where_it_is(tmp_path, capsys):
    config = ssae.get_config("demo")
    config.corruption.textures = str(tmp_path / "lost")
    count, lines = said(capsys, config)
    assert lines[0] == "The images of 'demo' are made when a run starts: there are none to check."
    assert count == 1 and "lost is no folder" in lines[1]
    make_tree(tmp_path / "data", "demo", num_train=20)
    count, lines = said(capsys, config, tmp_path)
    assert count == 1 and lines[0] == f"Images in {tmp_path}/data/demo:"


@pytest.mark.parametrize(
    ("labelled", "threshold", "line"),
    [
        ("1", {}, "1 labelled image is too few for a threshold by cost, or for leaving one out"),
        ("2", {}, "The 2 labelled images are trained on, so that nothing is known of misses"),
        ("2", {"leave_one_out": True}, "By 2 more trainings, each without one of the labelled"),
        ("1", {"leave_one_out": True}, "problem: threshold.leave_one_out takes 2 labelled images"),
        ("", COSTS, "problem: a threshold by cost takes 2 labelled defects at least, and there"),
        ("2", COSTS, "problem: a threshold by cost takes labelled defects that training has not"),
        ("2", COSTS | {"leave_one_out": True}, "By 2 more trainings, each without one of the"),
    ],
)
def test_what_labelled_images_allow(labelled_tree, capsys, labelled, threshold, line):
    config = few_shot.get_config("part")
    config.data.update(root=str(labelled_tree), image_size=SIZE, labelled=labelled)
    config.threshold.update(threshold)
    count, lines = said(capsys, config)
    assert sum(each.startswith(line) for each in lines) == 1
    assert count == line.startswith("problem: ")


def test_a_method_that_learns_from_good_images_alone_may_count_misses(labelled_tree, capsys):
    config = config_of(labelled_tree, labelled="2")
    config.threshold.update(COSTS)
    count, lines = said(capsys, config)
    assert count == 0 and sum("which training does not see" in line for line in lines) == 1
    config.data.labelled = "50"  # said once, and not that there are none
    count, lines = said(capsys, config)
    assert count == 1 and "data.labelled=50 is more than half" in lines[-2]


# ---------------------------------------------------------------- as a program


def test_it_takes_little_memory_no_device_and_no_tensorflow(clean, tmp_path):
    shutil.copytree(clean / "part", tmp_path / "part")
    large = save(tmp_path / "part/train/good/large.png", np.zeros((2000, 2000, 3), np.uint8))
    for index in range(60):  # of 12 MB each
        os.link(large, large.with_name(f"large{index}.png"))
    code = f"""
import pathlib, sys
import commands
from configs import fanogan
from jax._src import xla_bridge

def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024

config = fanogan.get_config("part")
config.data.root = {str(tmp_path)!r}
before = peak()
assert commands.check(config, "") == 0
assert peak() - before < 250, peak() - before
assert set(xla_bridge._backends) <= {{"cpu"}}
assert not [name for name in sys.modules if name.startswith("tensorflow")]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert "  train/good: 81 images: " in done.stdout


@pytest.mark.promise("R9", "python main.py --mode=check: all faults, exit 1; none, exit 0")
def test_the_command(clean, tmp_path):
    expected = with_faults(tmp_path / "root")
    arguments = ["--mode=check", "--config=configs/fanogan.py:part"]
    environment = {"HOME": str(tmp_path)}
    before = listing(tmp_path / "root")
    done = program(*arguments, f"--config.data.root={tmp_path}/root", **environment)
    assert done.returncode == 1, done.stderr
    assert_listed(done.stdout.splitlines(), expected)
    assert listing(tmp_path / "root") == before
    assert {path.name for path in tmp_path.iterdir()} <= {
        "root",
        ".cache",
        ".config",
    }  # Matplotlib's
    done = program(*arguments, f"--config.data.root={clean}", **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("No problem found.\n")


def test_of_many_problems_of_a_kind_three_are_said_and_their_number(tmp_path, capsys):
    part = make_tree(tmp_path, "part", num_train=20)
    for index in range(12):
        save(part / f"test/broken/{index:03}.png", picture(index))
        save(part / f"ground_truth/broken/{index:03}_mask.png", square((30, 30)))
    count, lines = said(capsys, config_of(tmp_path))
    problems = [line for line in lines if line.startswith("problem: ")]
    assert count == 12 and len(problems) == 4
    assert problems[-1] == "problem: and 9 more such, 12 in all"
