"""The tables of results.json, as benchmarks.results writes it: means and spreads over seeds.

python -m benchmarks.results_tables docs/results.json

prints what README.md and docs/results.md have of it.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from evaluation.metrics import LIMIT, METRICS
from report.page import Spread, Table, to_markdown

Run = Mapping[str, Any]
_METRICS = tuple(row for row in METRICS if not row.chance)
_HEADINGS = [f"{row.label} {LIMIT:g}" if row.name == "au_pro" else row.label for row in _METRICS]
_DECISIONS = ["good called defective", "defective called good"]


_ABOUT = (
    "Of several seeds a number is the mean ± the sample standard deviation. Decisions are those at "
    "the threshold that held-out good images set before any test image was seen, of all seeds "
    "together. Minutes are the training's own clock, which stands still while a run is stopped."
)


def tables_of(content: Mapping[str, Any]) -> list[Table]:
    """A table a category, the mean over them, and what is not finished and why."""
    runs = content["runs"]
    categories = list(dict.fromkeys(run["category"] for run in runs))
    return [
        *(_category(category, _only(runs, category=category)) for category in categories),
        _means(runs, categories),
        _unfinished(runs),
        _about(content),
    ]


def overview(content: Mapping[str, Any]) -> Table:
    """A row each category and config of which a run is finished: the README's table."""
    runs = _finished(content["runs"])
    names = dict.fromkeys((run["category"], run["config"]) for run in runs)
    chosen = [row for row in _METRICS if (row.kind, row.name) != ("image", "average_precision")]
    rows = []
    for category, config in names:
        mine = _only(runs, category=category, config=config)
        seeds = [str(run["seed"]) for run in mine]
        cells = [_spread(mine, row.kind, row.name) for row in chosen]
        rows.append([category, f"{config}.py", seeds, *cells])
    headings = [heading for row, heading in zip(_METRICS, _HEADINGS, strict=True) if row in chosen]
    return Table("Overview", ["MVTec AD", "config", "seeds", *headings], rows)


def _only(runs: Sequence[Run], **fields: object) -> list[Run]:
    return [run for run in runs if all(run[name] == value for name, value in fields.items())]


def _finished(runs: Sequence[Run]) -> list[Run]:
    return _only(runs, state="finished")


def _configs(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(run["config"] for run in runs))


def _category(category: str, runs: Sequence[Run]) -> Table:
    rows = []
    for config in _configs(runs):
        mine = _only(runs, config=config)
        done = _finished(mine)
        seeds = [*(str(run["seed"]) for run in done), *_others(mine)]
        cells = [_spread(done, row.kind, row.name) for row in _METRICS]
        rows.append([config, seeds, *cells, *_decisions(done), _minutes(done)])
    header = ["config", "seeds", *_HEADINGS, *_DECISIONS, "minutes of training"]
    return Table(category, header, rows)


def _others(runs: Sequence[Run]) -> list[str]:
    return [f"{run['seed']}: {_short(run)}" for run in runs if run["state"] != "finished"]


def _short(run: Run) -> str:
    """The state without what was wrong, which has a table of its own."""
    return "failed" if run["state"].startswith("failed") else run["state"]


def _spread(runs: Sequence[Run], kind: str, name: str) -> float | Spread | None:
    values = [run[kind][name] for run in runs]
    if not values or None in values:
        return None
    if len(values) == 1:
        return float(values[0])
    return Spread(float(np.mean(values)), float(np.std(values, ddof=1)))


def _decisions(runs: Sequence[Run]) -> list[str | None]:
    """Wrong of all, of the good images and of the defective ones."""
    return [
        _wrong(runs, lambda kind: kind == "good"),
        _wrong(runs, lambda kind: kind != "good"),
    ]


def _wrong(runs: Sequence[Run], of: Callable[[str], bool]) -> str | None:
    entries = [entry for run in runs for kind, entry in run["at_threshold"].items() if of(kind)]
    if not entries:
        return None
    wrong, count = (sum(entry[name] for entry in entries) for name in ("wrong", "count"))
    return f"{wrong} of {count}"


def _minutes(runs: Sequence[Run]) -> str | None:
    """From the fastest seed's to the slowest's, of all stages."""
    values = sorted(round(sum(run["seconds"].values()) / 60) for run in runs)
    return " to ".join(map(str, dict.fromkeys([*values[:1], *values[-1:]]))) or None


def _means(runs: Sequence[Run], categories: Sequence[str]) -> Table:
    rows = []
    for config in _configs(runs):
        parts = [_finished(_only(runs, config=config, category=each)) for each in categories]
        named = [each for each, part in zip(categories, parts, strict=True) if part]
        cells = [_mean([part for part in parts if part], row.kind, row.name) for row in _METRICS]
        rows.append([config, named or None, *cells])
    header = ["config", "of", *_HEADINGS]
    about = "Each category has the same weight, after the mean over its seeds."
    notes = ["Means over different categories do not compare."]
    return Table("Mean over categories", header, rows if len(categories) > 1 else [], about, notes)


def _mean(parts: Sequence[Sequence[Run]], kind: str, name: str) -> float | None:
    values = [[run[kind][name] for run in part] for part in parts]
    if not values or any(None in part for part in values):
        return None
    return float(np.mean([np.mean(part) for part in values]))


def _unfinished(runs: Sequence[Run]) -> Table:
    rows = [
        [run["config"], run["category"], run["seed"], run["state"]]
        for run in runs
        if run["state"] != "finished"
    ]
    return Table("Not finished", ["config", "category", "seed", "state"], rows)


def _about(content: Mapping[str, Any]) -> Table:
    """Where the numbers come from: each commit and machine that trained, and when."""
    rows = [["this table", content["commit"], content["hardware"], content["date"]]]
    sessions: dict[tuple[str, str], list[str]] = {}
    for run in content["runs"]:
        for session in run["sessions"]:
            key = (session["commit"], session["hardware"])
            sessions.setdefault(key, []).append(session["date"][:10])
    rows += [
        [f"{len(dates)} sessions of training", *key, " to ".join(sorted({min(dates), max(dates)}))]
        for key, dates in sessions.items()
    ]
    about = f"Written by {content['command']}."
    header = ["what", "commit", "hardware", "date"]
    return Table("Where it comes from", header, rows, f"{about} {_ABOUT}")


def body(table: Table) -> str:
    """Its rows in Markdown, without title and sentences."""
    lines = to_markdown(table._replace(about="", notes=())).splitlines()
    return "\n".join(line for line in lines if line.startswith("|"))


def main() -> None:
    """Prints the README's table, then those of each category."""
    with open(sys.argv[1], encoding="utf-8") as file:
        content = json.load(file)
    for table in [overview(content), *tables_of(content)]:
        print(f"{table.title}\n\n{body(table)}\n")


if __name__ == "__main__":
    main()
