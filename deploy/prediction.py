"""Decides on new images with a threshold, and writes what came out as it goes, image by image.

    output/predictions.csv, predictions.jsonl    a row per image, also of one that cannot be read;
                                                 the former in UTF-8 with a byte order mark
           heat_maps/, overlays/, masks/         <row>_<name>.png of each, as in column `pictures`

Memory does not grow with the number of images: rows are written and forgotten.
"""

import codecs
import csv
import io
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from PIL import Image
from tqdm import tqdm

from data.photos import Photo
from engine.log import bar_stream
from engine.method import Score
from evaluation.drift import Watch, observe, start_watch
from evaluation.false_alarms import log_nfa
from evaluation.maps import Region, largest_region, resize_map
from evaluation.quality import Quality, quality_of
from evaluation.threshold import Threshold, p_values
from report import heat
from storage import files
from storage.files import as_text
from storage.outputs import PREDICTIONS

PICTURES = ("heat_maps", "overlays", "masks")
REGION = tuple(f"region_{name}" for name in Region._fields)
ROW_COLUMNS = (
    *("path", "decision", "score", "threshold", "p_value", *REGION),
    *("region_log10_nfa", *Quality._fields, "pictures", "reason"),
)
DECISIONS = GOOD, DEFECTIVE, UNREADABLE = "good", "defective", "unreadable"
# By the byte order mark a spreadsheet knows that umlauts are UTF-8.
_HEADER = codecs.BOM_UTF8 + ",".join(ROW_COLUMNS).encode() + b"\n"
_log_nfa = jax.jit(log_nfa, static_argnames="background")
_SILENCE = 10  # seconds between two lines of the log, where there is no progress bar


class Prediction(NamedTuple):
    """What is said of one image; of an unreadable one, there is a reason and no number.

    Of a readable one the reason says what is odd about it, if anything: the decision may depend on
    that.
    """

    path: str
    decision: str  # 'good', 'defective' or 'unreadable'
    threshold: float  # defective: a higher score
    score: float | None = None  # in the method's own units
    p_value: float | None = None  # how probably a good image scores as high
    region: Region | None = None  # the largest marked one, in pixels as a person sees the image
    map: np.ndarray | None = None  # float32 [S, S]
    log10_nfa: float | None = None  # of the region: how many are expected so unusual by chance
    marked: np.ndarray | None = None  # bool, as large as the file; with `map`
    quality: Quality | None = None  # of the photo, where it is readable and no window of a clip
    reason: str = ""


def decide_on(
    scorer: Callable[[np.ndarray], Score],
    photos: Sequence[Photo],
    threshold: Threshold,
    batch_size: int,
) -> list[Prediction]:
    """Decides on `photos`, at most `batch_size` of them, which are scored as one padded batch.

    Args:
      scorer: of pixels, uint8 [batch_size, S, S, 3].
      photos: in any order; a prediction does not depend on the others.
      threshold: of the same networks.
      batch_size: of the one shape that the scorer is compiled for.
    """
    readable = [photo.pixels for photo in photos if photo.pixels is not None]
    scores: Any = iter(())
    if readable:
        padding = [(0, batch_size - len(readable)), (0, 0), (0, 0), (0, 0)]
        score = scorer(np.pad(np.stack(readable), padding))
        marks = threshold.marks
        # By XLA and for all at once: NumPy takes ten times as long as most networks do.
        nfa = marks and _log_nfa(jnp.asarray(score.map), background=marks.background)
        image, maps, nfa = jax.device_get((score.image, score.map, nfa))
        scores = zip(image, maps, itertools.repeat(None) if nfa is None else nfa, strict=False)
    return [
        Prediction(photo.path, UNREADABLE, threshold.threshold, reason=photo.reason)
        if photo.pixels is None
        else _decide(photo, threshold, *next(scores))
        for photo in photos
    ]


def _decide(
    photo: Photo, threshold: Threshold, score: Any, values: np.ndarray, small_nfa: np.ndarray | None
) -> Prediction:
    if not (np.isfinite(score) and np.isfinite(values).all()):
        reason = "the networks give no finite score"
        return Prediction(photo.path, UNREADABLE, threshold.threshold, reason=reason)
    score = float(score)  # the threshold has more digits than float32 holds
    mask, nfa = _marked(values, small_nfa, photo.size, threshold)
    assert photo.pixels is not None and photo.shown is not None
    region = largest_region(mask)
    return Prediction(
        photo.path,
        DEFECTIVE if score > threshold.threshold else GOOD,
        threshold.threshold,
        score=score,
        p_value=float(p_values(threshold, score)),
        region=region,
        map=values,
        log10_nfa=None if region is None or nfa is None else _least(nfa, region),
        marked=mask,
        quality=quality_of(photo.shown if photo.of_clip else photo.pixels),
        reason=photo.reason,
    )


def _marked(
    values: np.ndarray, small_nfa: np.ndarray | None, size: tuple[int, int], threshold: Threshold
) -> tuple[np.ndarray, np.ndarray | None]:
    """Which pixels of an image of `size` are marked, and their log10 NFA where that decides."""
    if threshold.marks is None or small_nfa is None:
        return resize_map(values, size) > threshold.pixel_threshold, None
    nfa = resize_map(small_nfa, size)
    return nfa < threshold.marks.limit, nfa


def _least(nfa: np.ndarray, region: Region) -> float:
    rows = slice(region.top, region.top + region.height)
    return float(nfa[rows, region.left : region.left + region.width].min())


def predict_all(
    scorer: Callable[[np.ndarray], Score],
    batches: Iterable[Sequence[Photo]],
    threshold: Threshold,
    output: str,
    *,
    batch_size: int,
    done: int,
    total: int,
) -> tuple[Counter, Watch]:
    """Decides on every image and writes rows and pictures into the folder `output`.

    One bad image costs its own row: it is listed with the reason, and the next is scored.

    Args:
      scorer: as for `decide_on`.
      batches: of at most `batch_size` photos each, from the one on that row `done` is about.
      threshold: of the same networks.
      output: made if need be.
      batch_size: as for `decide_on`.
      done: as many rows of an interrupted run stay, as `rows_done` gives them.
      total: number of all photos, for the progress bar.

    Returns:
      How often each decision was made, and what the watch has seen; both of the rows that stay too.

    Raises:
      OSError: `output` cannot be written; rows that were written stay.
    """
    for name in PICTURES:
        os.makedirs(os.path.join(output, name), exist_ok=True)
    counts, watch = _keep(output, done, threshold)
    table_path, lines_path = (os.path.join(output, name) for name in PREDICTIONS)
    stream = bar_stream()
    bar = tqdm(total=total, initial=done, unit=" images", disable=not stream, file=stream)
    with open(table_path, "ab") as table, open(lines_path, "ab") as lines, bar:
        for photos in batches:
            made = decide_on(scorer, photos, threshold, batch_size)
            for photo, prediction in zip(photos, made, strict=True):
                name = _picture_name(counts.total(), photo.path)
                row = row_of(prediction, name)
                watch = watch_row(watch, row)
                table.write(_csv(row.values()))
                lines.write(_json(row))
                if prediction.map is not None and prediction.marked is not None:
                    both = prediction.map, prediction.marked
                    _write_pictures(output, name, photo, *both, threshold)
                counts[prediction.decision] += 1
            table.flush()
            lines.flush()
            bar.update(len(photos))
            if bar.disable:
                values = (counts.total(), total, counts[DEFECTIVE], counts[UNREADABLE])
                text = "%d of %d images: %d defective, %d unreadable"
                logging.log_every_n_seconds(logging.INFO, text, _SILENCE, *values)
    return counts, watch


def watch_row(watch: Watch, row: Mapping[str, Any]) -> Watch:
    """The watch after the part that a row is of.

    Of one that is unreadable nothing is known; frames of clips, as like as neighbours are, are not
    watched.
    """
    if row["decision"] == UNREADABLE or row[Quality._fields[0]] is None:
        return watch._replace(parts=watch.parts + 1)
    quality = Quality(*(row[name] for name in Quality._fields))
    return observe(watch, row["score"], quality, defective=row["decision"] == DEFECTIVE)


def rows_done(output: str, paths: Sequence[str], threshold: Threshold, batch_size: int) -> int:
    """How many rows an interrupted run has left in `output` of these very paths: whole batches.

    Raises:
      FileExistsError: `output` holds predictions for all of them, or other ones, which would be
        mixed with these.
    """
    table_path, lines_path = (os.path.join(output, name) for name in PREDICTIONS)
    there = [path for path in (table_path, lines_path) if os.path.lexists(path)]
    if not there:
        return 0
    same = _begins(lines_path, b'{"path": ') and _begins(table_path, _HEADER)
    count = 0
    for row in _rows(lines_path) if same else ():
        wanted = (paths[count], threshold.threshold) if count < len(paths) else None
        same = (row["path"], row["threshold"]) == wanted
        if not same:
            break
        count += 1
    if not same or count == len(paths):
        raise FileExistsError(f"{there[0]} exists: choose another --output, or remove it")
    return count // batch_size * batch_size


def _begins(path: str, start: bytes) -> bool:
    """Whether a file is there and begins so, as far as it goes."""
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return start.startswith(file.read(len(start)))


def rows_of(output: str) -> list[dict[str, Any]]:
    """All whole rows that `predict_all` has left in `output`."""
    return [*_rows(os.path.join(output, PREDICTIONS[1]))]


def _rows(path: str) -> Iterator[dict[str, Any]]:
    """The whole rows of predictions.jsonl: the last may be cut off."""
    with open(path, "rb") as lines:
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                return
            if not line.endswith(b"\n") or list(row) != list(ROW_COLUMNS):
                return
            yield row


def _keep(output: str, count: int, threshold: Threshold) -> tuple[Counter, Watch]:
    """Leaves the first `count` rows alone, and says what `predict_all` returns of them."""
    table_path, lines_path = (os.path.join(output, name) for name in PREDICTIONS)
    counts: Counter = Counter()
    watch = start_watch(threshold)
    kept = itertools.islice(_rows(lines_path), count) if count else ()
    with files.whole(table_path) as table, files.whole(lines_path) as lines:
        table.write(_HEADER)
        for row in kept:
            counts[row["decision"]] += 1
            watch = watch_row(watch, row)
            table.write(_csv(row.values()))
            lines.write(_json(row))
    return counts, watch


def row_of(prediction: Prediction, pictures: str) -> dict[str, Any]:
    """What is written of one image, with the columns of `ROW_COLUMNS`, as JSON has it."""
    region = prediction.region or [None] * len(Region._fields)
    return {
        "path": prediction.path,
        "decision": prediction.decision,
        "score": prediction.score,
        "threshold": prediction.threshold,
        "p_value": prediction.p_value,
        **dict(zip(REGION, region, strict=True)),
        "region_log10_nfa": prediction.log10_nfa,
        **dict(zip(Quality._fields, prediction.quality or [None] * 3, strict=True)),
        "pictures": None if prediction.map is None else pictures,
        "reason": prediction.reason or None,
    }


def _json(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, allow_nan=False).encode() + b"\n"


def _csv(values: Iterable[Any]) -> bytes:
    """A line. Bytes of file names that are no UTF-8 are written as they were."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(map(_cell, values))
    return text.getvalue().encode("utf-8", "surrogateescape")


def _cell(value: Any) -> Any:
    """A float so that reading it gives the same bits, a name so that no spreadsheet runs it."""
    if value is None:
        return ""
    return as_text(value) if isinstance(value, str) else repr(value)


def _picture_name(row: int, path: str) -> str:
    """A file name that no other row has, with A-Z, a-z, 0-9, _ and - of the path's last part."""
    stem = os.path.splitext(os.path.basename(path))[0]
    return f"{row:06d}_{re.sub('[^A-Za-z0-9_-]', '_', stem)[:64]}"


def _write_pictures(
    output: str,
    name: str,
    photo: Photo,
    values: np.ndarray,
    marked: np.ndarray,
    threshold: Threshold,
) -> None:
    """Map and overlay as large as the image is shown, and the mask as large as the file."""
    shown = np.asarray(photo.shown)
    large = resize_map(values, shown.shape[:2])
    pictures = [
        heat.coloured(large, threshold.map_max),
        heat.overlay(shown, large, threshold.map_max, marked),
        marked,
    ]
    for folder, picture in zip(PICTURES, pictures, strict=True):
        Image.fromarray(picture).save(os.path.join(output, folder, f"{name}.png"), compress_level=1)
