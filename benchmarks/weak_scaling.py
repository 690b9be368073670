"""Weak scaling: as many images on each device however many there are, and what communication costs.

python -m benchmarks.weak_scaling                                  # on a CPU, with made-up devices
python -m benchmarks.weak_scaling --category=bottle --batch=32     # on GPUs or TPUs

The adversarial step of configs/fanogan.py and the step of configs/ssae_small.py, in the sizes of
`:demo` or in full, on made-up images that lie on the devices, as engine/train.py runs them. On 1,
2, 4, ... devices, in a process each, the step and the same step without communication alternate: in
the latter nothing is averaged or gathered, so that no device waits for another, and what it trains
is of no use. Prints a Markdown table of medians.
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
from engine.method import Stage, make
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

    with (
        mock.patch.object(jax.lax, "pmean", lambda tree, *_, **__: tree),
        mock.patch.object(jax.lax, "all_gather", gather),
    ):
        yield


def compiled(
    stage: Stage, pixels: np.ndarray, dims: tuple[int, ...], *, alone: bool
) -> Callable[[], None]:
    """A dispatch of the stage's steps, as engine/train.py runs it; it waits for its end.

    `dims` are those of what is sent: [devices, steps, ..., images per device]; `alone`: without
    communication.
    """
    rng = np.random.default_rng(0)
    draws = rng.integers(len(pixels), size=dims, dtype=np.int32), rng.random(dims) < 0.5
    sent = (*draws, np.zeros((*dims, 2), np.int32), np.zeros(dims, np.int32))
    resident = batches.resident(pixels, lambda *_: iter(()))
    held = parallel.replicate(resident.held)
    latest = [parallel.replicate(jax.jit(stage.init)(jax.random.key(0), {}))]
    with without_communication() if alone else nullcontext():
        step = parallel.data_parallel(stage.step, 0, resident.images)
        run = step.lower(latest[0], held, sent).compile()
    found = [word for word in _COLLECTIVES if word in run.as_text()]
    if bool(found) == alone:
        raise RuntimeError(f"collectives of the step, {alone=}: {found}")

    def dispatch() -> None:
        latest[0], metrics = run(latest[0], held, sent)
        jax.block_until_ready((latest[0], metrics))

    return dispatch


def by_turns(runs: list[Callable[[], None]], rounds: int) -> np.ndarray:
    """Seconds [rounds, runs]."""
    seconds = np.zeros((rounds + 1, len(runs)))
    for turn, run in np.ndindex(seconds.shape):
        start = time.perf_counter()
        runs[run]()
        seconds[turn, run] = time.perf_counter() - start
    return seconds[1:]  # the first warms up


def measure(devices: int, batch: int, category: str, rounds: int) -> list[dict[str, Any]]:
    """A row for each case, on the first `devices` devices of this process."""
    used = jax.local_devices()[:devices]
    rows = []
    for name, (module, section) in _CASES.items():
        config = module.get_config(category)
        config.data.num_train = _IMAGES
        config[section].batch_size = devices * batch
        stage = make(config.method, config).stages[0]
        _, steps = next(dispatches(0, stage.num_steps, Every(**config.every), grouped=True))
        dims = (devices, steps, *stage.batch_dims[:-1], batch)
        shape = (_IMAGES, config.data.image_size, config.data.image_size, 3)
        pixels = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
        with mock.patch.object(jax, "local_devices", lambda: used):
            runs = [compiled(stage, pixels, dims, alone=alone) for alone in (False, True)]
        seconds = by_turns(runs, rounds) / steps
        milliseconds = np.median(1e3 * seconds, axis=0).tolist()
        shares = np.quantile(1 - seconds[:, 1] / seconds[:, 0], (0.25, 0.5, 0.75)).tolist()
        row = {"case": name, "devices": devices, "milliseconds": milliseconds, "shares": shares}
        rows.append(row)
    return rows


def child(code: str, devices: int) -> Any:
    """What `code` prints last, as JSON, in a process that makes up `devices` of a CPU."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    code = f"from benchmarks.weak_scaling import *; startup.prepare(); print(json.dumps({code}))"
    command = [sys.executable, "-c", code]
    env = {**os.environ, "XLA_FLAGS": flags.strip()}
    said = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(said.splitlines()[-1])


def main() -> None:
    """Measures on 1, 2, 4, ... devices and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=4, help="images per device")
    parser.add_argument("--category", default="demo", help="of the configs")
    parser.add_argument("--rounds", type=int, default=20, help="of dispatches")
    batch, category, rounds = vars(parser.parse_args()).values()
    names = child("parallel.device_names()", _MADE_UP)
    counts = [2**power for power in range(len(names).bit_length())]
    rows = []
    for devices in counts:
        print(f"{devices} of {len(names)} devices ...", file=sys.stderr)
        rows += child(f"measure({devices}, {batch}, {category!r}, {rounds})", devices)
    print(
        f"{datetime.date.today()}; {names[0]}, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f}; jax {jax.__version__}; {batch} images per device, "
        f"medians of {rounds} (of the share, the middle half besides)\n"
    )
    print(
        "| step | devices | ms | ms without communication | share of communication | efficiency |"
    )
    print("|" + "---|" * 6)
    one = {row["case"]: row["milliseconds"][0] for row in rows if row["devices"] == 1}
    for row in sorted(rows, key=lambda row: row["case"]):
        both, (low, share, high) = row["milliseconds"], row["shares"]
        cells = [row["case"], str(row["devices"]), *(f"{value:.0f}" for value in both)]
        cells += [f"{share:.1%} ({low:.1%} to {high:.1%})", f"{one[row['case']] / both[0]:.2f}"]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
