"""How many images a second are scored: from pixels on the host to scores and maps there.

python -m benchmarks.scoring [--batches 1 64] [--networks fanogan ssae ssae:bfloat16] [--json=FILE]

As `--mode=predict` calls the networks, without reading and writing files; made-up images, untrained
networks, medians. A network is a file of configs/, with the type of its convolutions behind a
colon.
"""

import argparse
import importlib
import json
import statistics
import time
from typing import Any

from engine import startup

startup.keep_memory()  # as main.py does

import jax
import numpy as np

from data.sampling import scale
from engine import parallel
from engine.make import make
from engine.method import Variables
from evaluation.scoring import scorer_of


def throughput(config: Any, batch: int, seconds: float) -> dict[str, Any]:
    """Images per second in batches of `batch`, measured for `seconds` and 5 batches at least."""
    method, variables = make(config.method, config, 16), {}
    for stage in method.stages:
        variables = _started(stage, variables)
    scorer, size = scorer_of(method, variables), config.data.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)
    times: list[float] = []
    jax.device_get(scorer(scale(pixels)))  # the first compiles
    while len(times) < 5 or sum(times) < seconds:
        start = time.perf_counter()
        jax.device_get(scorer(scale(pixels)))
        times.append(time.perf_counter() - start)
    each = statistics.median(times)
    about = {"name": config.name, "size": size, "batch": batch}
    device = parallel.device_names()[0]
    return {**about, "device": device, "batch_seconds": each, "images_per_second": batch / each}


def _started(stage: Any, variables: Variables) -> Variables:
    return jax.jit(stage.init)(jax.random.key(0), variables).variables


def named(network: str) -> Any:
    """The config of 'file' or 'file:type of the convolutions'."""
    name, _, dtype = network.partition(":")
    config = importlib.import_module(f"configs.{name}").get_config()
    if dtype:
        config.autoencoder.dtype = dtype
    return config


def main() -> None:
    """Prints a line for each network and batch, and writes what is measured so far."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 64])
    parser.add_argument("--networks", nargs="+", default=["fanogan", "ssae", "ssae:bfloat16"])
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--json", help="also write the rows into this file")
    arguments = parser.parse_args()
    startup.prepare()
    rows = []
    for network in arguments.networks:
        for batch in arguments.batches:
            row = throughput(named(network), batch, arguments.seconds)
            rows.append({"network": network, **row})
            speed, size = row["images_per_second"], row["size"]
            print(f"{network}, {size} px, batch {batch}: {speed:.1f} images/s", flush=True)
            if arguments.json:
                with open(arguments.json, "w", encoding="utf-8") as file:
                    json.dump(rows, file, indent=2)


if __name__ == "__main__":
    main()
