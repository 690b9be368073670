"""The table of GLAD's ways to score, against numbers by hand."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks import glad
from engine.method import Score


def test_each_part_is_on_and_off():
    ways = glad.ways_of(80, 4)
    assert len({way.name for way in ways}) == len(ways) == 10
    parts = {(way.adaptive, way.fusion, way.draws) for way in ways[:8]}
    assert len(parts) == 8 and all(way[1:3] == (80, 4) for way in ways[:8])
    assert [way.steps * way.draws for way in ways[8:]] == [2, 1]


def test_metrics_of_test_images_by_hand():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 8, 8, 3)).astype(np.uint8)
    labels = np.arange(20) % 2
    masks = (rng.random((20, 8, 8)) < 0.2) & (labels == 1)[:, None, None]

    def brightness(variables, images):
        maps = jnp.mean(images, axis=-1) + variables
        return Score(jnp.max(maps, axis=(1, 2)), maps)

    way = glad.ways_of(80, 4)[0]
    test = SimpleNamespace(images=images, labels=labels, masks=[*masks])
    run = glad.Run(jnp.float32(0.5), SimpleNamespace(test=test), {way: brightness})
    ((name, row),) = glad.on_test(run)
    values = images.mean(-1)
    assert name == way.name and row["ms an image"] > 0
    wanted = roc_auc_score(labels, values.max((1, 2)))
    assert row["image AUROC"] == pytest.approx(wanted, abs=1e-3)  # rounding makes and breaks ties
    wanted = roc_auc_score(masks.ravel(), values.ravel())
    assert row["pixel AUROC"] == pytest.approx(wanted, abs=1e-3)
    wanted = average_precision_score(masks.ravel(), values.ravel())
    assert row["pixel AP"] == pytest.approx(wanted, abs=1e-3)
    assert f"| {way.name} | {row['image AUROC']:.3f} |" in glad.table({name: row})
    test.masks[:] = [mask if not mask.any() else None for mask in masks]
    ((_, without),) = glad.on_test(run)
    assert np.isnan(without["pixel AUROC"]) and without["image AUROC"] == row["image AUROC"]
