"""When is it worth labelling: DevNet beside a run that knows good parts alone, and both as one.

python -m benchmarks.few_shot --root=DIR --categories=bottle,pill --unsupervised=RUNS --output=OUT \
    [--configs=few_shot,meliad] [--numbers=10,1,5] [--seeds=0,1,2] [--minutes=M] [--set=FIELD=VALUE]

RUNS/<category>/seed<n> are finished runs of another config, such as benchmarks.results makes of
configs/restorer.py; a seed that is not there is taken from seed 0. Runs what is missing, one after
the other: OUT/<config>/<category>/<general|hard>_<n>/seed<n>; then writes OUT/few_shot.json and
OUT/few_shot.md. `--minutes=0` only writes them.

General: labelled images of all kinds; hard: all of one kind, which goes from seed to seed through
the kinds that are large enough. All numbers of a row are of the same test images: those that no
label took. The unsupervised run's image scores are those of its scores.csv, without the labelled
images; the ensemble is the larger of both scores, each standardised on its own held-out good images
(evaluation/ensemble.py).
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.results import environment
from benchmarks.run import ROOT
from data.names import GOOD_PARTS, meaning
from evaluation.metrics import image_metrics
from evaluation.results import Run, read_run
from evaluation.threshold import THRESHOLD_FILE
from report.page import Table, markdown_document
from storage.files import write_json, write_text


class Cell(NamedTuple):
    """A run of the table."""

    config: str
    category: str
    kind: str  # '': general
    number: int
    seed: int

    def workdir(self, output: str) -> str:
        """OUT/<config>/<category>/<general|hard>_<n>/seed<n>."""
        setting = f"{'hard' if self.kind else 'general'}_{self.number}"
        return os.path.join(output, self.config, self.category, setting, f"seed{self.seed}")

    def command(self, root: str, output: str, settings: Sequence[str]) -> list[str]:
        """What trains and evaluates it."""
        flags = [f"--config=configs/{self.config}.py:{self.category}", f"--config.data.root={root}"]
        flags += [f"--config.seed={self.seed}", f"--config.data.labelled={self.number}"]
        flags += [f"--config.data.labelled_kind={self.kind}"]
        flags += [f"--config.{each}" for each in settings]
        return [sys.executable, "main.py", *flags, f"--workdir={self.workdir(output)}"]


def cells_of(arguments: argparse.Namespace) -> Iterator[Cell]:
    """All runs, in the order in which they are run: all of a seed before the next."""
    numbers = [int(each) for each in arguments.numbers.split(",")]
    kinds = {
        category: large_kinds(Path(arguments.root) / category / "test", 2 * max(numbers))
        for category in arguments.categories.split(",")
    }
    for seed in map(int, arguments.seeds.split(",")):
        for config in arguments.configs.split(","):
            for number in numbers:
                for hard in (False, True) if number > 1 else (False,):  # one is of one kind anyway
                    for category, large in kinds.items():
                        if not hard or large:
                            kind = large[seed % len(large)] if hard else ""
                            yield Cell(config, category, kind, number, seed)


def large_kinds(test: Path, least: int) -> list[str]:
    """The kinds of defects of which there are `least` images or more, sorted."""
    folders = [each for each in sorted(test.iterdir()) if each.is_dir()]
    return [
        each.name
        for each in folders
        if meaning(each.name) != GOOD_PARTS and len(list(each.glob("*.*"))) >= least
    ]


def finished(cell: Cell, output: str) -> Run | None:
    """Its run, where it was evaluated."""
    try:
        return read_run(cell.workdir(output))
    except (ValueError, OSError):
        return None


def run_missing(cells: Sequence[Cell], arguments: argparse.Namespace) -> None:
    """Runs what is not finished, for so many minutes; the same command goes on with the rest."""
    end = time.monotonic() + 60 * arguments.minutes
    for cell in cells:
        left = end - time.monotonic()
        if finished(cell, arguments.output) or left <= 0:
            continue
        command = cell.command(arguments.root, arguments.output, arguments.set)
        log = Path(f"{cell.workdir(arguments.output)}.log")
        log.parent.mkdir(parents=True, exist_ok=True)
        print(f"{shlex.join(command)}  # see {log}", flush=True)
        with open(log, "ab") as file:
            process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file)
            try:
                process.wait(min(left, 10**7))
            except subprocess.TimeoutExpired:
                process.terminate()  # it saves its state
                process.wait()


def measured(run: Run, unsupervised: Run) -> dict[str, Any]:
    """Image AUROCs of the two and of their ensemble, of all, of labelled and of other kinds.

    Raises:
      ValueError: the unsupervised run lacks a test image of the other.
    """
    labelled = {Path(name).parts[-2] for name in run.sources.labelled}
    theirs = dict(zip(unsupervised.paths, unsupervised.scores, strict=True))
    if missing := [path for path in run.paths if path not in theirs]:
        raise ValueError(f"{unsupervised.workdir} has no score of {missing[0]}")
    other = np.array([theirs[path] for path in run.paths])
    each = {
        "few_shot": run.scores,
        "unsupervised": other,
        "ensemble": np.maximum(standardised(run, run.scores), standardised(unsupervised, other)),
    }
    seen = np.array([defect in labelled for defect in run.defects])
    parts = {"all": run.labels >= 0, "seen": seen | (run.labels == 0)}
    parts["unseen"] = ~seen | (run.labels == 0)
    return {
        "labelled": sorted(run.sources.labelled),
        "auroc": {
            name: {
                part: image_metrics(run.labels[mine], scores[mine])["auroc"]
                for part, mine in parts.items()
            }
            for name, scores in each.items()
        },
        "pixel": {name: run.results["pixel"][name] for name in ("auroc", "au_pro")},
        "seconds": run.results["seconds"],
        "steps": run.results["steps"],
    }


def standardised(run: Run, scores: np.ndarray) -> np.ndarray:
    """Scores [N] of a run by mean and deviation of its held-out good images."""
    with open(os.path.join(run.workdir, THRESHOLD_FILE), encoding="utf-8") as file:
        calibration = np.array(json.load(file)["calibration_scores"])
    normal: np.ndarray = (scores - calibration.mean()) / calibration.std()
    return normal


def baseline_of(cell: Cell, unsupervised: str) -> Run:
    """The unsupervised run of the cell's category and seed, or of seed 0."""
    for seed in (cell.seed, 0):
        folder = os.path.join(unsupervised, cell.category, f"seed{seed}")
        if os.path.isdir(folder):
            return read_run(folder)
    raise ValueError(f"{unsupervised}/{cell.category} has no seed{cell.seed} and no seed0")


def table_of(runs: Sequence[dict[str, Any]]) -> Table:
    """A row each config, category, setting and number, the mean over seeds in each."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        setting = "hard" if run["kind"] else "general"
        groups[run["config"], run["category"], setting, run["number"]].append(run)
    rows = []
    for key, mine in groups.items():
        seeds = ", ".join(" ".join([str(run["seed"]), run["kind"]]).strip() for run in mine)
        cells: list[Any] = []
        for part in ("all", "seen", "unseen"):
            for name in ("few_shot", "unsupervised", "ensemble"):
                values = [run["auroc"][name][part] for run in mine]
                known = [value for value in values if value is not None]
                cells.append(_mean(known))
        rows.append([*key, seeds, *cells])
    parts = [
        f"{part}: {name}"
        for part in ("all kinds", "labelled kinds", "other kinds")
        for name in ("labels", "none", "both")
    ]
    return Table("Image AUROC", ["config", "category", "setting", "n", "seeds", *parts], rows)


def _mean(values: Sequence[float]) -> str:
    if not values:
        return "–"
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def main() -> None:
    """Reads the flags; an expected error ends it with one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, help="folder of the categories' folders")
    parser.add_argument("--categories", required=True, help="with commas between")
    parser.add_argument("--unsupervised", required=True, help="<category>/seed<n> of finished runs")
    parser.add_argument("--output", required=True, help="folder of the table and its workdirs")
    parser.add_argument("--configs", default="few_shot", help="names of configs/")
    parser.add_argument("--numbers", default="10,1,5", help="of labelled images")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="0: only the table")
    parser.add_argument("--set", action="append", default=[], help="FIELD=VALUE of the config")
    arguments = parser.parse_args()
    for name in ("root", "unsupervised", "output"):
        setattr(arguments, name, os.path.abspath(os.path.expanduser(getattr(arguments, name))))
    try:
        cells = [*cells_of(arguments)]
        run_missing(cells, arguments)
        write(cells, arguments)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def write(cells: Sequence[Cell], arguments: argparse.Namespace) -> None:
    """Writes few_shot.json and few_shot.md of what is finished, and prints the latter."""
    runs = []
    for cell in cells:
        if run := finished(cell, arguments.output):
            baseline = baseline_of(cell, arguments.unsupervised)
            about = {"unsupervised": [baseline.name, baseline.seed]}
            runs.append(cell._asdict() | about | measured(run, baseline))
    content = {
        "command": shlex.join(["python", "-m", "benchmarks.few_shot", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%dT%H:%M%z"),
        **environment(),
        "missing": [cell._asdict() for cell in cells if not finished(cell, arguments.output)],
        "runs": runs,
    }
    os.makedirs(arguments.output, exist_ok=True)
    write_json(os.path.join(arguments.output, "few_shot.json"), content)
    text = markdown_document("Few labelled defects", [table_of(runs)])
    text += f"\n{len(runs)} of {len(cells)} runs are finished. {content['command']}\n"
    write_text(os.path.join(arguments.output, "few_shot.md"), text)
    print(text)


if __name__ == "__main__":
    main()
