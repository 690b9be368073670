"""What the project does on a GPU, measured in one go inside a given number of minutes.

python -m benchmarks.gpu --pack=FOLDER --root=DIR [--category=bottle]       # where the images are
python -m benchmarks.gpu --data='*.npz' --minutes=25 [--json=FILE] [--only NAME ...]      # on a GPU

The first line writes FOLDER/decoded/CATEGORY_64px.npz and _256px.npz, which hold the images as
training takes them; the second finds such files by the pattern. It needs neither TensorFlow nor a
network. Of requirements.txt, machines for JAX and PyTorch tend to lack ml_collections and
tensorboardX, which are small: `pip download --no-deps -d wheels ml_collections tensorboardX` here,
`pip install --no-index --no-deps --target=site wheels/*.whl; export PYTHONPATH=$PWD/site` there.

Each measurement is a command of its own, main.py or another benchmark, and has a share of the
minutes that are left; what one does not use is left to those after it.

    recipe            f-AnoGAN's whole training and evaluation, with nothing compiled before
    steps             its steps beside PyTorch's, eager, channels-last and compiled; the roofline
    step-float32      a step of configs/ssae.py: the roofline, and corruption's share of it
    step-bfloat16     the same with convolutions in bfloat16
    trained-float32   configs/ssae.py in as many steps as 5 minutes or its share have, evaluated
    trained-bfloat16  the same with convolutions in bfloat16
    scoring           images per second in batches of 1 and 64
    start             seconds to the first step of `recipe`, whose compiled programs are kept

One that fails, or is stopped because its seconds are over, leaves a row that says so. FILE is
written after each; FILE with the ending .log gets what the commands print. The table comes last.
"""

import argparse
import glob
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from benchmarks import run
from benchmarks.measurements import Ended, Given, Measurement, Row, Sizes, all_measurements
from data.decoded import read_decoded
from data.pipeline import load_splits
from storage.files import write_json

_GRACE = 10  # seconds in which a command may save and end, once its own are over
_SIDES = (64, 256)  # pixels of the images that the measurements take
_PACKAGES = ("jax", "jaxlib", "torch", "flax", "optax", "orbax-checkpoint", "numpy")


def measure(
    measurements: Sequence[Measurement], given: Given, write: Callable[[Sequence[Row]], Any]
) -> list[Row]:
    """Measures one after the other inside `given.seconds`; a row at least of each.

    Args:
      measurements: the most important first.
      given: `seconds` are those of all together.
      write: gets all rows after each measurement.
    """
    end, rows = time.monotonic() + given.seconds, []
    for each in measurements:
        left = end - time.monotonic() - _GRACE
        if left < each.least:
            reason = f"left out: {max(left, 0):.0f} s are left, it needs {each.least}"
            rows.append({"measurement": each.name, "seconds": 0.0, "failed": reason})
        else:
            seconds = max(each.share * left, each.least)
            print(f"{each.name}: at most {seconds:.0f} of {left:.0f} s", flush=True)
            found = measured(each, given._replace(seconds=seconds, rows=tuple(rows)))
            for row in found:  # what is seen of a run that is killed
                print(f"    {_told(row)}", flush=True)
            rows += found
        write(rows)
    return rows


def measured(measurement: Measurement, given: Given) -> list[Row]:
    """The rows of one measurement; what goes wrong is a row too."""
    rows, reason, seconds = [], "", 0.0
    try:
        ended = bounded(measurement.command(given), given.seconds, given.folder)
        seconds, reason = ended.seconds, _reason(ended)
        rows = list(measurement.read(given, ended))
        reason = reason or ("" if rows else "it wrote no numbers")
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = reason or f"{type(error).__name__}: {' '.join(str(error).split())}"
    if reason:
        rows.append({"failed": reason})
    return [{**row, "measurement": measurement.name, "seconds": seconds} for row in rows]


def bounded(command: Sequence[str], seconds: float, folder: Path) -> Ended:
    """Runs a command for at most so many seconds; then it may save for 10 more, as by Ctrl-C.

    Nothing that it started is left behind. What is compiled is kept in `folder`, as is, in `log`,
    what all commands print.
    """
    start, stopped = time.monotonic(), False
    with open(folder / "log", "a+b") as log:
        log.write(f"\n$ {' '.join(command)}\n".encode())
        log.flush()
        begun = log.tell()
        with subprocess.Popen(
            command,
            cwd=run.ROOT,
            env=run.environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=0,  # so that all of it can be ended, and it ends with this session
        ) as process:
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                stopped = True
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_GRACE)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        log.seek(begun)
        text = log.read().decode(errors="replace")
    return Ended(time.monotonic() - start, process.returncode, stopped, text)


def _reason(ended: Ended) -> str:
    """Why a command did not reach its end; '' if it did."""
    if ended.stopped:
        return f"stopped after {ended.seconds:.0f} s, which were its share"
    lines = [line.strip() for line in ended.log.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("error:")]
    return f"exit code {ended.code}: {(told or lines or ['-'])[-1][:200]}" if ended.code else ""


def table(rows: Sequence[Row]) -> str:
    """Markdown: a line for each row, and the seconds of each command once."""
    lines = ["| measurement | result | seconds |", "|---|---|---|"]
    before = ""
    for row in rows:
        name = row["measurement"]
        seconds = f"{row['seconds']:.0f}" if name != before else ""
        lines.append(f"| {name} | {_told(row).replace('|', '/')} | {seconds} |")
        before = name
    return "\n".join(lines)


def _told(row: Row) -> str:
    text = row.get("result") or f"**no**: {row['failed']}"
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def copies_of(pattern: str) -> tuple[str, dict[int, str]]:
    """The category of the decoded images that `pattern` finds, and the file of each size.

    Raises:
      ValueError: there is no such file, one is damaged, or they are not of one category.
    """
    paths = sorted(glob.glob(os.path.expanduser(pattern)))
    if not paths:
        raise ValueError(f"--data={pattern} finds no file: python -m benchmarks.gpu --pack=...")
    categories, copies = {}, {}
    for path in paths:
        copy = read_decoded(path)
        categories[copy.category] = path
        copies[copy.train.images.shape[1]] = os.path.abspath(path)
    if len(categories) > 1:
        raise ValueError(f"--data={pattern} finds several categories: {', '.join(categories)}")
    return next(iter(categories)), copies


def _versions() -> dict[str, str]:
    """Of the packages that numbers depend on, where they are installed."""
    versions = {}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def _end(*_: Any) -> NoReturn:
    sys.exit(143)  # so that the command at work is ended too


def benchmark(arguments: argparse.Namespace, sizes: Sizes) -> None:
    """Measures what the arguments ask for, and prints the table.

    Raises:
      ValueError, OSError: one line that says what is wrong and the way out.
    """
    start = time.monotonic()
    if not 0 < arguments.minutes < float("inf"):
        raise ValueError(f"--minutes={arguments.minutes} must be a positive number")
    category, copies = copies_of(arguments.data)
    chosen = [m for m in all_measurements() if m.name in arguments.only]
    about = {"minutes": arguments.minutes, "category": category, "versions": _versions()}
    path = Path(arguments.json)
    write_json(path, {**about, "rows": []})  # before minutes are spent
    with tempfile.TemporaryDirectory() as folder:

        def write(rows: Sequence[Row]) -> None:
            write_json(path, {**about, "rows": list(rows)})
            with suppress(FileNotFoundError):
                path.with_suffix(".log").write_bytes((Path(folder) / "log").read_bytes())

        left = 60 * arguments.minutes - (time.monotonic() - start)
        given = Given(Path(folder), copies, category, sizes, left, ())
        rows = measure(chosen, given, write)
    show(about, rows)


def show(about: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Prints devices, versions and the table."""
    devices = {row["device"] for row in rows if "device" in row}
    devices |= {name for row in rows for name in row.get("devices", ())}
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    print(f"\n{', '.join(sorted(devices)) or 'no device'}; {versions}; {about['category']}\n")
    print(table(rows))


def main(sizes: Sizes = Sizes()) -> None:  # noqa: B008 (of values alone)
    """Packs the images, or measures."""
    names = [each.name for each in all_measurements()]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pack", metavar="FOLDER", help="only write decoded images there")
    parser.add_argument("--root", help="with --pack: folder of the categories' folders")
    parser.add_argument("--category", default="bottle", help="with --pack")
    parser.add_argument("--data", metavar="PATTERN", help="files of decoded images")
    parser.add_argument("--minutes", type=float, default=25.0, help="that it takes at most")
    parser.add_argument("--json", default="gpu.json", metavar="FILE", help="for all numbers")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)
    try:
        if arguments.pack and arguments.root:
            for side in _SIDES:
                load_splits(arguments.category, arguments.root, side, data_dir=arguments.pack)
            print(f"decoded images: {os.path.join(arguments.pack, 'decoded')}")
        elif arguments.data and not arguments.pack:
            benchmark(arguments, sizes)
        else:
            raise ValueError("give --data, or --pack and --root: --help explains them")
    except (OSError, ValueError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
