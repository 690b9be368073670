"""The test images on the page: the worst mistakes, and all of them by score, with a filter.

`N` images of `H` x `W` pixels. Scores and anomaly maps are floats, higher = more anomalous; an
image is called defective where its score is above the threshold. templates/gallery.html shows it.
"""

import io
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from evaluation import threshold
from evaluation.false_alarms import marked_pixels
from evaluation.maps import resize_map
from evaluation.results import Scored
from evaluation.threshold import Threshold
from report import heat, page

WORST = 6
LARGE, SMALL = 256, 96  # the longest sides of a picture and of a thumbnail, pixels


class _Kind(NamedTuple):
    """A way to be wrong."""

    title: str
    name: str  # of the images
    label: int
    extreme: str  # of the scores, where it is worst
    side: str  # of the threshold


_ALARMS = _Kind("Worst false alarms", "good", 0, "highest", "above")
_MISSES = _Kind("Worst misses", "defective", 1, "lowest", "at or below")


class Picture(NamedTuple):
    """An image that is part of the page."""

    address: str  # holds the file itself
    width: int
    height: int


class Mistake(NamedTuple):
    """An image about which the threshold is wrong."""

    pictures: Mapping[str, Picture]  # by what they show
    score: str
    type: str
    path: str


class Mistakes(NamedTuple):
    """The worst of one kind, or why there are none."""

    title: str
    about: str
    images: Sequence[Mistake] = ()


class Scale(NamedTuple):
    """The colours of the maps, and the value at their top."""

    picture: Picture
    top: str


class Thumbnail(NamedTuple):
    """An image and its overlay, side by side."""

    picture: Picture
    place: int  # of its type among the choices
    wrong: str  # 'false alarm', 'missed' or ''
    score: str
    type: str
    name: str
    path: str


class Choice(NamedTuple):
    """What the filter can show, and how many that are."""

    value: str
    name: str
    number: int


class Thumbnails(NamedTuple):
    """All images by score, with the threshold between them."""

    title: str
    about: str
    choices: Sequence[Choice]
    above: Sequence[Thumbnail]
    below: Sequence[Thumbnail]
    threshold: str


class Order(NamedTuple):
    """Places in the test set."""

    ranked: np.ndarray  # int [N], highest score first; of equal scores the first in the test set
    above: int  # so many of them are called defective
    alarms: np.ndarray  # int: good and called defective, highest score first
    misses: np.ndarray  # int: defective and not called so, lowest score first


def order(scored: Scored, threshold: float) -> Order:
    """The images by score, and those about which the threshold is wrong."""
    scores = np.asarray(scored.scores, np.float64)
    defective = np.asarray(scored.labels) == 1
    called = scores > threshold
    ranked = np.argsort(-scores, kind="stable")
    lowest = np.argsort(scores, kind="stable")
    return Order(
        ranked=ranked,
        above=int(called.sum()),
        alarms=ranked[(called & ~defective)[ranked]],
        misses=lowest[(~called & defective)[lowest]],
    )


def mistakes(scored: Scored, threshold: Threshold) -> list[Mistakes]:
    """The worst false alarms and the worst misses, each with its maps, or why there are none."""
    places = order(scored, threshold.threshold)
    return [
        _worst(_ALARMS, scored, places.alarms, threshold),
        _worst(_MISSES, scored, places.misses, threshold),
    ]


def _worst(kind: _Kind, scored: Scored, places: np.ndarray, threshold: Threshold) -> Mistakes:
    if not (np.asarray(scored.labels) == kind.label).any():
        return Mistakes(kind.title, f"There are no {kind.name} test images.")
    scores = f"{kind.name} test image{{}} {{}} a score {kind.side} the threshold"
    if not places.size:
        return Mistakes(kind.title, f"None: no {scores.format('', 'has')}.")
    some = f"the {WORST} {kind.extreme} of {places.size}" if places.size > WORST else "all"
    about = f"{scores.format('s', 'with').capitalize()}: {some}, {kind.extreme} score first."
    if threshold.marks:
        about += " Outlined: what is marked."
    return Mistakes(kind.title, about, [_large(scored, int(i), threshold) for i in places[:WORST]])


def _large(scored: Scored, i: int, threshold: Threshold) -> Mistake:
    map_max, marks = threshold.map_max, threshold.marks
    image = _shrunk(Image.fromarray(scored.images[i]), LARGE)
    anomaly = resize_map(scored.maps[i], (image.height, image.width))
    marked = marks and marked_pixels(scored.maps[i], marks, scored.images[i].shape[:2])
    overlay = heat.overlay(np.asarray(image), anomaly, map_max, marked)
    pictures = {
        "image": image,
        "what no good image had": Image.fromarray(overlay),
        "anomaly map": Image.fromarray(heat.coloured(anomaly, map_max)),
    }
    mask = scored.masks[i]
    if mask is not None and mask.any():
        pictures["true mask"] = Image.fromarray(mask).resize(image.size).convert("RGB")
    return Mistake(
        {name: _embedded(picture) for name, picture in pictures.items()},
        f"{scored.scores[i]:.4g}",
        _type(scored, i),
        scored.paths[i],
    )


def colour_scale(map_max: float) -> Scale:
    """The colours of the maps, with a white line where good images end."""
    ramp = heat.coloured(np.linspace(0, map_max, LARGE)[None], map_max)
    line = LARGE / threshold.SCALE
    ramp[:, int(line) : int(line) + 2] = 255
    return Scale(_embedded(Image.fromarray(ramp)), f"{map_max:.3g}")


def thumbnails(scored: Scored, threshold: Threshold, title: str, about: str) -> Thumbnails:
    """All images by score, the threshold as a line between them, and a filter by type."""
    places = order(scored, threshold.threshold)
    types = [_type(scored, i) for i in range(len(scored.paths))]
    names = sorted(set(types), key=lambda name: (name != "good", name))
    wrong = dict.fromkeys(places.alarms.tolist(), "false alarm")
    wrong |= dict.fromkeys(places.misses.tolist(), "missed")
    images = [
        _thumbnail(scored, i, names.index(types[i]), wrong.get(i, ""), threshold.map_max)
        for i in places.ranked.tolist()
    ]
    return Thumbnails(
        title,
        about,
        choices=[
            Choice("all", "all", len(types)),
            Choice("wrong", "wrong decisions", len(wrong)),
            *(Choice(str(i), name, types.count(name)) for i, name in enumerate(names)),
        ],
        above=images[: places.above],
        below=images[places.above :],
        threshold=f"{threshold.threshold:.6g}",
    )


def _thumbnail(scored: Scored, i: int, place: int, wrong: str, map_max: float) -> Thumbnail:
    """An image and its overlay side by side, which print shows as well."""
    image = scored.images[i]
    marked = heat.overlay(image, resize_map(scored.maps[i], image.shape[:2]), map_max)
    left, right = (_shrunk(Image.fromarray(picture), SMALL) for picture in (image, marked))
    both = Image.fromarray(np.concatenate([np.asarray(left), np.asarray(right)], axis=1))
    return Thumbnail(
        _embedded(both),
        place,
        wrong,
        f"{scored.scores[i]:.4g}",
        _type(scored, i),
        scored.paths[i].replace(os.sep, "/").rsplit("/", 1)[-1],
        scored.paths[i],
    )


def _type(scored: Scored, i: int) -> str:
    return scored.defects[i] if scored.labels[i] == 1 else "good"


def _shrunk(picture: Image.Image, side: int) -> Image.Image:
    """The picture at no more than `side` pixels; a smaller one as it is."""
    picture = picture.copy()
    picture.thumbnail((side, side))
    return picture


def _embedded(picture: Image.Image) -> Picture:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80, optimize=True)
    return Picture(page.data_uri(file.getvalue(), "jpeg"), picture.width, picture.height)
