"""What a data set holds and how training will use it: all that is wrong with it, in one go.

Nothing is written, and no more images are in memory at once than there are threads. No TensorFlow.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from data import labelled, pipeline, sampling, scan
from data.images import (
    MOST_PIXELS,
    Inspected,
    Reading,
    above_white,
    hardly_seen,
    is_image_name,
    one_line,
    white_level_line,
    white_level_of,
)
from data.labelled import Asked
from data.scan import Files, Sample, Survey
from storage.files import some_of
from storage.outputs import written_by

TRAINED, CALIBRATION = "trained on", "held out for the threshold"
TESTED_GOOD, TESTED_DEFECTIVE = "tested as good", "tested as defective"
LABELLED = "labelled as defective, and not tested with"


class UsedImage(NamedTuple):
    """An image and what becomes of it."""

    name: str  # relative to the folder of the data set
    use: str  # TRAINED, CALIBRATION, TESTED_GOOD, TESTED_DEFECTIVE or LABELLED
    has_mask: bool


class _Look(NamedTuple):
    """What a look at an image and its mask has shown."""

    size: tuple[int, int] | None  # height, width; None where the image cannot be read
    largest: int | None  # as in `images.Raster`
    orientation: int  # of the image, 1 to 8; 0 where it has none
    sum: str  # SHA-256 of the image's file; '' where the image cannot be read
    marked: float  # share of the mask's pixels that it calls defective; 0 without a mask
    faults: list[str]  # one line each, with the file


class Report(NamedTuple):
    """What there is; each text is one line."""

    images: list[UsedImage]  # all, those of training first
    findings: list[str]
    warnings: list[str]  # training takes it, and it may not be what is wanted
    problems: list[str]  # training refuses it; with file and reason


def check_data(
    category: str,
    root: str | os.PathLike,
    image_size: int,
    *,
    calibration: float,
    seed: int,
    folder: str | os.PathLike = "",
    white_level: int = 0,
    max_pixels: int = MOST_PIXELS,
    defects: Asked = pipeline.NONE_ASKED,
) -> Report:
    """Lists and decodes every file, once, that `pipeline.load_splits` reads with these arguments.

    Of a decoded copy, which `pipeline.load_splits` takes as well, it says what is in it.

    Raises:
      ValueError, FileNotFoundError: there is no such data set; a copy is damaged or of other
        images.
      OSError: a folder cannot be listed.
    """
    root, folder = (os.path.expanduser(os.fspath(path)) for path in (root, folder))
    split = (seed, calibration)
    if not folder and os.path.isfile(root):
        return _check_copy(root, category, image_size, split, white_level, defects)
    where, survey, pick_test = _survey(category, root, folder)
    others = labelled.samples_of(defects.folder) if defects.folder else []
    samples = [*survey.files.train, *survey.files.test, *others]
    images = _images(survey.files, split, pick_test)
    images, too_many = _with_labelled(images, survey.files, seed, defects)
    images += [UsedImage(each.name, LABELLED, bool(each.mask)) for each in others]
    looks = _looks(samples, max_pixels)
    level = white_level or white_level_of(look.largest for look in looks[: len(survey.files.train)])
    faults = [line for fault in survey.faults for line in fault.lines()]
    faults += [line for look in looks for line in look.faults] + too_many
    warnings = survey.warnings
    for same in _same_files(images, [look.sum for look in looks]):
        (faults if LABELLED in same else warnings).append(same)
    here = samples[: len(samples) - len(others)]
    used = {path for sample in here for path in (sample.path, sample.mask) if path}
    findings = [
        f"Images in {one_line(where)}:",
        *_table(images, split),
        *_sizes([look.size for look in looks if look.size], image_size),
        *_turned(looks, masks=any(image.has_mask for image in images)),
        *([white_level_line(level, found=not white_level)] if level else []),
        *_left_out(where, used.union(*(fault.files for fault in survey.faults))),
        *_outside(where, used),
    ]
    warnings += _above_white(images, looks, level)
    if not pick_test or any(image.has_mask for image in images):  # own images may have none
        warnings += _without_masks(images)
    warnings += _inverted(samples, [look.marked for look in looks])
    return Report(images, findings, warnings, list(dict.fromkeys(faults)))


def _check_copy(
    path: str,
    category: str,
    image_size: int,
    split: tuple[int, float],
    white_level: int,
    defects: Asked,
) -> Report:
    splits = pipeline.load_splits(
        category,
        path,
        image_size,
        seed=split[0],
        calibration=split[1],
        white_level=white_level,
        defects=defects,
    )
    test = splits.test
    has_mask = [mask is not None for mask in test.masks]
    images = [UsedImage(name, TRAINED, False) for name in splits.train.paths]
    images += [UsedImage(name, CALIBRATION, False) for name in splits.calibration.paths]
    images += [_tested(*row) for row in zip(test.paths, test.defects, has_mask, strict=True)]
    if splits.labelled:
        pairs = zip(splits.labelled.paths, splits.labelled.masks, strict=True)
        images += [UsedImage(name, LABELLED, mask is not None) for name, mask in pairs]
    sizes = np.concatenate([part.sizes for part in (splits.train, splits.calibration, test)])
    findings = [f"Decoded images in {one_line(path)}:", *_table(images, split)]
    findings += _sizes([(height, width) for height, width in sizes.tolist()], image_size)
    if splits.white_level:
        findings.append(white_level_line(splits.white_level, found=not white_level))
    return Report(images, findings, [], [])


def _survey(category: str, root: str, folder: str) -> tuple[Path, Survey, bool]:
    """The folder of the data set, what it holds, and whether test images are picked from it."""
    if not folder:
        return Path(root) / category, scan.survey_layout(root, category), False
    pipeline.require_product_name(category)
    return Path(folder), scan.survey_folder(folder), scan.has_bad(folder)


def _images(files: Files, split: tuple[int, float], pick_test: bool) -> list[UsedImage]:
    """The images in the order of `files`."""
    seed, calibration = split
    parts = sampling.split(seed, len(files.train), calibration, pick_test=pick_test)
    uses = {
        int(index): use
        for use, indices in zip((TRAINED, CALIBRATION, TESTED_GOOD), parts, strict=True)
        for index in indices
    }
    train = [UsedImage(each.name, uses[index], False) for index, each in enumerate(files.train)]
    return train + [_tested(each.name, each.defect, bool(each.mask)) for each in files.test]


def _with_labelled(
    images: list[UsedImage], files: Files, seed: int, defects: Asked
) -> tuple[list[UsedImage], list[str]]:
    """The images with those that are taken from the test set, or one line why none can be."""
    if not defects.number:
        return images, []
    paths, kinds = [each.name for each in files.test], [each.defect for each in files.test]
    try:
        names = set(labelled.choose_labelled(seed, paths, kinds, defects.number, defects.kind))
    except ValueError as error:
        return images, [one_line(error)]
    first = len(files.train)
    taken = [each._replace(use=LABELLED) if each.name in names else each for each in images[first:]]
    return images[:first] + taken, []


def _tested(name: str, defect: str, has_mask: bool) -> UsedImage:
    return UsedImage(name, TESTED_GOOD if defect == "good" else TESTED_DEFECTIVE, has_mask)


def _looks(samples: Sequence[Sample], max_pixels: int) -> list[_Look]:
    def look(sample: Sample, inspected: Inspected) -> _Look:
        raster, mask, sums, faults, _ = inspected
        if raster is None:
            return _Look(None, None, 0, "", 0.0, faults)
        _, size, orientation, largest = raster
        marked = 0.0 if mask is None else float(mask.mean())
        return _Look(size, largest, orientation, sums[sample.path], marked, faults)

    # The bar is drawn on a terminal alone.
    each = pipeline.inspect_each(samples, Reading(0, max_pixels), look)
    return list(tqdm(each, "checking", len(samples), leave=False, disable=None))


def _table(images: Sequence[UsedImage], split: tuple[int, float]) -> Iterator[str]:
    """How the images of each folder are used; folders deeper than two are counted with theirs."""
    seed, calibration = split
    uses = {use: use for use in (TRAINED, CALIBRATION, TESTED_GOOD, TESTED_DEFECTIVE, LABELLED)}
    uses[CALIBRATION] += f" (calibration {calibration}, seed {seed})"

    def place(image: UsedImage) -> str:
        return "/".join(PurePosixPath(image.name).parts[:-1][:2]) or "."

    for folder, inside in groupby(sorted(images, key=place), place):
        members = list(inside)
        counts = Counter(image.use for image in members)
        parts = [f"{counts[use]} {name}" for use, name in uses.items() if counts[use]]
        if masks := sum(image.has_mask for image in members):
            parts.append(f"{masks} masks")
        yield f"  {one_line(folder)}: {len(members)} images: {', '.join(parts)}"


def _sizes(sizes: Sequence[tuple[int, int]], image_size: int) -> Iterator[str]:
    if sizes:
        heights, widths = zip(*sizes, strict=True)
        small, large = f"{min(widths)}x{min(heights)}", f"{max(widths)}x{max(heights)}"
        between = small if small == large else f"between {small} and {large}"
        yield f"Of {between} px, resized to {image_size}x{image_size} px for the network."
        if coarse := hardly_seen(sizes, image_size):
            yield coarse


def _turned(looks: Sequence[_Look], *, masks: bool) -> Iterator[str]:
    tags = Counter(look.orientation for look in looks if look.orientation > 1)
    if tags:
        named = ", ".join(f"{tags[tag]} of orientation {tag}" for tag in sorted(tags))
        theirs = "; a mask without a tag that fits the stored pixels is turned as its image is"
        yield f"Turned by their EXIF tag, as a person sees them: {named}{theirs if masks else ''}."


def _above_white(
    images: Sequence[UsedImage], looks: Sequence[_Look], white_level: int | None
) -> list[str]:
    odd = [
        f"{image.name}: {reason}"
        for image, look in zip(images, looks, strict=True)
        if (reason := above_white(look.largest, white_level))
    ]
    return [f"{len(odd)} images do not fit the white level: {_some(odd)}"] if odd else []


def _left_out(where: Path, used: Collection[Path]) -> Iterator[str]:
    """Files that training passes over; folders that are passed over are one each."""
    kinds, folders = Counter[str](), {path.parent for path in used}
    for place, names, files in os.walk(where):
        here = Path(place)
        hidden = [name for name in names if name.startswith(".")]
        kinds["hidden"] += len(hidden)
        outputs = {name: what for name in names if (what := written_by(here / name))}
        for name, what in outputs.items():
            yield f"Left out {one_line(here / name)}, which holds {what}."
        names[:] = [name for name in names if name not in hidden and name not in outputs]
        links = [here / name for name in names if os.path.islink(here / name)]
        for path in (*(here / name for name in files), *links):
            if path not in used and path not in folders:
                kinds[_kind(path)] += 1
    kinds += Counter()  # drops zeros
    if kinds:
        yield f"Left out {kinds.total()} files: {one_line(scan.counted(kinds))}."


def _kind(path: Path) -> str:
    if path.name.startswith("."):
        return "hidden"
    if is_image_name(path) and not path.is_dir():
        return f"images in {path.parent.name}/, where none are looked for"
    return scan.suffix_of(path)


def _outside(where: Path, used: Iterable[Path]) -> Iterator[str]:
    inside = os.path.join(os.path.realpath(where), "")
    if links := sorted(str(path) for path in used if not os.path.realpath(path).startswith(inside)):
        yield f"Followed {len(links)} symlinks that lead out of the folder: {_some(links)}."


def _same_files(images: Sequence[UsedImage], digests: Sequence[str]) -> list[str]:
    """Files of the same bytes and of different uses: what is tested was perhaps trained on."""
    by_digest = defaultdict(list)
    for image, digest in zip(images, digests, strict=True):
        if digest:
            by_digest[digest].append(image)
    return [
        f"the same file, to the byte: {_some([f'{each.name} ({each.use})' for each in same])}"
        for same in by_digest.values()
        if len({image.use for image in same}) > 1
    ]


def _without_masks(images: Sequence[UsedImage]) -> list[str]:
    lacking = [each.name for each in images if each.use == TESTED_DEFECTIVE and not each.has_mask]
    if not lacking:
        return []
    return [
        f"{len(lacking)} defective images without a mask, so that there are no pixel metrics: "
        f"{_some(lacking)}"
    ]


def _inverted(samples: Sequence[Sample], shares: Sequence[float]) -> list[str]:
    """One line about masks that call most of their image defective."""
    doubtful = [
        f"{one_line(sample.mask)} ({100 * share:.0f} %)"
        for sample, share in zip(samples, shares, strict=True)
        if share > 0.5
    ]
    if not doubtful:
        return []
    return [
        f"{len(doubtful)} masks call more than half of their image defective: are they inverted? "
        f"{some_of(doubtful)}"
    ]


def _some(names: Sequence[str]) -> str:
    return some_of([one_line(name) for name in names])
