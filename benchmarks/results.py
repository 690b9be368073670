"""Every method, several categories, several seeds: runs what is missing of a table, and writes it.

python -m benchmarks.results --root=DIR --categories=bottle,grid --configs=fanogan,ae --seeds=0,1 \
    --output=OUT [--minutes=M]

A run of the table is `main.py` in a workdir of its own, OUT/<config>/<category>/seed<n>, with its
output in the file of that name with `.log`. The same command goes on where an earlier one stopped,
in whatever way it did; what is finished is not touched. Several commands may work in one OUT, also
on several machines of one file system: a workdir that another holds is passed over for the next.
First seeds come first, so that a command that is stopped leaves whole tables of fewer seeds.

A config is a name of configs/, or the path of a file of one's own. After `--minutes` the run at
hand saves its state and the table is written: results.md and results.json say of each run whether
it is finished, and compare.html (of --mode=compare) shows those that are.
"""

import argparse
import datetime
import json
import os
import platform
import runpy
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

import commands
from benchmarks import results_tables
from benchmarks.run import ROOT
from commands import inputs
from commands.runs import free_of
from engine import checkpoint
from engine.workdir import claim, hold, read_facts
from evaluation.results import RESULTS_FILE, read_run
from report.page import markdown_document
from storage.files import write_json, write_text

_PATIENCE = 60  # seconds that a run has to save its state; it takes 25 at most


class Cell(NamedTuple):
    """A run of the table."""

    config: str  # path of a file
    category: str
    seed: int

    def workdir(self, output: str) -> str:
        """OUT/<config>/<category>/seed<n>."""
        return os.path.join(output, Path(self.config).stem, self.category, f"seed{self.seed}")

    def flags(self, root: str) -> list[str]:
        """What main.py is told of it, but for the workdir."""
        where = [f"--config.data.root={root}"] if root else []
        name = f"--config={self.config}:{self.category}"
        return [name, *where, f"--config.seed={self.seed}"]


def cells_of(configs: Sequence[str], categories: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """All runs of the table, in the order in which they are run.

    Raises:
      ValueError: a config is no file; two have one name; or nothing is named.
    """
    paths = [
        os.path.abspath(each) if each.endswith(".py") else str(ROOT / f"configs/{each}.py")
        for each in configs
    ]
    for path in paths:
        if not os.path.isfile(path):
            raise ValueError(f"{path} is no file: --configs takes names of configs/, or own files")
    if len({Path(path).stem for path in paths}) < len(paths):
        raise ValueError(f"--configs={','.join(configs)} has a name twice: rename one")
    if not (paths and categories and seeds):
        raise ValueError("name one config, category and seed at least")
    return [
        Cell(path, category, seed) for seed in seeds for path in paths for category in categories
    ]


def _config(cell: Cell, root: str, workdir: str) -> ConfigDict:
    """The config as main.py makes it of the cell's flags."""
    config = runpy.run_path(cell.config)["get_config"](cell.category)
    if root:
        config.data.root = root
    config.seed = cell.seed
    return inputs.located(config, workdir)


def state_of(cell: Cell, root: str, output: str) -> str:
    """'finished', 'not run', 'in use by ...', 'stopped at ...' or 'failed: ...'."""
    workdir = cell.workdir(output)
    if not os.path.isdir(workdir):
        return _unbound(workdir)
    try:
        with hold(workdir):
            pass
    except OSError as error:
        return str(error).removeprefix(f"{workdir} is ").partition(":")[0]
    try:
        return _state_of_free(_config(cell, root, workdir), workdir)
    except (ValueError, OSError) as error:
        return f"failed: {error}"


def _state_of_free(config: ConfigDict, workdir: str) -> str:
    if not checkpoint.exist(workdir):
        return _unbound(workdir)
    facts = read_facts(workdir)
    method = inputs.method_of(config, facts)
    claim(workdir, config.to_dict(), facts, free=free_of(config, method), main=False)
    stages = method.stages
    for stage in stages:
        step = checkpoint.newest_step(workdir, stage.name) or 0
        if step < stage.num_steps:
            at = f" at {stage.name} step {step:,} of {stage.num_steps:,}"
            break
    else:
        if os.path.exists(os.path.join(workdir, RESULTS_FILE)):
            results = read_run(workdir).results
            if results["steps"][stages[-1].name] == stages[-1].num_steps:
                return "finished"
        at = " before it was evaluated"
    failure = _failure(workdir)
    return f"failed{at}: {failure}" if failure else f"stopped{at}"


def _unbound(workdir: str) -> str:
    """The state of a run that has saved no step."""
    failure = _failure(workdir)
    return f"failed: {failure}" if failure else "not run"


def _failure(workdir: str) -> str:
    """The error that the last session of a run ended with, or ''."""
    sessions = read_sessions(workdir)
    return sessions[-1]["error"] if sessions else ""


def read_sessions(workdir: str) -> list[dict[str, Any]]:
    """What `run` noted of a workdir, the oldest first; a line that a crash cut is passed over."""
    path = Path(f"{workdir}.jsonl")
    sessions = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            sessions.append(json.loads(line))
        except ValueError:
            continue
    return sessions


def run(cell: Cell, root: str, output: str, seconds: float) -> None:
    """Trains and evaluates it, for so many seconds at most, and notes how that ended.

    A run that is stopped, also by Ctrl-C or SIGTERM to this process, saves its state first.
    """
    workdir = cell.workdir(output)
    os.makedirs(os.path.dirname(workdir), exist_ok=True)
    command = [sys.executable, "main.py", *cell.flags(root), f"--workdir={workdir}"]
    start, log = time.time(), f"{workdir}.log"
    print(f"{shlex.join(command)}  # see {log}", flush=True)
    with open(log, "ab") as file:
        begin = file.tell()
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file)
        try:
            code = process.wait(max(seconds, 0))
        except subprocess.TimeoutExpired:
            process.terminate()
            code = process.wait(_PATIENCE)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(_PATIENCE)
            _note(workdir, start, process.returncode, _error(log, begin, process.returncode))
    print(f"  exit code {code} after {(time.time() - start) / 60:.1f} min", flush=True)


def _error(log: str, begin: int, code: int) -> str:
    """The last line of the log since `begin`, where the code is that of an error."""
    if code in (0, 130, 143) or code < 0:  # done, or stopped by a signal
        return ""
    with open(log, "rb") as file:
        file.seek(begin)
        lines = file.read().decode(errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "")
    return last.strip().removeprefix("error: ") or f"exit code {code}"


def _note(workdir: str, start: float, code: int, error: str) -> None:
    session = {
        "date": datetime.datetime.fromtimestamp(start).astimezone().isoformat(timespec="seconds"),
        "minutes": round((time.time() - start) / 60, 2),
        "exit_code": code,
        "error": error,
        **environment(),
    }
    with open(f"{workdir}.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(session) + "\n")


def environment() -> dict[str, str]:
    """Commit and hardware; results.json of each run has versions and devices."""
    git = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False)
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8", errors="replace") if info.exists() else ""
    model = next(
        (line.partition(":")[2].strip() for line in text.splitlines() if "name" in line), ""
    )
    return {
        "commit": done.stdout.strip() or "unknown",
        "hardware": f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} cores of "
        f"{model or platform.machine()}",
    }


def run_missing(cells: Iterable[Cell], root: str, output: str, minutes: float) -> None:
    """Runs, once each, what is not finished and nobody else holds, for so long."""
    end = time.monotonic() + 60 * minutes
    left = list(cells)
    while left and time.monotonic() < end:
        for cell in left:
            state = state_of(cell, root, output)
            if not state.startswith("in use"):
                break
        else:
            return
        left.remove(cell)
        if state != "finished":
            run(cell, root, output, end - time.monotonic())


def summary_of(cells: Iterable[Cell], root: str, output: str) -> dict[str, Any]:
    """What results.json holds: each run's state, and the metrics of those that are finished."""
    runs = []
    for cell in cells:
        workdir = cell.workdir(output)
        state = state_of(cell, root, output)
        entry: dict[str, Any] = {
            "config": Path(cell.config).stem,
            "category": cell.category,
            "seed": cell.seed,
            "state": state,
            "sessions": read_sessions(workdir),
        }
        if state == "finished":
            entry |= _measured(read_run(workdir).results)
        runs.append(entry)
    now = datetime.datetime.now().astimezone().isoformat(timespec="minutes")
    versions = {"python": platform.python_version(), "jax": jax.__version__}
    about = {"date": now, **environment(), "versions": versions}
    return (
        {"command": shlex.join(["python", "-m", "benchmarks.results", *sys.argv[1:]])}
        | about
        | {"runs": runs}
    )


def _measured(results: Mapping[str, Any]) -> dict[str, Any]:
    names = ("image", "pixel", "at_threshold", "steps", "seconds", "versions", "devices")
    kept = {name: results[name] for name in names if name in results}
    return kept | {"threshold": {"false_alarm_rate": results["threshold"]["false_alarm_rate"]}}


def write_table(cells: Sequence[Cell], root: str, output: str) -> dict[str, Any]:
    """Writes results.json and results.md, prints the latter, and returns the former."""
    content = summary_of(cells, root, output)
    os.makedirs(output, exist_ok=True)
    write_json(os.path.join(output, "results.json"), content)
    text = markdown_document("Results", results_tables.tables_of(content))
    write_text(os.path.join(output, "results.md"), text)
    print(text)
    return content


def _stop(*_: object) -> None:
    sys.exit(143)


def main() -> None:
    """Reads the flags; an expected error ends it with one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--root", default="", help="folder of the categories' folders; 'demo' needs none"
    )
    parser.add_argument("--categories", required=True, help="with commas between")
    parser.add_argument("--configs", required=True, help="names of configs/, or paths of own files")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--output", required=True, help="folder of the table and its workdirs")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="0: only the table")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    output = os.path.abspath(os.path.expanduser(arguments.output))
    root = os.path.abspath(os.path.expanduser(arguments.root)) if arguments.root else ""
    names = [each.split(",") for each in (arguments.configs, arguments.categories)]
    try:
        cells = cells_of(*names, [int(seed) for seed in arguments.seeds.split(",")])
        sys.exit(_work(cells, root, output, arguments.minutes))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def _work(cells: Sequence[Cell], root: str, output: str, minutes: float) -> int:
    """Runs, writes, compares; the exit code is 1 where a run failed."""
    code = 0
    try:
        run_missing(cells, root, output, minutes)
    except KeyboardInterrupt:
        code = 130
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    states = [run["state"] for run in write_table(cells, root, output)["runs"]]
    finished = [
        cell.workdir(output)
        for cell, state in zip(cells, states, strict=True)
        if state == "finished"
    ]
    if len(finished) > 1 and not code:
        commands.compare(finished, output)
    return code or int(any(state.startswith("failed") for state in states))


if __name__ == "__main__":
    main()
