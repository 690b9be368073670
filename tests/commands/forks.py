"""main.py in forks of one process that has imported what it imports: three seconds of every start.

This file is that process, too. Each line that it reads is a start, in JSON: the arguments, and the
files that take standard output and standard error. It answers with the exit code. A fork ends as
any Python program does, its exit handlers included.
"""

import atexit
import functools
import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
# None of them starts a thread, which a fork would lack, or a device of JAX.
_IMPORTED = ("absl.app", "ml_collections.config_flags", "commands", "engine.hosts", "engine.faults")


def run(arguments, environment):
    """What main.py does, as `subprocess.run` has it; one `environment` for all starts."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("stdout", "stderr")]
        process = _start(tuple(sorted(environment.items())))
        process.stdin.write(json.dumps([[*map(str, arguments)], [*map(str, files)]]) + "\n")
        process.stdin.flush()
        code = int(process.stdout.readline())
        return subprocess.CompletedProcess(arguments, code, *(file.read_text() for file in files))


@functools.cache
def _start(environment):
    command, pipe = [sys.executable, __file__], subprocess.PIPE
    process = subprocess.Popen(
        command, cwd=ROOT, env=dict(environment), stdin=pipe, stdout=pipe, text=True
    )
    atexit.register(process.communicate)  # which ends what it reads
    return process


def _next_fork():
    """The start that this process is to be; None in the first process, when all are over."""
    for line in sys.stdin:
        if (fork := os.fork()) == 0:
            return json.loads(line)
        print(os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]), flush=True)
    return None


if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # as `python main.py` has it
    for name in _IMPORTED:
        importlib.import_module(name)
    if start := _next_fork():
        arguments, files = start
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, path in enumerate(files, 1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
        sys.argv = ["main.py", *arguments]
        runpy.run_path("main.py", run_name="__main__")
