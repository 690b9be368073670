"""Settings are settings: nothing but the files in configs/ writes into a config."""

import ast
from pathlib import Path

import pytest
from test_imports import METHODS

from commands import inputs
from configs import ae, fanogan, ssae

ROOT = Path(__file__).parents[2]
ROOMS = ("storage", "data", "engine", "evaluation", "report", "deploy", "commands")
SOURCES = [
    ROOT / "main.py",
    *(path for room in (*ROOMS, *METHODS) for path in (ROOT / room).rglob("*.py")),
]


def root_of(node):
    """The name that a chain of attributes and indices begins with."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def writes(tree):
    """Lines that set, delete or update a field of what is called a config."""
    for node in ast.walk(tree):
        targets = []
        if isinstance(node, ast.Assign | ast.Delete):
            targets = node.targets
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            targets = [node.func] if node.func.attr in ("update", "unlock", "setdefault") else []
        for target in targets:
            if isinstance(target, ast.Attribute | ast.Subscript) and root_of(target) == "config":
                yield node.lineno


def test_a_write_is_seen():
    for line in ("config.a = 1", "config.a.b.update(c=1)", "config['a'] = 1", "del config.a"):
        assert [*writes(ast.parse(line))]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_code_writes_into_a_config(path):
    assert not [*writes(ast.parse(path.read_text()))]


@pytest.mark.parametrize("module", [fanogan, ae, ssae], ids=lambda module: module.__name__)
def test_what_commands_pass_on_cannot_be_written_to(module, tmp_path):
    given = module.get_config("demo")
    config = inputs.located(given, str(tmp_path))
    assert config.data.root == config.data.prepared == str(tmp_path / "data")
    assert given == module.get_config("demo")
    for write in (
        lambda: setattr(config, "seed", 1),
        lambda: setattr(config.data, "root", "/elsewhere"),
        lambda: config.score.update(smoothing=1.0),
    ):
        with pytest.raises((AttributeError, TypeError)):
            write()
