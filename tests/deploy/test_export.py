"""A folder that scores without this repository, or none at all."""

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
from conftest import QUICK, shrink
from PIL import Image, ImageOps
from safetensors.numpy import load_file, save_file
from trees import deep_png, oriented, save

from configs import ae_l2, anogan, fanogan, ssae
from data import photos, sampling
from data.images import Reading
from deploy import export, forms, model_card
from engine.make import make
from engine.method import Score
from engine.pixels import scaled
from evaluation import false_alarms
from evaluation.scoring import scorer_of

ROOT = Path(__file__).parents[2]
SCRIPT = re.compile(r"```python\n# (\w+\.py)\n(.*?)```", re.DOTALL)
SCRIPTS = dict(SCRIPT.findall((ROOT / "docs" / "factory" / "export.md").read_text()))
ONNX = pytest.mark.skipif(
    importlib.util.find_spec("jax2onnx") is None, reason="requirements-onnx.txt is not installed"
)
LEVEL = 4095  # which is white in images of 16 bits
ABOUT = {
    "method": "a method",
    "category": "bottle",
    "seed": 3,
    "counts": {"train": 16, "calibration": 5},
    "image": {"auroc": 0.9, "average_precision": None, "reason": "too few"},
    "per_defect": {"dent": {"auroc": 0.8, "count": 4}},
    "at_threshold": {"good": {"count": 9, "wrong": 1, "rate": 1 / 9, "interval": [0.003, 0.48]}},
    "devices": ["cpu"],
}


def pixels_of(config, count=5):
    side = config.data.image_size
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def untrained(config):
    """The config's method and its networks at step 0."""
    method = make(config.method, config, 16)

    def init():
        variables = {}
        for stage in method.stages:
            variables = stage.init(jax.random.key(1), variables).variables
        return variables

    return method, jax.device_get(jax.jit(init)())


def scores_of(method, variables, pixels):
    return np.asarray(scorer_of(method, variables)(sampling.scale(pixels)).image)


def run(output, config, **changed):
    """Exports the untrained config; what was given."""
    method, variables = untrained(config)
    pixels = pixels_of(config)
    scores = scores_of(method, variables, pixels)
    threshold = float(np.sort(scores)[-2:].mean())
    given = {
        "images": pixels,
        "score_threshold": threshold,
        "files": {
            "threshold.json": json.dumps({"threshold": threshold}),
            "facts.json": json.dumps({"white_level": LEVEL}),
            "config.json": "{}",
        },
        "about": ABOUT,
        "statement": ["An image above the threshold is defective.", "So it is."],
    }
    export.write_export(method, variables, str(output), **given | changed)
    return pixels, scores, threshold, variables


def run_alone(name, *args, where):
    """What a script of docs/factory/export.md prints, where our code cannot be imported."""
    path = where / name
    path.write_text(SCRIPTS[name])
    # Isolated: neither the working directory nor PYTHONPATH is searched for modules.
    command = [sys.executable, "-I", str(path), *map(str, args)]
    environment = {"PATH": os.environ["PATH"], "HOME": str(where), "JAX_PLATFORMS": "cpu"}
    environment["XLA_FLAGS"] = QUICK
    return subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True)


def check_alone(name, output, pixels, scores, threshold, where):
    photo = where / "a part.png"
    for index in (int(np.argmin(scores)), int(np.argmax(scores))):
        Image.fromarray(pixels[index]).save(photo)
        done = run_alone(name, output, photo, where=where)
        assert done.returncode == 0 and not done.stderr, done.stderr
        score, decision = done.stdout.split()
        assert float(score) == pytest.approx(float(scores[index]), rel=1e-4)
        assert decision == ("defective" if scores[index] > threshold else "good")


@pytest.mark.promise("R14", "exported StableHLO scores as the networks, no decision flips")
def test_each_config_as_stablehlo(any_config, tmp_path, no_onnx):
    """Images larger than a window and smaller ones, one network and three."""
    output = tmp_path / "new" / "exported"
    pixels, scores, _, _ = run(output, any_config)
    form = forms.read_stablehlo(output)
    for count in (1, 3):  # sizes of which the export knew nothing
        found, maps = form(pixels[:count])
        np.testing.assert_allclose(found, scores[:count], rtol=1e-5)
        assert maps.shape == pixels[:count].shape[:3]
    assert os.listdir(output.parent) == ["exported"]


def test_a_folder_by_itself(config, tmp_path, no_onnx, caplog):
    output = tmp_path / "exported"
    with caplog.at_level("WARNING"):
        pixels, scores, threshold, variables = run(output, config)
    assert "without jax2onnx: pip install -r requirements-onnx.txt" in caplog.text
    names = ["README.md", "config.json", "facts.json", forms.STABLEHLO, "threshold.json"]
    names.append(forms.WEIGHTS)
    lines = [
        f"{hashlib.sha256((output / name).read_bytes()).hexdigest()}  {name}" for name in names
    ]
    assert (output / "SHA256SUMS").read_text().splitlines() == lines
    assert sorted(os.listdir(output)) == sorted([*names, "SHA256SUMS"])
    weights = load_file(output / forms.WEIGHTS)
    np.testing.assert_array_equal(
        weights["encoder/params/Dense_0/bias"], variables["encoder"]["params"]["Dense_0"]["bias"]
    )
    check_alone("score_jax.py", output, pixels, scores, threshold, tmp_path)
    Image.fromarray(np.zeros((7, 16), np.uint8)).save(tmp_path / "icon.png")
    done = run_alone("score_jax.py", output, tmp_path / "icon.png", where=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("icon.png: " + REFUSED + "\n") and done.stderr.count("\n") == 1
    (output / forms.WEIGHTS).write_bytes(b"")
    done = run_alone("score_jax.py", output, tmp_path / "a part.png", where=tmp_path)
    assert (done.returncode, done.stderr) == (1, "weights.safetensors is damaged\n")


REFUSED = "not one image of 8 bits, or grey of 16, with sides of at least 8 px"


def read_by(name, photo, folder):
    """What a script of docs/factory/export.md makes of a photo, uint8 [S, S, 3], or says of it."""
    start, end = (SCRIPTS[name].index(line) for line in ("image = Image.open", "threshold ="))
    lines = [line for line in SCRIPTS[name][start:end].splitlines() if "model." not in line]
    space = {"photo": photo, "folder": folder, "size": 16}
    space |= {"json": json, "np": np, "sys": sys, "Image": Image, "ImageOps": ImageOps}
    try:
        exec("\n".join(lines), space)
    except SystemExit as error:
        return str(error)
    return space["pixels"][0]


def photos_of(folder):
    """Photos that predict reads, and others that it refuses."""
    rng, white = np.random.default_rng(0), {"photometric": "miniswhite"}
    colours, deep = rng.integers(0, 256, (20, 24, 3), np.uint8), rng.integers(0, 5000, (20, 24))
    deep, first = deep.astype(np.uint16), Image.fromarray(colours)
    for suffix in ("png", "jpg", "bmp", "tif", "webp", "ppm"):
        yield save(folder / f"x.{suffix}", colours), True
    for tag in range(1, 9):
        for suffix in ("png", "jpg", "tif"):
            yield save(folder / f"{tag}.{suffix}", colours, exif=oriented(tag)), True
        yield save(folder / f"deep {tag}.png", deep, exif=oriented(tag)), True
    yield save(folder / "grey.png", colours[..., 0]), True
    yield save(folder / "deep.tif", deep), True
    yield save(folder / "deep.ppm", deep), True
    yield save(folder / "long.tif", deep.astype(np.int32)), True
    tifffile.imwrite(folder / "white.tif", deep, **white)
    tifffile.imwrite(folder / "white 8.tif", colours[..., 0], **white)
    tifffile.imwrite(folder / "big.tif", deep, byteorder=">")
    yield from ((folder / name, True) for name in ("white.tif", "white 8.tif", "big.tif"))
    first.save(folder / "camera.jpg", "MPO", save_all=True, append_images=[first.rotate(180)])
    yield folder / "camera.jpg", True
    for name in ("pages.tif", "frames.png", "frames.webp"):
        first.save(folder / name, save_all=True, append_images=[first.rotate(180)])
        yield folder / name, False
    yield (
        save(folder / "float.tif", np.linspace(0, 1, 480, dtype=np.float32).reshape(20, 24)),
        False,
    )
    for shape in ((7, 7, 3), (7, 300, 3)):
        yield save(folder / f"{shape[1]}.png", colours[:7, :1].repeat(shape[1], 1)), False
    for value in (-1, 70000):
        yield save(folder / f"{value}.tif", np.full((20, 24), value, np.int32)), False


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.filterwarnings("ignore")  # the file is open until the script ends
def test_the_scripts_read_and_refuse_as_predict_does(name, tmp_path):
    (tmp_path / "facts.json").write_text(json.dumps({"white_level": LEVEL}))
    for photo, readable in photos_of(tmp_path):
        expected = photos.read_photo(str(photo), 16, Reading(LEVEL))
        assert (expected.pixels is not None) == readable
        found = read_by(name, photo, tmp_path)
        if readable:
            np.testing.assert_array_equal(found, expected.pixels, err_msg=str(photo))
        else:
            assert found in (f"{photo}: {REFUSED}", f"{photo}: values that do not fit 16 bits")


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("kind", ["png", "tif", "zip.tif"])
@pytest.mark.filterwarnings("ignore")
def test_colours_of_16_bits_are_refused_by_the_scripts(name, kind, tmp_path):
    """Not read with the upper bytes alone, nearly black; docs/factory/export.md says so."""
    values, photo = np.full((20, 24, 3), 4000, np.uint16), tmp_path / kind
    if kind == "png":
        photo.write_bytes(deep_png(values))
    else:
        packed = "zlib" if kind == "zip.tif" else None
        tifffile.imwrite(photo, values, photometric="rgb", compression=packed)
    assert read_by(name, photo, tmp_path) == f"{photo}: {REFUSED}"


@pytest.mark.promise("R14", "exported ONNX scores as the networks, no decision flips")
@ONNX
@pytest.mark.slow
@pytest.mark.parametrize("module", [fanogan, ssae, ae_l2], ids=lambda module: module.__name__)
def test_onnx(module, tmp_path, capsys):
    output = tmp_path / "exported"
    config = shrink(module.get_config())
    if module is ae_l2:  # a texture, seen through windows
        config.data.update(image_size=32, crop=16)
        config.score.stride = 16
        if jax.__version_info__ >= (0, 12):
            pytest.skip("jax2onnx 0.12 cannot read loops of jax 0.12")
    pixels, scores, threshold, _ = run(output, config)
    assert not capsys.readouterr().out
    assert forms.ONNX in (output / "README.md").read_text()
    found, _ = forms.read_onnx(output)(pixels[:3])
    np.testing.assert_allclose(found, scores[:3], rtol=1e-5)
    if module is fanogan:
        check_alone("score_onnx.py", output, pixels, scores, threshold, tmp_path)


@ONNX
def test_what_cannot_be_onnx_is_left_out(tmp_path, caplog):
    """AnoGAN's score takes gradients, of which jax2onnx knows too little."""
    output = tmp_path / "exported"
    run(output, shrink(anogan.get_config()))
    assert "cannot convert this score (NotImplementedError" in caplog.text
    card = (output / "README.md").read_text()
    assert f"There is no `{forms.ONNX}`: jax2onnx" in card
    assert not (output / forms.ONNX).exists()


@ONNX
def test_an_onnx_that_scores_differently_stops_the_export(config, tmp_path, monkeypatch):
    def wrong(folder):
        return lambda images: (np.ones(len(images)), np.ones(images.shape[:3]))

    monkeypatch.setattr(forms, "read_onnx", wrong)
    with pytest.raises(
        ValueError, match="^model.onnx gives image 0 of 1 held-out ones the score 1, the"
    ):
        run(tmp_path / "exported", config)
    assert not os.listdir(tmp_path)


def test_other_weights_stop_the_export(config, tmp_path, monkeypatch, no_onnx):
    read = forms.read_stablehlo

    def damaged(folder):
        weights = load_file(folder / forms.WEIGHTS)
        weights["encoder/params/Dense_0/bias"] += 0.5
        save_file(weights, folder / forms.WEIGHTS)
        return read(folder)

    monkeypatch.setattr(forms, "read_stablehlo", damaged)
    with pytest.raises(ValueError, match="^model.stablehlo gives image 0 of 1 .*nothing was"):
        run(tmp_path / "exported", config)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda scores, maps: (scores * 1.00011, maps),  # too far
        lambda scores, maps: (np.full_like(scores, np.nan), maps),
        lambda scores, maps: (scores, maps * 1.01),
        lambda scores, maps: (scores, maps * np.nan),
        lambda scores, maps: (scores[:1], maps),
        lambda scores, maps: (scores, maps[:, :-1]),
    ],
    ids=["score", "no score", "map", "no map", "number", "size"],
)
def test_a_difference_stops_the_export(change, config, tmp_path, monkeypatch, no_onnx):
    changed(monkeypatch, change)
    with pytest.raises(ValueError, match="^model.stablehlo gives .*JAX_PLATFORMS=cpu$"):
        run(tmp_path / "exported", config)
    assert not os.listdir(tmp_path)


@pytest.mark.promise("R14", "a flipped decision stops the export")
def test_a_flipped_decision_stops_the_export(config, tmp_path, monkeypatch, no_onnx):
    method, variables = untrained(config)
    highest = float(scores_of(method, variables, pixels_of(config)).max())
    changed(monkeypatch, lambda scores, maps: (scores * 1.00002, maps))
    run(tmp_path / "exported", config)
    with pytest.raises(ValueError, match=r"\(threshold "):
        run(tmp_path / "second", config, score_threshold=highest * 1.00001)
    assert os.listdir(tmp_path) == ["exported"]


def test_a_score_that_depends_on_the_batch_is_told(config, tmp_path, monkeypatch, caplog, no_onnx):
    """As AnoGAN's does, by rounding; each form is compared in batches of the same size."""
    method, variables = untrained(config)

    def score(variables, images):
        found = method.score(variables, images)
        alone = jnp.asarray(images.shape[0]) == 1  # of a size that is not known yet
        return found._replace(image=jnp.where(alone, 1.001, 1.0) * found.image)

    fields = {"score_threshold": 1e9, "files": {}, "about": {}, "statement": []}
    output = str(tmp_path / "exported")
    other = method._replace(score=score)
    export.write_export(other, variables, output, images=pixels_of(config), **fields)
    assert "An image scored alone gets a score that differs by 1.0e-03" in caplog.text


def changed(monkeypatch, change):
    read = forms.read_stablehlo

    def reader(folder):
        form = read(folder)
        return lambda images: change(*form(images))

    monkeypatch.setattr(forms, "read_stablehlo", reader)


def test_nothing_is_overwritten(config, tmp_path, no_onnx, monkeypatch):
    monkeypatch.setattr(forms, "scoring", None)  # refused before any work
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("folder", "file", "link"):
        with pytest.raises(FileExistsError, match=f"{name} exists: name a new folder"):
            run(tmp_path / name, config)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "link"]
    assert not os.listdir(tmp_path / "folder")


def test_without_images(config, tmp_path, no_onnx):
    with pytest.raises(ValueError, match="no held-out good image"):
        run(tmp_path / "exported", config, images=pixels_of(config)[:0])
    assert not os.listdir(tmp_path)


def test_where_nothing_can_be_written(config, tmp_path, no_onnx):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file/exported .*: name another --output"):
        run(tmp_path / "file" / "exported", config)


def test_an_interrupted_export_leaves_nothing(config, tmp_path, monkeypatch, no_onnx):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(model_card, "card_text", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "exported", config)
    assert not os.listdir(tmp_path)


def test_unused_networks_are_left_out(tmp_path, no_onnx):
    """Of the averaged network and the one that learnt, only the first scores."""
    _, _, _, variables = run(tmp_path / "exported", shrink(ssae.get_config()))
    weights = load_file(tmp_path / "exported" / forms.WEIGHTS)
    assert len(variables) == 2 and {name.split("/")[0] for name in weights} == {"averaged"}


def test_a_network_that_is_read_for_a_term_alone_is_left_out(tmp_path):
    """By 'top' f-AnoGAN's image score is of the map; the critic's features are a term."""
    config = shrink(fanogan.get_config())
    config.score.image_score = "top"
    method, variables = untrained(config)
    score, pixels = forms.scoring(method, variables), pixels_of(config)
    weights = forms.write_weights(tmp_path, score, variables, pixels.shape[1:])
    assert {name.split("/")[0] for name in weights} == {"encoder", "generator"}
    forms.write_stablehlo(tmp_path, score, weights, pixels.shape[1:])
    found, _ = forms.read_stablehlo(tmp_path)(pixels)
    np.testing.assert_allclose(found, scores_of(method, variables, pixels), rtol=1e-5)


def test_pixels_are_scaled_as_in_training():
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(scaled(levels), sampling.scale(levels))
    np.testing.assert_array_equal(jax.jit(scaled)(levels), sampling.scale(levels))


def test_the_model_card():
    trial = model_card.Trial(5, {forms.STABLEHLO: 1e-7}, 2e-7)
    fields = {"shape": (16, 16, 3), "trial": trial}
    card = model_card.card_text(
        ABOUT, ["One.", "Two."], without_onnx="", files=["x.json"], **fields
    )
    for line in (
        "# Anomaly detector: bottle",
        "- Images: 16 train, 5 calibration",
        "One. Two.",
        "| image auroc | 0.900 |",
        "| image average precision | - |",
        "| image auroc, dent (4 images) | 0.800 |",
        "| good | 1 of 9 called defective | 11.1 % (0.3 % to 48 %) |",
        "- `x.json`: as given",
        "- An image scored alone and among others: scores differ by 2.0e-07.",
    ):
        assert line in card.splitlines()
    bare = model_card.card_text({}, [], without_onnx="no reason", files=[], **fields)
    assert bare.startswith("# Anomaly detector\n") and "## Metrics" not in bare
    assert "## Threshold" not in bare and "{size" not in bare and ": None" not in bare
    assert "- There is no `model.onnx`: no reason." in bare.splitlines()


def test_marks_are_part_of_the_exported_function(config, tmp_path, no_onnx):
    """The same pixels as predict marks, for any number of images; another form is refused."""
    output = tmp_path / "exported"
    maps = np.random.default_rng(0).uniform(0, 0.1, (12, 16, 16)).astype(np.float32)
    marks = false_alarms.calibrate_marks(maps, 1.0, 0.05)
    pixels, scores, _, _ = run(output, config, marks=marks)
    found, maps, nfa = forms.read_stablehlo(output)(pixels[:3])
    np.testing.assert_allclose(found, scores[:3], rtol=1e-5)
    expected = false_alarms.log_nfa(maps, marks.background)
    assert (expected < marks.limit).any()
    np.testing.assert_array_equal(nfa < marks.limit, expected < marks.limit)
    with pytest.raises(ValueError, match="x marks 1e.02 % of the pixels .* otherwise than predict"):
        export._verify(
            "x",
            lambda batch: (found, maps, 0 * nfa + marks.limit + 1 - 2 * (expected >= marks.limit)),
            [pixels[:3]],
            [Score(found, maps)],
            0.0,
            marks,
        )
