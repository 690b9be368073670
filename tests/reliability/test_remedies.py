"""Messages that name a remedy: each is followed here as a user follows it, and leads out.

The first test keeps what all messages name: fields, flags, modes and files that there are. Others
are followed where their fault is tested: workdirs (test_workdir_remedies.py), too few held-out
images (test_threshold.py), photos that changed (test_main_decision.py), names that hosts, disks and
caches have (test_hosts.py, test_disk.py, test_startup.py).
"""

import ast
import contextlib
import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import shrink
from trees import good_ones, make_product, make_tree, picture, save

import commands
from commands import inputs
from configs import (
    ae_ssim,
    ama,
    ensemble,
    fanogan,
    few_shot,
    glad,
    restorer,
    restorer_head,
    ssae,
    video,
)
from data import demo, pipeline
from data.scan import CATEGORIES
from engine import parallel

ROOT = Path(__file__).parents[2]
PACKAGES = (
    *("ae_jax", "commands", "contrario_jax", "data", "deploy", "engine", "evaluation"),
    *("fanogan_jax", "few_shot_jax", "diffusion_jax", "video_jax", "report", "storage", "main.py"),
)

# absl's own, and those of MVTec AD's evaluation script, whose command evaluation/official.py says.
OTHER_FLAGS = (
    *("help", "helpshort", "helpfull"),
    *("dataset_base_dir", "anomaly_maps_dir", "output_dir", "evaluated_objects"),
)

# ---------------------------------------------------------------- what messages name


def texts(path: Path) -> Iterator[str]:
    """All texts of a module but its docstrings; '{}' stands for a value."""
    tree = ast.parse(path.read_text())
    nodes = list(ast.walk(tree))
    scopes = [
        node for node in nodes if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    ]
    passed = {id(scope.body[0].value) for scope in scopes if ast.get_docstring(scope)}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            parts = [getattr(part, "value", None) for part in node.values]
            passed.update(map(id, node.values))
            yield "".join(part if isinstance(part, str) else "{}" for part in parts)
        elif isinstance(node, ast.Constant) and id(node) not in passed:
            yield str(node.value)


def paths_of(section, prefix=""):
    for name, value in section.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict):
            yield from paths_of(value, f"{prefix}{name}.")


def unknown_names(text, fields, flags, modes):
    """What the text names that there is not."""
    sections = "|".join(sorted({field.partition(".")[0] for field in fields if "." in field}))
    named = re.findall(r"--config\.([a-z_]+(?:\.[a-z_]+)*)", text)
    named += re.findall(rf"(?<![\w./{{}}])((?:{sections})(?:\.[a-z_]+)+)(?![\w(:*/{{}}.])", text)
    endings = ("json", "jsonl", "py", "png", "csv", "npz")
    yield from (n for n in named if n not in fields and n.rpartition(".")[2] not in endings)
    yield from (m for m in re.findall(r"--mode=(\w+)", text) if m not in modes)
    yield from (f for f in re.findall(r"(?<![\w-])--([a-z_]+)", text) if f not in flags)
    files = re.findall(r"\b(?:configs|docs)/[\w/]+\.\w+|\brequirements[\w-]*\.txt", text)
    yield from (file for file in files if not (ROOT / file).exists())


def test_what_a_message_names_is_there():
    modules = ssae, ae_ssim, ama, ensemble, fanogan, few_shot, glad, restorer, restorer_head, video
    fields = set().union(*(paths_of(each.get_config("mine").to_dict()) for each in modules))
    definitions = [
        node.args
        for node in ast.walk(ast.parse((ROOT / "main.py").read_text()))
        if isinstance(node, ast.Call) and "flags.DEFINE" in ast.unparse(node.func)
    ]
    flags = {first.value: others for first, *others in definitions}
    modes = ast.literal_eval(flags["mode"][1])
    wrong = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")) or [ROOT / package]:
            for text in texts(path):
                names = unknown_names(text, fields, [*flags, *OTHER_FLAGS], modes)
                wrong += [f"{path.relative_to(ROOT)}: {name}" for name in names]
    assert not wrong, wrong


@pytest.mark.parametrize(
    "text",
    [
        *("set data.data_dir", "use --config.gan.steps={}", "--mode=export, --mode=test"),
        *("give --folder", "as docs/none.md has it", "{}: data.size={} is not"),
    ],
)
def test_the_test_above_finds_what_is_not_there(text):
    fields = {"data", "data.folder", "gan", "gan.num_steps"}
    assert len(list(unknown_names(text, fields, ["config", "mode"], ["export"]))) == 1


# ---------------------------------------------------------------- remedies for a config


def small(module, root, name="part", **data):
    config = shrink(module.get_config(name))
    config.data.update(root=str(root), prepared=str(root / "prepared"), **data)
    if "head" in config:
        config.head.update(fold=2, features=(4, 4))
        config.data.image_size = 32
    return config


def told(config):
    """What check says is wrong, or '' where nothing is."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            commands.check(config, "")
    except (ValueError, OSError) as error:
        return str(error)
    lines = printed.getvalue().splitlines()
    return "\n".join(line for line in lines if line.startswith("problem: "))


def follow(config, said):
    """Sets what the message says to set, as --config.field=value."""
    settings_told = re.findall(r"--config\.([a-z_.]+)=([^\s,;]+)", said)
    assert settings_told, said
    config.update_from_flattened_dict(dict(settings_told))


def test_a_product_of_ones_own_gets_the_name_that_is_told(tmp_path):
    good_ones(tmp_path / "photos")
    folder = str(tmp_path / "photos")
    said = told(small(fanogan, tmp_path, "bottle", folder=folder))
    name = re.search(r"--config=configs/fanogan\.py:(\w+)", said)[1]
    assert told(small(fanogan, tmp_path, name, folder=folder)) == ""


def test_the_layout_of_mvtec_ad_in_data_folder(tmp_path):
    folder = make_tree(tmp_path / "a", "part", num_train=20)
    said = told(small(fanogan, tmp_path, "mine", folder=str(folder)))
    config = small(fanogan, tmp_path, re.search(r"<config>\.py:(\w+)", said)[1])
    follow(config, said)
    assert told(config) == ""


@pytest.mark.parametrize("place", [".", "a/part"])
def test_a_root_that_is_a_folder_too_high_or_too_deep(tmp_path, place):
    make_tree(tmp_path / "a", "part", num_train=20)
    config = small(fanogan, tmp_path / place)
    follow(config, told(config))
    assert told(config) == ""


def test_a_folder_that_is_not_there(tmp_path):
    config = small(fanogan, tmp_path, "thing")
    assert f"any folder of the same layout under {tmp_path} works" in told(config)
    make_tree(tmp_path, "thing", num_train=20)
    assert told(config) == ""
    config = small(fanogan, tmp_path, CATEGORIES[0])
    assert f"unpack it into {tmp_path}" in told(config)
    make_tree(tmp_path, CATEGORIES[0], num_train=20)
    assert told(config) == ""
    config = small(fanogan, tmp_path, "mine", folder=str(tmp_path / "photos"))
    assert "name a folder that holds images of good parts" in told(config)
    good_ones(tmp_path / "photos")
    assert told(config) == ""


def test_a_share_for_calibration_that_leaves_nothing(tmp_path):
    make_product(tmp_path / "photos")
    config = small(fanogan, tmp_path, "mine", folder=str(tmp_path / "photos"), calibration=0.5)
    bound = float(re.search(r"choose less than (0\.\d+)", told(config))[1])
    config.data.calibration = bound - 0.05
    assert told(config) == ""


# Module, the field, what is wrong in it, the words that name legal values, and which those are.
LIMITS = [
    (fanogan, "data.image_size", 18, r"choose (\d+) or (\d+) px", (0, 0)),
    (ama, "data.image_size", 18, r"choose (\d+) or (\d+) px", (0, 0)),
    (fanogan, "gan.num_steps", 0, r"set more epochs, or num_steps", ()),
    (ae_ssim, "score.stride", 40, r"choose score.stride from (\d+) to (\d+)", (0, 0)),
    (ae_ssim, "data.crop", 40, r"from 1 to data\.image_size, or (\d+) for whole", (0,)),
    (ssae, "training.schedule.warmup_steps", 2, r"must be less than the (\d+) steps", (-1,)),
    (ssae, "score.map", "head", r"the network has none: '(residual)'", ("",)),
    (restorer, "data.image_size", 36, r"choose (\d+) or (\d+) px", (0, 0)),
]


@pytest.mark.parametrize(
    ("module", "field", "wrong", "words", "shifts"),
    [pytest.param(*case, id=f"{case[0].__name__[8:]}-{case[1]}") for case in LIMITS],
)
def test_the_values_that_a_message_names_are_taken(tmp_path, module, field, wrong, words, shifts):
    make_tree(tmp_path, "grid", num_train=20)  # of which crops are taken
    config = small(module, tmp_path, "grid")
    if field.endswith("num_steps"):
        config.gan.epochs = 0
    config.update_from_flattened_dict({field: wrong})
    match = re.search(words, told(config))
    assert match, told(config)
    for value, shift in zip(match.groups(), shifts, strict=True):
        legal = value if shift == "" else int(value) + shift
        config.update_from_flattened_dict({field: legal})
        assert told(config) == ""
    if not shifts:
        config.gan.epochs = 9
        assert told(config) == ""


def test_a_score_that_fails_is_told_before_anything_is_trained(tmp_path, monkeypatch):
    make_tree(tmp_path, "part", num_train=20)
    code = "def build(network):\n    return lambda variables, images: images.shape[9]\n"
    (tmp_path / "own_score.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    config = small(ssae, tmp_path)
    config.score = dict(fn="own_score:build")
    said = "the score of this config raises IndexError .*: mend it"
    assert re.search(said, told(config))
    with pytest.raises(ValueError, match=said):
        commands.train(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_head_alone_is_added_as_told(tmp_path):
    make_tree(tmp_path, "part", num_train=20)
    config, whole = small(ssae, tmp_path), small(restorer, tmp_path)
    config.autoencoder.fn = ""
    said = told(config)
    assert "add a section `head`" in said
    config.head = whole.head
    follow(config, said)
    assert told(config) == ""


def test_textures_that_are_none(tmp_path):
    make_tree(tmp_path, "part", num_train=20)
    config = small(ssae, tmp_path)
    (tmp_path / "textures").mkdir()
    config.corruption.textures = str(tmp_path / "textures")
    assert "put images there, or leave corruption.textures empty" in told(config)
    save(tmp_path / "textures/a.png", picture(0))
    assert told(config) == ""
    config.corruption.textures = ""
    assert told(config) == ""


def test_quarter_turns_of_an_oblong():
    images = np.zeros((2, 16, 20, 3), np.uint8)
    for fields in ({"rotation": 180}, {"rotation": 0}, {"rotation": 90, "crop": 16}):
        pipeline.train_draws(images, **{"crop": 0, "flip": False, **fields})
    with pytest.raises(ValueError, match="choose 180 or 0, or square crops with data.crop"):
        pipeline.train_draws(images, crop=0, flip=False, rotation=90)


def test_a_decoded_copy_of_another_white_level_and_a_damaged_one(tmp_path):
    good_ones(tmp_path / "photos")
    config = small(fanogan, tmp_path, "mine", folder=str(tmp_path / "photos"))
    inputs.read(inputs.located(config, ""))
    copy = str(next((tmp_path / "prepared/decoded").glob("*.npz")))
    config.data.update(root=copy, folder="", white_level=1023)
    said = told(config)
    assert "name the folder of the images" in said
    config.data.white_level = int(re.search(r"data\.white_level=(\d+)", said)[1])
    assert told(config) == ""
    Path(copy).write_bytes(b"PK")
    assert "made anew" in told(config)
    config.data.folder = str(tmp_path / "photos")
    assert told(config) == ""
    inputs.read(inputs.located(config, ""))
    config.data.update(folder="")
    assert told(config) == ""


def test_a_batch_that_does_not_divide():
    with pytest.raises(ValueError, match="choose a multiple of 8 for batch_size"):
        parallel.local_dims((12,))
    assert parallel.local_dims((16,)) == (8, 2)


def test_a_demo_data_set_that_is_not_whole(tmp_path):
    demo.generate_demo(tmp_path, train=2, good=1, bad=1, size=32)
    next((tmp_path / "demo").rglob("*.png")).unlink()
    with pytest.raises(ValueError, match="delete it") as error:
        demo.generate_demo(tmp_path, train=2, good=1, bad=1, size=32)
    shutil.rmtree(str(error.value).partition(" is not")[0])
    demo.generate_demo(tmp_path, train=2, good=1, bad=1, size=32)
