"""A few defective images that a run may learn from: which they are, and that none is tested with.

They come out of the test set, chosen by seed, or from a folder of their own.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.decoded import Images
from data.images import KINDS
from data.scan import Sample, list_folder
from storage.files import some_of

_LABELLED = 6  # a random stream of the seed beside those of data/sampling.py


class Asked(NamedTuple):
    """What `data.labelled` and `data.labelled_kind` ask for."""

    number: int = 0  # of test images; 0 where there are none, or a folder
    folder: str = ""  # of defective photos
    kind: str = ""  # of which all are; '': spread over all kinds

    def __bool__(self) -> bool:
        """Whether any are asked for."""
        return bool(self.number or self.folder)


def asked(labelled: str, kind: str = "") -> Asked:
    """What the two fields of a config ask for: `labelled` is a number, a folder, or '' for none.

    Raises:
      ValueError: a kind is named where no test image is taken.
    """
    text = labelled.strip()
    number, folder = (int(text), "") if text.isdecimal() else (0, os.path.expanduser(text))
    if kind and not number:
        raise ValueError(
            f"data.labelled_kind={kind!r} is not used where no test images are labelled: set "
            "data.labelled to a number, or leave the kind out"
        )
    return Asked(number, folder, kind)


def choose_labelled(
    seed: int, paths: Sequence[str], defects: Sequence[str], number: int, kind: str = ""
) -> list[str]:
    """The names of `number` defective images, sorted; at most half of each kind.

    Kinds take turns, in an order that the seed draws, so that each has as many as the others as
    long as it can ('general' setting); with `kind` all are of it ('hard'). Fewer are a part of
    more, with one seed.

    Args:
      seed: of the choice; the order of the images changes nothing.
      paths: names of the test images.
      defects: their kinds, 'good' among them.
      number: how many.
      kind: one of the kinds, or ''.

    Raises:
      ValueError: there is no such kind, or more than half of a kind would be taken.
    """
    by_kind = defaultdict(list)
    for path, defect in sorted(zip(paths, defects, strict=True)):
        if defect != "good":
            by_kind[defect].append(path)
    if kind and kind not in by_kind:
        kinds = ", ".join(sorted(by_kind)) or "none"
        raise ValueError(
            f"data.labelled_kind={kind!r} is no kind of defect of the test set: choose one of "
            f"{kinds}"
        )
    rng = np.random.default_rng((seed, _LABELLED))
    shuffled = {name: [str(each) for each in rng.permutation(by_kind[name])] for name in by_kind}
    order = [kind] if kind else [str(name) for name in rng.permutation(sorted(shuffled))]
    halves = {name: shuffled[name][: len(shuffled[name]) // 2] for name in order}
    if number > (most := sum(map(len, halves.values()))):
        raise ValueError(_too_many(number, most, {name: len(by_kind[name]) for name in order}))
    turns = [
        (turn, place, path)
        for place, name in enumerate(order)
        for turn, path in enumerate(halves[name])
    ]
    return sorted(path for _, _, path in sorted(turns)[:number])


def _too_many(number: int, most: int, counts: Mapping[str, int]) -> str:
    listed = some_of([f"{name} ({count})" for name, count in sorted(counts.items())]) or "none"
    way_out = (
        f"choose {most} at most"
        if most
        else "a kind needs 2 images at least, one to be tested with; photograph more, or leave "
        "data.labelled empty"
    )
    return (
        f"data.labelled={number} is more than half of the defective test images of a kind, and the "
        f"rest is to be tested with: {listed}; {way_out}"
    )


def samples_of(folder: str) -> list[Sample]:
    """The photos of defective parts in a folder; the folder right in it is the kind of defect.

    Raises:
      ValueError: there is none, or no such folder.
      OSError: a folder cannot be listed.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(
            f"data.labelled={folder!r} is neither a number nor a folder: name how many defective "
            "test images are labelled, such as 10, or a folder of photos of defective parts"
        )
    listing = list_folder(root)
    if not listing.images:
        raise ValueError(f"data.labelled: {folder} holds no {KINDS} file: put defective photos in")
    samples = []
    for path in listing.images:
        name = path.relative_to(root)
        kind = name.parts[0] if len(name.parts) > 1 else root.name
        samples.append(Sample(path, name.as_posix(), kind, listing.masks.get(path)))
    return sorted(samples, key=lambda sample: sample.name)


def require_apart(labelled: Images, others: Iterable[Images]) -> None:
    """Raises ValueError where a labelled image is, pixel for pixel, one of the `others`.

    It would be learnt as defective and called good, or be tested with.
    """
    names = {
        image.tobytes(): path for image, path in zip(labelled.images, labelled.paths, strict=True)
    }
    same = [
        f"{names[content]} and {path}"
        for part in others
        for image, path in zip(part.images, part.paths, strict=True)
        if (content := image.tobytes()) in names
    ]
    if same:
        raise ValueError(
            f"{len(same)} labelled images are also trained on as good ones or tested with: "
            f"{some_of(same)}; remove one of the two files"
        )


def kinds_of(labelled: Images | None) -> dict[str, int]:
    """How many there are of each kind, by name."""
    return dict(sorted(Counter(labelled.defects).items())) if labelled else {}
