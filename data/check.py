"""What a data set holds and how training will use it: all that is wrong with it, in one go.

Nothing is written, and no more images are in memory at once than there are threads. No TensorFlow.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from data import pipeline, sampling, scan
from data.images import Inspected, inspect, is_image_name, one_line, sha256
from data.scan import Files, Sample, Survey

TRAINED, HELD_OUT = "trained on", "held out for the threshold"
GOOD, DEFECTIVE = "tested as good", "tested as defective"
_THREADS = 8  # an image of 89 million pixels takes 1 GB while it is decoded
_NAMED = 5  # so many files are named where all would be too many


class Image(NamedTuple):
    """An image and what becomes of it."""

    name: str  # relative to the folder of the data set
    use: str  # TRAINED, HELD_OUT, GOOD or DEFECTIVE
    has_mask: bool


class Report(NamedTuple):
    """What there is; each text is one line."""

    images: list[Image]  # all, those of training first
    found: list[str]
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
) -> Report:
    """Lists and decodes every file that `pipeline.load` reads with these arguments.

    Of a decoded copy, which `pipeline.load` takes as well, it says what is in it.

    Raises:
      ValueError, FileNotFoundError: there is no such data set; a number makes no sense; a copy is
        damaged or of other images.
      OSError: a folder cannot be listed.
    """
    pipeline.require_numbers(image_size, calibration)
    root, folder = (os.path.expanduser(os.fspath(path)) for path in (root, folder))
    split = (seed, calibration)
    if not folder and os.path.isfile(root):
        return _check_copy(root, category, image_size, split)
    where, survey, pick_test = _survey(category, root, folder)
    samples = [*survey.files.train, *survey.files.test]
    images = _images(survey.files, split, pick_test)
    looked = _look(samples)
    faults = [line for fault in survey.faults for line in fault.lines()]
    faults += [line for inspected, _ in looked for line in inspected.faults]
    used = {path for sample in samples for path in (sample.path, sample.mask) if path}
    found = [
        f"Images in {one_line(where)}:",
        *_table(images, split),
        *_sizes([inspected.size for inspected, _ in looked if any(inspected.size)], image_size),
        *_left_out(where, used.union(*(fault.files for fault in survey.faults))),
        *_outside(where, used),
    ]
    warnings = _same_files(images, [digest for _, digest in looked])
    if not pick_test:  # own images have no masks
        warnings += _without_masks(images)
        warnings += _inverted(samples, [inspected.marked for inspected, _ in looked])
    return Report(images, found, warnings, list(dict.fromkeys(faults)))


def _check_copy(path: str, category: str, image_size: int, split: tuple[int, float]) -> Report:
    seed, calibration = split
    splits = pipeline.load(category, path, image_size, seed=seed, calibration=calibration)
    test = splits.test
    has_mask = [mask is not None for mask in test.masks]
    images = [Image(name, TRAINED, False) for name in splits.train.paths]
    images += [Image(name, HELD_OUT, False) for name in splits.calibration.paths]
    images += [_tested(*row) for row in zip(test.paths, test.defects, has_mask, strict=True)]
    sizes = np.concatenate([part.sizes for part in (splits.train, splits.calibration, test)])
    found = [f"Decoded images in {one_line(path)}:", *_table(images, split)]
    return Report(images, [*found, *_sizes(sizes.tolist(), image_size)], [], [])


def _survey(category: str, root: str, folder: str) -> tuple[Path, Survey, bool]:
    """The folder of the data set, what it holds, and whether test images are picked from it."""
    if not folder:
        return Path(root) / category, scan.survey_layout(root, category), False
    pipeline.require_product_name(category)
    found = scan.survey_folder(
        folder, images_of=lambda place, skip=(): scan.listing(place, skip=skip)[0]
    )
    return Path(folder), found, scan.has_bad(folder)


def _images(files: Files, split: tuple[int, float], pick_test: bool) -> list[Image]:
    """The images in the order of `files`."""
    seed, calibration = split
    parts = sampling.split(seed, len(files.train), calibration, pick_test=pick_test)
    uses = {
        int(index): use
        for use, indices in zip((TRAINED, HELD_OUT, GOOD), parts, strict=True)
        for index in indices
    }
    train = [Image(each.name, uses[index], False) for index, each in enumerate(files.train)]
    return train + [_tested(each.name, each.defect, bool(each.mask)) for each in files.test]


def _tested(name: str, defect: str, has_mask: bool) -> Image:
    return Image(name, GOOD if defect == "good" else DEFECTIVE, has_mask)


def _look(samples: Sequence[Sample]) -> list[tuple[Inspected, str]]:
    """What is in each file, and its SHA-256, or '' where it cannot be read."""

    def look(sample: Sample) -> tuple[Inspected, str]:
        found = inspect(sample.path, sample.mask, defective=sample.defect != "good")
        return found, sha256(sample.path) if any(found.size) else ""

    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        # The bar is drawn on a terminal alone.
        looked = pool.map(look, samples)
        return list(tqdm(looked, "checking", len(samples), leave=False, disable=None))


def _table(images: Sequence[Image], split: tuple[int, float]) -> Iterator[str]:
    """How the images of each folder are used; folders deeper than two are counted with theirs."""
    seed, calibration = split
    uses = {use: use for use in (TRAINED, HELD_OUT, GOOD, DEFECTIVE)}
    uses[HELD_OUT] += f" (calibration {calibration}, seed {seed})"

    def place(image: Image) -> str:
        return "/".join(PurePosixPath(image.name).parts[:-1][:2]) or "."

    for folder, inside in groupby(sorted(images, key=place), place):
        members = list(inside)
        counts = Counter(image.use for image in members)
        said = [f"{counts[use]} {name}" for use, name in uses.items() if counts[use]]
        if masks := sum(image.has_mask for image in members):
            said.append(f"{masks} masks")
        yield f"  {one_line(folder)}: {len(members)} images: {', '.join(said)}"


def _sizes(sizes: Sequence[tuple[int, int]], image_size: int) -> Iterator[str]:
    if sizes:
        heights, widths = zip(*sizes, strict=True)
        small, large = f"{min(widths)}x{min(heights)}", f"{max(widths)}x{max(heights)}"
        between = small if small == large else f"between {small} and {large}"
        yield f"Of {between} px, resized to {image_size}x{image_size} px for the network."


def _left_out(where: Path, used: Collection[Path]) -> Iterator[str]:
    """Files that training passes over; symlinked folders are one each, as are hidden ones."""
    kinds, folders = Counter[str](), {path.parent for path in used}
    for place, names, files in os.walk(where):
        here = Path(place)
        hidden = [name for name in names if name.startswith(".")]
        kinds["hidden"] += len(hidden)
        names[:] = [name for name in names if name not in hidden]
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
    return scan.kind(path)


def _outside(where: Path, used: Iterable[Path]) -> Iterator[str]:
    inside = os.path.join(os.path.realpath(where), "")
    if links := sorted(str(path) for path in used if not os.path.realpath(path).startswith(inside)):
        yield f"Followed {len(links)} symlinks that lead out of the folder: {_some(links)}."


def _same_files(images: Sequence[Image], digests: Sequence[str]) -> list[str]:
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


def _without_masks(images: Sequence[Image]) -> list[str]:
    lacking = [each.name for each in images if each.use == DEFECTIVE and not each.has_mask]
    if not lacking:
        return []
    return [
        f"{len(lacking)} defective images without a mask, so that there are no pixel metrics: "
        f"{_some(lacking)}"
    ]


def _inverted(samples: Sequence[Sample], shares: Sequence[float]) -> list[str]:
    return [
        f"{one_line(sample.mask)}: calls {100 * share:.0f} % of its image defective: is it "
        "inverted?"
        for sample, share in zip(samples, shares, strict=True)
        if share > 0.5
    ]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(map(one_line, names[:_NAMED]))}{more}"
