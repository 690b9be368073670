"""The site's API pages: each module that they name is there, and each public name has a docstring.

Ruff's rules D1 ask the same of every module, class, function and method of the program, but not of
names that are assigned, such as types. What has no docstring the site would show without a word.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_imports import METHODS

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "api").glob("*.md"))
SHOWN = [
    name for page in PAGES for name in re.findall(r"^::: ([\w.]+)$", page.read_text(), re.MULTILINE)
]


def source_of(name: str) -> Path:
    path = ROOT / name.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def names_of(node: ast.stmt) -> list[str]:
    """What a statement defines."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    parts = [part for each in targets for part in getattr(each, "elts", [each])]
    return [part.id for part in parts if isinstance(part, ast.Name)]


def is_text(node: ast.stmt | None) -> bool:
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def undocumented(module: ast.Module) -> Iterator[str]:
    """Public names of a module, and public methods of its classes, that have no docstring."""
    if not ast.get_docstring(module):
        yield "the module"
    for node, after in zip(module.body, [*module.body[1:], None], strict=True):
        public = [name for name in names_of(node) if not name.startswith("_")]
        if not isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield from () if is_text(after) else public
        elif public and not ast.get_docstring(node):
            yield node.name
        if isinstance(node, ast.ClassDef) and public:
            for method in node.body:
                named = isinstance(method, ast.FunctionDef) and not method.name.startswith("_")
                if named and not ast.get_docstring(method):
                    yield f"{node.name}.{method.name}"


@pytest.mark.parametrize("name", SHOWN)
def test_what_an_api_page_names_is_there_with_its_docstrings(name):
    module, _, function = ("", "", "") if source_of(name).exists() else name.rpartition(".")
    tree = ast.parse(source_of(module or name).read_text())
    missing = list(undocumented(tree))
    if function:
        assert function in [each for node in tree.body for each in names_of(node)]
        assert function not in missing
    else:
        assert not missing, missing


def test_the_pages_show_what_a_researcher_names():
    methods = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for room in METHODS
        for path in (ROOT / room).rglob("[a-z]*.py")
    }
    assert methods <= set(SHOWN)
    assert len(SHOWN) == len(set(SHOWN))


def test_the_pages_show_all_commands():
    exports = ast.parse((ROOT / "commands" / "__init__.py").read_text())
    names = [
        f"{node.module}.{alias.name}"
        for node in exports.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert names
    assert set(names) <= set(SHOWN)


def test_the_test_above_finds_what_has_none():
    text = '"""M."""\nT = int\nU = int\n"""U."""\ndef f(): 0\nclass C:\n  def m(self): 0\n'
    assert list(undocumented(ast.parse(text))) == ["T", "f", "C", "C.m"]
