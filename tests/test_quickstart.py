"""docs/quickstart.ipynb, executed as a reader would."""

import base64
import io
import os
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).parents[1]
PATH = ROOT / "docs" / "quickstart.ipynb"


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cells, stream):
    """What cells have written to a stream."""
    return "".join(o.text for c in cells for o in c.outputs if o.get("name") == stream)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The cells afterwards, and the folder that they were to write into."""
    folder = tmp_path_factory.mktemp("quickstart")
    notebook = nbformat.read(PATH, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TMPDIR", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
            patch.setenv(name, str(folder))
        patch.setenv("PYTHONDONTWRITEBYTECODE", "1")
        patch.delenv("XLA_FLAGS")  # one device, for which the kernel's programs are optimised
        before = set(os.listdir(PATH.parent))
        place = {"metadata": {"path": str(PATH.parent)}}
        NotebookClient(notebook, timeout=1800, kernel_name="python3", resources=place).execute()
        assert set(os.listdir(PATH.parent)) == before
    return code_cells(notebook), folder


def test_it_is_kept_without_outputs():
    cells = code_cells(nbformat.read(PATH, as_version=4))
    assert cells
    for cell in cells:
        assert cell.outputs == [] and cell.execution_count is None


@pytest.mark.slow
def test_it_trains_a_detector_that_finds_defects(executed):
    text = shown(executed[0], "stdout")
    aurocs = [float(value) for value in re.findall(r"^demo: image AUROC ([0-9.]+)", text, re.M)]
    assert len(aurocs) == 3  # of training, of another threshold, of an own loss
    assert aurocs[0] > 0.9 and aurocs[1] == aurocs[0]
    assert "defective: score" in text


@pytest.mark.slow
def test_progress_is_seen_and_nothing_looks_like_an_error(executed):
    cells, _ = executed
    assert "250/250" in shown(cells, "stdout") and "loss=" in shown(cells, "stdout")
    errors = shown(cells, "stderr")
    assert "Traceback" not in errors and "absl" not in errors


@pytest.mark.slow
def test_it_shows_one_picture(executed):
    pictures = [
        output.data["image/png"]
        for cell in executed[0]
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 1
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(pictures[0]))).convert("RGB"))
    assert min(pixels.shape[:2]) > 300 and pixels.std() > 20


@pytest.mark.slow
def test_it_writes_where_it_says(executed):
    reports = sorted(executed[1].glob("*/*/report/index.html"))
    assert [path.parts[-3] for path in reports] == ["run", "swapped"]
