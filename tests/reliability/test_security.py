"""No data becomes code, and no name in it leads out of the workdir."""

import ast
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from test_main import ROOT, picture, save

from commands.tune import _trained_weights
from configs import ssae
from data import decoded, pipeline
from engine.make import resolve
from engine.sources import Sources
from engine.workdir import Facts
from evaluation import official, tuning
from evaluation.results import Run, read_predictions

MODULES = set("pickle marshal shelve dill cloudpickle joblib urllib requests http socket".split())
# The service, and what asks it: both on this machine (tests/deploy/test_service.py).
NETWORKED = {
    "benchmarks/serve.py": {"http.client", "socket", "urllib.parse", "urllib.request"},
    "commands/serve.py": {"socket"},
}
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load"}


def dangers(code):
    """What of a program may run data as code, or reach another machine."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found += [node.module] if (node.module or "").split(".")[0] in MODULES else []
            found += sorted(names & CALLS)
        elif isinstance(node, ast.Call):
            found += danger_of_call(node)
    return found


def danger_of_call(node):
    called = ast.unparse(node.func)
    given = {word.arg: ast.unparse(word.value) for word in node.keywords}
    loads = called in ("np.load", "numpy.load", "jnp.load", "jax.numpy.load")
    bad = (
        called in CALLS
        or (loads and given.get("allow_pickle") != "False")
        or given.get("allow_pickle") == "True"
        or given.get("shell", "False") != "False"
        or (called.startswith("yaml.") and called not in ("yaml.safe_load", "yaml.safe_dump"))
    )
    return [ast.unparse(node)] if bad else []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "import urllib.request",
        "from http import client",
        "def f():\n    import socket",
        "eval(text)",
        "exec(compile(text, '', 'exec'))",
        "__import__(name)",
        "from os import system",
        "os.system('ls')",
        "os.popen(command)",
        "np.load(path)",
        "np.load(path, allow_pickle=flag)",
        "numpy.load(file, allow_pickle=True)",
        "np.lib.format.read_array(file, allow_pickle=True)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "torch.load(path, weights_only=True)",
        "subprocess.run(command, shell=True)",
    ],
)
def test_the_scan_sees(code):
    assert dangers(code)


def test_the_scan_passes_what_is_safe():
    safe = "np.load(path, allow_pickle=False)", "re.compile(x)", "yaml.safe_load(x)"
    assert not dangers("\n".join([*safe, "network.eval()", "import html, json, subprocess"]))


@pytest.mark.promise("R15")
def test_no_file_runs_data_as_code(tries):
    listed = subprocess.run(
        [
            "git",
            "-c",
            "safe.directory=*",
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "*.py",
        ],
        **{"cwd": ROOT, "check": True, "capture_output": True, "text": True},
    )
    paths = [path for path in listed.stdout.splitlines() if not path.startswith("tests/")]
    assert {"main.py", "engine/method.py", "data/decoded.py"} <= set(paths)
    for path in paths:
        with tries("a source file holds no pickle, eval, download or unsafe YAML"):
            found = set(dangers((ROOT / path).read_text()))
            assert found == NETWORKED.get(path, set()), path


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def write_trap(path, name, trace, **arrays):
    """An .npz whose array `name` is a trap, which works."""
    trap = np.array([Trap(trace)], dtype=object)
    np.savez(path, **arrays, **{name: trap})
    with np.load(path, allow_pickle=True) as file:
        assert file[name].shape == (1,) and trace.exists()
    trace.unlink()


@pytest.mark.promise("R15")
def test_a_decoded_copy_is_never_unpickled(tmp_path, tries):
    """Whichever of its arrays is the trap."""
    for index in range(4):
        save(tmp_path / f"photos/{index}.png", picture(np.random.default_rng(index)))
    pipeline.load_splits("mine", "", 16, data_dir=tmp_path, folder=tmp_path / "photos")
    (path,) = (tmp_path / "decoded").iterdir()
    assert len(decoded.read_decoded(str(path)).train.paths) == 4
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    for name in arrays:
        others = {key: value for key, value in arrays.items() if key != name}
        write_trap(path, name, tmp_path / "trace", **others)
        with tries("a file of a workdir or data set with a pickle inside is refused"):
            with pytest.raises(ValueError, match=r"mine_16px.npz .*(allow_pickle=False|is object)"):
                decoded.read_decoded(str(path))
            assert not (tmp_path / "trace").exists()


@pytest.mark.promise("R15")
@pytest.mark.parametrize("name", ["maps", "reconstructions", "map_max"])
def test_predictions_are_never_unpickled(tmp_path, name, tries):
    arrays = {"maps": np.zeros((0, 8, 8), np.float32), "map_max": np.float32(1)}
    arrays.pop(name, None)
    write_trap(tmp_path / "predictions.npz", name, tmp_path / "trace", **arrays)
    none = np.zeros(0)
    data = Facts(0, ""), Sources({}, {}, {})
    run = Run(str(tmp_path), "", "", 0, {}, *data, {}, [], [], none, none)
    with tries("a file of a workdir or data set with a pickle inside is refused"):
        with pytest.raises(ValueError, match=r"predictions.npz is damaged .*allow_pickle=False"):
            read_predictions(run)
        assert not (tmp_path / "trace").exists()


@pytest.mark.promise("R15")
@pytest.mark.parametrize("category", ["..", "../..", "", ".", "a/b", "{absolute}", "a\0"])
def test_maps_never_replace_a_folder_elsewhere(category, tmp_path, tries):
    """The category of a decoded copy is what a stranger wrote into it."""
    kept = tmp_path / "kept"
    kept.mkdir()
    category, one = category.replace("{absolute}", str(kept)), np.ones((1, 8, 8), np.float32)
    with tries("a name from data that leads out of the workdir is refused"):
        with pytest.raises(ValueError, match="no name for a folder"):
            official.write_maps(
                str(tmp_path / "w"),
                category,
                paths=["a.png"],
                defects=["good"],
                maps=one,
                sizes=np.array([[8, 8]]),
                orientations=np.array([0]),
            )
        assert kept.exists() and list(tmp_path.iterdir()) == [kept]


@pytest.mark.promise("R15")
@pytest.mark.parametrize("folder", ["..", "../other", "tuning/../../other", "{absolute}"])
def test_networks_are_never_taken_from_elsewhere(folder, tmp_path, tries):
    folder = folder.replace("{absolute}", str(tmp_path / "other"))
    choice = {"chosen": {"folder": folder, "score": {}}}
    (tmp_path / tuning.TUNING_FILE).write_text(json.dumps(choice))
    with (
        tries("a name from data that leads out of the workdir is refused"),
        pytest.raises(ValueError, match="is not in the workdir"),
    ):
        tuning.read_choice(str(tmp_path))


def test_networks_are_taken_from_where_tuning_put_them(tmp_path):
    for folder in (".", "tuning/corrupted_weight=0.1"):
        choice = {"chosen": {"folder": folder, "score": {}}}
        (tmp_path / tuning.TUNING_FILE).write_text(json.dumps(choice))
        assert tuning.read_choice(str(tmp_path))[0] == os.path.normpath(tmp_path / folder)


@pytest.mark.promise("R15", "a name from data that leads out of the workdir is refused")
def test_a_weight_names_no_folder(tmp_path):
    config = ssae.get_config("demo")
    config.tuning = {"corrupted_weights": ("/../../../elsewhere",)}
    with pytest.raises(ValueError, match="elsewhere"):
        _trained_weights(config, Facts(16, ""), str(tmp_path / "w"), None)
    assert not list(tmp_path.iterdir())


def test_a_module_that_lies_beside_is_not_imported_but_pointed_to(tmp_path, monkeypatch):
    (tmp_path / "my_trap.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"export PYTHONPATH={tmp_path}$"):
        resolve("my_trap:loss")
    monkeypatch.chdir(tmp_path.parent)
    with pytest.raises(ValueError, match="export PYTHONPATH=FOLDER$"):
        resolve("my_trap:loss")
