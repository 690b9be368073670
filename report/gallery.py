"""The test images on the page: the worst mistakes, and all of them by score, with a filter.

`N` images of `H` x `W` pixels. Scores and anomaly maps are floats, higher = more anomalous; an
image is called defective where its score is above the threshold. All is HTML, pictures included.
"""

import io
import os
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from PIL import Image

from evaluation import threshold
from evaluation.maps import resize
from evaluation.results import Scored
from evaluation.threshold import Threshold
from report import heat, page

WORST = 6
LARGE, SMALL = 256, 96  # the longest sides of a picture and of a thumbnail, pixels
STYLE = """
.worst { border-top: 1px solid #e4e4e4; padding-top: .8em }
.worst div { display: flex; flex-wrap: wrap; gap: .8em }
.worst span { font-size: 13px; color: #555 }
.worst img { width: 210px; height: auto; margin: 0; border: 1px solid #ddd }
.worst figcaption, #gallery figcaption { overflow-wrap: anywhere }
.scale { max-width: none; display: flex; gap: .6em; font-size: 13px; color: #555;
 align-items: center }
.scale img { width: 200px; height: 12px; margin: 0 }
#filter { position: sticky; top: 0; background: #fff; padding: .6em 0; z-index: 1 }
#filter[hidden], #gallery [hidden] { display: none }
#filter label { margin-right: 1.2em; white-space: nowrap }
#gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); gap: 10px }
#gallery figure { margin: 0; padding: 4px; border: 2px solid #ddd }
#gallery figure[data-wrong] { border-color: #D55E00; background: #fdf1e9 }
#gallery img { width: 100%; height: auto; margin: 0 }
#gallery b, .worst b { color: #222 } #gallery strong, .worst strong { color: #a84300 }
#limit { grid-column: 1 / -1; max-width: none; margin: .6em 0; padding: .3em .6em;
 border-top: 3px solid #222; background: #eee; font-weight: bold }
figure { break-inside: avoid }
@media print { #filter { display: none } }
"""
# Shows the figures of one type: `#type=2` after the page's address chooses it as well.
SCRIPT = """
const filter = document.getElementById("filter");
function show() {
  const wanted = location.hash.slice("#type=".length);
  if (wanted) filter.elements.type.value = wanted;
  const chosen = filter.elements.type.value;
  for (const figure of document.querySelectorAll("#gallery figure"))
    figure.hidden = !["all", figure.dataset.type, figure.dataset.wrong].includes(chosen);
}
filter.addEventListener("change", () => location.replace("#type=" + filter.elements.type.value));
addEventListener("hashchange", show);
filter.hidden = false;
show();
"""


class Order(NamedTuple):
    """Places in the test set."""

    ranked: np.ndarray  # int [N], highest score first; of equal scores the first in the test set
    above: int  # so many of them are called defective
    alarms: np.ndarray  # int: good and called defective, highest score first
    misses: np.ndarray  # int: defective and not called so, lowest score first


def order(scored: Scored, threshold: float) -> Order:
    """The images by score, and those about which the threshold is wrong."""
    scores, defective = np.asarray(scored.scores, np.float64), np.asarray(scored.labels) == 1
    called = scores > threshold
    ranked = np.argsort(-scores, kind="stable")
    lowest = np.argsort(scores, kind="stable")
    return Order(
        ranked=ranked,
        above=int(called.sum()),
        alarms=ranked[(called & ~defective)[ranked]],
        misses=lowest[(~called & defective)[lowest]],
    )


def mistakes(scored: Scored, threshold: Threshold) -> list[str]:
    """The worst false alarms and the worst misses, each with its maps, or why there are none."""
    found, good = order(scored, threshold.threshold), np.asarray(scored.labels) == 0
    kinds = (
        ("Worst false alarms", "good", good.any(), found.alarms, "highest", "above"),
        ("Worst misses", "defective", (~good).any(), found.misses, "lowest", "at or below"),
    )
    parts = []
    for title, kind, any_of_kind, places, extreme, side in kinds:
        parts.append(f"<h2>{title}</h2>")
        if not any_of_kind:
            parts.append(f"<p>There are no {kind} test images.</p>")
        elif not places.size:
            parts.append(f"<p>None: no {kind} test image has a score {side} the threshold.</p>")
        else:
            count = f"the {WORST} {extreme} of {places.size}" if places.size > WORST else "all"
            about = f"{kind.capitalize()} test images with a score {side} the threshold: {count}, "
            parts.append(f"<p>{about}{extreme} score first.</p>")
            parts.append(_scale(threshold.map_max))
            parts.extend(_large(scored, int(i), threshold.map_max) for i in places[:WORST])
    return parts


def _large(scored: Scored, i: int, map_max: float) -> str:
    image = _shrunk(Image.fromarray(scored.images[i]), LARGE)
    anomaly = resize(scored.maps[i], (image.height, image.width))
    pictures = {
        "image": image,
        "what no good image had": Image.fromarray(
            heat.overlay(np.asarray(image), anomaly, map_max)
        ),
        "anomaly map": Image.fromarray(heat.coloured(anomaly, map_max)),
    }
    mask = scored.masks[i]
    if mask is not None and mask.any():
        pictures["true mask"] = Image.fromarray(mask).resize(image.size).convert("RGB")
    shown = "".join(
        f"<span>{name}<img {_source(picture)}></span>" for name, picture in pictures.items()
    )
    caption = f"<b>score {scored.scores[i]:.4g}</b> &ensp; {page.escape(_type(scored, i))} &ensp; "
    path = page.escape(scored.paths[i])
    return (
        f'<figure class="worst"><div>{shown}</div><figcaption>{caption}{path}</figcaption></figure>'
    )


def _scale(map_max: float) -> str:
    """The colours of the maps and what they mean."""
    ramp = heat.coloured(np.linspace(0, map_max, LARGE)[None], map_max)
    line = LARGE / threshold.SCALE
    ramp[:, int(line) : int(line) + 2] = 255
    return (
        f'<p class="scale">0 <img {_source(Image.fromarray(ramp))}> {map_max:.3g} '
        "&ensp; the line: the highest value that a held-out good image had</p>"
    )


def thumbnails(scored: Scored, threshold: Threshold, title: str, about: str) -> list[str]:
    """All images by score, the threshold as a line between them, and a filter by type."""
    found = order(scored, threshold.threshold)
    types = [_type(scored, i) for i in range(len(scored.paths))]
    names = sorted(set(types), key=lambda name: (name != "good", name))
    wrong = dict.fromkeys(found.alarms.tolist(), "false alarm")
    wrong |= dict.fromkeys(found.misses.tolist(), "missed")
    figures = [
        _thumbnail(scored, i, names.index(types[i]), wrong.get(i, ""), threshold.map_max)
        for i in found.ranked.tolist()
    ]
    line = f"threshold {threshold.threshold:.6g}: above are called defective"
    figures.insert(found.above, f'<p id="limit">{line}</p>')
    counts = {"all": ("all", len(types)), "wrong": ("wrong decisions", len(wrong))}
    counts |= {str(index): (name, types.count(name)) for index, name in enumerate(names)}
    return [
        f"<h2>{page.escape(title)}</h2><p>{page.escape(about)}</p>",
        _filter(counts),
        '<div id="gallery">',
        *figures,
        "</div>",
    ]


def _filter(counts: Mapping[str, tuple[str, int]]) -> str:
    """Radio buttons by value, with what they show and how many; without a script, nothing."""
    buttons = "\n".join(
        f'<label><input type="radio" name="type" value="{value}"{" checked" * (value == "all")}> '
        f"{page.escape(name)} ({count})</label>"
        for value, (name, count) in counts.items()
    )
    return f'<form id="filter" autocomplete="off" hidden>{buttons}</form>'


def _thumbnail(scored: Scored, i: int, index: int, wrong: str, map_max: float) -> str:
    """An image and its overlay side by side, which print shows as well."""
    image = scored.images[i]
    marked = heat.overlay(image, resize(scored.maps[i], image.shape[:2]), map_max)
    left, right = (_shrunk(Image.fromarray(picture), SMALL) for picture in (image, marked))
    both = Image.fromarray(np.concatenate([np.asarray(left), np.asarray(right)], axis=1))
    name = page.escape(scored.paths[i].replace(os.sep, "/").rsplit("/", 1)[-1])
    decision = f" <strong>{wrong}</strong>" if wrong else ""
    mark = ' data-wrong="wrong"' if wrong else ""
    return (
        f'<figure data-type="{index}"{mark} title="{page.escape(scored.paths[i])}">'
        f"<img {_source(both)}><figcaption><b>{scored.scores[i]:.4g}</b>{decision}<br>"
        f"{page.escape(_type(scored, i))}<br>{name}</figcaption></figure>"
    )


def _type(scored: Scored, i: int) -> str:
    return scored.defects[i] if scored.labels[i] == 1 else "good"


def _shrunk(picture: Image.Image, side: int) -> Image.Image:
    """The picture at no more than `side` pixels; a smaller one as it is."""
    picture = picture.copy()
    picture.thumbnail((side, side))
    return picture


def _source(picture: Image.Image) -> str:
    """The attributes of an <img>."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80, optimize=True)
    size = f'width="{picture.width}" height="{picture.height}"'
    return f'src="{page.data_uri(file.getvalue(), "jpeg")}" {size} alt="" decoding="async"'
