"""What each part of GLAD's score brings, and costs: a table of finished runs of configs/glad*.py.

python -m benchmarks.glad W1 W2 ... [--made_up] [--json=FILE]

Of each workdir's network, scored in ten ways: a fixed level for all images or one for each, with
and without fusion, one draw of noise and four; two levels and one draw, which are two calls of the
network; and one call without noise. Limits are those of the calibration images. For each: image
AUROC, pixel AUROC and pixel average precision of the test images at their size in the network, and
milliseconds an image; with --made_up, the first three of made-up defects of the calibration images
(evaluation/made_up.py), mean over kinds. Settings are to be chosen by these alone.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict
from sklearn import metrics

from commands import inputs
from commands.runs import restore_networks
from data import pipeline
from engine import startup
from engine.method import Method, Score, Tuning, Variables
from engine.workdir import read_config, read_facts
from evaluation.maps import at_one_size
from evaluation.tuning import rank_candidates

_BATCH = 16


class Way(NamedTuple):
    """One way to score."""

    name: str
    start: int
    steps: int
    draws: int
    adaptive: bool
    fusion: bool


def ways_of(start: int, steps: int) -> list[Way]:
    """The rows of the table."""
    ablation = [
        Way(
            f"{'own level' if adaptive else 'fixed level'}, "
            f"{'fusion' if fusion else 'no fusion'}, draws {draws}",
            *(start, steps, draws, adaptive, fusion),
        )
        for adaptive in (False, True)
        for fusion in (False, True)
        for draws in (1, 4)
    ]
    two_calls = Way("two calls: two levels, own level, fusion, draws 1", start, 2, 1, True, True)
    return [*ablation, two_calls, Way("one call, without noise", 0, 1, 1, False, False)]


class Run(NamedTuple):
    """A finished run, and its ways to score."""

    variables: Variables
    splits: pipeline.Splits
    scores: Mapping[Way, Any]  # functions (variables, images) -> Score


def run_of(workdir: str) -> Run:
    """What lies in a workdir, with limits measured on its calibration images."""
    config, facts = ConfigDict(read_config(workdir)), read_facts(workdir)
    ways = ways_of(config.score.start or 80, max(config.score.steps, 4))
    config.tuning.update(
        starts=tuple({way.start for way in ways}),
        steps=tuple({way.steps for way in ways}),
        noise_draws=(max(way.draws for way in ways),),
        residuals=(config.score.residual,),
        smoothing=(config.score.smoothing,),
        normalise=("none",),
    )
    frozen = FrozenConfigDict(config)
    networks = restore_networks(frozen, facts, workdir)
    splits = inputs.read(frozen, facts)
    calibration = splits.calibration.images
    batch = next(pipeline.eval_batches(calibration, len(calibration)))
    variables, method = jax.device_put(networks.variables), networks.method
    known = method.tuning.measured(variables, batch, batch).settings
    limits = {(fields["start"], fields["steps"]): fields["limits"] for fields in known}
    scores = {way: _score(method, way, limits[way.start, way.steps]) for way in ways}
    return Run(variables, splits, scores)


def _score(method: Method, way: Way, limits: Any) -> Any:
    fields = {**way._asdict(), "limits": limits}
    del fields["name"]
    return method.tuning.score(fields)


def on_test(run: Run) -> Iterator[tuple[str, dict[str, float]]]:
    """Each way's metrics of the test images, and its cost."""
    test = run.splits.test
    known = [index for index, mask in enumerate(test.masks) if mask is not None]
    for way, score in run.scores.items():
        scorer, parts = jax.jit(score), []
        batches = [*pipeline.eval_batches(test.images, _BATCH)]
        short = _BATCH - len(batches[-1])
        batches[-1] = np.pad(batches[-1], ((0, short), (0, 0), (0, 0), (0, 0)))
        jax.block_until_ready(scorer(run.variables, batches[0]))  # compiled
        start = time.perf_counter()
        for batch in batches:
            made = jax.device_get(scorer(run.variables, batch))
            parts.append((made.image, made.map))
        seconds = time.perf_counter() - start
        images_of, maps_of = zip(*parts, strict=True)
        image = np.concatenate(images_of)[: len(test.images)]
        maps = np.concatenate(maps_of)[: len(test.images)]
        pairs = at_one_size((test.masks[i] for i in known), (maps[i] for i in known), maps.shape[1])
        masks, values = (np.stack(each).ravel() for each in zip(*pairs, strict=True))
        both = masks.any()  # without a defect's mask there is nothing to be found
        row = {
            "image AUROC": metrics.roc_auc_score(test.labels, image),
            "pixel AUROC": metrics.roc_auc_score(masks, values) if both else math.nan,
            "pixel AP": metrics.average_precision_score(masks, values) if both else math.nan,
            "ms an image": 1000 * seconds / (_BATCH * len(batches)),
        }
        yield way.name, row


def on_made_up(run: Run) -> dict[str, dict[str, float]]:
    """Each way's metrics of made-up defects, mean over kinds; no test image is looked at."""
    ways = [*run.scores]

    def scores(variables: Variables, images: np.ndarray) -> tuple[Score, ...]:
        each = [run.scores[way](variables, images) for way in ways]
        return tuple(one._replace(terms={"own": one.image}, reconstruction=None) for one in each)

    calibration = run.splits.calibration.images
    batch = next(pipeline.eval_batches(calibration, len(calibration)))
    settings = tuple(way._asdict() for way in ways)
    tuning = Tuning(None, settings, {"own": {}}, scores, lambda fields: run.scores[ways[0]])
    found = rank_candidates({"own": run.variables}, {"own": tuning}, batch, draws=1)
    names = ("image AUROC", "pixel AUROC", "pixel AP")
    return {ways[each.setting].name: dict(zip(names, each.mean(), strict=True)) for each in found}


def table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown."""
    columns = list(next(iter(rows.values())))
    lines = [f"| way | {' | '.join(columns)} |", f"|{'---|' * (len(columns) + 1)}"]
    for name, values in rows.items():
        cells = [f"{v:.1f}" if c.startswith("ms") else f"{v:.3f}" for c, v in values.items()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Prints the tables of each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdirs", nargs="+")
    parser.add_argument("--made_up", action="store_true", help="of made-up defects, too; longer")
    parser.add_argument("--json", help="file for the numbers")
    arguments = parser.parse_args()
    startup.prepare()
    numbers: dict[str, Any] = {}
    for workdir in arguments.workdirs:
        run = run_of(workdir)
        numbers[workdir] = {"test": dict(on_test(run))}
        print(f"{workdir}, test images\n\n{table(numbers[workdir]['test'])}\n", flush=True)
        if arguments.made_up:
            found = on_made_up(run)
            numbers[workdir]["made up"] = {way.name: found[way.name] for way in run.scores}
            print(
                f"{workdir}, made-up defects\n\n{table(numbers[workdir]['made up'])}\n", flush=True
            )
        if arguments.json:
            with open(arguments.json, "w", encoding="utf-8") as file:
                json.dump(numbers, file, indent=2)


if __name__ == "__main__":
    main()
