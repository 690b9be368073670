"""What is said of a scored run in words: on the console, and on its page and model card alike."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from evaluation.metrics import METRICS
from evaluation.threshold import percent

FRAME_AUROCS = {
    "micro": "micro",
    "macro": "macro",
    "micro_normalised": "micro, normalised",
    "micro_smoothed": "micro, smoothed",
    "micro_causal": "micro, smoothed causally",
}
"""The AUROCs of frames, by the names that evaluation/clips.py gives them -> what people read."""


class Errors(NamedTuple):
    """How often the threshold is wrong about the test images of one type."""

    type: str  # 'good', or the defect's
    images: int
    wrong: int
    rate: str
    interval: str  # 95 %, of the rate in the long run

    @property
    def kind(self) -> str:
        """What is done to so many of them."""
        return "called defective" if self.type == "good" else "missed"


def errors(results: Mapping[str, Any]) -> list[Errors]:
    """A row of each type of the test images, as results.json has them under `at_threshold`."""
    rows = []
    for name, entry in results.get("at_threshold", {}).items():
        low, high = map(percent, entry["interval"])
        rate = percent(entry["rate"])
        rows.append(Errors(name, entry["count"], entry["wrong"], rate, f"{low} to {high}"))
    return rows


def summary(results: Mapping[str, Any]) -> str:
    """A line of metrics of the image scores and of the maps, or why there are none, and the rest.

    The rest is what the threshold promises and, with test images, how often it is wrong.
    """
    metrics = [
        _metric(row.label, results[row.kind][row.name], results[row.kind].get("reason", ""))
        for row in METRICS
        if row.in_summary
    ]
    own = results.get("own", {}).items()
    metrics += [_metric(name.replace("_", " "), value, "it has no value") for name, value in own]
    line = ", ".join(metrics)
    if results["image"]["prevalence"] is None:
        line = "no test images, so nothing is known of how often defects are missed"
    line = "\n".join([line, *_frames(results.get("frames"))])
    what = "clips" if results.get("frames") else "images"
    wrong = [
        f"{row.wrong} of {row.images} {row.type} {row.kind} (95 % interval {row.interval})"
        for row in errors(results)
    ]
    judged = [f"At the threshold, of the test {what}: {'; '.join(wrong)}."] if wrong else []
    return "\n".join([line, *results["threshold"]["statement"], *judged])


def _frames(content: Mapping[str, Any] | None) -> list[str]:
    """A line of the AUROCs of frames for each score of clips."""
    lines = []
    for name, values in (content or {"scores": {}})["scores"].items():
        known = [
            f"{label} {values[key]:.3f}"
            for key, label in FRAME_AUROCS.items()
            if values[key] is not None
        ]
        left = f" ({values['left_out']} clips of one class left out of macro)"
        lines.append(f"frame AUROC of {name}: {', '.join(known) or 'none'}{left}")
    return lines


def _metric(label: str, value: float | None, reason: str) -> str:
    return f"no {label} ({reason})" if value is None else f"{label} {value:.3f}"
