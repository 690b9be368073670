"""What benchmarks/gpu.py measures: for each measurement its command, and what its files say.

The standard library alone: a device is taken by the commands, and by one of them at a time.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import run

_AFTER = 45  # seconds of training besides steps: pictures, evaluation, and what they compile
_UNTIMED = 500  # steps of training, where a step could not be timed
_GROUP = 20  # steps of a dispatch of configs/fanogan.py on a GPU: others are compiled anew
_METRICS = {
    "image": {"auroc": "image AUROC"},
    "pixel": {"auroc": "pixel AUROC", "average_precision": "pixel AP", "au_pro": "AU-PRO"},
}
_VARIANTS = {"": "eager", "_channels_last": "channels-last", "_compiled": "compiled"}

Row = dict[str, Any]
"""'measurement'; 'result' or 'failed', in words; numbers; 'seconds' that the command took."""


class Sizes(NamedTuple):
    """What is measured, and how large: as for a GPU by default, smaller in tests."""

    recipe: tuple[str, ...] = ()  # further fields of configs/fanogan.py
    network: str = "ssae"  # of configs/
    side: int = 256  # pixels of its images
    fields: tuple[str, ...] = ()  # further ones of its config
    fewest_steps: int = 100  # after which it is worth a look
    most_steps: int = 10_000  # those of its config
    warmup: float = 0.05  # share of them in which the learning rate rises, as in its config
    most_seconds: float = 300.0  # of its training
    steps: tuple[str, ...] = ("--pairs=30",)  # flags of benchmarks.train_step
    step: tuple[str, ...] = ("--rounds=20",)  # of benchmarks.corruption
    scoring: tuple[str, ...] = ()  # of benchmarks.scoring


class Given(NamedTuple):
    """What a measurement's command is made from."""

    folder: Path  # for its files: workdirs, caches, numbers
    copies: Mapping[int, str]  # side in pixels -> file of decoded images
    category: str
    sizes: Sizes
    seconds: float  # that the command has
    rows: Sequence[Row]  # of what was measured before


class Ended(NamedTuple):
    """A command that has ended."""

    seconds: float
    code: int
    stopped: bool  # because its seconds were over
    log: str  # what it printed


class Measurement(NamedTuple):
    """One command, and how its files are read."""

    name: str
    share: float  # of the seconds that are left
    least: int  # seconds without which it is not begun
    command: Callable[[Given], list[str]]
    """ValueError says, in one line, why it cannot be measured."""
    read: Callable[[Given, Ended], Iterator[Row]]
    """Rows of the 'result' and its numbers; none where the command wrote nothing."""


def all_measurements() -> tuple[Measurement, ...]:
    """The most important first, but for steps of the network: how long it can train hangs on them.

    benchmarks/gpu.py says what each is.
    """
    types = ("float32", "bfloat16")
    return (
        Measurement("recipe", 0.4, 60, _recipe, _read_recipe),
        Measurement("steps", 0.3, 40, _steps, _read_steps),
        *(_timed(dtype) for dtype in types),
        *(_trained(dtype, share) for dtype, share in zip(types, (0.5, 0.65), strict=True)),
        Measurement("scoring", 0.6, 30, _scoring, _read_scoring),
        Measurement("start", 1.0, 15, _start, _read_start),
    )


# ---------------------------------------------------------------- f-AnoGAN


def _recipe(given: Given, *fields: str, name: str = "recipe") -> list[str]:
    network = f"fanogan:{given.category}"
    fields = (*given.sizes.recipe, *fields)
    return run.command(network, _copy(given, 64), given.folder / name, *fields)


def _read_recipe(given: Given, ended: Ended) -> Iterator[Row]:
    return _read_run(given.folder / "recipe", ended)


def _start(given: Given) -> list[str]:
    if not _found(given, "recipe", "first_step"):
        raise ValueError("recipe took no step, so nothing of it is compiled")
    steps = (f"gan.num_steps={_GROUP}", f"encoding.num_steps={_GROUP}")
    return _recipe(given, *steps, name="start")


def _read_start(given: Given, ended: Ended) -> Iterator[Row]:
    if first := run.first_step(ended.log):
        cold = _found(given, "recipe", "first_step")["first_step"]
        text = f"first step {first:.1f} s after the command; {cold:.1f} s with nothing compiled"
        yield {"result": text, "first_step": first, "first_step_cold": cold}


def _steps(given: Given) -> list[str]:
    names = ("critic", "generator", "encoder", "scoring")
    flags = ("--steps", *names, *given.sizes.steps, f"--json={given.folder / 'steps.json'}")
    return [sys.executable, "-m", "benchmarks.train_step", *flags]


def _read_steps(given: Given, _: Ended) -> Iterator[Row]:
    for row in _numbers(given.folder / "steps.json", []):
        parts = [f"{row['step']}, batch {row['batch']}: {_milliseconds(row['ours_seconds'])}"]
        for variant, name in _VARIANTS.items():
            parts += _beside(row, variant, f"PyTorch {name}")
        yield {"result": ", ".join([*parts, *_speed(row, row["ours_seconds"])]), **row}


def _beside(row: Row, variant: str, name: str) -> Iterator[str]:
    """Seconds of PyTorch's, and ours over them."""
    if seconds := row.get(f"torch{variant}_seconds"):
        yield f"{name} {_milliseconds(seconds)} (ratio {row[f'ratio{variant}']:.2f})"
    elif reason := row.get("failed", {}).get(f"torch{variant}"):
        yield f"no {name} ({reason[:60]})"


# ---------------------------------------------------------------- the 256 px network


def _timed(dtype: str) -> Measurement:
    return Measurement(f"step-{dtype}", 0.3, 40, partial(_step, dtype), partial(_read_step, dtype))


def _trained(dtype: str, share: float) -> Measurement:
    command, read = partial(_train, dtype), partial(_read_trained, dtype)
    return Measurement(f"trained-{dtype}", share, 150, command, read)


def _step(dtype: str, given: Given) -> list[str]:
    flags = (f"--dtype={dtype}", *given.sizes.step, f"--json={_step_file(given, dtype)}")
    return [sys.executable, "-m", "benchmarks.corruption", *flags]


def _step_file(given: Given, dtype: str) -> Path:
    return given.folder / f"step_{dtype}.json"


def _read_step(dtype: str, given: Given, _: Ended) -> Iterator[Row]:
    if row := _numbers(_step_file(given, dtype), {}):
        seconds, corruption = row["step_seconds"], row["corruption_seconds"]
        parts = [
            f"{row['size']} px, batch {row['batch']}: {_milliseconds(seconds)}",
            f"corruption {_milliseconds(corruption)}, {row['share']:.1%} of the step",
            *_speed(row, seconds),
            f"{row['memory_bytes'] / 1e9:.1f} GB",
        ]
        yield {"result": ", ".join(parts), **row}


def _train(dtype: str, given: Given) -> list[str]:
    """As many steps as fit; a tenth is left for pictures, checkpoints and another machine's day."""
    sizes, steps = given.sizes, _UNTIMED
    if timed := _found(given, f"step-{dtype}", "step_seconds"):
        left = given.seconds - timed["seconds"] - _AFTER
        steps = int(0.9 * min(left, sizes.most_seconds) / timed["step_seconds"])
    if steps < sizes.fewest_steps:
        raise ValueError(f"{given.seconds:.0f} s are too few for {sizes.fewest_steps} steps")
    steps = min(steps, sizes.most_steps)
    fields = (
        f"autoencoder.dtype={dtype}",
        f"training.num_steps={steps}",
        f"training.schedule.warmup_steps={int(sizes.warmup * steps)}",
        *sizes.fields,
    )
    network, workdir = f"{sizes.network}:{given.category}", _trained_workdir(given, dtype)
    return run.command(network, _copy(given, sizes.side), workdir, *fields)


def _trained_workdir(given: Given, dtype: str) -> Path:
    return given.folder / f"trained_{dtype}"


def _read_trained(dtype: str, given: Given, ended: Ended) -> Iterator[Row]:
    return _read_run(_trained_workdir(given, dtype), ended)


# ---------------------------------------------------------------- scoring


def _scoring(given: Given) -> list[str]:
    flags = (*given.sizes.scoring, f"--json={given.folder / 'scoring.json'}")
    return [sys.executable, "-m", "benchmarks.scoring", *flags]


def _read_scoring(given: Given, _: Ended) -> Iterator[Row]:
    for row in _numbers(given.folder / "scoring.json", []):
        text = "{network}, {size} px, batch {batch}: {images_per_second:,.0f} images/s"
        yield {"result": text.format(**row), **row}


# ---------------------------------------------------------------- files and words


def _copy(given: Given, side: int) -> str:
    if side not in given.copies:
        raise ValueError(f"--data has no images of {side} px: python -m benchmarks.gpu --pack=...")
    return given.copies[side]


def _found(given: Given, measurement: str, number: str) -> Row:
    """The row that holds the number; empty where there is none."""
    rows = (row for row in given.rows if row["measurement"] == measurement)
    return next((row for row in rows if row.get(number)), {})


def _numbers(path: Path, nothing: Any) -> Any:
    """What a benchmark wrote, with None for what is no number, or `nothing`."""
    if not path.exists():
        return nothing
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)


def _read_run(workdir: Path, ended: Ended) -> Iterator[Row]:
    """One row of a run of main.py, if it took a step."""
    lines, first = run.metrics_of(workdir), run.first_step(ended.log)
    if not lines or not first:
        return
    steps = {line["stage"]: line["step"] for line in lines}
    each = {stage: run.seconds_per_step(lines, stage) for stage in steps}
    results = _numbers(workdir / "results.json", {})
    parts = [
        f"{count:,} steps of {stage}" + (f" at {_milliseconds(each[stage])}" if each[stage] else "")
        for stage, count in steps.items()
    ]
    parts.append(f"first step after {first:.1f} s")
    found = {kind: results.get(kind, {}) for kind in _METRICS}
    parts += [
        f"{label} {found[kind][name]:.3f}"
        for kind, names in _METRICS.items()
        for name, label in names.items()
        if found[kind].get(name) is not None
    ]
    yield {"result": "; ".join(parts), "first_step": first, "steps": steps} | {
        "seconds_per_step": each,
        **found,
        **{key: results[key] for key in ("devices", "versions", "counts") if key in results},
    }


def _speed(row: Row, seconds: float) -> list[str]:
    share = row["roofline_share"]
    return [
        f"{row['images_per_second']:,.0f} images/s",
        f"{row['flops'] / seconds / 1e12:.2f} TFLOP/s",
        "peak unknown" if share is None else f"{share:.1%} of the roofline",
    ]


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.2f} ms"
