"""By which files a folder is known that this program has written: no picture in it is a photo."""

import os

from storage.files import SUMS

CONFIG_FILE = "config.json"  # of a run, and of an export
FACTS_FILE = "facts.json"
CHECKPOINTS = "checkpoints"
DEMO_FILE = "demo.json"  # of the generated images
PREDICTIONS = ("predictions.csv", "predictions.jsonl")

_MARKS = (
    ("a run", (CONFIG_FILE, CHECKPOINTS)),
    ("a run", (CONFIG_FILE, FACTS_FILE)),
    ("predictions", PREDICTIONS[:1]),
    ("an export", (CONFIG_FILE, SUMS)),
)


def written_by(folder: str | os.PathLike[str]) -> str:
    """'a run', 'predictions' or 'an export', if `folder` is the output of such, else ''."""
    for what, names in _MARKS:
        if all(os.path.exists(os.path.join(folder, name)) for name in names):
            return what
    return ""
