"""One thing, one name: no two modules define the same public function, class or constant."""

import ast
from collections import defaultdict
from pathlib import Path

from test_imports import METHODS

ROOT = Path(__file__).parents[1]
ROOMS = ("storage", "data", "engine", "evaluation", "report", "deploy", "commands")
# A config names its method's; each family has one, and one for each kind of autoencoder.
SHARED = {"build"}


def public_names(path):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)]
        else:
            names = []
        yield from (name for name in names if not name.startswith("_"))


def test_no_two_public_things_share_a_name():
    """The families of methods never meet: each may have, say, its own `reconstruct`."""
    for family in METHODS:
        places = defaultdict(list)
        for room in (*ROOMS, family):
            for path in (ROOT / room).rglob("*.py"):
                for name in public_names(path):
                    places[name].append(str(path.relative_to(ROOT)))
        assert len(places) > 300
        assert {name: at for name, at in places.items() if len(at) > 1 and name not in SHARED} == {}
