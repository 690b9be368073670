"""Steps of training, and scoring, in our code and in PyTorch, alternating in one run.

pip install -r requirements-bench.txt
python -m benchmarks.train_step --json=FILE

Prints, for each step and batch: seconds of ours and of PyTorch's (eager, channels-last, compiled
where that works), medians; the median of the ratios ours / PyTorch's pair by pair; operations by
XLA's cost analysis over our seconds, as GFLOP/s and as a share of the matrix product that was
fastest on this machine in the same run; seconds of compilation and memory of our program. The file
has the share of the roofline too, where the peaks of the chip are known (benchmarks/roofline.py).
"""

from engine import startup

startup.keep_memory()  # as main.py does; PyTorch has the use of it too

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from ae_jax import losses
from ae_jax.head import Restorer
from ae_jax.models import ConvolutionalAutoencoder
from benchmarks import convolution, pytorch, pytorch_restorer
from benchmarks.compiled import Compiled, scoring, training
from benchmarks.roofline import share_of_roofline
from configs import fanogan, restorer
from engine import parallel, residuals
from engine.make import make
from engine.method import Aux, descend, init_state
from evaluation.evaluate import versions

FANOGAN = ("critic", "generator", "encoder", "scoring")
VARIANTS = {
    "torch": dict(channels_last=False, compiled=False),
    "torch_channels_last": dict(channels_last=True, compiled=False),
    "torch_compiled": dict(channels_last=False, compiled=True),
}


def fanogan_steps(images: np.ndarray) -> Iterator[tuple[str, Compiled]]:
    """critic, generator, encoder and scoring of the original f-AnoGAN."""
    config = fanogan.get_config()
    networks, variables = convolution.started(config)
    check_parameters(variables, pytorch.num_parameters())
    for name, step, state in convolution.steps(config, networks, variables):
        yield name, training(step, state, images)
    yield "scoring", scoring(make(config.score, networks), variables, images)


def autoencoder_steps(images: np.ndarray) -> Iterator[tuple[str, Compiled]]:
    """The autoencoder's step: mean squared error, Adam."""
    config = dict(fn="optax:adam", learning_rate=1e-3)
    network, tx = ConvolutionalAutoencoder(transposed=True), make(config)

    def loss_fn(variables, images, rng):
        mine = variables["autoencoder"]
        output, updates = network.apply(mine, images, train=True, mutable=["batch_stats"])
        loss = residuals.squared(images, output.reconstructions).mean()
        return loss, Aux(updates={"autoencoder": updates})

    variables = {"autoencoder": jax.jit(network.init)(jax.random.key(0), images[:1])}
    check_parameters(variables, pytorch.num_parameters())
    step = partial(descend, loss_fn, tx, "autoencoder")
    yield "autoencoder", training(step, init_state(variables, {"autoencoder": tx}), images)


def restorer_steps(images: np.ndarray) -> Iterator[tuple[str, Compiled]]:
    """The step of configs/restorer.py, without corruption (benchmarks/corruption.py)."""
    config = restorer.get_config()
    network, tx = Restorer(make(config.autoencoder), make(config.head)), optax.adam(1e-3)
    height, width = images.shape[1:3]

    def corrupt(rng, images):
        mask = jnp.zeros(images.shape[:3]).at[:, : height // 2, : width // 2].set(1.0)
        return jnp.where(mask[..., None] > 0, -images, images), mask

    loss = losses.self_supervised(network, corrupt, head_weight=0.1, graded=False)
    variables = {"autoencoder": jax.jit(network.init)(jax.random.key(0), images[:1])}
    check_parameters(variables, pytorch_restorer.num_parameters())
    step = partial(descend, loss, tx, "autoencoder")
    yield "restorer", training(step, init_state(variables, {"autoencoder": tx}), images)


def check_parameters(variables: Any, theirs: Mapping[str, int]) -> None:
    """Both sides train the same networks: as many parameters each."""
    for name, network in variables.items():
        count = sum(leaf.size for leaf in jax.tree.leaves(network["params"]))
        if count != theirs[name]:
            raise ValueError(f"{name}: {count} parameters here, {theirs[name]} in PyTorch")


def seconds_of(run: Callable[[], Any]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    run()
    pytorch.wait()
    return time.perf_counter() - start


def matmul_peak() -> float:
    """FLOP/s of the fastest of some matrix products in float32."""
    product = jax.jit(jnp.dot)

    def flops_per_second(size: int) -> float:
        a = jax.random.normal(jax.random.key(0), (size, size))
        jax.block_until_ready(product(a, a))
        seconds = min(seconds_of(lambda: jax.block_until_ready(product(a, a))) for _ in range(5))
        return 2 * size**3 / seconds

    return max(map(flops_per_second, (1024, 2048, 3072)))


def compare(
    name: str, ours: Compiled, theirs: dict[str, Callable], images: int, pairs: int
) -> dict:
    """Times ours and each of theirs in turn; a row of the table."""
    runs = {"ours": ours.run, **theirs}
    failed = {}
    for variant, run in list(runs.items()):
        try:
            run(), run()
        except Exception as error:  # torch.compile fails in many ways, and that is a result too
            failed[variant] = " ".join(str(error).split())[:100]
            del runs[variant]
    times: dict[str, list[float]] = {variant: [] for variant in runs}
    for _ in range(pairs):
        for variant, run in runs.items():
            times[variant].append(seconds_of(run))
    row: dict[str, Any] = {"step": name, "batch": images, "pairs": pairs}
    for variant, values in times.items():
        row[f"{variant}_seconds"] = statistics.median(values)
        ratios = [a / b for a, b in zip(times["ours"], values, strict=True)]
        suffix = variant.removeprefix("torch")
        if variant != "ours":
            row[f"ratio{suffix}"] = statistics.median(ratios)
    cost, seconds, device = ours.cost, row["ours_seconds"], parallel.device_names()[0]
    row |= {"flops": cost.flops, "gflops_per_second": cost.flops / seconds / 1e9}
    row |= {"compile_seconds": ours.compile_seconds, "memory_bytes": cost.memory}
    row |= {"device": device, "bytes": cost.bytes, "images_per_second": images / seconds}
    row["roofline_share"] = share_of_roofline(cost, seconds, device, "float32")
    return {**row, "failed": failed}


def show(rows: list[dict], peak: float) -> None:
    """Prints the rows as a Markdown table."""
    print(
        "| step | batch | ours (s) | PyTorch eager (s) | channels-last (s) | compiled (s) | "
        "ratio to eager | to channels-last | to compiled | images/s | GFLOP/s | of matmul | "
        "compile (s) | memory (MB) |"
    )
    print("|" + "---|" * 14)
    for row in rows:
        keys = ["ours", *VARIANTS]
        cells = [row["step"], str(row["batch"])]
        cells += [f"{row[k + '_seconds']:.3f}" if k + "_seconds" in row else "–" for k in keys]
        keys = ["ratio", "ratio_channels_last", "ratio_compiled"]
        cells += [f"{row[key]:.2f}" if key in row else "–" for key in keys]
        speed = row["gflops_per_second"]
        cells += [f"{row['images_per_second']:.0f}", f"{speed:.0f}", f"{speed * 1e9 / peak:.0%}"]
        cells += [f"{row['compile_seconds']:.1f}", f"{row['memory_bytes'] / 1e6:.0f}"]
        print("| " + " | ".join(cells) + " |")
    for row in rows:
        for variant, reason in row["failed"].items():
            print(f"{row['step']}, batch {row['batch']}: no {variant} ({reason})")


def main() -> None:
    """Measures all steps and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="also write the rows into this file")
    parser.add_argument("--pairs", type=int, default=7, help="of timings, of each step")
    parser.add_argument("--steps", nargs="*", help="measure only steps of these names")
    parser.add_argument("--no-compiled", action="store_true", help="leave torch.compile out")
    arguments = parser.parse_args()
    startup.prepare()
    jax.config.update("jax_enable_compilation_cache", False)  # compilation is measured too
    if torch.cuda.is_available():  # as JAX's default precision has it, for dense layers too
        torch.backends.cuda.matmul.allow_tf32 = True
    peaks, rows = [matmul_peak()], []
    for names, side, batch, ours_of, theirs_of in (
        (FANOGAN, 64, 32, fanogan_steps, pytorch.fanogan_steps),
        (("restorer",), 128, 8, restorer_steps, pytorch_restorer.steps),
        (("autoencoder",), 256, 16, autoencoder_steps, pytorch.autoencoder_steps),
        (("autoencoder",), 256, 70, autoencoder_steps, pytorch.autoencoder_steps),
    ):
        if arguments.steps and not {*arguments.steps} & {*names}:
            continue
        rng = np.random.default_rng(0)
        images = rng.uniform(-1, 1, (batch, side, side, 3)).astype(np.float32)
        variants = {
            name: theirs_of(images, **options)
            for name, options in VARIANTS.items()
            if not (options["compiled"] and arguments.no_compiled)
        }
        for name, ours in ours_of(images):
            if arguments.steps and name not in arguments.steps:
                continue
            theirs = {variant: steps[name] for variant, steps in variants.items()}
            rows.append(compare(name, ours, theirs, batch, arguments.pairs))
            peaks.append(matmul_peak())
            write(arguments.json, rows, max(peaks))  # what is measured so far
    kinds = ", ".join(sorted(set(parallel.device_names())))
    print(f"{kinds}; {versions()}; torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(
        f"fastest matrix product: {max(peaks) / 1e9:.0f} GFLOP/s ({min(peaks) / 1e9:.0f} at worst)"
    )
    show(rows, max(peaks))


def write(path: str | None, rows: list[dict], peak: float) -> None:
    """Writes the rows as JSON, if a path is given."""
    if path:
        shares = [row["gflops_per_second"] * 1e9 / peak for row in rows]
        text = [{**row, "matmul_share": share} for row, share in zip(rows, shares, strict=True)]
        with open(path, "w") as file:
            json.dump(text, file, indent=2)


if __name__ == "__main__":
    main()
