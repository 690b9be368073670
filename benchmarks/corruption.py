"""The share of a training step of configs/ssae.py that corruption takes, and how much it corrupts.

python -m benchmarks.corruption [--json=FILE]  # full size, for a GPU
python -m benchmarks.corruption --small        # configs/ssae_small.py, for a CPU
python -m benchmarks.corruption --restorer     # configs/restorer.py, for a CPU

Times whole steps and corruption alone by turns in one run, on made-up images, and prints medians,
and the step's share of the roofline (benchmarks/roofline.py); then the share of the pixels that
corruption replaces, over 1,000 images.
"""

import argparse
import json
import statistics
import time
from typing import Any

from engine import startup

startup.keep_memory()  # as main.py does

import jax
import numpy as np

from benchmarks import roofline
from benchmarks.compiled import training
from configs import restorer, ssae, ssae_small
from engine import parallel
from engine.make import make


def step_and_corruption(config: Any, rounds: int) -> dict[str, Any]:
    """Median seconds of both, and what a step of the config costs on one device.

    Returns a flat dictionary that JSON takes; `roofline_share` is None where the peaks of the
    device are unknown.
    """
    size, batch = config.data.image_size, config.training.batch_size
    images = np.random.default_rng(0).uniform(-1, 1, (batch, size, size, 3)).astype(np.float32)
    stage = make(config.method, config, 16).stages[0]
    step = training(stage.step, jax.jit(stage.init)(jax.random.key(0), {}), images)
    corrupt, placed = jax.jit(_corruption(config)), jax.device_put(images)
    seconds: dict[str, list[float]] = {"step": [], "corruption": []}
    for turn in range(rounds + 1):
        start = time.perf_counter()
        step.run()
        middle = time.perf_counter()
        jax.block_until_ready(corrupt(jax.random.key(turn), placed))
        end = time.perf_counter()
        if turn:  # the first compiles
            seconds["step"].append(middle - start)
            seconds["corruption"].append(end - middle)
    whole, corruption = (statistics.median(values) for values in seconds.values())
    device, dtype = parallel.device_names()[0], config.autoencoder.dtype
    return {
        **{"name": config.name, "size": size, "batch": batch, "dtype": dtype, "device": device},
        **{"step_seconds": whole, "corruption_seconds": corruption, "share": corruption / whole},
        **{"images_per_second": batch / whole, "compile_seconds": step.compile_seconds},
        **{"flops": step.cost.flops, "bytes": step.cost.bytes, "memory_bytes": step.cost.memory},
        "roofline_share": roofline.share_of_roofline(step.cost, whole, device, dtype),
    }


def replaced(config: Any) -> np.ndarray:
    """The share of the pixels that corruption replaces, of each of 1,000 images."""
    size, batch = config.data.image_size, config.training.batch_size
    blank = np.zeros((batch, size, size, 3), np.float32)
    corrupt = jax.jit(_corruption(config))
    keys = jax.random.split(jax.random.key(0), -(-1000 // batch))
    masks = [np.asarray(corrupt(key, blank)[1]) for key in keys]
    return np.concatenate([np.mean(mask > 0, axis=(1, 2)) for mask in masks])[:1000]


def _corruption(config: Any) -> Any:
    fields = {name: value for name, value in config.corruption.items() if name != "textures"}
    return make(fields, None)


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="configs/ssae_small.py")
    parser.add_argument("--restorer", action="store_true", help="configs/restorer.py")
    parser.add_argument("--dtype", default="float32", help="of the convolutions")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", help="also write the numbers into this file")
    arguments = parser.parse_args()
    startup.prepare()
    chosen = restorer if arguments.restorer else ssae_small if arguments.small else ssae
    config = chosen.get_config()
    config.autoencoder.dtype = arguments.dtype
    row = step_and_corruption(config, arguments.rounds)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(row, file, indent=2)
    print("{name}, {size} px, batch {batch}, {dtype}, {device}".format(**row))
    times = 1e3 * row["step_seconds"], 1e3 * row["corruption_seconds"]
    print("step {:.1f} ms, corruption {:.1f} ms".format(*times))
    print(f"share of the step: {row['share']:.3f}")
    share = row["roofline_share"]
    print(f"roofline: {'peaks unknown' if share is None else f'{share:.3f}'}")
    areas = replaced(config)
    some = areas[areas > 0]
    low, middle, high = np.quantile(some, (0.05, 0.5, 0.95))
    print(f"images left clean: {np.mean(areas == 0):.3f}; of the others so many pixels replaced:")
    print(f"mean {some.mean():.3f}, 5 % {low:.3f}, 50 % {middle:.3f}, 95 % {high:.3f}")


if __name__ == "__main__":
    main()
