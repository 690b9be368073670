"""A run of main.py in a process of its own: its command, and what its log and files say.

The standard library alone, so that nothing is imported, and no device taken, beside the run.
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def command(config: str, root: str | os.PathLike[str], workdir: Path, *fields: str) -> list[str]:
    """Trains `config`, 'file:category' of configs/, on the images of `root`.

    `fields` are 'section.field=value'.
    """
    file, _, category = config.partition(":")
    return [
        *(sys.executable, "main.py", f"--config=configs/{file}.py:{category}"),
        *(f"--config.{field}" for field in (f"data.root={root}", *fields)),
        f"--workdir={workdir}",
    ]


def environment(folder: str | os.PathLike[str]) -> dict[str, str]:
    """The process's own, with the cache of compilation below `folder`."""
    own = {**os.environ, "XDG_CACHE_HOME": os.path.join(folder, "cache")}
    own.pop("JAX_COMPILATION_CACHE_DIR", None)
    return own


def first_step(log: str) -> float | None:
    """Seconds from the program's start to its first step; None: it took none."""
    found = re.search(r"step \d+ done (\S+) s after", log)
    return float(found[1]) if found else None


def metrics_of(workdir: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; of a run that took no step, none."""
    path = workdir / "metrics.jsonl"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    *whole, _ = text.split("\n")  # what follows the last newline is unfinished, or ''
    return [json.loads(line) for line in whole]


def seconds_per_step(lines: list[dict[str, Any]], stage: str) -> float | None:
    """From the first line of the stage to its last: without compilation; None: too few lines."""
    mine = [line for line in lines if line["stage"] == stage]
    steps = mine[-1]["step"] - mine[0]["step"] if mine else 0
    return (mine[-1]["seconds"] - mine[0]["seconds"]) / steps if steps else None
