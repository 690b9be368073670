"""The version is said alike wherever it stands."""

import re
from pathlib import Path

from engine import VERSION

ROOT = Path(__file__).parents[1]


def test_all_pages_say_the_same_version():
    changes = (ROOT / "CHANGELOG.md").read_text()
    number, date = re.search(r"^## (\S+), (\d{4}-\d\d-\d\d)$", changes, re.MULTILINE).groups()
    citation = (ROOT / "CITATION.cff").read_text()
    assert number == VERSION
    assert f"\nversion: {VERSION}\ndate-released: {date}\n" in citation
