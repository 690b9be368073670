"""The generated data set: layout, determinism, exact masks, and what a second call does."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import demo

SMALL = {"size": 64, "train": 3, "good": 2, "bad": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set, read by the tests of this file and changed by none."""
    root = tmp_path_factory.mktemp("demo") / "new"
    demo.generate_demo(str(root), **SMALL)
    return root / "demo"


def _pixels(folder: Path) -> dict[str, bytes]:
    files = sorted(folder.rglob("*.png"))
    return {str(f.relative_to(folder)): _read(f)[1] for f in files}


def _read(path: Path) -> tuple[str, bytes]:
    with Image.open(path) as image:
        return f"{image.mode} {image.size}", image.tobytes()


def test_layout_and_counts(folder: Path) -> None:
    """Every folder of the MVTec layout holds its number of images, and nothing else is there."""
    expected = {f"train/good/{i:03d}.png" for i in range(3)}
    expected |= {f"test/good/{i:03d}.png" for i in range(2)}
    for defect in demo.DEFECTS:
        expected |= {f"test/{defect}/000.png", f"ground_truth/{defect}/000_mask.png"}
    assert set(_pixels(folder)) == expected
    assert [p.name for p in folder.parent.iterdir()] == ["demo"]
    assert _read(folder / "test/good/000.png")[0] == "RGB (64, 64)"
    assert _read(folder / "ground_truth/stain/000_mask.png")[0] == "L (64, 64)"


def test_pixels_depend_on_the_seed_and_not_on_the_counts(folder: Path, tmp_path: Path) -> None:
    """The same seed gives the same pixels, also among more images; another seed gives others."""
    demo.generate_demo(str(tmp_path / "same"), **{**SMALL, "train": 4, "good": 1})
    demo.generate_demo(str(tmp_path / "other"), **SMALL, seed=1)
    first, same = _pixels(folder), _pixels(tmp_path / "same" / "demo")
    other = _pixels(tmp_path / "other" / "demo")
    shared = first.keys() & same.keys()
    assert len(shared) == len(first) - 1 and all(first[name] == same[name] for name in shared)
    assert first.keys() == other.keys() and all(first[name] != other[name] for name in first)
    assert len(set(first.values())) == len(first)


@pytest.mark.parametrize("defect", demo.DEFECTS)
def test_the_mask_is_exactly_what_the_defect_changed(defect: str) -> None:
    """Inside the mask the twin differs visibly, outside not at all; areas are 0.5-5 %."""
    for index in range(6):
        entropy = [7, 9, index]
        image, mask = demo.render_defective(entropy, defect)
        clean = demo.render(np.random.default_rng(entropy))
        change = np.abs(image.astype(int) - clean).max(axis=-1)
        assert mask.shape == image.shape[:2] and set(np.unique(mask)) == {0, 255}
        assert change[mask == 255].min() > demo.VISIBLE and change[mask == 0].max() == 0
        assert np.median(change[mask == 255]) > 25
        assert 0.005 < (mask == 255).mean() < 0.05


def test_defects_lie_on_the_part() -> None:
    """No defect reaches the picture's corners, where only the table is."""
    v, u = np.mgrid[-1:1:128j, -1:1:128j]
    table = np.hypot(u, v) > 0.96  # the rim, a little scale and shift
    for defect in demo.DEFECTS:
        for index in range(4):
            assert not demo.render_defective([3, index], defect)[1][table].any()


def test_an_unknown_defect_is_named() -> None:
    """The message names the defect and those there are."""
    with pytest.raises(ValueError, match=r"unknown defect 'rust'.*scratch"):
        demo.render(np.random.default_rng(0), defect="rust")


def test_a_second_call_does_nothing(folder: Path) -> None:
    """No file of a complete data set is written again."""
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    demo.generate_demo(str(folder.parent), **SMALL)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


@pytest.mark.parametrize("change", [{"seed": 1}, {"size": 32}, {"train": 4}, {"bad": 2}])
def test_other_settings_are_refused(folder: Path, change: dict[str, int]) -> None:
    """The message names the folder and a way out."""
    with pytest.raises(ValueError, match=f"{folder} is not .*delete it"):
        demo.generate_demo(str(folder.parent), **{**SMALL, **change})


def test_what_is_no_complete_data_set_is_left_alone(tmp_path: Path) -> None:
    """A folder without demo.json, or with images lost, is refused and stays as it was."""
    (tmp_path / "demo").mkdir()
    with pytest.raises(ValueError, match="not a complete demo data set"):
        demo.generate_demo(str(tmp_path), **SMALL)
    assert not list((tmp_path / "demo").iterdir())
    demo.generate_demo(str(tmp_path / "lost"), **SMALL)
    (tmp_path / "lost/demo/train/good/000.png").unlink()
    with pytest.raises(ValueError, match="not a complete demo data set"):
        demo.generate_demo(str(tmp_path / "lost"), **SMALL)


def test_an_interrupted_call_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stops the drawing, neither the data set nor its temporary folder remains."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "render_defective", stop)
    with pytest.raises(KeyboardInterrupt):
        demo.generate_demo(str(tmp_path), **SMALL)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", [{"seed": -1}, {"size": 16}, {"good": 0}])
def test_settings_out_of_range_are_refused(tmp_path: Path, change: dict[str, int]) -> None:
    """Before anything is written."""
    with pytest.raises(ValueError, match="need seed"):
        demo.generate_demo(str(tmp_path), **{**SMALL, **change})
    assert not list(tmp_path.iterdir())
