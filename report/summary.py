"""What the console says of a scored run."""

from collections.abc import Mapping
from typing import Any

from evaluation import threshold
from evaluation.metrics import METRICS


def summary(results: Mapping[str, Any]) -> str:
    """A line of metrics of the image scores and of the maps, or why there are none, and the rest.

    The rest is what the threshold promises and, with test images, how often it is wrong.
    """

    def shown(label: str, value: float | None, reason: str) -> str:
        return f"no {label} ({reason})" if value is None else f"{label} {value:.3f}"

    parts = [
        shown(row.label, results[row.kind][row.name], results[row.kind].get("reason", ""))
        for row in METRICS
        if row.in_summary
    ]
    own = results.get("own", {}).items()
    parts += [shown(name.replace("_", " "), value, "it has no value") for name, value in own]
    metrics_line = ", ".join(parts)
    if results["image"]["prevalence"] is None:
        metrics_line = "no test images, so nothing is known of how often defects are missed"
    wrong = [_wrong(name, entry) for name, entry in results["at_threshold"].items()]
    judged = [f"With it, of the test images: {'; '.join(wrong)}."] if wrong else []
    return "\n".join([metrics_line, *results["threshold"]["statement"], *judged])


def _wrong(name: str, entry: Mapping[str, Any]) -> str:
    low, high = map(threshold.percent, entry["interval"])
    kind = "called defective" if name == "good" else "missed"
    return f"{entry['wrong']} of {entry['count']} {name} {kind} (95 % interval {low} to {high})"
