"""Which image files there are, and what is wrong with where they lie; `digest` alone opens them.

The layout of MVTec AD, of which every category is a folder:

    <root>/<category>/train/good/*                      normal images
                      test/good/*, test/<defect>/*      normal and defective images
                      ground_truth/<defect>/*_mask.png  what is defective in test/<defect>/*.png

A folder of own images, at any depth, without masks:

    <folder>/good/**, <folder>/bad/**                   normal and defective images
    <folder>/**                                         normal images alone, without good/ and bad/

Images are PNG, JPEG, BMP, TIFF, WEBP or PPM; files of other suffixes and hidden ones are ignored.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import logging

from data.images import KINDS, is_image_name, one_line, sha256_of_image

CATEGORIES = tuple(
    "bottle cable capsule carpet grid hazelnut leather metal_nut pill screw tile toothbrush "
    "transistor wood zipper".split()
)
HOMEPAGE = "https://www.mvtec.com/company/research/datasets/mvtec-ad"
LICENCE = "CC BY-NC-SA 4.0"
_NOT_GOOD = {"bad", "ground_truth"}  # folders, at any depth and however spelt
_NAMED = 5  # so many files are named where all would be too many


class Sample(NamedTuple):
    """One image of a data set."""

    path: Path
    name: str  # relative to the folder of the data set, e.g. 'test/broken_large/000.png'
    defect: str  # 'good' or the defect's folder
    mask: Path | None


class Files(NamedTuple):
    """All images of a data set."""

    train: list[Sample]
    test: list[Sample]


class Fault(NamedTuple):
    """What is wrong with where files lie, or with how they are called."""

    message: str  # one line about all of them, with the way out
    files: Sequence[Path] = ()  # which, where it is about files
    reason: str = ""  # of each

    def lines(self) -> list[str]:
        """One a file, or one."""
        return [f"{one_line(path)}: {self.reason}" for path in self.files] or [
            one_line(self.message)
        ]


class Survey(NamedTuple):
    """The images that a folder holds, whatever is wrong with it."""

    files: Files
    faults: list[Fault]


def require_sound(survey: Survey) -> Files:
    """The files. Raises ValueError: the first fault, if there is one."""
    if survey.faults:
        raise ValueError(survey.faults[0].message)
    return survey.files


def digest(files: Files, sum_of: Callable[[Path], str] = sha256_of_image) -> str:
    """SHA-256, in hex, of the names and the contents of all images and masks.

    It is '' where a file cannot be read. `sum_of` gives the SHA-256 of a file that was read before;
    by default each file is read, once, and none is decoded.
    """
    whole = hashlib.sha256()
    try:
        for sample in (*files.train, *files.test):
            for path in filter(None, (sample.path, sample.mask)):
                whole.update(os.fsencode(f"{sample.name}\0{path.name}\0{sum_of(path)}\n"))
    except ValueError:
        return ""
    return whole.hexdigest()


# ---------------------------------------------------------------- the layout of MVTec AD


def scan_layout(root: str | os.PathLike, category: str, *, test: bool = True) -> Files:
    """Lists a category's images and the mask of each.

    The mask of `test/<defect>/<id>.png` is `ground_truth/<defect>/<id>_mask.png`, or `<id>.png`,
    in any of the image formats. Without `test`, train/ alone is listed.

    Raises:
      ValueError: unknown category, no training images, a mask without an image.
      FileNotFoundError: one of the 15 categories that is not there.
    """
    return require_sound(survey_layout(root, category, test=test))


def survey_layout(root: str | os.PathLike, category: str, *, test: bool = True) -> Survey:
    """What `scan_layout` lists, and all that it would refuse.

    Raises:
      ValueError: unknown category.
      FileNotFoundError: one of the 15 categories that is not there.
    """
    folder = _category_folder(root, category)
    good = folder / "train" / "good"
    train = [_sample(path, folder, {}) for path in _images_in(good)]
    message = f"No training images: {good} holds no {KINDS} file; put the normal images there"
    faults = [] if train else [Fault(message)]
    if not test:
        return Survey(Files(train, []), faults)
    masks = _images_below(folder / "ground_truth")
    by_name = {(path.parent.name, path.stem): path for path in masks}
    tested = [_sample(path, folder, by_name) for path in _images_below(folder / "test")]
    return Survey(Files(train, tested), faults + _faults_of_masks(masks, tested))


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


def _images_in(folder: Path) -> list[Path]:
    """The image files of a folder, by name; none if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if is_image_name(path) and not path.is_dir())


def _images_below(folder: Path) -> list[Path]:
    """The image files of a folder's folders, by name; none if there is no such folder."""
    if not folder.is_dir():
        return []
    defects = sorted(path for path in folder.iterdir() if not _hidden(path.name))
    return [path for defect in defects for path in _images_in(defect)]


def _sample(path: Path, folder: Path, masks: dict[tuple[str, str], Path]) -> Sample:
    defect = path.parent.name
    mask = masks.get((defect, f"{path.stem}_mask")) or masks.get((defect, path.stem))
    return Sample(path, path.relative_to(folder).as_posix(), defect, mask)


def _faults_of_masks(masks: Sequence[Path], samples: Sequence[Sample]) -> list[Fault]:
    faults = []
    uses = Counter(sample.mask for sample in samples)
    if orphans := [path for path in masks if not uses[path]]:
        remedy = (
            "test/<defect>/<id>.png has the mask ground_truth/<defect>/<id>_mask.png: rename or "
            "remove"
        )
        message = f"Masks that belong to no image: {', '.join(map(str, orphans))}; {remedy} them"
        faults.append(Fault(message, orphans, f"a mask of no image; {remedy} it"))
    if shared := [path for path in masks if uses[path] > 1]:
        message = f"Masks of several images: {', '.join(map(str, shared))}; rename the images"
        faults.append(Fault(message, shared, "a mask of several images: rename the images"))
    return faults


# ---------------------------------------------------------------- a folder of own images


def scan_folder(folder: str | os.PathLike, *, test: bool = True) -> Files:
    """Lists a folder's good and, if `test`, its bad images, sorted by name.

    Names are relative to the folder; no image has a mask. Without `test`, bad/ is not listed.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: no good image, bad/ without good/, images beside them, which would not be seen, or
        images that would be taken for good though their folder says otherwise.
      OSError: a folder cannot be listed.
    """
    return require_sound(survey_folder(folder, test=test))


def survey_folder(folder: str | os.PathLike, *, test: bool = True, warn: bool = True) -> Survey:
    """What `scan_folder` lists, and all that it would refuse; `warn` as in `images_of`.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: it has the layout of MVTec AD.
      OSError: a folder cannot be listed.
    """
    root = _own_folder(folder)
    good, bad = root / "good", root / "bad"
    tested = _samples(root, images_of(bad, warn=warn)) if test and bad.is_dir() else []
    faults = [
        Fault(f"{sample.path} is bad and called good: rename its folder")
        for sample in tested
        if sample.defect == "good"
    ]
    if good.is_dir():
        train = images_of(good, warn=warn)
        faults = _faults_of_good(root, good, train) + faults
        if beside := images_of(root, skip=(good, bad), warn=warn):
            faults.insert(0, _beside(root, beside))
    elif bad.is_dir():
        train = images_of(root, skip=(bad,), warn=warn)
        message = f"{root} has a folder bad/ and none good/: move the good images to good/"
        faults.insert(0, Fault(message))
    else:
        _refuse_mvtec_ad(root)
        train = images_of(root, warn=warn)
        faults = _faults_of_good(root, root, train)
    return Survey(Files(_samples(root, train), tested), faults)


def has_bad(folder: str | os.PathLike) -> bool:
    """Whether there is a folder of defective images, full or empty, to test with."""
    return (_own_folder(folder) / "bad").is_dir()


def _own_folder(folder: str | os.PathLike) -> Path:
    root = Path(folder).expanduser()
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise FileNotFoundError(
            f"data.folder: {root} {what}: name a folder that holds images of good parts"
        )
    return root


def _refuse_mvtec_ad(root: Path) -> None:
    """All images would be trained on as good ones."""
    if (root / "train" / "good").is_dir():
        raise ValueError(
            f"{root} has the layout of MVTec AD: use --config.data.root={root.parent} and "
            f"--config=<config>.py:{root.name} in place of data.folder"
        )


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


def _faults_of_good(root: Path, good: Path, images: Sequence[Path]) -> list[Fault]:
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
    message = (
        f"{len(doubtful)} images would be taken for good ones in spite of their folder: move "
        f"them to {remedy} them: {_some(root, doubtful)}"
    )
    reason = f"would be taken for a good one in spite of its folder: move it to {remedy} it"
    return [Fault(message, doubtful, reason)]


def _beside(root: Path, images: Sequence[Path]) -> Fault:
    message = (
        f"{len(images)} images of {root} are neither in good/ nor in bad/: move or remove "
        f"{_some(root, images)}"
    )
    return Fault(message, images, "neither in good/ nor in bad/: move or remove it")


def _some(root: Path, paths: Sequence[Path]) -> str:
    return some_of([path.relative_to(root).as_posix() for path in paths])


# ---------------------------------------------------------------- any folder


def images_of(folder: Path, *, skip: Collection[Path] = (), warn: bool = True) -> list[Path]:
    """The image files at any depth of `folder`, sorted as text.

    Args:
      folder: an existing folder, itself perhaps hidden or a symlink.
      skip: folders right in it that are not even listed.
      warn: whether one warning counts the files of other suffixes, so that no image of an unknown
        format goes missing without a word.

    Raises:
      OSError: a folder cannot be listed.
    """
    images, others = [], Counter[str]()
    for path in _walk(folder, skip):
        if is_image_name(path):
            images.append(path)
        else:
            others[suffix_of(path)] += 1
    if others and warn:
        text = "%s: left out %d files that are no %s: %s"
        logging.warning(text, folder, others.total(), KINDS, counted(others))
    return sorted(images, key=str)


def suffix_of(path: Path) -> str:
    """What a file that is no image is, by its name."""
    if os.path.isdir(path):
        return "symlinked folder"
    return path.suffix.lower() or "no suffix"


def counted(suffixes: Counter[str]) -> str:
    """The suffixes and how many there are of each, the most frequent first."""
    return ", ".join(f"{suffix} ({count})" for suffix, count in suffixes.most_common())


def some_of(names: Sequence[str]) -> str:
    """The first five names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def _walk(folder: Path, skip: Collection[Path]) -> Iterator[Path]:
    """All that is not hidden and no folder, symlinks to folders included."""
    for where, folders, files in os.walk(folder, onerror=_refuse_unlisted):
        here = Path(where)
        names = [name for name in folders if not _hidden(name) and here / name not in skip]
        folders[:] = sorted(names)
        yield from (here / name for name in sorted(files) if not _hidden(name))
        yield from (here / name for name in folders if os.path.islink(here / name))


def _hidden(name: str) -> bool:
    return name.startswith(".")


def _refuse_unlisted(error: OSError) -> None:
    """Lest images be left out: `os.walk` would pass over what it cannot list."""
    raise OSError(f"{error.filename}: {error.strerror}: make the folder readable") from error
