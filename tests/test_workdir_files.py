"""The name of each file of a workdir is typed once in source: one room knows where it lies."""

import ast
from pathlib import Path

import pytest
from test_imports import METHODS

ROOT = Path(__file__).parents[1]
ROOMS = ("storage", "data", "engine", "evaluation", "report", "deploy", "commands")
SOURCES = [
    ROOT / "main.py",
    *(path for room in (*ROOMS, *METHODS) for path in (ROOT / room).rglob("*.py")),
]
NAMES = (
    *(
        "config.json",
        "facts.json",
        "sources.json",
        "lock",
        "checkpoints",
        "metrics.jsonl",
        "tensorboard",
    ),
    *("threshold.json", "results.json", "scores.csv", "predictions.npz", "tuning.json"),
    *("index.html", "compare.html", "compare.md", "compare.json", "SHA256SUMS"),
    *("predictions.csv", "predictions.jsonl", "model.stablehlo", "weights.safetensors"),
)


def texts(path):
    """The strings of a file that are no docstrings, with their lines."""
    tree = ast.parse(path.read_text())
    documented = ast.Module | ast.ClassDef | ast.FunctionDef
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if text and id(node) not in docstrings:
            yield node.value, node.lineno


@pytest.mark.parametrize("name", NAMES)
def test_a_file_name_is_typed_once(name):
    places = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in SOURCES
        for text, line in texts(path)
        if name == text or ("." in name and name in text)
    ]
    assert len(places) == 1, places
