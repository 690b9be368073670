"""Autoencoders and the comparison, as a user runs them, on small data."""

import json
import shutil

import numpy as np
import pytest
from test_main import ROOT, example_of_the_page, fails, picture, program, root, save

__all__ = ["root"]
TINY = [
    "--config.autoencoder.latent=8",
    "--config.training.batch_size=8",
    "--config.training.num_steps=300",
    "--config.training.optimizer.learning_rate=0.002",
    "--config.every.log=100",
]


def arguments(images, workdir, *others, name="ae_l2"):
    return [
        f"--config=configs/{name}.py:part",
        f"--config.data.root={images}",
        f"--config.data.prepared={images}/../prepared",
        "--config.data.image_size=16",
        f"--workdir={workdir}",
        *TINY,
        *others,
    ]


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory):
    """Two workdirs: whole images with squared error; crops of larger ones with 1 - SSIM."""
    folder = tmp_path_factory.mktemp("runs")
    crops = ("--config.data.image_size=32", "--config.data.crop=16", "--config.score.stride=8")
    runs = {"l2": ("ae_l2", ()), "ssim": ("ae_ssim", crops)}
    for workdir, (name, others) in runs.items():
        command = arguments(root, folder / workdir, *others, name=name)
        done = program(*command, XLA_FLAGS="")  # hundreds of steps: optimising them is no waste
        assert done.returncode == 0, done.stderr
    return [folder / workdir for workdir in runs]


@pytest.mark.slow
def test_both_find_the_bright_square(finished):
    for workdir, name, size in zip(finished, ("AE-L2", "AE-SSIM"), (16, 32), strict=True):
        results = json.loads((workdir / "results.json").read_text())
        assert results["method"] == name and set(results["image_terms"]) == {"mean", "max"}
        # Within plain noise 1 - SSIM is high everywhere, and its maximum says nothing.
        assert results["image_terms"]["mean"]["auroc"] > 0.9
        if name == "AE-L2":
            assert results["image"]["auroc"] > 0.9 and results["pixel"]["auroc"] > 0.9
        with np.load(workdir / "predictions.npz") as arrays:
            assert arrays["maps"].shape == (12, size, size) and arrays["map_max"] > 0
            assert arrays["reconstructions"].shape == (12, size, size, 3)
            assert arrays["reconstructions"].dtype == np.uint8


@pytest.mark.slow
def test_comparison(finished, tmp_path):
    """The numbers of both workdirs stand in the page, in the Markdown and on the terminal."""
    workdirs = ",".join(map(str, finished))
    done = program("--mode=compare", f"--workdirs={workdirs}", f"--output={tmp_path}/out")
    assert done.returncode == 0, done.stderr
    page, markdown = ((tmp_path / f"out/compare.{kind}").read_text() for kind in ("html", "md"))
    json.loads((tmp_path / "out/compare.json").read_text())
    assert markdown.strip() in done.stdout and "compare.html" in done.stdout
    for workdir in finished:
        results = json.loads((workdir / "results.json").read_text())
        for value in (results["image"]["auroc"], results["pixel"]["au_pro"]):
            assert f"{value:.3f}" in page and f"{value:.3f}" in markdown
        assert results["method"] in page and results["method"] in markdown
    assert page.count("data:image/png;base64,") == 4  # curves, histograms, good, square
    assert "http" not in page.replace("http-equiv", "")


@pytest.mark.slow
def test_different_test_sets_are_refused(finished, root, tmp_path):
    shutil.copytree(root / "part", tmp_path / "part")
    save(tmp_path / "part/test/good/006.png", picture(np.random.default_rng(7)))
    done = program(*arguments(tmp_path, tmp_path / "w", "--config.training.num_steps=2"))
    assert done.returncode == 0, done.stderr
    both = f"--workdirs={finished[0]},{tmp_path}/w"
    line = fails("--mode=compare", both, f"--output={tmp_path}/out")
    assert str(finished[0]) in line and f"{tmp_path}/w" in line and "part" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_changed_images_and_unfinished_workdirs_are_refused(finished, root, tmp_path):
    command = ["--mode=compare", f"--output={tmp_path}/out"]
    line = fails(*command, f"--workdirs={finished[0]},{tmp_path}/none")
    assert f"{tmp_path}/none" in line
    assert "two or more" in fails(*command, f"--workdirs={finished[0]}")
    changed = tmp_path / "images"
    shutil.copytree(root / "part", changed / "part")
    save(changed / "part/test/good/000.png", picture(np.random.default_rng(7)))
    copies = [tmp_path / workdir.name for workdir in finished]
    for workdir, copy in zip(finished, copies, strict=True):
        shutil.copytree(workdir, copy)
        config = json.loads((copy / "config.json").read_text())
        config["data"]["root"] = str(changed)
        (copy / "config.json").write_text(json.dumps(config))
    line = fails(*command, f"--workdirs={copies[0]},{copies[1]}")
    assert "have changed since it was evaluated (test/good: 1 changed (000.png))" in line
    assert "--mode=evaluate --workdir=" in line


@pytest.mark.parametrize(
    ("mode", "flag"),
    [("evaluate", "--reuse=w"), ("train", "--workdirs=a,b"), ("compare", "--config=configs/ae.py")],
)
def test_flags_of_other_modes_are_refused(mode, flag, tmp_path):
    line = fails(f"--mode={mode}", flag, f"--workdir={tmp_path}")
    assert flag.split("=")[0] in line and f"--mode={mode}" in line


def test_a_crop_larger_than_the_images_is_refused(root, tmp_path):
    line = fails(*arguments(root, tmp_path / "w", "--config.data.crop=32"))
    assert "data.crop=32" in line and "16x16" in line


def test_a_size_that_cannot_be_reconstructed_is_refused(root, tmp_path):
    line = fails(*arguments(root, tmp_path / "w", "--config.data.image_size=20"))
    assert "makes 16 px of 20 px" in line
    assert not (tmp_path / "w").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "number", "name"),
    [("README.md", 1, "l1_ssim"), ("docs/research/own.md", 2, "l2_ssim")],
)
def test_the_autoencoders_loss_of_the_page_trains(root, tmp_path, page, number, name):
    section, example = example_of_the_page(number, page)
    assert len([*filter(None, example.splitlines())]) <= 8
    assert f"--config.training.loss.fn=my_loss:{name}" in section
    (tmp_path / "my_loss.py").write_text(example)
    few = ("--config.training.num_steps=100", "--config.every.log=10")
    command = arguments(root, tmp_path / "w", *few, f"--config.training.loss.fn=my_loss:{name}")
    done = program(*command, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "w/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["residual"] < lines[0]["residual"]


def test_every_config_has_its_row():
    text = (ROOT / "docs/research/configs.md").read_text()
    for path in (ROOT / "configs").glob("[a-z]*.py"):
        assert f"`configs/{path.name}`" in text, path
