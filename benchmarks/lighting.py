"""What other light does to finished runs: image AUROC and false alarms on the test images.

python -m benchmarks.lighting W1 W2 ... [--json=FILE]

All test images of each run as they are, 10 % brighter, 10 % darker, and unevenly lit (10 % darker
on the left to 10 % brighter on the right); cut off at white and rounded, as a camera does. The
threshold is the run's own, for the false-alarm rate of its config. Last, good parts that are 30 %
too dark as a whole count as defects: what a correction of brightness hides. Settings may not be
chosen by it: these are test images.
"""

import argparse
import json
from collections.abc import Callable, Mapping

import numpy as np
from ml_collections import FrozenConfigDict
from sklearn import metrics

from commands import inputs
from commands.detector import Detector, restore_detector
from data.decoded import Images
from engine import startup
from evaluation import scoring

_BATCH = 32
_TOO_DARK = 0.7


def gained(gain: float | np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A function that multiplies uint8 [B, H, W, C] by gains, numbers or [W]."""
    by = np.asarray(gain, np.float64).reshape(1, 1, -1, 1)

    def apply(images: np.ndarray) -> np.ndarray:
        return np.rint(np.clip(images * by, 0, 255)).astype(np.uint8)

    return apply


def scores(detector: Detector, images: Images, light: Callable) -> np.ndarray:
    """The image scores under a light: [N]."""
    starts = range(0, len(images.images), _BATCH)
    batches = (light(np.asarray(images.images[start : start + _BATCH])) for start in starts)
    return np.concatenate(
        [score.image for score in scoring.scores(detector.scorer(), batches, _BATCH)]
    )


def under_lights(workdir: str) -> Mapping[str, Mapping[str, float]]:
    """Light -> image AUROC, share of good images called defective, of defective ones missed."""
    detector = restore_detector(workdir)
    test = inputs.load(FrozenConfigDict(detector.config), detector.facts).test
    width, limit = detector.config.data.image_size, detector.threshold.threshold
    lights = {
        "as they are": gained(1.0),
        "10 % brighter": gained(1.1),
        "10 % darker": gained(0.9),
        "uneven": gained(np.linspace(0.9, 1.1, width)),
    }
    rows = {}
    for name, light in lights.items():
        found, defective = scores(detector, test, light), test.labels == 1
        rows[name] = {
            "auroc": float(metrics.roc_auc_score(defective, found)),
            "false_alarms": float((found[~defective] > limit).mean()),
            "missed": float((found[defective] <= limit).mean()),
        }
    images = np.asarray(test.images)[test.labels == 0]
    good = test._replace(images=images)
    usual, dark = (scores(detector, good, gained(gain)) for gain in (1.0, _TOO_DARK))
    labels = np.repeat([0, 1], len(usual))
    rows["good against 30 % too dark"] = {
        "auroc": float(metrics.roc_auc_score(labels, np.concatenate([usual, dark]))),
        "false_alarms": float((usual > limit).mean()),
        "missed": float((dark <= limit).mean()),
    }
    return rows


def main() -> None:
    """Prints a table a run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdirs", nargs="+")
    parser.add_argument("--json", help="file for the numbers")
    arguments = parser.parse_args()
    startup.prepare()
    numbers = {}
    for workdir in arguments.workdirs:
        numbers[workdir] = under_lights(workdir)
        print(f"{workdir}\n{'light':28s} image AUROC  false alarms  missed")
        for name, row in numbers[workdir].items():
            values = row["auroc"], row["false_alarms"], row["missed"]
            print(f"{name:28s}{values[0]:12.3f} {values[1]:13.3f} {values[2]:7.3f}", flush=True)
        print()
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(numbers, file, indent=2)


if __name__ == "__main__":
    main()
