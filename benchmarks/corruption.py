"""The share of a training step of configs/ssae.py that corruption takes, and how much it corrupts.

python -m benchmarks.corruption                # full size, for a GPU
python -m benchmarks.corruption --small        # configs/ssae_small.py, for a CPU
python -m benchmarks.corruption --restorer     # configs/restorer.py, for a CPU

Times whole steps and corruption alone by turns in one run, on made-up images, and prints medians;
then the share of the pixels that corruption replaces, over 1,000 images.
"""

import argparse
import statistics
import time

from engine import startup

startup.keep_memory()  # as main.py does

import jax
import numpy as np

from configs import restorer, ssae, ssae_small
from engine import parallel
from engine.make import make


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="configs/ssae_small.py")
    parser.add_argument("--restorer", action="store_true", help="configs/restorer.py")
    parser.add_argument("--dtype", default="float32", help="of the convolutions")
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    startup.prepare()
    chosen = restorer if arguments.restorer else ssae_small if arguments.small else ssae
    config = chosen.get_config()
    config.autoencoder.dtype = arguments.dtype
    stage = make(config.method, config, 16).stages[0]
    size, batch = config.data.image_size, config.training.batch_size
    images = np.random.default_rng(0).uniform(-1, 1, (batch, size, size, 3)).astype(np.float32)
    fields = {name: value for name, value in config.corruption.items() if name != "textures"}
    corrupt = jax.jit(make(fields, None))
    step = parallel.data_parallel(stage.step, 0, lambda _, sent: sent)
    state = parallel.replicate(jax.jit(stage.init)(jax.random.key(0), {}))
    sent = images.reshape(*parallel.local_dims((batch,))[:1], 1, -1, size, size, 3)
    placed = jax.device_put(images)
    seconds: dict[str, list[float]] = {"step": [], "corruption": []}
    for turn in range(arguments.rounds + 1):
        start = time.perf_counter()
        state, metrics = step(state, (), sent)
        jax.block_until_ready(metrics)
        middle = time.perf_counter()
        jax.block_until_ready(corrupt(jax.random.key(turn), placed))
        end = time.perf_counter()
        if turn:  # the first compiles
            seconds["step"].append(middle - start)
            seconds["corruption"].append(end - middle)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{config.name}, {size} px, batch {batch}, {arguments.dtype}, {parallel.device_names()}")
    print(f"step {1e3 * median['step']:.1f} ms, corruption {1e3 * median['corruption']:.1f} ms")
    print(f"share of the step: {median['corruption'] / median['step']:.3f}")
    keys = jax.random.split(jax.random.key(0), -(-1000 // batch))
    masks = [np.asarray(corrupt(key, placed)[1]) for key in keys]
    areas = np.concatenate([np.mean(mask > 0, axis=(1, 2)) for mask in masks])[:1000]
    some = areas[areas > 0]
    low, middle, high = np.quantile(some, (0.05, 0.5, 0.95))
    print(f"images left clean: {np.mean(areas == 0):.3f}; of the others so many pixels replaced:")
    print(f"mean {some.mean():.3f}, 5 % {low:.3f}, 50 % {middle:.3f}, 95 % {high:.3f}")


if __name__ == "__main__":
    main()
