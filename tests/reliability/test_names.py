"""A config comes with a workdir, and whoever made that may not choose what is run."""

import importlib
import json
import sys

import pytest
from test_imports import METHODS
from test_main import ROOT, fails

from engine.make import make, resolve

CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
HOSTILE = {
    "a shell": dict(fn="os:system", command="touch {trace}"),
    "without a colon": dict(fn="os.system", command="touch {trace}"),
    "the module behind os": dict(fn="posix:system", command="touch {trace}"),
    "a program": dict(fn="subprocess:run", args=["touch", "{trace}"]),
    "a builtin": dict(fn="builtins:open", file="{trace}", mode="w"),
    "a class of the library": dict(fn="pathlib:Path.touch", self="{trace}"),
    "an installed package": dict(fn="numpy:save", file="{trace}", arr=1),
    "JAX": dict(fn="jax.numpy:save", file="{trace}", arr=1),
    "what a method imports": dict(fn="fanogan_jax.losses:jnp.save", file="{trace}", arr=1),
    "what Optax imports": dict(fn="optax:adam.__globals__.get", key="x"),
    "a loader": dict(fn="fanogan_jax.losses:__loader__.set_data", path="{trace}", data="x"),
    "this program": dict(fn="engine.log:write_text", path="{trace}", text="x"),
    "this program, through a method": dict(fn="fanogan_jax.losses:residuals.squared"),
    "another mode": dict(fn="commands:export", workdir="{trace}", output="{trace}"),
    "the program itself": dict(fn="main:main", argv=[]),
    "a test of this program": dict(fn="test_main:fails"),
    "tests of the library": dict(fn="test.support.os_helper:create_empty_file", filename="{trace}"),
    "own, what it imports": dict(fn="own:subprocess.run", args=["touch", "{trace}"]),
    "own, a partial of it": dict(fn="own:touch"),
    "own, through a partial": dict(fn="own:touch.func", args=["touch", "{trace}"]),
    "a workdir that is a package": dict(fn="work.evil:go"),
    "a workdir in a package": dict(fn="project.work.evil:go"),
    "a workdir in a folder": dict(fn="runs.work.evil:go"),
    "a folder without __init__.py": dict(fn="folder.evil:go"),
}


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A folder on the path: a module of the user's own, and workdirs of strangers."""
    monkeypatch.syspath_prepend(tmp_path)
    trace = tmp_path / "trace"
    (tmp_path / "own.py").write_text(
        "import functools, subprocess\n"
        "def add(a, b=1): return a + b\n"
        "two = functools.partial(add, b=2)\n"
        f"touch = functools.partial(subprocess.run, ['touch', {str(trace)!r}])\n"
    )
    for workdir in ("work", "project/work", "runs/work", "folder"):
        (tmp_path / workdir).mkdir(parents=True)
        (tmp_path / workdir / "evil.py").write_text(f"open({str(trace)!r}, 'w')\ndef go(): pass\n")
    for workdir in ("work", "project/work", "runs/work"):
        (tmp_path / workdir / "config.json").write_text("{}")
    for package in ("work", "project", "project/work", "runs/work"):
        (tmp_path / package / "__init__.py").write_text("")
    yield tmp_path
    for name in ("own", "project", "mine"):  # another test has others of these names
        sys.modules.pop(name, None)


@pytest.mark.promise("R15")
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_config_cannot_name(kind, path, tries):
    trace = path / "trace"
    section = json.loads(json.dumps(HOSTILE[kind]).replace("{trace}", str(trace)))
    before = set(sys.modules)
    with tries("a config names what it must not: refused, nothing was run"):
        with pytest.raises(ValueError, match="is not for a config to name") as caught:
            make(section)
        assert "\n" not in str(caught.value) and repr(section["fn"]) in str(caught.value)
        assert not trace.exists() and not {"work", "runs", "folder"} & (set(sys.modules) - before)


def modules_of_the_checkout():
    """Every Python file of the repository as a module, but those of the methods."""
    folders = [
        folder
        for folder in ROOT.iterdir()
        if folder.is_dir() and folder.name[0] != "." and not (folder / "pyvenv.cfg").exists()
    ]
    paths = [*ROOT.glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py"))]
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths}
    names = {name.removesuffix(".__init__") for name in names}
    return sorted(name for name in names if name.split(".")[0] not in METHODS)


@pytest.mark.promise("R15")
def test_nothing_of_the_checkout_but_the_methods_may_be_named(tries):
    before = set(sys.modules)
    modules = modules_of_the_checkout()
    assert {"main", "commands", "engine.method", "data.images"} <= set(modules)
    for module in modules:
        with (
            tries("a config names a module of this program that is no method: refused"),
            pytest.raises(ValueError, match=r"^fn=.* is not for a config to name"),
        ):
            resolve(f"{module}:__name__")
    assert set(sys.modules) == before  # none was imported


@pytest.mark.parametrize("name", ["", ":", "own", "own:nothing", "__main__:main", ["os:system"], 5])
def test_what_is_no_name_is_said_in_one_line(name, path):
    with pytest.raises(ValueError, match="^fn=[^\\n]*$"):
        make(dict(fn=name))


def test_own_functions_are_named_as_before(path):
    assert make(dict(fn="own:add", b=5), 1) == 6
    assert make(dict(fn="own:two"), 1) == 3
    (path / "mine" / "below").mkdir(parents=True)
    (path / "mine" / "__init__.py").write_text("")
    (path / "mine" / "below" / "__init__.py").write_text("def f(): return 7\n")
    assert make(dict(fn="mine.below:f")) == 7


def functions(section):
    """Every `fn` of a config."""
    for name, value in section.items():
        if isinstance(value, dict):
            yield from functions(value)
        elif name == "fn":
            yield value


@pytest.mark.parametrize("name", [name for name in CONFIGS if name[0] != "_"])
def test_every_config_names_what_it_may(name):
    module = importlib.import_module(f"configs.{name}")
    if name not in ("workdir", "augmentation", "ensemble"):  # these name nothing
        for function in functions(module.get_config("demo").to_dict()):
            with pytest.raises(ValueError, match="with .*no_such_field"):
                make(dict(fn=function, no_such_field=1))


@pytest.mark.promise("R15", "main.py evaluates a workdir whose config.json names os:system")
def test_a_strangers_workdir_is_not_run(tmp_path):
    trace, workdir = tmp_path / "trace", tmp_path / "w"
    workdir.mkdir()
    config = importlib.import_module("configs.fanogan").get_config("demo").to_dict()
    config["data"]["image_size"] = 16
    config["method"] = dict(fn="os:system", command=f"touch {trace}")
    (workdir / "config.json").write_text(json.dumps(config))
    (workdir / "facts.json").write_text(json.dumps({"num_train": 1, "digest": ""}))
    line = fails("--mode=evaluate", f"--workdir={workdir}")
    assert "fn='os:system' is not for a config to name" in line and not trace.exists()
