"""How well the marks of finished runs agree with the masks, beside thresholds on the map.

python -m benchmarks.marks W1 W2 ...

For each workdir, of the test images' pixels at the maps' size, all together: IoU and F1 of what is
marked by the number of false alarms, by the one threshold on the map (threshold.json's
`pixel_threshold`), and by the threshold on the map that the masks themselves would choose, which is
an upper bound; and the marked regions in a good test image. The calibration images alone set the
first two, as `--mode=evaluate` does. Settings are not to be chosen by this: it reads test labels.
"""

import argparse
import math
import tempfile
from collections.abc import Iterator

import numpy as np
from ml_collections import FrozenConfigDict
from scipy import ndimage

from commands import inputs
from commands.runs import restore_networks
from data import pipeline
from engine import startup
from engine.workdir import read_config, read_facts
from evaluation import threshold
from evaluation.false_alarms import calibrate_marks, log_nfa
from evaluation.maps import at_one_size
from evaluation.scoring import score_to_disk, scorer_of

_BATCH = 32


def judged(workdir: str, false_regions: float) -> Iterator[tuple[str, float, float, float]]:
    """(What marks, IoU, F1, regions in a good test image), and what was observed before."""
    config, facts = FrozenConfigDict(read_config(workdir)), read_facts(workdir)
    networks = restore_networks(config, facts, workdir)
    splits = inputs.read(config, facts)
    scorer = scorer_of(networks.method, networks.variables)
    with tempfile.TemporaryDirectory() as folder:
        normal, test = (
            score_to_disk(scorer, pipeline.eval_batches(part.images, _BATCH), _BATCH, folder)
            for part in (splits.calibration, splits.test)
        )
        rate = config.threshold.false_alarm_rate
        calibrated = threshold.calibrate(normal.image, normal.map, rate)
        marks = calibrate_marks(normal.map, false_regions, rate)
        pairs = [*zip(splits.test.masks, test.map, splits.test.labels, strict=True)]
    known = [(mask, values, label) for mask, values, label in pairs if mask is not None]
    side = known[0][1].shape[0]
    resized = [*at_one_size((m for m, _, _ in known), (v for _, v, _ in known), side)]
    masks = np.stack([mask for mask, _ in resized])
    maps = np.stack([values for _, values in resized])
    good = np.array([label for _, _, label in known]) == 0
    marked = np.stack([log_nfa(each[None], marks.background)[0] < marks.limit for each in maps])
    yield "number of false alarms", *agreement(marked, masks), regions(marked[good])
    single = maps > calibrated.pixel_threshold
    yield "one threshold", *agreement(single, masks), regions(single[good])
    best = maps > best_threshold(maps, masks)
    yield "the best threshold in hindsight", *agreement(best, masks), regions(best[good])
    how = "by place" if marks.background.usual else "all places alike"
    print(
        f"  {marks.observed:.2f} regions in a calibration image for {marks.expected:g} expected, "
        f"{how}{', so the conformal limit' if marks.conformal else ''}"
    )


def agreement(marked: np.ndarray, masks: np.ndarray) -> tuple[float, float]:
    """IoU and F1 of bool arrays."""
    both, either = int((marked & masks).sum()), int((marked | masks).sum())
    return both / max(either, 1), 2 * both / max(int(marked.sum()) + int(masks.sum()), 1)


def regions(marked: np.ndarray) -> float:
    """8-connected regions in an image, the mean over bool [N, H, W]."""
    counts = [ndimage.label(each, np.ones((3, 3)))[1] for each in marked]
    return float(np.mean(counts)) if counts else math.nan


def best_threshold(maps: np.ndarray, masks: np.ndarray) -> float:
    """Of float maps, where the IoU with the masks is the largest."""
    order = np.argsort(maps, axis=None)[::-1]
    hits = np.cumsum(masks.ravel()[order])
    iou = hits / (np.arange(1, order.size + 1) + masks.sum() - hits)
    place = int(iou.argmax())
    return float(np.nextafter(maps.ravel()[order[place]], np.float32(-np.inf)))


def main() -> None:
    """Prints a table a run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdirs", nargs="+")
    parser.add_argument("--false_regions", type=float, default=0.05, help="in a good image")
    arguments = parser.parse_args()
    startup.prepare()
    for workdir in arguments.workdirs:
        print(workdir, flush=True)
        for name, iou, f1, false in judged(workdir, arguments.false_regions):
            print(f"  {name:32s} IoU {iou:.3f}  F1 {f1:.3f}  {false:.2f} regions", flush=True)


if __name__ == "__main__":
    main()
