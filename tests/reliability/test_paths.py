"""evaluate, predict and an exported model say the same of the same images (R14)."""

import csv
import json

import numpy as np
import pytest
from jax import export
from PIL import Image
from programs import arguments, finish
from safetensors.numpy import load_file
from test_main import root

import commands

pytestmark = pytest.mark.slow  # many runs of the program

__all__ = ["root"]


@pytest.mark.promise("R14")
@pytest.mark.parametrize(
    "method", ["f-AnoGAN", *(pytest.param(name, marks=pytest.mark.long) for name in ("AE", "SSAE"))]
)
def test_three_ways_to_a_score(root, tmp_path, method, tries):
    workdir, model, output = tmp_path / "w", tmp_path / "model", tmp_path / "out"
    finish(arguments(method, root, workdir), tmp_path / "errors")
    with open(workdir / "scores.csv", newline="", encoding="utf-8-sig") as file:
        evaluated = {row["path"]: float(row["score"]) for row in csv.DictReader(file)}
    threshold = json.loads((workdir / "threshold.json").read_text())["threshold"]
    assert len(evaluated) == 12

    commands.predict(str(workdir), str(root / "part" / "test"), str(output))
    with open(output / "predictions.csv", newline="", encoding="utf-8-sig") as file:
        predicted = {row["path"]: row for row in csv.DictReader(file)}
    commands.export(str(workdir), str(model))
    scorer = export.deserialize(bytearray((model / "model.stablehlo").read_bytes()))
    weights = load_file(model / "weights.safetensors")
    for name, score in evaluated.items():
        path = root / "part" / name
        image = Image.open(path).resize((16, 16), Image.Resampling.BILINEAR)
        exported = float(scorer.call(weights, np.asarray(image)[None])["score"][0])
        with tries(f"{method}: an image scored by evaluate, predict and the exported model alike"):
            row = predicted[str(path)]
            for other in (float(row["score"]), exported):
                assert other == pytest.approx(score, rel=1e-5)
                assert (other > threshold) == (score > threshold)
            assert (row["decision"] == "defective") == (score > threshold)
