"""Weak scaling: as many images on each device however many there are, and what communication costs.

python -m benchmarks.weak_scaling                                  # on a CPU, with made-up devices
python -m benchmarks.weak_scaling --category=bottle --batch=32     # on GPUs or TPUs

The adversarial step of configs/fanogan.py and the step of configs/ssae_small.py, in the sizes of
`:demo` or in full, on made-up images that lie on the devices, as engine/train.py runs them. On 1,
2, 4, ... devices, in a process each, the step and the same step without communication alternate: in
the latter nothing is averaged or gathered, so that no device waits for another, and what it trains
is of no use. Prints a Markdown table of medians: of a step's time; of the share of it that
communication takes, 1 - without / with, with the middle half of the rounds; and of the same share
of the processors' time, which counts no waiting, so that other programs disturb it less.
"""

from engine import startup

startup.keep_memory()  # as main.py does

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from configs import fanogan, ssae_small
from engine import batches, parallel
from engine.make import make
from engine.method import Stage
from engine.train import Every, dispatches

_MADE_UP = 8  # devices of a CPU
_IMAGES = 200  # about as many as a category has
# The config's module, and its section with the batch size.
_CASES = {"f-AnoGAN": (fanogan, "gan"), "self-supervised AE": (ssae_small, "training")}
_COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")


@contextmanager
def without_communication() -> Iterator[None]:
    """What is traced inside takes a device's own values for the mean, and for everyone's."""

    def gather(mine: jax.Array, axis_name: str, *, tiled: bool) -> jax.Array:
        return jnp.concatenate([mine] * jax.lax.axis_size(axis_name))

    with mock.patch.multiple(jax.lax, pmean=lambda tree, *_, **__: tree, all_gather=gather):
        yield


def compiled(stage: Stage, pixels: np.ndarray, dims: tuple, *, alone: bool) -> Callable[[], None]:
    """A dispatch of the stage's steps, `alone` without communication; it waits for its end.

    `dims` are those of what is sent: [devices, steps, ..., images per device].
    """
    rng = np.random.default_rng(0)
    draws = rng.integers(len(pixels), size=dims, dtype=np.int32), rng.random(dims) < 0.5
    sent = (*draws, np.zeros((*dims, 2), np.int32), np.zeros(dims, np.int32))
    resident = batches.resident(pixels, lambda *_: iter(()))
    held, state = parallel.replicate((resident.held, jax.jit(stage.init)(jax.random.key(0), {})))
    latest = [state]
    with without_communication() if alone else nullcontext():
        step = parallel.data_parallel(stage.step, 0, resident.images)
        run = step.lower(state, held, sent).compile()
    found = [word for word in _COLLECTIVES if word in run.as_text()]
    if bool(found) == alone:
        raise RuntimeError(f"collectives of the step, {alone=}: {found}")

    def dispatch() -> None:
        latest[0], metrics = run(latest[0], held, sent)
        jax.block_until_ready((latest[0], metrics))

    return dispatch


def by_turns(runs: list[Callable[[], None]], rounds: int) -> np.ndarray:
    """Seconds by the clock, and of all processors: [2, rounds, runs]."""
    seconds = np.zeros((2, rounds + 1, len(runs)))
    for turn, run in np.ndindex(seconds.shape[1:]):
        start = time.perf_counter(), time.process_time()
        runs[run]()
        seconds[:, turn, run] = time.perf_counter() - start[0], time.process_time() - start[1]
    return seconds[:, 1:]  # the first warms up


def measure(devices: int, batch: int, category: str, rounds: int) -> list[dict[str, Any]]:
    """A row for each case, on the first `devices` devices of this process."""
    used = jax.local_devices()[:devices]
    rows = []
    for name, (module, section) in _CASES.items():
        config = module.get_config(category)
        config[section].batch_size = devices * batch
        stage = make(config.method, config, _IMAGES).stages[0]
        _, steps = next(dispatches(0, stage.num_steps, Every(**config.every), grouped=True))
        dims = (devices, steps, *stage.batch_dims[:-1], batch)
        shape = (_IMAGES, config.data.image_size, config.data.image_size, 3)
        pixels = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
        with mock.patch.object(jax, "local_devices", return_value=used):
            runs = [compiled(stage, pixels, dims, alone=alone) for alone in (False, True)]
        seconds = by_turns(runs, rounds) / steps
        shares = np.quantile(1 - seconds[..., 1] / seconds[..., 0], (0.5, 0.25, 0.75), axis=1)
        ms = np.median(1e3 * seconds[0], axis=0).tolist()
        rows.append({"case": name, "devices": devices, "ms": ms, "shares": shares.tolist()})
    return rows


def child(code: str, devices: int) -> Any:
    """What `code` prints last, as JSON, in a process that makes up `devices` of a CPU."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    code = f"from benchmarks.weak_scaling import *; startup.prepare(); print(json.dumps({code}))"
    command, env = [sys.executable, "-c", code], {**os.environ, "XLA_FLAGS": flags.strip()}
    return json.loads(subprocess.check_output(command, env=env).splitlines()[-1])


def main() -> None:
    """Measures on 1, 2, 4, ... devices and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=4, help="images per device")
    parser.add_argument("--category", default="demo", help="of the configs")
    parser.add_argument("--rounds", type=int, default=20, help="of dispatches")
    batch, category, rounds = vars(parser.parse_args()).values()
    names = child("parallel.device_names()", _MADE_UP)
    rows = []
    for devices in (2**power for power in range(len(names).bit_length())):
        print(f"{devices} of {len(names)} devices ...", file=sys.stderr)
        rows += child(f"measure({devices}, {batch}, {category!r}, {rounds})", devices)
    about = f"{names[0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    about += f", jax {jax.__version__}, {batch} images per device, {rounds} rounds"
    print(f"{datetime.date.today()}, {about}\n")
    print("| step | devices | ms | without | communication | of processors' time | efficiency |")
    print("|" + "---|" * 7)
    for row in sorted(rows, key=lambda row: row["case"]):
        one = next(first["ms"][0] for first in rows if first["case"] == row["case"])
        cells = [row["case"], str(row["devices"]), *(f"{value:.0f}" for value in row["ms"])]
        for share, low, high in zip(*row["shares"], strict=True):
            cells.append(f"{share:.0%} ({low:.0%} to {high:.0%})")
        print("| " + " | ".join([*cells, f"{one / row['ms'][0]:.2f}"]) + " |")


if __name__ == "__main__":
    main()
