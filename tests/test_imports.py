"""Who may import whom (shared/design.md, section 2), and that importing does no work."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"main", "commands", "engine", "fanogan_jax", "ae_jax", "data", "configs"}
METHODS = ("fanogan_jax", "ae_jax")
METHOD_MAY = {"engine.method", "engine.residuals", "engine.convolution", "engine.parallel"}


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


@pytest.mark.parametrize("path", files("data"), ids=str)
def test_data_imports_neither_jax_nor_ours(path):
    assert not tops(path) & ((OURS - {"data"}) | {"jax", "flax", "optax", "orbax"})


@pytest.mark.parametrize("path", files("engine"), ids=str)
def test_engine_knows_no_method_and_no_data(path):
    assert not tops(path) & ((OURS - {"engine"}) | {"tensorflow", "tensorflow_datasets"})


@pytest.mark.parametrize("path", [f for m in METHODS for f in files(m)], ids=str)
def test_a_method_imports_little_of_the_engine(path):
    names = {name for name in imported(path) if name.split(".")[0] in OURS}
    package = path.relative_to(ROOT).parts[0]
    foreign = {name for name in names if name.split(".")[0] != package} - {"engine"}
    assert {".".join(name.split(".")[:2]) for name in foreign} <= METHOD_MAY


@pytest.mark.parametrize("path", files("configs"), ids=str)
def test_configs_import_only_configs(path):
    assert tops(path) <= {"ml_collections", "configs", "typing", "json", "pathlib"}


def test_orbax_pmap_and_tensorflow_are_in_one_place():
    for path in [ROOT / "main.py", *(f for p in ("engine", *METHODS) for f in files(p))]:
        if path.name != "checkpoint.py":
            assert "orbax" not in tops(path), path
        if path.name != "parallel.py":
            assert "pmap" not in path.read_text(), path
        assert "tensorflow" not in tops(path), path


def test_no_network_has_convolutions_of_its_own():
    """flax's would fall into XLA:CPU's naive loops; engine/convolution.py chooses."""
    for path in (f for method in METHODS for f in files(method)):
        for name in ("nn.Conv", "nn.ConvTranspose", "conv_general_dilated"):
            assert name not in path.read_text(), path


def test_importing_starts_no_device():
    code = (
        "import engine.train, engine.evaluation, fanogan_jax, configs.fanogan;"
        "from jax._src import xla_bridge; assert not xla_bridge._backends"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
