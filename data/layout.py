"""The folders of MVTec AD, and any of their layout: which files there are, what is wrong with them.

    <root>/<category>/train/good/*                      normal images
                      test/good/*, test/<defect>/*      normal and defective images
                      ground_truth/<defect>/*_mask.png  what is defective in test/<defect>/*.png

Images are PNG, JPEG, BMP, TIFF, WEBP or PPM; other and hidden files are ignored.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from data.images import KINDS, images_below, images_in, inspect, one_line, sha256

CATEGORIES = tuple(
    "bottle cable capsule carpet grid hazelnut leather metal_nut pill screw tile toothbrush "
    "transistor wood zipper".split()
)
HOMEPAGE = "https://www.mvtec.com/company/research/datasets/mvtec-ad"
LICENCE = "CC BY-NC-SA 4.0"


class Sample(NamedTuple):
    """One image of a category."""

    path: Path
    name: str  # relative to the category's folder, e.g. 'test/broken_large/000.png'
    defect: str  # 'good' or the defect's folder
    mask: Path | None


class Files(NamedTuple):
    """All images of a category, sorted by name."""

    train: list[Sample]
    test: list[Sample]


class Fault(NamedTuple):
    """What is wrong with where files lie, or with how they are called."""

    said: str  # one line about all of them, with the way out
    files: Sequence[Path] = ()  # which, where it is about files
    reason: str = ""  # of each

    def lines(self) -> list[str]:
        """One a file, or one."""
        return [f"{one_line(path)}: {self.reason}" for path in self.files] or [one_line(self.said)]


class Survey(NamedTuple):
    """The images that a folder holds, whatever is wrong with it."""

    files: Files
    faults: list[Fault]


def scan(root: str | os.PathLike, category: str) -> Files:
    """Lists a category's images and the mask of each, by name; opens none of them.

    The mask of `test/<defect>/<id>.png` is `ground_truth/<defect>/<id>_mask.png`, or `<id>.png`,
    in any of the image formats.

    Raises:
      ValueError: unknown category, no training images, a mask without an image.
      FileNotFoundError: one of the 15 categories that is not there.
    """
    return sound(survey(root, category))


def sound(found: Survey) -> Files:
    """The files. Raises ValueError: the first fault, if there is one."""
    if found.faults:
        raise ValueError(found.faults[0].said)
    return found.files


def survey(root: str | os.PathLike, category: str) -> Survey:
    """What `scan` lists, and all that it would refuse.

    Raises:
      ValueError: unknown category.
      FileNotFoundError: one of the 15 categories that is not there.
    """
    train, faults = _training(root, category)
    folder = _category_folder(root, category)
    masks = images_below(folder / "ground_truth")
    by_name = {(path.parent.name, path.stem): path for path in masks}
    test = [_sample(path, folder, by_name) for path in images_below(folder / "test")]
    uses = Counter(sample.mask for sample in test)
    if unused := [path for path in masks if not uses[path]]:
        remedy = (
            "test/<defect>/<id>.png has the mask ground_truth/<defect>/<id>_mask.png: rename or "
            "remove"
        )
        said = f"Masks that belong to no image: {_names(unused)}; {remedy} them"
        faults.append(Fault(said, unused, f"a mask of no image; {remedy} it"))
    if shared := [path for path in masks if uses[path] > 1]:
        said = f"Masks of several images: {_names(shared)}; rename the images"
        faults.append(Fault(said, shared, "a mask of several images: rename the images"))
    return Survey(Files(train, test), faults)


def scan_training(root: str | os.PathLike, category: str) -> list[Sample]:
    """Lists a category's training images, sorted by name, and no other folder.

    Raises:
      ValueError: unknown category, no training images.
      FileNotFoundError: one of the 15 categories that is not there.
    """
    train, faults = _training(root, category)
    return sound(Survey(Files(train, []), faults)).train


def digest(files: Files) -> str:
    """SHA-256, in hex, of the names and the contents of a category's images and masks."""
    whole = hashlib.sha256()
    for sample in (*files.train, *files.test):
        for path in filter(None, (sample.path, sample.mask)):
            try:
                content = sha256(path)
            except ValueError as error:  # preparing lists it among the other bad files
                content = str(error)
            whole.update(os.fsencode(f"{sample.name}\0{path.name}\0{content}\n"))
    return whole.hexdigest()


def check(files: Files) -> None:
    """Decodes every image and mask once, and holds each mask against its image.

    Raises:
      ValueError: one line that lists all bad files, each with its reason.
    """
    bad = [
        fault
        for sample in (*files.train, *files.test)
        for fault in inspect(sample.path, sample.mask, defective=sample.defect != "good").faults
    ]
    if bad:
        raise ValueError(f"{len(bad)} bad files, repair or remove them: {'; '.join(bad)}")


def _category_folder(root: str | os.PathLike, category: str) -> Path:
    root = Path(root).expanduser()
    folder = root / category
    if category in CATEGORIES and not folder.is_dir():
        raise FileNotFoundError(
            f"No folder {folder}: obtain MVTec AD (licence {LICENCE}) from {HOMEPAGE} and unpack "
            f"it into {root}, or use the generated data set, --config=<config>.py:demo"
        )
    if not folder.is_dir() or folder.name != category:
        raise ValueError(
            f"Unknown category {category!r}: there is no folder {folder}; known are "
            f"{', '.join(CATEGORIES)}, and any folder of the same layout under {root} works"
        )
    return folder


def _training(root: str | os.PathLike, category: str) -> tuple[list[Sample], list[Fault]]:
    folder = _category_folder(root, category)
    good = folder / "train" / "good"
    train = [_sample(path, folder, {}) for path in images_in(good)]
    said = f"No training images: {good} holds no {KINDS} file; put the normal images there"
    return train, [] if train else [Fault(said)]


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths))


def _sample(path: Path, folder: Path, masks: dict[tuple[str, str], Path]) -> Sample:
    defect = path.parent.name
    mask = masks.get((defect, f"{path.stem}_mask")) or masks.get((defect, path.stem))
    return Sample(path, path.relative_to(folder).as_posix(), defect, mask)
