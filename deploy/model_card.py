"""The model card of an exported folder: what was learnt from what, how well it works, limits."""

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from deploy import forms
from evaluation.threshold import THRESHOLD_FILE
from report.summary import errors
from storage.files import SUMS
from storage.outputs import CONFIG_FILE, FACTS_FILE

_FILES = {
    forms.STABLEHLO: "the scoring function as `jax.export` serialises it, for "
    f"{', '.join(forms.PLATFORMS)}: `(weights, images) -> {{score, map}}`, and perhaps "
    "`log10_nfa`",
    forms.WEIGHTS: "its weights",
    forms.ONNX: "the same function with the weights inside: `images -> score, map`, likewise",
    THRESHOLD_FILE: "the threshold, the scores that it comes from, and what it promises",
    FACTS_FILE: "how many training images there were, and what is white in images of 16 bits",
    CONFIG_FILE: "how the networks were trained",
    SUMS: f"of all files, for `sha256sum -c {SUMS}`",
}


class Trial(NamedTuple):
    """How the exported forms did on calibration images."""

    images: int  # how many they were
    differences: Mapping[str, float]  # name of a form -> largest relative difference of a score
    alone: float  # relative difference of an image's score, alone and among others


def card_text(
    about: Mapping[str, Any],
    statement: Sequence[str],
    *,
    shape: tuple[int, ...],
    trial: Trial,
    without_onnx: str,
    files: Sequence[str],
) -> str:
    """The card, in Markdown.

    Args:
      about: what results.json holds; what is missing there is missing here.
      statement: sentences about the threshold.
      shape: [H, W, C] of an image; of windows of clips C is the number of their grey frames.
      trial: of the forms that are in the folder.
      without_onnx: why there is no ONNX, or ''.
      files: names of what else lies in the folder.
    """
    names = [forms.STABLEHLO, forms.WEIGHTS, forms.ONNX, *files, SUMS]
    if without_onnx:
        names.remove(forms.ONNX)
    # Markdown for people to read, not HTML: nothing is escaped.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("model_card.md").render(
        title=": ".join(["Anomaly detector", *filter(None, [about.get("category")])]),
        origin=_origin(about),
        statement=" ".join(statement),
        metrics=_metrics(about),
        errors=errors(about),
        height=shape[0],
        width=shape[1],
        channels=shape[2],
        of_clips="test_clips" in about.get("counts", {}),
        threshold_file=THRESHOLD_FILE,
        files=[(name, _FILES.get(name, "as given")) for name in names],
        trial=trial,
        without_onnx=without_onnx,
        onnx_file=forms.ONNX,
    )


def _origin(about: Mapping[str, Any]) -> list[tuple[str, Any]]:
    counts, steps = about.get("counts", {}), about.get("steps", {})
    versions = {**about.get("versions", {}), "python": platform.python_version()}
    versions["jax"] = importlib.metadata.version("jax")
    facts = {
        "Method": about.get("method"),
        "Data": about.get("category"),
        "Images": ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items()),
        "Steps of training": ", ".join(f"{count} {name}" for name, count in steps.items()),
        "Seed": about.get("seed"),
        "Score": ", ".join(f"{name} {value}" for name, value in about.get("score", {}).items()),
        "Evaluated on": ", ".join(sorted(set(about.get("devices", [])))),
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    return [(name, fact) for name, fact in facts.items() if fact not in (None, "")]


def _metrics(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [
        (f"{kind} {name.replace('_', ' ')}", value)
        for kind in ("image", "pixel", "own")
        for name, value in about.get(kind, {}).items()
    ]
    rows += [
        (f"image auroc, {defect} ({values.get('count')} images)", values.get("auroc"))
        for defect, values in about.get("per_defect", {}).items()
    ]
    return [(name, _number(value)) for name, value in rows]


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "-" if value is None else str(value)
