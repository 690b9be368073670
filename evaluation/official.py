"""What MVTec AD's official evaluation script reads, and what it will say.

`evaluate_experiment.py` (version 1.0, from the data set's download page) wants one float32 TIFF per
test image, as large as the image, and takes the maximum of a map for the image's score. It reads
the masks' stored pixels, and knows no EXIF orientation: the maps are written as the masks lie.
"""

import os
import re
import shlex
import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np
import tifffile

from data.images import turn_back
from evaluation import metrics
from evaluation.maps import resize_map
from storage.rows import Stack

_SAFE = re.compile(r"[^/\0]+")


def write_maps(
    workdir: str,
    category: str,
    *,
    paths: Sequence[str],
    defects: Sequence[str],
    maps: Stack,
    sizes: np.ndarray,
    orientations: np.ndarray,
) -> str:
    """Writes `workdir/maps/<category>/test/<defect>/<id>.tiff`, all of them or none; returns maps/.

    Args:
      workdir: maps of an earlier evaluation of the category in it are replaced.
      category: its name.
      paths: N paths, whose last parts without the extension are the ids.
      defects: N of 'good' or the defect's name.
      maps: float [N, H, W].
      sizes: int [N, 2], height and width of each image as seen, to which its map is brought.
      orientations: int [N], by which the mask of each was turned to be seen, or else the image;
        its map is turned back.

    Raises:
      ValueError: a map is not finite, two images would share a file, or a name is no file name.
      OSError: the files cannot be written.
    """
    if not _is_name(category):  # the folder of that name is replaced
        raise ValueError(f"{category!r}: no name for a folder in {workdir}/maps: rename it")
    names = [f"{defect}/{_id(path)}.tiff" for path, defect in zip(paths, defects, strict=True)]
    for i, name in enumerate(names):
        if (first := names.index(name)) != i:
            raise ValueError(f"{paths[first]} and {paths[i]} would share maps/{name}: rename one")
        if not all(map(_is_name, name.split("/"))):
            raise ValueError(f"{paths[i]}: no name for a file in {workdir}/maps: rename it")
        if not np.isfinite(maps[i]).all():
            raise ValueError(f"{paths[i]}: the anomaly map is not finite: train again")
    folder = os.path.join(workdir, "maps", category)
    new = f"{folder}.tmp"
    shutil.rmtree(new, ignore_errors=True)
    try:
        for name, heat_map, (height, width), orientation in zip(
            names, maps, sizes, orientations, strict=True
        ):
            path = os.path.join(new, "test", name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            seen = resize_map(heat_map, (int(height), int(width)))
            tifffile.imwrite(path, turn_back(seen, int(orientation)))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(new, folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return os.path.dirname(folder)


def _is_name(part: str) -> bool:
    return bool(_SAFE.fullmatch(part)) and part not in (".", "..")


def _id(path: str) -> str:
    return os.path.splitext(path.replace(os.sep, "/").rsplit("/", 1)[-1])[0]


def official_metrics(
    masks: Sequence[np.ndarray | None],
    labels: np.ndarray,
    maps: Stack,
    sizes: np.ndarray,
    *,
    folder: str | None = None,
) -> dict[str, Any]:
    """What the script will print of these maps: {'au_pro', 'classification_au_roc'}, or a reason.

    Its image score is the maximum of the map at the image's own size, whatever the method's is.

    Args:
      masks: N of bool [h, w] at the image's own size, all False for good ones; None where missing.
      labels: int [N], 1 = defective.
      maps: float [N, H, W].
      sizes: int [N, 2], height and width of each image file.
      folder: of temporary files; if None, the system's.
    """
    pixel = metrics.pixel_metrics(masks, maps, folder=folder)
    highest = [
        resize_map(values, (int(height), int(width))).max()
        for values, (height, width) in zip(maps, sizes, strict=True)
    ]
    image = metrics.image_metrics(labels, np.array(highest))
    reasons = [each["reason"] for each in (pixel, image) if "reason" in each]
    shortened = {"au_pro": pixel["au_pro"], "classification_au_roc": image["auroc"]}
    return shortened | ({"reason": "; ".join(reasons)} if reasons else {})


def official_command(root: str, workdir: str, category: str) -> str:
    """The command that runs the script on the maps that `write_maps` wrote.

    `root` is the folder that holds the categories' folders.
    """
    maps, output = (os.path.join(workdir, name) for name in ("maps", "official"))
    parts = ["python", "evaluate_experiment.py", "--dataset_base_dir", root]
    parts += ["--anomaly_maps_dir", maps, "--output_dir", output, "--evaluated_objects", category]
    return shlex.join(parts)


def unseen(paths: Sequence[str], defects: Sequence[str]) -> list[str]:
    """The test images that the script passes over without a word, one reason each."""
    names = [name for name in sorted(set(defects)) if not name.replace("_", "").isalpha()]
    return [f"{name}/: its name has not only letters and _" for name in names] + [
        f"{path}: no .png" for path in paths if not path.endswith(".png")
    ]
