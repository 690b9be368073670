"""Where the time of a training step goes, by XLA's operations.

python -m benchmarks.operations ae_l2 [--batch=N] [--steps=6] [--top=20]

Takes the first stage of a file of configs/ at its own size, and traces steps with jax.profiler.
Other programs on the machine only ever lengthen an operation: of its times in all steps the
shortest counts. First the kinds of operations are printed, then the longest single ones with the
layer that they are of; "transpose(jvp" stands before the layers of a backward pass.
"""

import argparse
import collections
import importlib
import re
import tempfile
from pathlib import Path

from engine import startup

startup.keep_memory()  # as main.py does

import jax
import numpy as np

from benchmarks.compiled import training
from engine.make import make

_RESULT = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (\S+) ")
_LAYER = re.compile(r'op_name="(?:[^"]*closed_call/)?([^"]*)"')


def shortest(folder: str, steps: int) -> dict[str, float]:
    """Seconds of each operation in one of the traced steps: its shortest time, as often as it ran.

    `folder` is that of `jax.profiler.trace`.
    """
    (file,) = Path(folder).rglob("*.xplane.pb")
    seconds = collections.defaultdict(list)
    for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
        for line in plane.lines:
            for event in line.events:
                name = dict(event.stats).get("hlo_op")
                if name:
                    seconds[name].append(event.duration_ns / 1e9)
    return {name: min(values) * len(values) / steps for name, values in seconds.items()}


def described(text: str) -> dict[str, str]:
    """What each operation of a compiled program gives, and the layer that it is of."""
    known = {}
    for line in text.splitlines():
        if result := _RESULT.match(line):
            layer = _LAYER.search(line)
            known[result[1]] = f"{result[2].partition('{')[0]} {layer[1] if layer else ''}"
    return known


def main() -> None:
    """Prints two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", help="a file of configs/")
    parser.add_argument("--batch", type=int, help="the config's own, if not given")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--top", type=int, default=20, help="of single operations")
    arguments = parser.parse_args()
    startup.prepare()
    config = importlib.import_module(f"configs.{arguments.config}").get_config()
    stage = make(config.method, config, 10**4).stages[0]
    *several, batch = stage.batch_dims
    side = config.data.get("crop", 0) or config.data.image_size
    shape = (*several, arguments.batch or batch, side, side, 3)
    images = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    program = training(stage.step, jax.jit(stage.init)(jax.random.key(0), {}), images)
    program.run()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(arguments.steps):
                program.run()
        seconds = shortest(folder, arguments.steps)
    show(config.name, shape, program.cost.flops, seconds, described(program.text), arguments.top)


def show(
    name: str,
    shape: tuple[int, ...],
    flops: float,
    seconds: dict[str, float],
    known: dict[str, str],
    top: int,
) -> None:
    """Prints the kinds of operations, and the longest single ones."""
    total, kinds = sum(seconds.values()), collections.Counter()
    for each, value in seconds.items():
        kinds[re.sub(r"[.\d]+$", "", each)] += value
    speed = flops / 1e9 / total
    print(f"{name}, {shape}: {total:.3f} s a step, {flops / 1e9:.1f} GFLOP, {speed:.1f} GFLOP/s\n")
    for kind, value in kinds.most_common(8):
        print(f"{value:8.3f} s {value / total:6.1%}  {kind}")
    print()
    for each, value in collections.Counter(seconds).most_common(top):
        print(f"{value:8.3f} s  {each}  {known.get(each, '')}")


if __name__ == "__main__":
    main()
