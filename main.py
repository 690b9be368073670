"""Trains and evaluates anomaly detectors on a folder of images.

python main.py --config=configs/fanogan.py:demo --workdir=/tmp/demo

Trains what the config says on the category's normal images, scores its test images, and writes
networks, scores, metrics and a report into the workdir. The same command goes on where an
interrupted run stopped. `--mode=evaluate --workdir=W` scores again with the networks in W,
`--mode=compare --workdirs=W1,W2 --workdir=OUT` puts finished runs side by side on one page.

This file is meant to stay short: the work is done by the packages that it calls.
"""

import logging as python_logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

_STARTED = time.monotonic()

# TensorFlow reads these when it is imported, and else begins every run with lines about itself.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

from engine import startup

startup.keep_memory()

import numpy as np
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from data import demo, pipeline
from engine import batches, checkpoint, comparison, evaluation, parallel
from engine.method import Method, make
from engine.scoring import restore_scorer
from engine.train import Every, check_batches, train

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    help_string="File with `get_config(category)`, such as configs/fanogan.py:bottle; any field of "
    "it can be set, as in --config.gan.n_critic=3. Without it: the config that the workdir holds.",
    lock_config=True,
)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder of one run: networks, logs and results; made if need be.",
    required=True,
)
_MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "evaluate", "compare"],
    "train: train, or go on training, then evaluate. evaluate: score the test images again with "
    "the networks in the workdir; the config comes from there. compare: write a page about the "
    "runs in --workdirs into the workdir.",
)
_WORKDIRS = flags.DEFINE_list("workdirs", [], "Workdirs of finished runs, for --mode=compare.")
_REUSE = flags.DEFINE_string(
    "reuse",
    None,
    "Workdir of another run of the same settings, such as one of f-AnoGAN for configs/anogan.py: "
    "its finished stages are taken over and not trained again.",
)

# What of a config says where images lie and how a run is watched and judged, not what it learns.
_FREE = ("data.root", "data.prepared", "data.resident", "evaluation", "every")
# What else may differ from a run whose stages are reused: it changes no stage.
_NO_STAGES = ("name", "method", "score")
_SCORING_BATCH = 32
_EXAMPLES = 16  # held-out images in the pictures of training


def _check_flags() -> None:
    """Raises ValueError where a flag would be ignored without a word."""
    mode = _MODE.value
    given = {"config": _CONFIG.value, "reuse": _REUSE.value, "workdirs": _WORKDIRS.value}
    taken = {"train": ("config", "reuse"), "evaluate": (), "compare": ("workdirs",)}[mode]
    if extra := [f"--{name}" for name, value in given.items() if value and name not in taken]:
        raise ValueError(f"{extra[0]} is not for --mode={mode}: leave it out")


def _config(workdir: str) -> ConfigDict:
    """The config of the command line, or without one that of the workdir."""
    if _CONFIG.value:
        return _CONFIG.value
    return ConfigDict(checkpoint.read_config(workdir))


def run(config: ConfigDict, workdir: str, mode: str, *, reuse: str | None = None) -> dict[str, Any]:
    """Trains (in mode 'train') and evaluates `config` in `workdir`; returns the results.

    The finished stages of the workdir `reuse` are not trained again.

    Raises:
      ValueError, OSError, FloatingPointError: one line that says what is wrong and the way out.
    """
    splits = _load(config, workdir)
    if mode == "train":
        config.data.update(num_train=len(splits.train.images), digest=splits.digest)
    elif config.data.digest != splits.digest:
        logging.warning("The images in %s have changed since training.", config.data.root)
    method = make(config.method, config)
    # The images of training stand in where none are held out.
    normal = splits.calibration if len(splits.calibration.images) else splits.train
    if mode == "train":
        _bind(workdir, config, method, reuse)
        examples = next(pipeline.eval_batches(normal.images, _EXAMPLES))
        train(
            method,
            _batches(config, splits.train.images),
            workdir,
            seed=config.seed,
            every=Every(**config.every),
            examples=examples,
            started=_STARTED,
        )
    results = evaluation.evaluate(
        restore_scorer(method, workdir),
        splits.test,
        pipeline.eval_batches(splits.test.images, _SCORING_BATCH),
        pipeline.eval_batches(normal.images, _SCORING_BATCH),
        workdir,
        about=_about(config, splits),
        pixel_size=config.evaluation.pixel_size,
        batch_size=_SCORING_BATCH,
    )
    print(f"{config.data.category}: {evaluation.summary(results)}")
    print(f"Report: {os.path.join(workdir, 'report', 'index.html')}")
    return results


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
    if config.data.category == "demo":
        config.data.root = config.data.prepared = os.path.join(workdir, "data")
        demo.generate(config.data.root)
    config.data.root = os.path.abspath(os.path.expanduser(config.data.root))
    return _read(config)


def _read(config: ConfigDict) -> pipeline.Splits:
    return pipeline.load(
        config.data.category,
        config.data.root,
        config.data.image_size,
        calibration=config.data.calibration,
        seed=config.seed,
        data_dir=config.data.prepared,
    )


def _batches(config: ConfigDict, images: np.ndarray) -> batches.Batches:
    """Training batches, gathered on the device where the config allows and the images fit."""
    # Workdirs of older versions say neither; methods that see whole images no crop.
    resident, crop = config.data.get("resident", True), config.data.get("crop", 0)
    streamed = pipeline.train_batches(images, flip=config.data.flip, crop=crop)
    if not resident:
        return batches.streamed(streamed)
    draws = pipeline.train_draws(images, flip=config.data.flip, crop=crop)
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


def main(argv: list[str]) -> None:
    """Runs what the flags say; an expected error ends it with one line and exit code 1."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}: flags begin with --")
    # Orbax and TFDS say much that is of no use to the reader.
    logging.get_absl_handler().addFilter(
        lambda record: record.levelno > python_logging.INFO or "-packages" not in record.pathname
    )
    startup.prepare()
    workdir = os.path.abspath(os.path.expanduser(_WORKDIR.value))
    try:
        _check_flags()
        if _MODE.value == "compare":
            compare(_WORKDIRS.value, workdir)
        else:
            run(_config(workdir), workdir, _MODE.value, reuse=_REUSE.value)
    except (ValueError, OSError, FloatingPointError) as error:
        logging.debug("The traceback of the error below:", exc_info=True)
        sys.exit(f"error: {_one_line(error)}")


def _one_line(error: Exception) -> str:
    """What an error says, without the line breaks and quotes of errors within errors."""
    text = str(error).replace("\\n", " ").replace("\\'", "'")
    return " ".join(text.split()).strip("'\"")


def _parse_flags(argv: list[str]) -> list[str]:
    """absl's parser, but for what it lets a missing config or a misspelt field of one end in."""
    try:
        return app.parse_flags_with_usage(argv)
    except (AttributeError, KeyError, TypeError, OSError) as error:
        sys.exit(f"error: {_one_line(error)}")


if __name__ == "__main__":
    app.run(main, flags_parser=_parse_flags)
