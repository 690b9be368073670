"""What is written never lies among the images that are read: refused before anything is written."""

import os
from contextlib import nullcontext

import pytest
from ml_collections import ConfigDict
from test_main import program
from trees import make_product, make_tree

import commands
from commands import inputs
from commands.predict import refuse_beside
from configs import fanogan, ssae
from data import photos


def own(folder):
    config = fanogan.get_config("mine")
    config.data.folder = str(folder)
    return config


@pytest.mark.parametrize("below", ["", "run", "good/runs/run"])
def test_a_workdir_among_the_photos_is_refused(tmp_path, below):
    make_product(tmp_path / "photos")
    workdir = tmp_path / "photos" / below
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "photos")
    for command in (commands.train, commands.evaluate, commands.tune, commands.check):
        for folder in (workdir, link / below):
            with pytest.raises(ValueError, match="of which all images are read: choose a folder"):
                command(own(tmp_path / "photos"), str(folder))
    assert below == "" or not workdir.exists()


def test_the_layout_and_textures_are_data_too(tmp_path):
    folder = make_tree(tmp_path / "root")
    config = ssae.get_config("bottle")
    config.data.root = str(tmp_path / "root")
    config.corruption.textures = str(tmp_path / "textures")
    for workdir in (folder / "run", tmp_path / "textures/run"):
        with pytest.raises(ValueError, match="--workdir="):
            inputs.located(config, str(workdir))
    for workdir in (tmp_path / "root/run", tmp_path, tmp_path / "root/bottle2"):
        assert isinstance(inputs.located(config, str(workdir)).to_dict(), dict)
    demo = ConfigDict(fanogan.get_config("demo"))
    assert inputs.located(demo, str(tmp_path)).data.root == str(tmp_path / "data")


def test_the_command_leaves_no_trace(tmp_path):
    folder = make_product(tmp_path / "photos")
    before = sorted(folder.rglob("*"))
    done = program(
        "--config=configs/fanogan.py:mine",
        f"--config.data.folder={folder}",
        f"--workdir={folder}/run",
    )
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: --workdir={folder}/run lies in {folder}")
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("images", "output", "refused"),
    [
        ("new", "new/out", True),
        ("new", "new", True),
        ("new/", "out", False),
        ("new/a.png", "new", True),
        ("new/a.png", "new/out", False),  # the file alone is read
        ("new/*.png", "new/out", False),
        ("new/*.png", "new", True),
        ("*", "new", True),
    ],
)
def test_an_output_among_the_new_images_is_refused(tmp_path, monkeypatch, images, output, refused):
    make_tree(tmp_path / "root")
    os.rename(tmp_path / "root/bottle/test/good", tmp_path / "new")
    os.rename(tmp_path / "new/000.png", tmp_path / "new/a.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="among the images") if refused else nullcontext():
        refuse_beside(photos.find(images), images, output)
