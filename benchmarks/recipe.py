"""How long the original recipe takes: 1500 + 200 epochs of f-AnoGAN on all images of a category.

python -m benchmarks.recipe --root=DIR [--category=bottle] [--steps=N]

Runs `main.py` twice: with an empty compilation cache and, for one step only, with the one that it
left. With `--steps=N` the first run ends each stage after N steps (a step of the first stage is 5
critic updates and one of the generator) and the rest is extrapolated from the steps after the first
line of the log; without, it goes all the way.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import run
from configs import fanogan
from data import scan
from engine.method import num_updates


def program(folder: str, arguments: argparse.Namespace, name: str, steps: tuple[int, int]) -> dict:
    """Runs main.py; seconds of the command, to the first step, and of each stage's steps."""
    workdir = Path(folder) / name
    command = run.command(
        *(f"fanogan:{arguments.category}", arguments.root, workdir),
        f"data.prepared={folder}/prepared",
        # 2 of bottle's 209, fewer make no threshold; an epoch has as many batches as of all.
        "data.calibration=0.01",
        *(f"gan.num_steps={steps[0]}", f"encoding.num_steps={steps[1]}", "every.log=10"),
    )
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=run.ROOT, env=run.environment(folder), capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(done.stderr)
    lines = run.metrics_of(workdir)
    return {"seconds": seconds, "first_step": run.first_step(done.stderr), "lines": lines}


def main() -> None:
    """Prints what was measured, and what it amounts to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, help="folder of the categories' folders")
    parser.add_argument("--category", default="bottle")
    parser.add_argument("--steps", type=int, default=0, help="of each stage, at least 20; 0: all")
    arguments = parser.parse_args()
    arguments.root = os.path.abspath(arguments.root)
    config = fanogan.get_config(arguments.category)
    images = len(scan.scan_layout(arguments.root, arguments.category).train)
    critic = num_updates(config.gan.epochs, images, config.gan.batch_size)
    encoder = num_updates(config.encoding.epochs, images, config.encoding.batch_size)
    whole = {"gan": critic // config.gan.n_critic, "encoder": encoder}
    steps = tuple(min(arguments.steps or total, total) for total in whole.values())
    with tempfile.TemporaryDirectory() as folder:
        cold = program(folder, arguments, "cold", steps)
        warm = program(folder, arguments, "warm", (1, 1))
    print(f"{images} images: {critic} critic, {whole['gan']} generator, {encoder} encoder updates")
    print(f"first step: {cold['first_step']:.1f} s after the command with nothing cached, decoding")
    print(f"included; {warm['first_step']:.1f} s with the caches of compilation and images")
    total = cold["seconds"]
    for (stage, count), ran in zip(whole.items(), steps, strict=True):
        each = run.seconds_per_step(cold["lines"], stage)
        total += (count - ran) * each
        print(f"{stage}: {each:.3f} s a step, {ran} of {count} steps run")
    print(f"command as run: {cold['seconds']:.0f} s; whole recipe: {total / 60:.1f} min")


if __name__ == "__main__":
    main()
