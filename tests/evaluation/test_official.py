"""Maps for MVTec AD's official evaluation, held against its script where that is at hand.

MVTEC_EVAL_DIR names the folder of the script, from the data set's download page: it is not ours to
keep here. Without, a loop over all thresholds stands in.
"""

import json
import os
import shlex
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps
from sklearn.metrics import roc_auc_score
from test_metrics import brute_force_au_pro

from evaluation import official

DEFECTS = ["good", "good", "hole", "cut", "cut"]
PATHS = [f"test/{defect}/{i:03}.png" for i, defect in enumerate(DEFECTS)]
LABELS = np.array([0, 0, 1, 1, 1])
SIZES = np.array([(36, 48)] * 5)
UPRIGHT = np.zeros(5, np.int64)


def example():
    """Maps of 12 x 16 px of images of 36 x 48 px, with masks; some values tie."""
    rng = np.random.default_rng(3)
    masks = [np.zeros((36, 48), bool) for _ in DEFECTS]
    maps = np.round(rng.random((5, 12, 16)), 1).astype(np.float32)
    for i in (2, 3, 4):
        masks[i][6 * i : 6 * i + 5, 10:20] = masks[i][1:4, 30:33] = True
        maps[i, 2 * i : 2 * i + 2, 3:6] += 0.4
    return masks, maps


def written(workdir, maps, sizes=SIZES, orientations=UPRIGHT):
    return official.write_maps(
        str(workdir),
        "bottle",
        paths=PATHS,
        defects=DEFECTS,
        maps=maps,
        sizes=sizes,
        orientations=orientations,
    )


def test_the_files_are_what_the_script_reads(tmp_path):
    _, maps = example()
    folder = written(tmp_path, maps)
    assert folder == str(tmp_path / "maps")
    files = sorted(path.relative_to(folder).as_posix() for path in tmp_path.rglob("*.tiff"))
    assert files == sorted(f"bottle/{path[:-4]}.tiff" for path in PATHS)
    assert not list(tmp_path.rglob("*tmp*"))
    for path, values in zip(PATHS, maps, strict=True):
        found = tifffile.imread(f"{folder}/bottle/{path[:-4]}.tiff")
        assert found.dtype == np.float32 and np.isfinite(found).all()
        assert (found == np.asarray(Image.fromarray(values).resize((48, 36), 2))).all()


def test_maps_lie_as_the_masks_are_stored(tmp_path):
    """The script knows no EXIF orientation; Pillow turns what is written back to what is seen."""
    _, maps = example()
    tags = np.array([8, 1, 6, 5, 3])
    folder = written(tmp_path, maps, orientations=tags)
    for path, values, tag in zip(PATHS, maps, tags.tolist(), strict=True):
        stored = Image.open(f"{folder}/bottle/{path[:-4]}.tiff")
        assert stored.size == ((36, 48) if tag > 4 else (48, 36))
        stored.getexif()[0x0112] = tag
        seen = np.asarray(ImageOps.exif_transpose(stored))
        np.testing.assert_array_equal(seen, Image.fromarray(values).resize((48, 36), 2))


def test_maps_of_an_earlier_evaluation_go(tmp_path):
    stale = tmp_path / "maps" / "bottle" / "test" / "old"
    stale.mkdir(parents=True)
    (tmp_path / "maps" / "carpet").mkdir()
    written(tmp_path, example()[1])
    assert not stale.exists() and (tmp_path / "maps" / "carpet").exists()


@pytest.mark.parametrize(
    ("path", "defect", "reason"),
    [
        ("test/cut/003.jpg", "cut", "would share maps/cut/003.tiff: rename one"),
        ("test/x/9.png", "../../x", "no name for a file"),
        ("test/x/9.png", "..", "no name for a file"),
    ],
)
def test_names_that_cannot_be_written(tmp_path, path, defect, reason):
    paths, defects = [*PATHS[:4], path], [*DEFECTS[:4], defect]
    with pytest.raises(ValueError, match=reason):
        official.write_maps(
            str(tmp_path / "w"),
            "bottle",
            paths=paths,
            defects=defects,
            maps=example()[1],
            sizes=SIZES,
            orientations=UPRIGHT,
        )
    assert not list(tmp_path.iterdir())


def test_one_pixel_that_is_not_a_number(tmp_path):
    """The script would say nothing, and another AU-PRO."""
    maps = example()[1]
    maps[3, 0, 0] = np.nan
    with pytest.raises(ValueError, match="test/cut/003.png: the anomaly map is not finite"):
        written(tmp_path, maps)
    assert not list(tmp_path.iterdir())


@pytest.mark.promise("R13", "what the official script will say equals a loop over all thresholds")
def test_scores_equal_a_loop_over_all_thresholds():
    masks, maps = example()
    large = [np.asarray(Image.fromarray(values).resize((48, 36), 2)) for values in maps]
    found = official.official_metrics(masks, LABELS, maps, SIZES)
    assert found["au_pro"] == pytest.approx(brute_force_au_pro(masks, large, 0.3), abs=1e-6)
    highest = [values.max() for values in large]
    assert found["classification_au_roc"] == pytest.approx(roc_auc_score(LABELS, highest))


def test_without_masks_there_is_a_reason():
    masks, maps = example()
    found = official.official_metrics([*masks[:4], None], LABELS, maps, SIZES)
    assert found["au_pro"] is None and "1 of 3 defective images have no mask" in found["reason"]
    assert found["classification_au_roc"] is not None


def test_what_the_script_passes_over():
    said = official.unseen(["test/hole/1.png", "test/cut2/2.jpg"], ["hole", "cut2"])
    assert said == ["cut2/: its name has not only letters and _", "test/cut2/2.jpg: no .png"]


def test_the_command_survives_a_shell():
    command = official.official_command("/data set", "/w", "bottle")
    assert shlex.split(command)[3:] == [
        "/data set",
        "--anomaly_maps_dir",
        "/w/maps",
        "--output_dir",
        "/w/official",
        "--evaluated_objects",
        "bottle",
    ]


@pytest.mark.skipif("MVTEC_EVAL_DIR" not in os.environ, reason="MVTEC_EVAL_DIR names no folder")
def test_the_official_script_agrees(tmp_path):
    """Run by the command that we print, on files that we write."""
    masks, maps = example()
    root = tmp_path / "data"
    for path, defect, mask in zip(PATHS, DEFECTS, masks, strict=True):
        image = root / "bottle" / path
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (48, 36)).save(image)
        if defect != "good":
            truth = root / "bottle/ground_truth" / defect / f"{image.stem}_mask.png"
            truth.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask.astype(np.uint8) * 255).save(truth)
    written(tmp_path / "w", maps)
    command = shlex.split(official.official_command(str(root), str(tmp_path / "w"), "bottle"))
    subprocess.run([sys.executable, *command[1:]], check=True, cwd=os.environ["MVTEC_EVAL_DIR"])
    said = json.loads((tmp_path / "w/official/metrics.json").read_text())["bottle"]
    found = official.official_metrics(masks, LABELS, maps, SIZES)
    assert found["au_pro"] == pytest.approx(said["au_pro"], abs=1e-6)
    assert found["classification_au_roc"] == pytest.approx(said["classification_au_roc"], abs=1e-6)
