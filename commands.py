"""What main.py's modes do: the place where the images, a method and the engine meet.

Each function takes a config and folders, writes into a workdir, and raises ValueError, OSError or
FloatingPointError with one line that says what is wrong and the way out.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from data import demo, pipeline, textures
from engine import batches, checkpoint, comparison, evaluation, parallel, tuning
from engine.method import Method, make
from engine.scoring import check, restore, scorer_of
from engine.train import Every, check_batches, train

# What of a config says where images lie and how a run is watched and judged, not what it learns.
_FREE = ("data.root", "data.prepared", "data.resident", "evaluation", "every", "tuning")
# What else may differ from a run whose stages are reused: it changes no stage.
_NO_STAGES = ("name", "method", "score")
_SCORING_BATCH = 32
_EXAMPLES = 16  # held-out images in the pictures of training


def run(
    config: ConfigDict,
    workdir: str,
    mode: str,
    *,
    reuse: str | None = None,
    started: float | None = None,
) -> dict[str, Any]:
    """Trains (in mode 'train') and evaluates `config` in `workdir`; returns the results.

    The finished stages of the workdir `reuse` are not trained again. `started` is when the program
    did, by time.monotonic(), for the log.

    Raises:
      ValueError, OSError, FloatingPointError: one line that says what is wrong and the way out.
    """
    splits = _load(config, workdir)
    if mode == "train":
        config.data.update(num_train=len(splits.train.images), digest=splits.digest)
        _train(config, workdir, splits, reuse=reuse, started=started)
    elif config.data.digest != splits.digest:
        logging.warning("The images in %s have changed since training.", config.data.root)
    folder, chosen = tuning.chosen(workdir)
    config.get("score", {}).update(chosen)
    method, normal = make(config.method, config), _normal(splits)
    variables = restore(method, folder)
    checks = check(method, variables, next(pipeline.eval_batches(normal.images, _SCORING_BATCH)))
    told = {"score": chosen, "checks": checks}
    results = evaluation.evaluate(
        scorer_of(method, variables),
        splits.test,
        pipeline.eval_batches(splits.test.images, _SCORING_BATCH),
        pipeline.eval_batches(normal.images, _SCORING_BATCH),
        workdir,
        about=_about(config, splits) | {name: values for name, values in told.items() if values},
        pixel_size=config.evaluation.pixel_size,
        batch_size=_SCORING_BATCH,
    )
    print(f"{config.data.category}: {evaluation.summary(results)}")
    print(f"Report: {os.path.join(workdir, 'report', 'index.html')}")
    return results


def tune(config: ConfigDict, workdir: str) -> dict[str, Any]:
    """Chooses network and score on held-out normal images with made-up defects.

    Writes `workdir/tuning.json`, where `run` finds it. A network is trained for each weight of the
    loss in `config.tuning.corrupted_weights` besides the workdir's own, below `workdir/tuning/`; an
    interrupted one goes on. No test image is opened.

    Raises:
      ValueError, OSError, FloatingPointError: one line that says what is wrong and the way out.
    """
    method = make(config.method, config)
    if method.tuning is None:
        raise ValueError(
            f"{config.name} leaves nothing to tune: --mode=tune is for configs/ssae.py"
        )
    _place(config, workdir)
    trained = checkpoint.read_config(workdir)["data"]
    config.data.update(num_train=trained["num_train"], digest=trained["digest"])
    checkpoint.claim(workdir, config.to_dict(), free=_FREE, main=False)
    last = method.stages[-1]
    if (step := int(checkpoint.newest(workdir, last.name)["step"])) < last.num_steps:
        raise ValueError(f"{workdir} is at step {step} of {last.num_steps}: train it to its end")
    splits = _read(config, test=False)
    if not len(splits.calibration.images):
        raise ValueError(
            "no normal images are held out to tune on: train with data.calibration > 0"
        )
    folders = _trained_weights(config, workdir, splits)
    networks = {
        name: restore(method, os.path.join(workdir, folder)) for name, folder in folders.items()
    }
    images = next(pipeline.eval_batches(splits.calibration.images, len(splits.calibration.images)))
    ranked = tuning.tune(networks, method.tuning, images, draws=config.tuning.draws)
    why = (
        "largest mean of image AUROC and pixel average precision, on "
        f"{config.tuning.draws} made-up defects in each of {len(images)} held-out normal images; "
        "no test image was seen"
    )
    content = tuning.write(workdir, ranked, method.tuning, folders, why)
    print(tuning.summary(content))
    return content


def _trained_weights(config: ConfigDict, workdir: str, splits: pipeline.Splits) -> dict[str, str]:
    """Name -> folder below the workdir of a network for each weight of the loss, the own first."""
    loss = config.training.loss
    folders = {f"corrupted_weight={loss.get('corrupted_weight')}": "."}
    for weight in config.tuning.corrupted_weights if "corrupted_weight" in loss else ():
        if (name := f"corrupted_weight={weight}") not in folders:
            folders[name] = os.path.join("tuning", name)
            variant = config.copy_and_resolve_references()
            variant.training.loss.corrupted_weight = weight
            _train(variant, os.path.join(workdir, folders[name]), splits)
    return folders


def _train(
    config: ConfigDict,
    workdir: str,
    splits: pipeline.Splits,
    *,
    reuse: str | None = None,
    started: float | None = None,
) -> None:
    """Binds the workdir to the config and trains what is not yet trained."""
    method = make(config.method, config, *_textures(config))
    training = _batches(config, splits.train.images)
    _bind(workdir, config, method, reuse)
    train(
        method,
        training,
        workdir,
        seed=config.seed,
        every=Every(**config.every),
        examples=next(pipeline.eval_batches(_normal(splits).images, _EXAMPLES)),
        started=started,
    )


def _normal(splits: pipeline.Splits) -> evaluation.LabelledImages:
    """The held-out normal images; those of training stand in where none are held out."""
    return splits.calibration if len(splits.calibration.images) else splits.train


def _textures(config: ConfigDict) -> list[np.ndarray]:
    """The user's pictures, where the config names a folder of them: what training needs besides."""
    folder = config.get("corruption", {}).get("textures", "")
    return [textures.load(folder, config.data.image_size)] if folder else []


def _bind(workdir: str, config: ConfigDict, method: Method, reuse: str | None) -> None:
    """Binds the workdir to a config that can be trained, so that a corrected one may follow."""
    check_batches(method)
    settings, main_process = config.to_dict(), parallel.is_main()
    checkpoint.claim(workdir, settings, free=_FREE, main=False)
    if reuse:
        stages = {stage.name: stage.num_steps for stage in method.stages}
        source, free = os.path.abspath(os.path.expanduser(reuse)), (*_FREE, *_NO_STAGES)
        taken = checkpoint.reuse(source, workdir, stages, settings, free=free, main=main_process)
        logging.info("Stages taken over from %s: %s.", source, ", ".join(taken) or "none")
    checkpoint.claim(workdir, settings, free=_FREE, main=main_process)


def _load(config: ConfigDict, workdir: str) -> pipeline.Splits:
    """The images; those of the category 'demo' are generated into the workdir first."""
    _place(config, workdir)
    if config.data.category == "demo":
        demo.generate(config.data.root)
    return _read(config)


def _place(config: ConfigDict, workdir: str) -> None:
    """Makes the folder of the images absolute; that of the category 'demo' is in the workdir."""
    if config.data.category == "demo":
        config.data.root = config.data.prepared = os.path.join(workdir, "data")
    config.data.root = os.path.abspath(os.path.expanduser(config.data.root))


def _read(config: ConfigDict, *, test: bool = True) -> pipeline.Splits:
    return pipeline.load(
        config.data.category,
        config.data.root,
        config.data.image_size,
        calibration=config.data.calibration,
        seed=config.seed,
        data_dir=config.data.prepared,
        test=test,
    )


def _batches(config: ConfigDict, images: np.ndarray) -> batches.Batches:
    """Training batches, gathered on the device where the config allows and the images fit."""
    # Workdirs of older versions say none of these; methods that see whole images no crop.
    resident, crop = config.data.get("resident", True), config.data.get("crop", 0)
    options = {"flip": config.data.flip, "crop": crop, "rotation": config.data.get("rotation", 0)}
    streamed = pipeline.train_batches(images, **options)
    if not resident:
        return batches.streamed(streamed)
    draws = pipeline.train_draws(images, **options)
    return batches.resident_if_it_fits(images, draws, streamed, crop=crop)


def compare(workdirs: Sequence[str], output: str) -> None:
    """Writes compare.html, compare.md and compare.json about finished runs into `output`.

    Raises:
      ValueError, OSError: one line that says what is wrong and the way out.
    """

    def load_test(config: Mapping[str, Any]) -> evaluation.LabelledImages:
        splits = _read(ConfigDict(config))
        if splits.digest != config["data"]["digest"]:
            raise ValueError(
                f"the images of {config['data']['category']} in {config['data']['root']} have "
                "changed since the runs were trained: put them back, or train again"
            )
        return splits.test

    folders = [os.path.abspath(os.path.expanduser(workdir)) for workdir in workdirs]
    print(comparison.compare(folders, load_test, output))
    print(f"Page: {os.path.join(output, 'compare.html')}")


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
