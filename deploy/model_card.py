"""The model card of an exported folder: what was learnt from what, how well it works, limits."""

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from deploy import forms
from engine.workdir import CONFIG_FILE
from evaluation.threshold import THRESHOLD_FILE, percent
from storage.files import SUMS

_FILES = {
    forms.STABLEHLO: "the scoring function as `jax.export` serialises it, for "
    f"{', '.join(forms.PLATFORMS)}: `(weights, images) -> {{score, map}}`",
    forms.WEIGHTS: "its weights",
    forms.ONNX: "the same function with the weights inside: `images -> score, map`",
    THRESHOLD_FILE: "the threshold, the scores that it comes from, and what it promises",
    CONFIG_FILE: "how the networks were trained",
    SUMS: f"of all files, for `sha256sum -c {SUMS}`",
}
_PREPARATION = """
Decode to RGB of 8 bits, stretch to {size} x {size} pixels with Pillow's `BILINEAR`, and give uint8
`images` [b, {size}, {size}, 3], rows first, for any b. Nothing else: the scaling to [-1, 1] is part
of the function. It returns float32 `score` [b] and `map` [b, {size}, {size}], higher = more
anomalous. In Python, of an image of 8 bits:

```python
pixels = Image.open(path).convert("RGB").resize(({size}, {size}), Image.BILINEAR)
images = numpy.asarray(pixels)[None]
```

The part is defective if `score > threshold`, with the `threshold` of `{threshold}`. Resizing by
OpenCV is another, without antialiasing, and gives other scores. Images of 16 bits are first scaled
to 8 by `(x * 255 + 32767) // 65535`, which `convert("RGB")` does not do. Transparency is dropped,
and EXIF rotation is not applied.
"""
_LIMITS = """
- It knows good parts of this kind, before this camera, in this light and position, and whatever
  else it sees is anomalous to it, harmless or not. After a change of camera, lens, light or
  product, train again and set the threshold again.
- A defect that is hardly seen at {size} x {size} pixels is not found.
- The metrics are those of the test images counted above, whose share of defects is not that of a
  production line.
- The map shows where the score comes from; it does not measure a defect.
- Scores were compared on the machine that exported. On an accelerator that rounds products to
  TF32 or bfloat16, they differ by more than is said here: set the threshold where it is used.
- A jax as new as the one above, and up to 6 months newer, reads the serialised function{onnx}.
- Convolutions have the form that suits the backend that exported: elsewhere the function is the
  same, but not its speed.
"""


class Trial(NamedTuple):
    """How the exported forms did on held-out good images."""

    images: int  # how many they were
    differences: Mapping[str, float]  # name of a form -> largest relative difference of a score
    alone: float  # relative difference of an image's score, alone and among others


def text(
    about: Mapping[str, Any],
    statement: Sequence[str],
    *,
    image_size: int,
    trial: Trial,
    without_onnx: str,
    files: Sequence[str],
) -> str:
    """The card, in Markdown.

    Args:
      about: what results.json holds; what is missing there is missing here.
      statement: sentences about the threshold.
      image_size: side of the images, in pixels.
      trial: of the forms that are in the folder.
      without_onnx: why there is no ONNX, or ''.
      files: names of what else lies in the folder.
    """
    names = [forms.STABLEHLO, forms.WEIGHTS, forms.ONNX, *files, SUMS]
    if without_onnx:
        names.remove(forms.ONNX)
    sections = {
        ": ".join(["Anomaly detector", *filter(None, [about.get("category")])]): _origin(about),
        "Threshold": " ".join(statement),
        "Metrics": _metrics(about),
        "At the threshold, of the test images": _at_threshold(about),
        "How to use it": _PREPARATION.format(size=image_size, threshold=THRESHOLD_FILE).strip(),
        "Files": "\n".join(f"- `{name}`: {_FILES.get(name, 'as given')}" for name in names),
        "Checked": _checked(trial, without_onnx),
        "Limits": _LIMITS.format(
            size=image_size, onnx="" if without_onnx else "; ONNX has no such term"
        ).strip(),
    }
    first, *others = [(title, body) for title, body in sections.items() if body]
    return "\n\n".join([f"# {first[0]}", first[1], *(f"## {t}\n\n{b}" for t, b in others)]) + "\n"


def _origin(about: Mapping[str, Any]) -> str:
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
    return "\n".join(f"- {name}: {fact}" for name, fact in facts.items() if fact not in (None, ""))


def _metrics(about: Mapping[str, Any]) -> str:
    rows = [
        (f"{kind} {name.replace('_', ' ')}", value)
        for kind in ("image", "pixel")
        for name, value in about.get(kind, {}).items()
    ]
    rows += [
        (f"image auroc, {defect} ({values.get('count')} images)", values.get("auroc"))
        for defect, values in about.get("per_defect", {}).items()
    ]
    return _table(("metric", "value"), [(name, _number(value)) for name, value in rows])


def _at_threshold(about: Mapping[str, Any]) -> str:
    rows = []
    for name, entry in about.get("at_threshold", {}).items():
        low, high = map(percent, entry["interval"])
        kind = "called defective" if name == "good" else "missed"
        wrong = f"{entry['wrong']} of {entry['count']} {kind}"
        rows.append((name, wrong, f"{percent(entry['rate'])} ({low} to {high})"))
    return _table(("parts", "wrong", "rate (95 % interval)"), rows)


def _checked(trial: Trial, without_onnx: str) -> str:
    lines = [
        f"- `{name}`: {trial.images} held-out good images got the scores of the trained networks, "
        f"with a relative difference of {difference:.1e} at most, and the same decisions."
        for name, difference in trial.differences.items()
    ]
    missing = [f"- There is no `{forms.ONNX}`: {without_onnx}."] if without_onnx else []
    alone = f"- An image scored alone and among others: scores differ by {trial.alone:.1e}."
    return "\n".join([*lines, *missing, alone])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if rows else ""


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "-" if value is None else str(value)
