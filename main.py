"""Trains and evaluates anomaly detectors on a folder of images.

python main.py --config=configs/fanogan.py:demo --workdir=/tmp/demo

Trains what the config says on the category's normal images, scores its test images, and writes
networks, threshold, scores, metrics and a report into the workdir. The same command goes on where
an interrupted run stopped. `--mode=evaluate --workdir=W` scores again with the networks in W,
`--mode=predict --workdir=W --images=PATH --output=DIR` decides on new images, `--mode=export
--workdir=W --output=DIR` writes what needs none of this code, `--mode=tune --workdir=W` chooses how
to score on made-up defects of held-out normal images, `--mode=compare --workdirs=W1,W2
--output=OUT` puts finished runs side by side on one page, `--mode=serve --workdir=W` answers over
HTTP, and `--mode=recalibrate --workdir=W --images=GOOD` sets the threshold from new good photos.

This file is meant to stay short: the work is done by the packages that it calls.
"""

import argparse
import errno
import logging as python_logging
import os
import re
import runpy
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

# TensorFlow reads these when it is imported, and else begins every run with lines about itself.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

from engine import startup

startup.keep_memory()

import jax
from absl import app, flags, logging
from ml_collections import FrozenConfigDict, config_flags

import commands
from commands.runs import whole_path
from engine import hosts, parallel, preemption
from engine.faults import fault_of_a_device
from engine.workdir import read_config

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    help_string="File with `get_config(category)`, such as configs/fanogan.py:bottle; any field of "
    "it can be set, as in --config.gan.n_critic=3. Without it: the config that the workdir holds, "
    "of which fields can be set likewise.",
    lock_config=True,
)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder of one run: networks, logs and results; made if need be.",
)
_MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "evaluate", "predict", "export", "tune", "compare", "check", "serve", "recalibrate"],
    "train: train, or go on training, then evaluate. evaluate: set the threshold and score the "
    "test images again with the networks in the workdir. predict: decide on --images and write "
    "rows, heat maps and masks into --output; exit code 2 if some could not be read. export: write "
    "the scoring function, weights and threshold into --output. tune: choose the loss's weight and "
    "the score's settings for the workdir on held-out normal images with made-up defects, never on "
    "test images; evaluate afterwards. compare: write a page about the runs in --workdirs into "
    "--output. check: say how each image would be used and all that is wrong with them, without a "
    "workdir; exit code 1 if anything is. serve: answer over HTTP, with a page for people, by the "
    "networks of --workdir or of the export --model. recalibrate: set the workdir's threshold from "
    "the new good photos --images, without training; the old one is kept.",
)
_WORKDIRS = flags.DEFINE_list("workdirs", [], "Workdirs of finished runs, for --mode=compare.")
_IMAGES = flags.DEFINE_string(
    "images",
    None,
    "File, folder (with all below it) or glob of new images, for --mode=predict and recalibrate.",
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder to write, for --mode=predict, export and compare."
)
_SAVE_MAPS = flags.DEFINE_bool(
    "save_maps",
    False,
    "For --mode=evaluate: write maps/ as MVTec AD's official evaluation reads them, and print its "
    "command.",
)
_REUSE = flags.DEFINE_string(
    "reuse",
    None,
    "Workdir of another run of the same settings, such as one of f-AnoGAN for configs/anogan.py: "
    "its finished stages are taken over and not trained again.",
)
_MODEL = flags.DEFINE_string("model", None, "Folder that --mode=export wrote, for --mode=serve.")
_HOST = flags.DEFINE_string(
    "host",
    "127.0.0.1",
    "Address that --mode=serve listens at. Whoever reaches it may ask; 0.0.0.0: from any network.",
)
_PORT = flags.DEFINE_integer("port", 8000, "Port of --mode=serve; 0: any that is free.")
_JOURNAL = flags.DEFINE_string(
    "journal", None, "Folder that gets a line for each photo that --mode=serve answers."
)
_KEEP = flags.DEFINE_enum(
    "keep", "none", ["defective", "all", "none"], "Which photos --mode=serve keeps in --journal."
)
_ADDRESS = flags.DEFINE_string(
    "coordinator_address",
    None,
    "HOST:PORT of process 0, for a run of several processes: one a host, each with the same "
    "command but for its --process_id. TPU pod slices, SLURM, Open MPI and Kubernetes are known "
    "without these three.",
)
_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes there are.")
_PROCESS = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0 on.")


def _require_flags() -> None:
    """Raises ValueError where a flag is missing, or would be ignored without a word."""
    mode = _MODE.value
    given = {
        "config": _CONFIG.value,
        "workdir": _WORKDIR.value,
        "reuse": _REUSE.value,
        "workdirs": _WORKDIRS.value,
        "images": _IMAGES.value,
        "output": _OUTPUT.value,
        "save_maps": _SAVE_MAPS.value,
        "coordinator_address": _ADDRESS.value,
        "model": _MODEL.value,
        "journal": _JOURNAL.value,
        "keep": _KEEP.value != "none",
        "host": _HOST.value != _HOST.default,
        "port": _PORT.value != _PORT.default,
    }
    needed: dict[str, tuple[str, ...]] = {
        "predict": ("workdir", "images", "output"),
        "export": ("workdir", "output"),
        "compare": ("output",),
        "check": ("config",),
        "recalibrate": ("workdir", "images"),
        "serve": ("workdir",) if not _MODEL.value else ("model",),
    }
    taken: dict[str, tuple[str, ...]] = {
        **needed,
        "train": ("workdir", "config", "reuse", "coordinator_address"),
        "evaluate": ("workdir", "config", "save_maps", "coordinator_address"),
        "export": ("workdir", "config", "output"),
        "tune": ("workdir", "config", "coordinator_address"),
        "compare": ("workdirs", "output"),
        "check": ("workdir", "config"),
        "serve": (*needed["serve"], "host", "port", "journal", "keep"),
    }
    if extra := [f"--{name}" for name, value in given.items() if value and name not in taken[mode]]:
        raise ValueError(f"{extra[0]} is not for --mode={mode}: leave it out")
    if missing := [f"--{name}" for name in needed.get(mode, ("workdir",)) if not given[name]]:
        raise ValueError(f"--mode={mode} needs {missing[0]}: python main.py --help explains it")


def _config(workdir: str) -> FrozenConfigDict:
    """The config of the command line, or else of the workdir; nothing writes into it.

    Raises ValueError where the workdir lies among the images, so before anything is written.
    """
    return commands.located(FrozenConfigDict(_CONFIG.value or read_config(workdir)), workdir)


def _run(workdir: str) -> int:
    """Does what --mode says; the exit code."""
    output = whole_path(_OUTPUT.value or "")
    match _MODE.value:
        case "predict":
            return 2 if commands.predict(workdir, _IMAGES.value or "", output) else 0
        case "export":
            commands.export(workdir, output, _config(workdir))
        case "check":
            jax.config.update("jax_platforms", "cpu")  # beside a training that has the accelerator
            return 1 if commands.check(_config(workdir), workdir) else 0
        case "compare":
            commands.compare(_WORKDIRS.value, output)
        case "serve":
            commands.serve(
                workdir,
                _MODEL.value or "",
                host=_HOST.value,
                port=_PORT.value,
                journal=_JOURNAL.value or "",
                keep=_KEEP.value,
            )
        case "recalibrate":
            commands.recalibrate(workdir, _IMAGES.value or "")
        case "tune":
            commands.tune(_config(workdir), workdir)
        case "evaluate":
            commands.evaluate(_config(workdir), workdir, save_maps=_SAVE_MAPS.value)
        case "train":
            commands.train(_config(workdir), workdir, reuse=_REUSE.value)
    return 0


def main(argv: list[str]) -> None:
    """Runs what the flags say; an expected error ends it with one line and exit code 1."""
    if len(argv) > 1:
        sys.exit(f"error: {_unexpected(argv[1:])}")
    logging.get_absl_handler().addFilter(_worth_reading)
    sys.unraisablehook = _ended_nothing
    startup.prepare()
    preemption.install()
    workdir = whole_path(_WORKDIR.value) if _WORKDIR.value else ""
    leave: Callable[[int], None] = sys.exit
    try:
        _require_flags()
        leave = hosts.start(_ADDRESS.value, _PROCESSES.value, _PROCESS.value)
        code = _run(workdir)
    except KeyboardInterrupt:
        code = 130  # as a shell has it after Ctrl-C
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    except (ValueError, OSError, FloatingPointError) as error:
        logging.debug("The traceback of the error below:", exc_info=True)
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        place = _OUTPUT.value or workdir
        remedy = f": free space in {place}, the same command goes on" if full else ""
        print(f"error: {_one_line(error)}{remedy}", file=sys.stderr)
        code = 1
    except (RuntimeError, AssertionError, MemoryError) as error:
        line = fault_of_a_device(error)
        if line:
            line = f"error: {_printable(line)}"
        elif isinstance(error, jax.errors.JaxRuntimeError) and parallel.process()[1] > 1:
            line = f"{hosts.LOST} ({_one_line(error)[:200]})"
        else:
            raise
        logging.debug("The traceback of the error below:", exc_info=True)
        print(line, file=sys.stderr)
        code = 1
    leave(code)


def _ended_nothing(unraisable: Any) -> None:
    """Keeps an error that nobody can catch to the debug log.

    When a save meets a full disk, threads of tensorstore go on for a while without their event
    loop, and their tracebacks would run into the one line that says what happened.
    """
    error = unraisable.exc_value
    preemption.send_again(error)
    logging.debug("An error that ended nothing: %r", error, exc_info=error)


def _worth_reading(record: python_logging.LogRecord) -> bool:
    """Orbax and TFDS say much that is of no use to the reader; Orbax's errors come up anyway.

    Of its tasks that failed beside the first, such as on a full disk, asyncio prints tracebacks.
    """
    if record.name == "asyncio":
        return False
    if "-packages" not in record.pathname:
        return True
    return record.levelno > python_logging.INFO and "orbax" not in record.pathname


def _one_line(error: Exception) -> str:
    """What an error says, without line breaks."""
    # A KeyError shows what is missing as Python code has it.
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return _printable(" ".join(text.replace("\\n", " ").split()))


def _printable(text: str) -> str:
    """Without what a terminal would obey: file names may hold anything."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _unexpected(arguments: Sequence[str]) -> str:
    """Why arguments that are no flags are refused: a shell may have made them of a pattern."""
    if _IMAGES.value and os.path.exists(arguments[0]):
        return (
            f"the shell has put {len(arguments) + 1} files in the place of a pattern: put it in "
            "quotes, such as --images='*.png'"
        )
    return f"unexpected argument {_printable(arguments[0])!r}: flags begin with --"


def _parse_flags(argv: list[str]) -> list[str]:
    """absl's parser, but for what it lets --help, wrong values and unknown fields end in.

    Fields of a config without a config are fields of the workdir's.
    """
    known = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("-config", "-workdir"):
        known.add_argument(name, f"-{name}")
    given, others = known.parse_known_args(argv[1:])
    if {"--help", "-help", "-h", "--helpshort", "--helpfull", "-helpfull"} & set(others):
        whole = any(each.endswith("-helpfull") for each in others)
        app.usage(shorthelp=not whole, writeto_stdout=True, exitcode=0)
    fields = [match[1] for each in others if (match := re.match("--?config[.]([^=]+)", each))]
    if fields and not given.config:
        here = os.path.dirname(os.path.abspath(__file__))
        given.config = f"{here}/configs/workdir.py:{given.workdir or ''}"
        argv = [argv[0], f"--config={given.config}", *argv[1:]]
    try:
        return flags.FLAGS(argv)
    except (AttributeError, KeyError) as error:
        sys.exit(f"error: {_unknown_field(given.config, fields) or _one_line(error)}")
    except (TypeError, ValueError, OSError, flags.Error) as error:
        sys.exit(f"error: {_one_line(error)}")
    except Exception as error:  # a config file is code, and may raise anything
        sys.exit(f"error: {given.config} raises {type(error).__name__}: {_one_line(error)}")


def _unknown_field(config: str, fields: Sequence[str]) -> str:
    """Which of the fields that are set the config has not, and what may be meant; or ''."""
    path, _, argument = config.partition(":")
    with suppress(Exception):  # what is wrong with the file itself is said otherwise
        content = runpy.run_path(path)["get_config"](*([argument] if argument else []))
        reasons = (commands.unknown_field(content, field) for field in fields)
        return next((f"--config.{reason}" for reason in reasons if reason), "")
    return ""


if __name__ == "__main__":
    app.run(main, flags_parser=_parse_flags)
