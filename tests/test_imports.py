"""Who may import whom (docs/architecture.md), and that importing does no work."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
METHODS = ("fanogan_jax", "ae_jax", "contrario_jax", "few_shot_jax", "diffusion_jax", "video_jax")
# Each room, and those that it may import besides itself.
ROOMS = {
    "storage": set(),
    "data": {"storage"},
    "engine": {"storage"},
    "evaluation": {"engine", "data", "storage"},
    "report": {"evaluation", "engine", "data", "storage"},
    "deploy": {"report", "evaluation", "engine", "data", "storage"},
    "configs": set(),
    **{method: {"engine"} for method in METHODS},
    "few_shot_jax": {"ae_jax", "engine"},  # corruptions, and the encoder that it may begin with
    "commands": {"deploy", "report", "evaluation", "engine", "data", "storage"},
}
METHOD_MAY = {
    "engine.method",
    "engine.residuals",
    "engine.convolution",
    "engine.parallel",
    "engine.make",
    "engine.folding",
    "engine.foreground",
    "engine.nfa",
    "engine.map_score",
    "engine.usual",
    "engine.optimizer",
    "engine.preview",
}
# What is imported in one place alone.
PLACES = {
    "tensorflow": "data/",
    "tensorflow_datasets": "data/",
    "orbax": "engine/checkpoint.py",
    "matplotlib": "report/",
}


def imported(path: Path) -> set[str]:
    """Dotted names that a file imports, of `from a import b` both a and a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def files(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found
    return found


def tops(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


SOURCES = [path for room in ROOMS for path in files(room)]


def test_each_room_is_known():
    found = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert found == set(ROOMS)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_down(path):
    room = path.relative_to(ROOT).parts[0]
    assert tops(path) & {*ROOMS, "main"} <= ROOMS[room] | {room}


@pytest.mark.parametrize("path", [f for m in METHODS for f in files(m)], ids=str)
def test_a_method_imports_little_of_the_engine(path):
    names = {name for name in imported(path) if name.split(".")[0] == "engine"} - {"engine"}
    assert {".".join(name.split(".")[:2]) for name in names} <= METHOD_MAY


def test_no_circle_of_modules():
    graph = {}
    for path in SOURCES:
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        graph[module] = imported(path) - {module}
    order = graphlib.TopologicalSorter(
        {module: names & set(graph) - set(ROOMS) for module, names in graph.items()}
    )
    order.prepare()  # raises CycleError


@pytest.mark.parametrize("path", files("data"), ids=str)
def test_data_imports_no_jax(path):
    assert not tops(path) & {"jax", "flax", "optax", "orbax"}


@pytest.mark.parametrize("path", files("configs"), ids=str)
def test_configs_import_only_configs(path):
    assert tops(path) <= {"ml_collections", "configs", "typing", "json", "pathlib"}


@pytest.mark.parametrize("library", PLACES)
def test_a_library_is_in_one_place(library):
    for path in [ROOT / "main.py", *SOURCES]:
        if not str(path.relative_to(ROOT)).startswith(PLACES[library]):
            assert library not in tops(path), path


def test_pmap_is_in_one_place():
    for path in [ROOT / "main.py", *SOURCES]:
        if path.name != "parallel.py":
            assert "pmap" not in path.read_text(), path


def test_no_network_has_convolutions_of_its_own():
    """flax's would fall into XLA:CPU's naive loops; engine/convolution.py chooses."""
    for path in (f for method in METHODS for f in files(method)):
        for name in ("nn.Conv", "nn.ConvTranspose", "conv_general_dilated"):
            assert name not in path.read_text(), path


def test_importing_starts_no_device():
    code = (
        "import engine.train, evaluation.evaluate, fanogan_jax, configs.fanogan;"
        "from jax._src import xla_bridge; assert not xla_bridge._backends"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
