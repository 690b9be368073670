"""The peak resident memory of predict and evaluate does not grow with the number of images."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from programs import arguments, finish
from test_main import ROOT

from data import pipeline

pytestmark = pytest.mark.slow  # many runs of the program

SIDE = 512  # of images and masks, at which pixels are judged: 4 million in sixteen of them
GROWTH = 1.1
# By a process that is small itself: a child counts the memory of the one that it was forked from.
MEASURE = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, compress_level=1)


def make(folder, count):
    """Images of layout MVTec AD, as many to train on as to test with, half of them defective."""
    rng = np.random.default_rng(0)
    for index in range(count):
        pixels = rng.integers(90, 110, (16, 16, 3), np.uint8).repeat(SIDE // 16, 0)
        pixels = pixels.repeat(SIDE // 16, 1)
        save(folder / f"part/train/good/{index:04}.png", pixels[::-1])
        defect = "square" if index % 2 else "good"
        if index % 2:
            mask = np.zeros((SIDE, SIDE), np.uint8)
            mask[120:180, index % 99 : 260] = mask[400:, -10:] = 255
            save(folder / f"part/ground_truth/square/{index:04}_mask.png", mask)
            pixels[mask > 0] = 255
        save(folder / f"part/test/{defect}/{index:04}.png", pixels)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """(images, side of the networks' input) -> folders of them and of ten times as many; a run."""
    made = {}

    def once(count, size):
        if (count, size) not in made:
            folder = tmp_path_factory.mktemp("memory")
            for name, images in (("few", count), ("many", 10 * count)):
                make(folder / name / "images", images)
                prepared = folder / name / "prepared"
                pipeline.load_splits("part", folder / name / "images", size, data_dir=prepared)
            images, size_of = folder / "few/images", f"--config.data.image_size={size}"
            short = ["--config.training.num_steps=4", "--config.evaluation.pixel_size=0", size_of]
            command = arguments("AE", images, folder / "w", *short)
            finish(command, folder / "errors")
            made[count, size] = folder
        return made[count, size]

    return once


def peak(folder, *flags):
    """Peak resident memory of main.py, in kB."""
    command = [sys.executable, "main.py", f"--workdir={folder / 'w'}", *map(str, flags)]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *command], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


SIZES = [(16, 16), pytest.param(83, 256, marks=pytest.mark.long)]


@pytest.mark.promise("R17")
@pytest.mark.parametrize(("count", "size"), SIZES)
def test_evaluate(places, count, size, tries):
    folder = places(count, size)
    with tries("--mode=evaluate --save_maps with ten times the images"):
        few, many = (
            peak(
                folder,
                *("--mode=evaluate", "--save_maps"),
                f"--config.data.root={folder / name / 'images'}",
                f"--config.data.prepared={folder / name / 'prepared'}",
            )
            for name in ("few", "many")
        )
        print(f"{count} images: {few} kB, {10 * count}: {many} kB")
        assert many < GROWTH * few
        with np.load(folder / "w/predictions.npz") as arrays:
            assert arrays["maps"].shape == (10 * count, size, size)
        assert not list((folder / "w").rglob("*tmp*"))


@pytest.mark.promise("R17")
@pytest.mark.parametrize(("count", "size"), SIZES)
def test_predict(places, count, size, tries):
    folder = places(count, size)
    with tries("--mode=predict with many images, held against 40, which fill a batch"):
        few, many = (
            peak(
                folder,
                "--mode=predict",
                f"--images={folder / 'many/images/part/test' / pattern}",
                f"--output={folder / name / 'predicted'}",
            )
            for name, pattern in (("few", "*/00[0-3]?.png"), ("many", "*/*.png"))
        )
        print(f"40 images: {few} kB, {10 * count}: {many} kB")
        assert many < GROWTH * few
        rows = (folder / "many/predicted/predictions.jsonl").read_text().splitlines()
        assert len(rows) == 10 * count
        for name in ("few", "many"):
            shutil.rmtree(folder / name / "predicted")
