"""Trains what a config says, and evaluates it."""

import json
import os
from typing import Any

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from commands import inputs
from commands.runs import FREE, networks, rejoin
from data import pipeline
from data.decoded import Images
from engine import hosts, parallel, startup
from engine.make import make
from engine.method import Method
from engine.train import Every, require_divisible, train
from engine.workdir import claim
from engine.workdir import reuse as take_over
from evaluation import evaluate, official, threshold
from evaluation.results import write_results
from evaluation.scoring import scorer_of, theory_checks
from report import summary
from report.run import write_report
from storage.rows import Stack

# What else may differ from a run whose stages are reused: it changes no stage.
_NO_STAGES = ("name", "method", "score")
_SCORING_BATCH = 32
_EXAMPLES = 16  # held-out images in the pictures of training
_RATE = 0.05  # of false alarms, where the config of an older workdir does not say


def run(
    config: ConfigDict,
    workdir: str,
    mode: str,
    *,
    reuse: str | None = None,
    save_maps: bool = False,
    started: float | None = None,
) -> dict[str, Any]:
    """Trains (in mode 'train') and evaluates `config` in `workdir`; returns the results.

    The finished stages of the workdir `reuse` are not trained again. `save_maps` writes the maps
    for MVTec AD's official evaluation. `started` is when the program did, by time.monotonic(), for
    the log.

    Of several processes the main one alone evaluates; for the others there are no results.

    Raises:
      ValueError, OSError, FloatingPointError: one line that says what is wrong and the way out.
    """
    rate = false_alarm_rate(config)
    splits = inputs.load(config, workdir)
    _check_promise(rate, len(splits.calibration.images))
    if mode == "train":
        config.data.update(num_train=len(splits.train.images), digest=splits.digest)
        train_stages(config, workdir, splits, reuse=reuse, started=started)
    else:
        rejoin(config, workdir)
        if config.data.digest != splits.digest:
            logging.warning("The images in %s have changed since training.", config.data.root)
    if not parallel.is_main():
        return {}
    startup.give_back_memory()
    found = networks(config, workdir)
    first = next(pipeline.eval_batches(splits.calibration.images, _SCORING_BATCH))
    told = {
        "score": found.origin["score"],
        "checks": theory_checks(found.method, found.variables, first),
    }
    done = evaluate.evaluate(
        scorer_of(found.method, found.variables),
        splits.test,
        splits.calibration,
        workdir,
        batches=pipeline.eval_batches,
        batch_size=_SCORING_BATCH,
        about=_about(config, splits) | {name: values for name, values in told.items() if values},
        network=found.origin,
        false_alarm_rate=rate,
        pixel_size=config.evaluation.pixel_size,
        official_metrics=save_maps,
    )
    if save_maps:
        _write_maps(workdir, config.data.category, splits.test, done.scored.maps)
    write_results(workdir, done, found.origin)
    write_report(
        os.path.join(workdir, "report"),
        scored=done.scored,
        held_out=done.held_out,
        results=done.results,
        history=done.history,
        threshold=done.threshold,
    )
    names = "threshold.json, results.json, scores.csv, predictions.npz and report/index.html"
    logging.info("Wrote %s into %s.", names, workdir)
    print(f"{config.data.category}: {summary.summary(done.results)}")
    if save_maps:
        root = config.data.root if os.path.isdir(config.data.root) else "MVTEC_AD"
        told_official = done.results["official"]
        print(f"Official: {told_official}, as this command will find with MVTec's script:")
        print(official.official_command(root, workdir, config.data.category))
    print(f"Report: {os.path.join(workdir, 'report', 'index.html')}")
    return done.results


def _write_maps(workdir: str, category: str, test: Images, maps: Stack) -> None:
    folder = official.write_maps(
        workdir, category, paths=test.paths, defects=test.defects, maps=maps, sizes=test.sizes
    )
    logging.info("Wrote %d anomaly maps into %s.", len(maps), folder)
    for reason in official.unseen(test.paths, test.defects):
        logging.warning("The official script passes over %s.", reason)


def false_alarm_rate(config: ConfigDict) -> float:
    """The share of good parts that may be called defective; ValueError where it is none."""
    rate = config.get("threshold", {}).get("false_alarm_rate", _RATE)
    threshold.require_rate(rate)
    return rate


def _check_promise(rate: float, count: int) -> None:
    """Says before an hour of training what its threshold will not be able to promise."""
    if said := threshold.shortfall(rate, count):
        logging.warning("%s", said)


def train_stages(
    config: ConfigDict,
    workdir: str,
    splits: pipeline.Splits,
    *,
    reuse: str | None = None,
    started: float | None = None,
) -> None:
    """Binds the workdir to the config and trains what is not yet trained."""
    method = make(config.method, config, *inputs.load_textures(config))
    training = inputs.training_batches(config, np.asarray(splits.train.images))
    _bind(workdir, config, method, reuse)
    train(
        method,
        training,
        workdir,
        seed=config.seed,
        every=Every(**config.every),
        examples=next(pipeline.eval_batches(splits.calibration.images, _EXAMPLES)),
        started=started,
    )


def _bind(workdir: str, config: ConfigDict, method: Method, reuse: str | None) -> None:
    """Binds the workdir to a config that can be trained, so that a corrected one may follow."""
    require_divisible(method)
    settings, main_process = config.to_dict(), parallel.is_main()
    hosts.require_same(json.dumps(settings), "the config and the images")
    claim(workdir, settings, free=FREE, main=False)
    if reuse:
        stages = {stage.name: stage.num_steps for stage in method.stages}
        source, free = os.path.abspath(os.path.expanduser(reuse)), (*FREE, *_NO_STAGES)
        taken = take_over(source, workdir, stages, settings, free=free, main=main_process)
        logging.info("Stages taken over from %s: %s.", source, ", ".join(taken) or "none")
    claim(workdir, settings, free=FREE, main=main_process)


def _about(config: ConfigDict, splits: pipeline.Splits) -> dict[str, Any]:
    defective = int(splits.test.labels.sum())
    counts = {
        "train": len(splits.train.images),
        "calibration": len(splits.calibration.images),
        "test_good": len(splits.test.images) - defective,
        "test_defective": defective,
    }
    return {
        "method": config.name,
        "category": config.data.category,
        "seed": config.seed,
        "counts": counts,
    }
