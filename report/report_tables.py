"""What results.json says, as HTML: the verdict, what the threshold promises, and the tables.

Each function takes the results as `report.run.write_report` describes them, and shows what is
there. Rates are shares in [0, 1].
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from engine.log import duration
from evaluation.threshold import percent
from report import page

STYLE = """
.verdict { display: flex; flex-wrap: wrap; gap: 1em; padding: 0; list-style: none }
.verdict li { flex: 1 1 9em; border: 1px solid #ccc; border-radius: 6px; padding: .7em 1em }
.verdict b { display: block; font-size: 1.9em; line-height: 1.2; white-space: nowrap }
.promise { border-left: 6px solid #0072B2; padding: .1em 1em; background: #f3f7fa }
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(24em, 1fr));
 gap: 0 1.5em; align-items: start }
.curves h2 { grid-column: 1 / -1 }
.promise.broken { border-color: #D55E00; background: #fdf1e9 }
"""
_HEADINGS = ("AUROC", "average precision", "prevalence")
_PRO = ("AU-PRO", "up to a false-positive rate of")
_MEASURED = ("auroc", "average_precision", "prevalence")

Results = Mapping[str, Any]


def verdict(results: Results) -> str:
    """The numbers that matter most, in large figures; '' without any."""
    image, pixel = results.get("image", {}), results.get("pixel", {})
    judged, found = results.get("at_threshold", {}), results.get("threshold", {})
    tiles = []
    if image.get("auroc") is not None:
        tiles.append((f"{image['auroc']:.3f}", "image AUROC: 1 is perfect, 0.5 is chance"))
    if pixel.get("au_pro") is not None:
        limit = f"up to a false-positive rate of {pixel['au_pro_limit']:g}"
        tiles.append((f"{pixel['au_pro']:.3f}", f"AU-PRO of the anomaly maps, {limit}"))
    defects = [entry for name, entry in judged.items() if name != "good"]
    if "good" in judged:
        share = f"{judged['good']['wrong']} of {judged['good']['count']}"
        tiles.append((share, "good test parts called defective: false alarms"))
    if defects:
        wrong, count = (sum(entry[key] for entry in defects) for key in ("wrong", "count"))
        tiles.append((f"{wrong} of {count}", "defective test parts not called so: misses"))
    if found and not judged:
        tiles.append((f"{found['threshold']:.4g}", "threshold: defective is a score above it"))
        tiles.append((str(found["held_out"]), "held-out good images, which set the threshold"))
    if found:
        rate = percent(found["guaranteed_rate"])
        tiles.append((f"≤ {rate}", "of new good parts are expected to be called defective"))
    items = "\n".join(f"<li><b>{page.escape(a)}</b>{page.escape(b)}</li>" for a, b in tiles)
    return f'<ul class="verdict">{items}</ul>' if tiles else ""


def promise(results: Results) -> list[str]:
    """What the threshold promises in sentences, and what it got wrong by type."""
    parts = []
    if found := results.get("threshold"):
        guaranteed, asked = found["guaranteed"], percent(found["false_alarm_rate"])
        kept = "guaranteed under the conditions below" if guaranteed else "NOT guaranteed"
        word = f"{asked} false alarms: {kept}"
        sentences = "\n".join(f"<p>{page.escape(line)}</p>" for line in found["statement"])
        parts.append(
            f'<h2>Threshold</h2><div class="promise{"" if guaranteed else " broken"}">'
            f"<p><b>{word}</b></p>{sentences}</div>"
        )
    rows = [[name, *_wrong(name, entry)] for name, entry in results.get("at_threshold", {}).items()]
    header = ["type", "images", "wrong", "rate", "95 % interval"]
    return [*parts, _table("Test images at the threshold, by type", header, rows)]


def _wrong(name: str, entry: Mapping[str, Any]) -> list[Any]:
    low, high = map(percent, entry["interval"])
    one, many = ("false alarm", "false alarms") if name == "good" else ("miss", "misses")
    wrong = f"{entry['wrong']} {one if entry['wrong'] == 1 else many}"
    rate = f"{one.replace(' ', '-')} rate {percent(entry['rate'])}"
    return [entry["count"], wrong, rate, f"{low} to {high}"]


def metrics(results: Results) -> list[str]:
    """Counts, metrics of scores and maps, what tuning chose, and checks."""
    scores = {"image score": results.get("image", {}), **results.get("image_terms", {})}
    prevalence = {"prevalence": scores["image score"].get("prevalence")}
    scores = {name: prevalence | entry for name, entry in scores.items()}
    counts = [[name.replace("_", " "), n] for name, n in results.get("counts", {}).items()]
    maps = {entry["resolution"]: entry for entry in [results.get("pixel")] if entry}
    return [
        _table("Images", ["", "number"], counts),
        _table("Image scores", ["score", *_HEADINGS], _rows(scores, _MEASURED)),
        _table(
            "Image scores by defect type, each against all good images",
            ["defect", *_HEADINGS, "images"],
            _rows(results.get("per_defect", {}), [*_MEASURED, "count"]),
        ),
        _table(
            "Anomaly maps, pixel by pixel",
            ["resolution", *_HEADINGS, *_PRO],
            _rows(maps, [*_MEASURED, "au_pro", "au_pro_limit"]),
        ),
        _values("Score settings chosen on made-up defects", results.get("score", {})),
        _values("Checks on held-out normal images", results.get("checks", {})),
    ]


def made(results: Results) -> list[str]:
    """Steps and seconds of training, and with what software on which devices."""
    training = [
        [stage, steps, duration(results.get("seconds", {}).get(stage, 0.0))]
        for stage, steps in results.get("steps", {}).items()
    ]
    software = {**results.get("versions", {}), "devices": results.get("devices", "not recorded")}
    return [
        _table("Training", ["stage", "steps", "time"], training),
        _table("Software and devices", ["", "version"], list(software.items())),
    ]


def _values(title: str, values: Mapping[str, Any]) -> str:
    rows = [
        [name.replace("_", " "), f"{value:.4g}" if isinstance(value, float) else str(value)]
        for name, value in values.items()
    ]
    return _table(title, ["", "value"], rows)


def _rows(entries: Mapping[str, Mapping[str, Any]], keys: Sequence[str]) -> list[list[str]]:
    """A row per entry; the reason why metrics are not available is told once in it."""
    rows = []
    for name, entry in entries.items():
        reason = f"not available: {entry.get('reason', 'no reason was recorded')}"
        absent = itertools.chain([reason], itertools.repeat(page.NONE))
        rows.append([name, *(_number(entry.get(key)) or next(absent) for key in keys)])
    return rows


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """The table, '' without rows."""
    return page.to_html(page.Table(title, header, rows))
