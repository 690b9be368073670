"""How much checkerboard an autoencoder's decoder leaves, on held-out normal images.

python -m benchmarks.checkerboard W1 W2 ...

Of each workdir: the mean squared residual, the energy of the 2x2 checkerboard in reconstructions
over that in the images, and the part of the maps' variance that a grid of 2, 4 or 8 px explains.
"""

import argparse

import numpy as np
from ml_collections import ConfigDict

from data import pipeline
from engine.make import make
from engine.workdir import read_config, read_facts
from evaluation.scoring import restore, scorer_of


def checkerboard(images: np.ndarray) -> float:
    """Mean energy of a - b - c + d over the 2x2 blocks [a b; c d] of [N, H, W, C]."""
    a, b = images[:, ::2, ::2], images[:, ::2, 1::2]
    c, d = images[:, 1::2, ::2], images[:, 1::2, 1::2]
    return float(np.mean(np.square(a - b - c + d)) / 4)


def grid_share(maps: np.ndarray, period: int) -> float:
    """Variance between the places of a grid of `period` px, over that of the maps [N, H, W]."""
    count, height, width = maps.shape
    cells = maps.reshape(count, height // period, period, width // period, period)
    return float(cells.mean(axis=(1, 3)).var(axis=(1, 2)).mean() / maps.var(axis=(1, 2)).mean())


def main() -> None:
    """Prints a line for each workdir."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdirs", nargs="+", help="of trained autoencoders")
    print("| workdir | squared residual | checkerboard / images' | grid of 2 | of 4 | of 8 px |")
    for workdir in parser.parse_args().workdirs:
        config = ConfigDict(read_config(workdir))
        data = config.data
        images = pipeline.load_splits(
            data.category,
            data.root,
            data.image_size,
            calibration=data.calibration,
            seed=config.seed,
            data_dir=data.prepared,
        ).calibration.images
        normal = np.concatenate(list(pipeline.eval_batches(images, 16)))
        method = make(config.method, config, read_facts(workdir).num_train)
        score = scorer_of(method, restore(method, workdir)[0])(normal)
        residual = np.square(normal - score.reconstruction).mean()
        ratio = checkerboard(score.reconstruction) / checkerboard(normal)
        shares = " | ".join(f"{grid_share(score.map, period):.5f}" for period in (2, 4, 8))
        print(f"| {workdir} | {residual:.5f} | {ratio:.3f} | {shares} |")


if __name__ == "__main__":
    main()
