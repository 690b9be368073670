"""Judges a trained run: its threshold, its metrics, its files and its page."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from commands import ensemble, inputs
from commands.leave_one_out import ranks_left_out
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
from data.windows import Windows, clip_slices
from engine import parallel, startup
from engine.log import REPORT
from engine.pixels import scaled, to_pixels
from engine.sources import changes, usable_sources, write_sources
from engine.workdir import Facts
from evaluation import evaluate as evaluation
from evaluation import official, threshold
from evaluation.false_alarms import require_expected
from evaluation.metrics import OwnMetric, own_metrics
from evaluation.misses import Costs, LabelledDefects, require_costs
from evaluation.results import (
    PREDICTIONS_FILE,
    RESULTS_FILE,
    SCORES_FILE,
    Evaluation,
    write_results,
)
from evaluation.scoring import scorer_of, theory_checks
from report import summary
from report.over_time import clip_sections
from report.run import PAGE, write_report
from storage.rows import Stack

_BATCH = 32


class Judgement(NamedTuple):
    """How a config wants a run to be judged."""

    false_alarm_rate: float  # of good parts that may be called defective, in (0, 1)
    false_regions: float  # expected to be marked in a good image, above 0
    metrics: Mapping[str, OwnMetric]  # the user's own
    costs: Costs  # of what the threshold does wrong; 0: it follows from the rate
    leave_one_out: bool  # whether networks are trained without each labelled image

    def warn_of_few(self, splits: pipeline.Splits) -> None:
        """Says before an hour of training what the calibration images are too few to promise."""
        of_clips = isinstance(splits.train.images, Windows)
        count, trained = (_held(part, of_clips) for part in (splits.calibration, splits.train))
        good, of = count + trained, "clips" if of_clips else "images"
        if shortfall := threshold.shortfall(self.false_alarm_rate, count, good, of=of):
            logging.warning("%s", shortfall)

    def costs_of(self, labelled: int, learns: bool) -> Costs | None:
        """What the threshold is chosen by, of so many labelled images; None: by the rate.

        `learns`: whether the method learns from labelled images.

        Raises:
          ValueError: there are too few labelled images for it, or for leaving one out.
        """
        if self.leave_one_out and learns and labelled < 2:
            raise ValueError(
                f"threshold.leave_one_out takes 2 labelled images at least, and there are "
                f"{labelled}: label more with data.labelled, or set it to False"
            )
        return require_costs(self.costs, labelled, tested=self.leave_one_out or not learns)


def _held(images: Images, of_clips: bool) -> int:
    """How many images there are, or how many clips."""
    return len(clip_slices(images.paths)) if of_clips else len(images.images)


def require_judgement(config: ConfigDict) -> Judgement:
    """What the config asks for; ValueError where it makes no sense, so before any training."""
    rate = config.threshold.false_alarm_rate
    regions = config.threshold.get("false_regions", 0.05)  # runs of earlier versions have none
    threshold.require_rate(rate)
    require_expected(regions)
    # Runs of earlier versions have none of these fields.
    get = config.threshold.get
    costs = Costs(
        get("cost_of_miss", 0.0), get("cost_of_false_alarm", 0.0), get("defect_rate", 0.01)
    )
    own = own_metrics(config.evaluation.metrics)
    return Judgement(rate, regions, own, costs, get("leave_one_out", False))


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
    if "members" in config:
        return _evaluate_ensemble(config, workdir, save_maps=save_maps)
    config = inputs.located(config, workdir)
    judgement = require_judgement(config)
    facts = trained_facts(workdir)
    with held(workdir):
        splits = inputs.load(config, facts)
        judgement.warn_of_few(splits)
        facts = rejoin(config, workdir, inputs.facts_of(config, splits))
        costs = judgement.costs_of(splits.num_labelled, inputs.method_of(config, facts).labelled)
        before, now = usable_sources(workdir), inputs.sources_of(splits)
        if before and (what := changes(before.all(), now.all())):
            logging.warning("Images have changed since %s was last evaluated: %s.", workdir, what)
        left_out = None
        if judgement.leave_one_out:
            left_out = ranks_left_out(config, facts, workdir, splits)
        return evaluate_run(
            config, facts, judgement, costs, workdir, splits, left_out=left_out, save_maps=save_maps
        )


def _evaluate_ensemble(config: ConfigDict, workdir: str, *, save_maps: bool) -> dict[str, Any]:
    members = ensemble.members_of(config)
    config = inputs.located(ensemble.settings_of(config, members), workdir)
    judgement, facts = require_judgement(config), members[1].facts
    with held(workdir):
        splits = inputs.load(config, facts)
        ensemble.bind(config, facts, workdir)
        costs = judgement.costs_of(splits.num_labelled, learns=True)  # one member has
        networks = ensemble.joined(members, ensemble.measured(members, splits))
        return evaluate_run(
            config, facts, judgement, costs, workdir, splits, networks=networks, save_maps=save_maps
        )


def evaluate_run(
    config: ConfigDict,
    facts: Facts,
    judgement: Judgement,
    costs: Costs | None,
    workdir: str,
    splits: pipeline.Splits,
    *,
    left_out: Sequence[int] | None = None,
    networks: RunNetworks | None = None,
    save_maps: bool = False,
) -> dict[str, Any]:
    """Scores the images with the networks in `workdir`, and writes and prints what comes of it.

    `costs` are the judgement's that these images allow; `left_out` the ranks of the labelled images
    by networks that have not seen them; `networks` those of an ensemble, by default the workdir's.
    """
    if not parallel.is_main():
        return {}
    startup.give_back_memory()
    learns = networks is not None  # one member of an ensemble has
    if networks is None:
        networks = restore_networks(config, facts, workdir)
        learns = networks.method.labelled
    labelled = splits.labelled and LabelledDefects(splits.labelled, learns, left_out, costs)
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
        smoothing=config.evaluation.smoothing if inputs.of_clips(config) else None,
        own=judgement.metrics,
        official_metrics=save_maps,
        labelled=labelled,
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
    folder = os.path.join(workdir, REPORT)
    if inputs.of_clips(config):
        over_time = clip_sections(folder, outcome.scored, outcome.threshold)
        write_report(folder, **outcome._asdict(), over_time=over_time)
    else:
        write_report(folder, **outcome._asdict(), chains=_chains(networks, outcome))
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
    if inputs.of_clips(config):
        parts = {"train": splits.train, "calibration": splits.calibration, "test": splits.test}
        clips = {f"{name}_clips": _held(part, True) for name, part in parts.items()}
        about["counts"] = {**about["counts"], **clips}
    chosen = {name: value for name, value in networks.origin["score"].items() if name != "usual"}
    optional = {
        "score": chosen,  # tuning.json has the thousand numbers that say what is usual
        "checks": theory_checks(networks.method, networks.variables, batch),
    }
    return about | {name: values for name, values in optional.items() if values}


def _chains(networks: RunNetworks, outcome: Evaluation) -> dict[str, dict[str, np.ndarray]]:
    """What scoring does with a good and a defective image, those of the middle score of each.

    Without test images, with a calibration image; {} of a method that has nothing to show.
    """
    if networks.method.chain is None:
        return {}
    scored = outcome.scored if len(outcome.scored.paths) else outcome.calibration
    order = np.argsort(scored.scores, kind="stable")
    ranked = [order[np.asarray(scored.labels)[order] == label] for label in (0, 1)]
    middle = [int(indices[len(indices) // 2]) for indices in ranked if len(indices)]
    images = scaled(np.stack([scored.images[index] for index in middle]))
    shown = networks.method.chain(networks.origin["score"])(networks.variables, images)
    return {
        f"{scored.defects[index]}, score {scored.scores[index]:.4g}": {
            caption: to_pixels(np.asarray(each[place])) for caption, each in shown.items()
        }
        for place, index in enumerate(middle)
    }


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
