"""What the console says of a scored run."""

from collections.abc import Mapping
from typing import Any

from evaluation import threshold


def summary(results: Mapping[str, Any]) -> str:
    """A line of metrics of the image scores and of the maps, or why there are none, and the rest.

    The rest is what the threshold promises and, with test images, how often it is wrong.
    """
    image, pixel = results["image"], results["pixel"]

    def shown(values, name, label):
        value = values[name]
        return f"no {label} ({values['reason']})" if value is None else f"{label} {value:.3f}"

    metrics_line = ", ".join(
        [
            shown(image, "auroc", "image AUROC"),
            shown(image, "average_precision", "average precision"),
            shown(image, "prevalence", "prevalence"),
            shown(pixel, "auroc", "pixel AUROC"),
            shown(pixel, "au_pro", "AU-PRO"),
        ]
    )
    if image["prevalence"] is None:
        metrics_line = "no test images, so nothing is known of how often defects are missed"
    wrong = [_wrong(name, entry) for name, entry in results["at_threshold"].items()]
    judged = [f"With it, of the test images: {'; '.join(wrong)}."] if wrong else []
    return "\n".join([metrics_line, *results["threshold"]["statement"], *judged])


def _wrong(name: str, entry: Mapping[str, Any]) -> str:
    low, high = map(threshold.percent, entry["interval"])
    kind = "called defective" if name == "good" else "missed"
    return f"{entry['wrong']} of {entry['count']} {name} {kind} (95 % interval {low} to {high})"
