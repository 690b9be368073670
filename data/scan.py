"""Which image files there are, and what is wrong with where they lie; `sums_of` alone opens them.

The layout of MVTec AD, of which every category is a folder:

    <root>/<category>/train/good/**                   normal images
                      test/good/**, test/<defect>/**  normal and defective images
                      ground_truth/<defect>/**        what is defective in test/<defect>/**

A folder of own images, at any depth:

    <folder>/good/**, <folder>/bad/**  normal and defective images
    <folder>/**                        normal images alone, without good/ and bad/

good/ and bad/ may be called otherwise (data/names.py): OK/ and NG/, say. A file `<id>_mask.png`
beside an image `<id>.*` is that image's mask. Folders that a run or a command has written
(storage/outputs.py) hold no photos. Images are PNG, JPEG, BMP, TIFF, WEBP or PPM; files of other
suffixes and hidden ones are ignored.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from absl import logging

from data.images import KINDS, is_image_name, one_line, sha256_of_image
from data.names import DEFECTIVE_PARTS, GOOD_PARTS, meaning
from storage.files import some_of
from storage.outputs import DEMO_FILE, written_by

CATEGORIES = tuple(
    "bottle cable capsule carpet grid hazelnut leather metal_nut pill screw tile toothbrush "
    "transistor wood zipper".split()
)
HOMEPAGE = "https://www.mvtec.com/company/research/datasets/mvtec-ad"
LICENCE = "CC BY-NC-SA 4.0"
_MASK = "_mask"  # at the end of a mask's name


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
    warnings: list[str]  # of what may not be meant so, one line each
    left_out: list[str]  # of what is passed over, one line each


def require_sound(survey: Survey) -> Files:
    """The files, with a line of the log for each warning.

    Raises:
      ValueError: the first fault, if there is one.
    """
    if survey.faults:
        raise ValueError(survey.faults[0].message)
    for line in (*survey.warnings, *survey.left_out):
        logging.warning("%s", line)
    return survey.files


def sums_of(
    samples: Sequence[Sample], sum_of: Callable[[Path], str] = sha256_of_image
) -> list[str]:
    """SHA-256, in hex, of each image's file, or of that sum and its mask's where it has a mask.

    `sum_of` gives the SHA-256 of a file that was read before; by default each file is read, once,
    and none is decoded.

    Raises:
      ValueError: a file cannot be read.
    """
    return [
        hashlib.sha256(f"{sum_of(each.path)} {sum_of(each.mask)}".encode()).hexdigest()
        if each.mask
        else sum_of(each.path)
        for each in samples
    ]


def digest(names: Iterable[str], sums: Iterable[str]) -> str:
    """SHA-256, in hex, of the names of images and of their `sums_of`."""
    lines = (f"{name}\0{each}\n" for name, each in zip(names, sums, strict=True))
    return hashlib.sha256(os.fsencode("".join(lines))).hexdigest()


# ---------------------------------------------------------------- the layout of MVTec AD


def scan_layout(root: str | os.PathLike, category: str, *, test: bool = True) -> Files:
    """Lists a category's images and the mask of each.

    The mask of `test/<defect>/<id>.png` is `ground_truth/<defect>/<id>_mask.png`, or `<id>.png`, in
    any of the image formats, or `<id>_mask.png` beside the image. Without `test`, train/ alone is
    listed.

    Raises:
      ValueError: unknown category, no training images, a mask without an image.
      FileNotFoundError: one of the 15 categories that is not there.
      OSError: a folder cannot be listed.
    """
    return require_sound(survey_layout(root, category, test=test))


def survey_layout(root: str | os.PathLike, category: str, *, test: bool = True) -> Survey:
    """What `scan_layout` lists, and all that it would refuse.

    Raises:
      ValueError: unknown category.
      FileNotFoundError: one of the 15 categories that is not there.
      OSError: a folder cannot be listed.
    """
    folder = _category_folder(root, category)
    good = [each for each in _folders(folder / "train") if meaning(each.name) == GOOD_PARTS]
    trained = [list_folder(each) for each in good]
    train = [
        Sample(path, _name(path, folder), "good", None) for each in trained for path in each.images
    ]
    faults = _faults_of_doubtful(folder, train, f"{folder / 'test'}/<defect>/")
    faults += _faults_of_masks_of_good(trained)
    if not train:
        place = good[0] if good else folder / "train" / "good"
        message = f"No training images: {place} holds no {KINDS} file; put the normal images there"
        faults.insert(0, Fault(message))
    tested, masks = _tested(folder) if test else ([], [])
    faults += _faults_of_masks(masks, tested)
    whole = list_folder(folder if test else folder / "train")
    used = {path for each in (*train, *tested) for path in (each.path, each.mask)}.union(masks)
    warnings = _unused(folder, [path for path in whole.images if path not in used])
    return Survey(Files(train, tested), faults, warnings, _left_out(folder, [whole]))


def _category_folder(root: str | os.PathLike, category: str) -> Path:
    root = Path(root).expanduser()
    folder = root / category
    if not folder.is_dir() and (other := _root_nearby(root, category)):
        raise ValueError(
            f"there is no folder {folder}, but {other / category}: use --config.data.root={other}"
        )
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


def _root_nearby(root: Path, category: str) -> Path | None:
    """A folder above or below `root` that holds the category, in the place of `root`."""
    if not category or Path(category).name != category:
        return None
    places = [root.parent, *(_folders(root) if root.is_dir() else [])]
    return next((place for place in places if (place / category / "train").is_dir()), None)


def _tested(folder: Path) -> tuple[list[Sample], list[Path]]:
    """The test images, each with its mask, and all files of ground_truth/."""
    truth = folder / "ground_truth"
    masks = [path for each in _folders(truth) for path in list_folder(each).all()]
    by_name = {path.relative_to(truth).with_suffix(""): path for path in masks}
    samples = []
    for place in _folders(folder / "test"):
        listing = list_folder(place)
        defect = "good" if meaning(place.name) == GOOD_PARTS else place.name
        for path in listing.images:
            key = path.relative_to(folder / "test").with_suffix("")
            mask = by_name.get(key.with_name(f"{key.name}_mask")) or by_name.get(key)
            mask = mask or listing.masks.get(path)
            samples.append(Sample(path, _name(path, folder), defect, mask))
    return samples, masks


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


def _unused(folder: Path, images: Sequence[Path]) -> list[str]:
    """One line about images that lie where none are looked for."""
    if not images:
        return []
    counts = Counter(_name(path.parent, folder) for path in images)
    places = some_of([f"{place}/ ({count})" for place, count in counts.items()])
    return [
        f"{folder}: {len(images)} images are not used, for they lie neither below train/good/ nor "
        f"below a folder of test/: {places}"
    ]


# ---------------------------------------------------------------- a folder of own images


def scan_folder(folder: str | os.PathLike, *, test: bool = True) -> Files:
    """Lists a folder's good and, if `test`, its bad images, sorted by name.

    Names are relative to the folder. Without `test`, the folders of bad images are not listed.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: no good image, bad ones without a folder of good ones, images beside them, which
        would not be seen, or images that would be taken for good though their folder says
        otherwise.
      OSError: a folder cannot be listed.
    """
    return require_sound(survey_folder(folder, test=test))


def survey_folder(folder: str | os.PathLike, *, test: bool = True) -> Survey:
    """What `scan_folder` lists, and all that it would refuse.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: it has the layout of MVTec AD.
      OSError: a folder cannot be listed.
    """
    root = _own_folder(folder)
    folders = _folders(root)
    good = [each for each in folders if meaning(each.name) == GOOD_PARTS]
    bad = [each for each in folders if meaning(each.name) == DEFECTIVE_PARTS]
    if not good and not bad:
        _refuse_mvtec_ad(root)
    rest = list_folder(root, skip=(*good, *bad))
    trained = [list_folder(each) for each in good] if good else [rest]
    tested = [list_folder(each) for each in bad] if test else []
    files = Files(
        [Sample(path, _name(path, root), "good", None) for each in trained for path in each.images],
        [_bad(root, path, each.masks) for each in tested for path in each.images],
    )
    faults = []
    if good and rest.images:
        faults.append(_beside(root, rest.images))
    if bad and not good:
        names = " and ".join(f"{each.name}/" for each in bad)
        faults.append(
            Fault(f"{root} has a folder {names} and none good/: move the good images to good/")
        )
    else:
        if not files.train:
            place = good[0] if good else root
            faults.append(Fault(f"{place} holds no {KINDS} file: put images of good parts there"))
        where = f"{root / 'bad'} (and the good ones to good/)"
        faults += _faults_of_doubtful(root, files.train, where)
    faults += _faults_of_masks_of_good(trained)
    faults += [
        Fault(f"{sample.path} is bad and called good: rename its folder")
        for sample in files.test
        if meaning(sample.defect) == GOOD_PARTS
    ]
    warnings = [] if good or bad else _unnamed(root, folders)
    left_out = _left_out(root, [rest, *(trained if good else []), *tested])
    return Survey(files, faults, warnings, left_out)


def has_bad(folder: str | os.PathLike) -> bool:
    """Whether there is a folder of defective images, full or empty, to test with."""
    return any(meaning(each.name) == DEFECTIVE_PARTS for each in _folders(_own_folder(folder)))


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
    if any(meaning(each.name) == GOOD_PARTS for each in _folders(root / "train")):
        raise ValueError(
            f"{root} has the layout of MVTec AD: use --config.data.root={root.parent} and "
            f"--config=<config>.py:{root.name} in place of data.folder"
        )


def _bad(root: Path, path: Path, masks: Mapping[Path, Path]) -> Sample:
    bad, *deeper, _ = path.relative_to(root).parts
    return Sample(path, _name(path, root), deeper[0] if deeper else bad, masks.get(path))


def _unnamed(root: Path, folders: Sequence[Path]) -> list[str]:
    """One line, where the names of sub-folders do not say that all parts are good ones."""
    real = [each for each in folders if not each.is_symlink()]  # others are not followed
    counts = {each.name: len(list_folder(each).images) for each in real}
    places = some_of([f"{name}/ ({count})" for name, count in counts.items() if count])
    if not places:
        return []
    return [
        f"{root}: no folder in it is called good, OK or the like, so that all are taken for good "
        f"parts: {places}; if some are not, put good ones into good/ and defective ones into bad/"
    ]


def _faults_of_doubtful(root: Path, samples: Sequence[Sample], where: str) -> list[Fault]:
    """Images that would be trained on though a folder on their way says defective, or masks."""
    doubtful = [
        sample.path
        for sample in samples
        if any(
            meaning(part) not in ("", GOOD_PARTS) for part in PurePosixPath(sample.name).parts[:-1]
        )
    ]
    if not doubtful:
        return []
    message = (
        f"{len(doubtful)} images would be taken for good ones in spite of their folder: move "
        f"them to {where}, or remove them: {_some(root, doubtful)}"
    )
    reason = (
        f"would be taken for a good one in spite of its folder: move it to {where}, or remove it"
    )
    return [Fault(message, doubtful, reason)]


def _faults_of_masks_of_good(listings: Sequence["Listing"]) -> list[Fault]:
    masks = [mask for listing in listings for mask in listing.masks.values()]
    if not masks:
        return []
    reason = "a mask beside the image of a good part, which has no defect: remove it, or move both"
    message = f"{len(masks)} masks beside images of good parts: remove them, or move both: "
    return [Fault(message + some_of(list(map(str, masks))), masks, reason)]


def _beside(root: Path, images: Sequence[Path]) -> Fault:
    message = (
        f"{len(images)} images of {root} are neither in good/ nor in bad/: move or remove "
        f"{_some(root, images)}"
    )
    return Fault(message, images, "neither in good/ nor in bad/: move or remove it")


def _some(root: Path, paths: Sequence[Path]) -> str:
    return some_of([_name(path, root) for path in paths])


# ---------------------------------------------------------------- any folder


class Listing(NamedTuple):
    """What lies in a folder, at any depth."""

    images: list[Path]  # sorted as text
    masks: dict[Path, Path]  # of these images, where one lies beside, called <id>_mask
    others: Counter[str]  # files of other suffixes, by suffix
    outputs: dict[Path, str]  # folders that this program has written, which are not looked into

    def all(self) -> list[Path]:
        """Images and masks."""
        return [*self.images, *self.masks.values()]


def list_folder(folder: Path, *, skip: Collection[Path] = ()) -> Listing:
    """The files at any depth of `folder`; nothing, if there is no such folder.

    Args:
      folder: itself perhaps hidden or a symlink.
      skip: folders right in it that are not even listed.

    Raises:
      OSError: a folder cannot be listed.
    """
    listing = Listing([], {}, Counter(), {})
    if not folder.is_dir():
        return listing
    for path in _walk(folder, skip, listing.outputs):
        if is_image_name(path) and not path.is_dir():
            listing.images.append(path)
        elif path.name != DEMO_FILE:
            listing.others[suffix_of(path)] += 1
    by_name = {path.with_suffix(""): path for path in listing.images}
    for name, mask in by_name.items():
        if name.name.endswith(_MASK) and (image := by_name.get(_unmasked(name))):
            listing.masks[image] = mask
    masks = set(listing.masks.values())
    listing.images[:] = sorted(set(listing.images) - masks, key=str)
    return listing


def _unmasked(name: Path) -> Path:
    return name.parent / name.name.removesuffix(_MASK)


def images_of(folder: Path) -> list[Path]:
    """The images of new parts in `folder`, with a line of the log for what is left out.

    Raises:
      OSError: a folder cannot be listed.
    """
    listing = list_folder(folder)
    for line in _left_out(folder, [listing]):
        logging.warning("%s", line)
    if listing.masks:
        text = "%s: left out %d masks, called <image>_mask"
        logging.warning(text, folder, len(listing.masks))
    return listing.images


def _left_out(folder: Path, listings: Sequence[Listing]) -> list[str]:
    others = sum((listing.others for listing in listings), Counter[str]())
    lines = []
    if others:
        count, kinds = others.total(), counted(others)
        lines.append(f"{folder}: left out {count} files that are no {KINDS}: {kinds}")
    outputs = {path: what for listing in listings for path, what in listing.outputs.items()}
    return lines + [f"left out {path}, which holds {what}" for path, what in outputs.items()]


def suffix_of(path: Path) -> str:
    """What a file that is no image is, by its name."""
    if os.path.isdir(path):
        return "symlinked folder"
    return path.suffix.lower() or "no suffix"


def counted(suffixes: Counter[str]) -> str:
    """The suffixes and how many there are of each, the most frequent first."""
    return ", ".join(f"{suffix} ({count})" for suffix, count in suffixes.most_common())


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _folders(folder: Path) -> list[Path]:
    """The folders right in `folder`, by name, which are not hidden and not an output."""
    if not folder.is_dir():
        return []
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        raise _unlisted(error) from error
    return [
        path for path in inside if path.is_dir() and not _hidden(path.name) and not written_by(path)
    ]


def _walk(folder: Path, skip: Collection[Path], outputs: dict[Path, str]) -> Iterator[Path]:
    """All that is not hidden and no folder, symlinks to folders included.

    Folders that this program has written are put into `outputs` in place of what they hold.
    """
    for where, folders, files in os.walk(folder, onerror=_refuse_unlisted):
        here = Path(where)
        names = [name for name in folders if not _hidden(name) and here / name not in skip]
        outputs |= {here / name: what for name in names if (what := written_by(here / name))}
        folders[:] = sorted(name for name in names if here / name not in outputs)
        yield from (here / name for name in sorted(files) if not _hidden(name))
        yield from (here / name for name in folders if os.path.islink(here / name))


def _hidden(name: str) -> bool:
    return name.startswith(".")


def _refuse_unlisted(error: OSError) -> None:
    """Lest images be left out: `os.walk` would pass over what it cannot list."""
    raise _unlisted(error) from error


def _unlisted(error: OSError) -> OSError:
    return OSError(f"{error.filename}: {error.strerror}: make the folder readable")
