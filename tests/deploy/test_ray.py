"""The page's script for Ray Data gives predict's rows, where requirements-ray.txt is installed."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import make_parts, shrink
from PIL import Image

import commands
from configs import contrario
from deploy import forms

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/factory/serve.md").read_text()
SCRIPT = re.search(r"```python\n# score_ray.py\n(.*?)```", PAGE, re.DOTALL).group(1)
COUNT = int(os.environ.get("RAY_PHOTOS", "100"))


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="requirements-ray.txt is not installed"
)
def test_ray_gives_the_rows_of_predict(tmp_path, monkeypatch):
    """RAY_PHOTOS=10000 is the long form."""
    monkeypatch.setattr(forms, "write_onnx", lambda *args, **kwargs: "not asked for")
    root = make_parts(tmp_path)
    config = shrink(contrario.get_config("nut"))
    config.data.update(root=str(root), prepared=str(root / "prepared"), calibration=0.3)
    commands.train(config, str(tmp_path / "run"))
    commands.export(str(tmp_path / "run"), str(tmp_path / "model"))
    rng, photos = np.random.default_rng(0), tmp_path / "photos"
    photos.mkdir()
    for index in range(COUNT):
        pixels = rng.integers(60, 120, (20, 24, 3)).astype(np.uint8)
        if index % 3 == 0:
            pixels[4:12, 4:12] = 250
        Image.fromarray(pixels).save(photos / f"{index:05}.png")
    commands.predict(str(tmp_path / "run"), str(photos), str(tmp_path / "out"))
    lines = (tmp_path / "out/predictions.jsonl").read_text().splitlines()
    expected = {row["path"]: row for row in map(json.loads, lines)}
    (tmp_path / "score_ray.py").write_text(SCRIPT)
    keep = ("PATH", "HOME", "LANG")
    environment = {name: os.environ[name] for name in keep if name in os.environ}
    environment |= {"JAX_PLATFORMS": "cpu", "RAY_USAGE_STATS_ENABLED": "0"}
    environment["RAY_raylet_start_wait_time_s"] = "300"  # on a busy machine
    done = subprocess.run(
        [sys.executable, "score_ray.py", "model", "photos", "rows"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    files = sorted((tmp_path / "rows").glob("*.json"))
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert {row["path"] for row in rows} == set(expected) and len(rows) == COUNT
    for row in rows:
        assert row["decision"] == expected[row["path"]]["decision"]
        assert row["score"] == pytest.approx(expected[row["path"]]["score"], rel=1e-4)
    assert f"{COUNT} rows" in done.stdout
