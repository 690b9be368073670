"""Judges a trained run: its threshold, its metrics, its files and its page."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from absl import logging
from ml_collections import ConfigDict

from commands import inputs
from commands.runs import (
    RunNetworks,
    held,
    rejoin,
    restore_networks,
    trained_facts,
    whole_path,
)
from data import pipeline
from data.decoded import Images
from engine import parallel, startup
from engine.log import REPORT
from engine.sources import changes, usable_sources, write_sources
from engine.workdir import Facts
from evaluation import evaluate as evaluation
from evaluation import official, threshold
from evaluation.false_alarms import require_expected
from evaluation.metrics import OwnMetric, own_metrics
from evaluation.results import PREDICTIONS_FILE, RESULTS_FILE, SCORES_FILE, write_results
from evaluation.scoring import scorer_of, theory_checks
from report import summary
from report.run import PAGE, write_report
from storage.rows import Stack

_BATCH = 32


class Judgement(NamedTuple):
    """How a config wants a run to be judged."""

    false_alarm_rate: float  # of good parts that may be called defective, in (0, 1)
    false_regions: float  # expected to be marked in a good image, above 0
    metrics: Mapping[str, OwnMetric]  # the user's own

    def warn_of_few(self, splits: pipeline.Splits) -> None:
        """Says before an hour of training what the calibration images are too few to promise."""
        count = len(splits.calibration.images)
        good = count + len(splits.train.images)
        if shortfall := threshold.shortfall(self.false_alarm_rate, count, good):
            logging.warning("%s", shortfall)


def require_judgement(config: ConfigDict) -> Judgement:
    """What the config asks for; ValueError where it makes no sense, so before any training."""
    rate = config.threshold.false_alarm_rate
    regions = config.threshold.get("false_regions", 0.05)  # runs of earlier versions have none
    threshold.require_rate(rate)
    require_expected(regions)
    return Judgement(rate, regions, own_metrics(config.evaluation.metrics))


def evaluate(
    config: ConfigDict, workdir: str | os.PathLike[str], *, save_maps: bool = False
) -> dict[str, Any]:
    """Evaluates the trained run of `workdir` by `config`; returns the results.

    `save_maps` writes the maps for MVTec AD's official evaluation. Of several processes the main
    one alone evaluates; for the others there are no results.

    Raises:
      ValueError, OSError: one line that says what is wrong and the way out.
    """
    workdir = whole_path(workdir)
    config = inputs.located(config, workdir)
    judgement = require_judgement(config)
    facts = trained_facts(workdir)
    with held(workdir):
        splits = inputs.load(config, facts)
        judgement.warn_of_few(splits)
        facts = rejoin(config, workdir)
        before, now = usable_sources(workdir), inputs.sources_of(splits)
        if before and (what := changes(before.all(), now.all())):
            logging.warning("Images have changed since %s was last evaluated: %s.", workdir, what)
        return evaluate_run(config, facts, judgement, workdir, splits, save_maps=save_maps)


def evaluate_run(
    config: ConfigDict,
    facts: Facts,
    judgement: Judgement,
    workdir: str,
    splits: pipeline.Splits,
    *,
    save_maps: bool = False,
) -> dict[str, Any]:
    """Scores the images with the networks in `workdir`, and writes and prints what comes of it."""
    if not parallel.is_main():
        return {}
    startup.give_back_memory()
    networks = restore_networks(config, facts, workdir)
    outcome = evaluation.evaluate_test_set(
        scorer_of(networks.method, networks.variables),
        splits.test,
        splits.calibration,
        workdir,
        batches=pipeline.eval_batches,
        batch_size=_BATCH,
        about=_about(config, splits, networks),
        network=networks.origin,
        false_alarm_rate=judgement.false_alarm_rate,
        false_regions=judgement.false_regions,
        pixel_size=config.evaluation.pixel_size,
        own=judgement.metrics,
        official_metrics=save_maps,
    )
    if save_maps:
        _write_maps(workdir, config.data.category, splits.test, outcome.scored.maps)
    if date := threshold.recalibrated(workdir):
        kept = threshold.keep_old_threshold(workdir, f"evaluation-after-{date}")
        logging.warning(
            "The threshold that new photos set on %s is replaced by one from the held-out images; "
            "it is kept as %s.",
            date,
            kept,
        )
    write_results(workdir, outcome, networks.origin)
    write_sources(workdir, inputs.sources_of(splits))
    write_report(os.path.join(workdir, REPORT), **outcome._asdict())
    page = os.path.join(REPORT, PAGE)
    names = (threshold.THRESHOLD_FILE, RESULTS_FILE, SCORES_FILE, PREDICTIONS_FILE)
    logging.info("Wrote %s and %s into %s.", ", ".join(names), page, workdir)
    print(f"{config.data.category}: {summary.summary(outcome.results)}")
    if save_maps and not config.data.folder:  # the script knows its own layout alone
        root = config.data.root if os.path.isdir(config.data.root) else "MVTEC_AD"
        metrics = outcome.results["official"]
        print(f"Official: {metrics}, as this command will find with MVTec's script:")
        print(official.official_command(root, workdir, config.data.category))
    print(f"Report: {os.path.join(workdir, page)}")
    return outcome.results


def _about(config: ConfigDict, splits: pipeline.Splits, networks: RunNetworks) -> dict[str, Any]:
    """What results.json says first."""
    defective = int(splits.test.labels.sum())
    batch = next(pipeline.eval_batches(splits.calibration.images, _BATCH))
    about = {
        "method": config.name,
        "category": config.data.category,
        "seed": config.seed,
        "counts": {
            "train": len(splits.train.images),
            "calibration": len(splits.calibration.images),
            "test_good": len(splits.test.images) - defective,
            "test_defective": defective,
        },
    }
    optional = {
        "score": networks.origin["score"],
        "checks": theory_checks(networks.method, networks.variables, batch),
    }
    return about | {name: values for name, values in optional.items() if values}


def _write_maps(workdir: str, category: str, test: Images, maps: Stack) -> None:
    folder = official.write_maps(
        workdir,
        category,
        paths=test.paths,
        defects=test.defects,
        maps=maps,
        sizes=test.sizes,
        orientations=test.orientations,
    )
    logging.info("Wrote %d anomaly maps into %s.", len(maps), folder)
    for reason in official.unseen(test.paths, test.defects):
        logging.warning("The official script passes over %s.", reason)
