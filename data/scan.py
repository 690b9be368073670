"""The folders of MVTec AD, and any of their layout: which files there are, what is wrong with them.

    <root>/<category>/train/good/*                      normal images
                      test/good/*, test/<defect>/*      normal and defective images
                      ground_truth/<defect>/*_mask.png  what is defective in test/<defect>/*.png

Images are PNG, JPEG, BMP, TIFF, WEBP or PPM; other and hidden files are ignored.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import logging

from data.images import KINDS, images_below, images_in, inspect, is_image_name, one_line, sha256

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


def scan_layout(root: str | os.PathLike, category: str) -> Files:
    """Lists a category's images and the mask of each, by name; opens none of them.

    The mask of `test/<defect>/<id>.png` is `ground_truth/<defect>/<id>_mask.png`, or `<id>.png`,
    in any of the image formats.

    Raises:
      ValueError: unknown category, no training images, a mask without an image.
      FileNotFoundError: one of the 15 categories that is not there.
    """
    return require_sound(survey_layout(root, category))


def require_sound(found: Survey) -> Files:
    """The files. Raises ValueError: the first fault, if there is one."""
    if found.faults:
        raise ValueError(found.faults[0].said)
    return found.files


def survey_layout(root: str | os.PathLike, category: str) -> Survey:
    """What `scan_layout` lists, and all that it would refuse.

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
    return require_sound(Survey(Files(train, []), faults)).train


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


def refuse_bad_files(files: Files) -> None:
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


def images_of(folder: Path, *, skip: Collection[Path] = ()) -> list[Path]:
    """The image files at any depth of `folder`, sorted as text; those of other suffixes are named.

    One warning counts what is left out, by suffix, so that no image of an unknown format goes
    missing without a word.

    Args:
      folder: an existing folder, itself perhaps hidden or a symlink.
      skip: folders right in it that are not even listed.

    Raises:
      OSError: a folder cannot be listed.
    """
    images, others = listing(folder, skip=skip)
    if others:
        logging.warning(
            "%s: left out %d files that are no %s: %s",
            folder,
            others.total(),
            KINDS,
            counted(others),
        )
    return images


def listing(folder: Path, *, skip: Collection[Path] = ()) -> tuple[list[Path], Counter[str]]:
    """The same without a word: the images, and how many other files there are of each suffix."""
    images, others = [], Counter[str]()
    for path in _files(folder, skip):
        if is_image_name(path):
            images.append(path)
        else:
            others[kind(path)] += 1
    return sorted(images, key=str), others


def kind(path: Path) -> str:
    """What a file that is no image is, by its name."""
    if os.path.isdir(path):
        return "symlinked folder"
    return path.suffix.lower() or "no suffix"


def counted(kinds: Counter[str]) -> str:
    """The kinds and how many there are of each, the most frequent first."""
    return ", ".join(f"{name} ({count})" for name, count in kinds.most_common())


def _files(folder: Path, skip: Collection[Path]) -> Iterator[Path]:
    """All that is not hidden and no folder, symlinks to folders included."""
    for where, folders, files in os.walk(folder, onerror=_refuse):
        here = Path(where)
        names = [name for name in folders if not _hidden(name) and here / name not in skip]
        folders[:] = sorted(names)
        yield from (here / name for name in sorted(files) if not _hidden(name))
        yield from (here / name for name in folders if os.path.islink(here / name))


def _hidden(name: str) -> bool:
    return name.startswith(".")


def _refuse(error: OSError) -> None:
    """Lest images be left out: `os.walk` would pass over what it cannot list."""
    raise OSError(f"{error.filename}: {error.strerror}: make the folder readable") from error


_NAMED = 5  # so many files are named in an error
_NOT_GOOD = {"bad", "ground_truth"}  # folders, at any depth and however spelt


def scan_folder(folder: str | os.PathLike, *, test: bool = True) -> Files:
    """Lists a folder's good and, if `test`, its bad images, sorted by name; opens none of them.

    Names are relative to the folder; no image has a mask. Without `test`, bad/ is not listed.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: no good image, bad/ without good/, images beside them, which would not be seen, or
        images that would be taken for good though their folder says otherwise.
      OSError: a folder cannot be listed.
    """
    return require_sound(survey_folder(folder, test=test))


def survey_folder(
    folder: str | os.PathLike,
    *,
    test: bool = True,
    images_of: Callable[..., list[Path]] = images_of,
) -> Survey:
    """What `scan_folder` lists, and all that it would refuse.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: it has the layout of MVTec AD.
      OSError: a folder cannot be listed.
    """
    root = _folder(folder)
    good, bad = root / "good", root / "bad"
    defective = _samples(root, images_of(bad)) if test and bad.is_dir() else []
    faults = _faults_of_bad(defective)
    if good.is_dir():
        train = images_of(good)
        faults = _faults(root, good, train) + faults
        if beside := images_of(root, skip=(good, bad)):
            faults.insert(0, _beside(root, beside))
    elif bad.is_dir():
        train = images_of(root, skip=(bad,))
        said = f"{root} has a folder bad/ and none good/: move the good images to good/"
        faults.insert(0, Fault(said))
    else:
        _refuse_mvtec_ad(root)
        train = images_of(root)
        faults = _faults(root, root, train)
    return Survey(Files(_samples(root, train), defective), faults)


def has_bad(folder: str | os.PathLike) -> bool:
    """Whether there is a folder of defective images, full or empty, to test with."""
    return (_folder(folder) / "bad").is_dir()


def _folder(folder: str | os.PathLike) -> Path:
    root = Path(folder).expanduser()
    if not root.is_dir():
        kind = "is a file" if root.exists() else "does not exist"
        raise FileNotFoundError(
            f"data.folder: {root} {kind}: name a folder that holds images of good parts"
        )
    return root


def _refuse_mvtec_ad(root: Path) -> None:
    """All images would be trained on as good ones."""
    if (root / "train" / "good").is_dir():
        raise ValueError(
            f"{root} has the layout of MVTec AD: use --config.data.root={root.parent} and "
            f"--config=<config>.py:{root.name} in place of data.folder"
        )


def _beside(root: Path, images: Sequence[Path]) -> Fault:
    said = (
        f"{len(images)} images of {root} are neither in good/ nor in bad/: move or remove "
        f"{_some(root, images)}"
    )
    return Fault(said, images, "neither in good/ nor in bad/: move or remove it")


def _faults(root: Path, good: Path, images: Sequence[Path]) -> list[Fault]:
    """What is wrong with the images of a folder of good ones."""
    if not images:
        return [Fault(f"{good} holds no {KINDS} file: put images of good parts there")]
    doubtful = [
        path
        for path in images
        if _NOT_GOOD & {part.lower() for part in path.relative_to(root).parts[:-1]}
    ]
    if not doubtful:
        return []
    remedy = f"{root / 'bad'} (and the good ones to good/), or remove"
    said = (
        f"{len(doubtful)} images would be taken for good ones in spite of their folder: move "
        f"them to {remedy} them: {_some(root, doubtful)}"
    )
    reason = f"would be taken for a good one in spite of its folder: move it to {remedy} it"
    return [Fault(said, doubtful, reason)]


def _faults_of_bad(samples: Sequence[Sample]) -> list[Fault]:
    return [
        Fault(f"{sample.path} is bad and called good: rename its folder")
        for sample in samples
        if sample.defect == "good"
    ]


def _samples(root: Path, paths: Sequence[Path]) -> list[Sample]:
    names = [path.relative_to(root) for path in paths]
    return [
        Sample(path, name.as_posix(), _defect(name), None)
        for path, name in zip(paths, names, strict=True)
    ]


def _defect(name: Path) -> str:
    if name.parts[0] != "bad":
        return "good"
    return name.parts[1] if len(name.parts) > 2 else "bad"


def _some(root: Path, paths: Sequence[Path]) -> str:
    names = [path.relative_to(root).as_posix() for path in paths[:_NAMED]]
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return f"{', '.join(names)}{more}"
