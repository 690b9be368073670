"""The same training on any number of devices and processes, to float rounding (R16)."""

import json
import shutil

import jax
import numpy as np
import pytest
from conftest import shrink
from programs import METHODS, arguments, start, start_both
from programs import losses as logged
from test_main import root
from test_parallel import shards, states

from configs import ae, fanogan, ssae
from engine import parallel
from engine.make import make

pytestmark = pytest.mark.slow  # many runs of the program

__all__ = ["root"]
_CONFIGS = {"f-AnoGAN": fanogan, "AE": ae, "SSAE": ssae}
_STEPS = 50
# Devices, or processes x devices; "then": from the checkpoint of half of the steps on.
_LAYOUTS = ("8", "2 x 2", "8, then 1", "8, then 2 x 2", "2 x 2, then 8")


def small(method):
    config = shrink(_CONFIGS[method].get_config())
    if method == "SSAE":
        config.training.num_steps = _STEPS
    return config


def with_sgd(config):
    """In place of Adam, which makes full steps of a gradient that is nothing but rounding."""
    if "gan" in config:  # whose training takes rounding apart at rates such as 0.01
        for name in ("critic_optimizer", "generator_optimizer"):
            config.gan[name] = dict(fn="optax:sgd", learning_rate=1e-3)
        config.encoding.optimizer = dict(fn="optax:sgd", learning_rate=0.1)
    elif "schedule" in config.training:
        config.training.optimizer = dict(fn="optax:sgd")
        config.training.schedule.peak_value = 0.01
    else:
        config.training.optimizer = dict(fn="optax:sgd", learning_rate=0.1)
    return config


def trained(stage, state, images, devices, steps):
    """Networks and metrics after each of so many steps on the first of the eight devices."""
    run = jax.pmap(
        parallel.per_device(stage.step, 3),
        axis_name=parallel._AXIS,
        in_axes=(None, 0),
        out_axes=None,
        devices=jax.devices()[:devices],
    )
    metrics = []
    for step in range(steps):
        batch = shards(np.roll(images, 3 * step, axis=0), stage, devices)
        state, values = run(state, batch)
        metrics.append(values)
    return jax.device_get((state.variables, metrics))


def largest_difference(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return np.max([np.abs(a - b).max() for a, b in pairs])


def assert_close(results, most):
    """Prints the largest absolute difference too, for docs/research/many_devices.md."""
    largest = largest_difference(*results)
    print(f"largest difference: {largest:.1e}, allowed: {most:.1e}")
    assert largest <= most


@pytest.mark.promise("R16")
@pytest.mark.parametrize(
    "method", ["f-AnoGAN", *(pytest.param(name, marks=pytest.mark.long) for name in ("AE", "SSAE"))]
)
def test_sgd_on_eight_devices_is_that_on_one(method, images, tries):
    config = with_sgd(small(method))
    for stage, state in states(make(config.method, config, 16)):
        with tries(f"{method}, SGD, 5 steps: the parameters of 8 devices are those of 1"):
            results = [trained(stage, state, images, devices, 5)[0] for devices in (8, 1)]
            assert_close(results, 1e-6)


@pytest.mark.promise("R16")
@pytest.mark.parametrize(
    "method", ["f-AnoGAN", *(pytest.param(name, marks=pytest.mark.long) for name in ("AE", "SSAE"))]
)
def test_adam_on_eight_devices_is_that_on_one(method, images, tries):
    config = small(method)
    for stage, state in states(make(config.method, config, 16)):
        with tries(f"{method}, Adam, {_STEPS} steps: the losses of 8 devices are those of 1"):
            results = [trained(stage, state, images, devices, _STEPS)[1] for devices in (8, 1)]
            assert_close(results, 1e-4)


@pytest.mark.long
@pytest.mark.promise(
    "R16", "f-AnoGAN, Adam, both stages: 8 devices differ from 1 as starts that differ by 1e-7"
)
def test_the_encoder_after_adam_on_the_gan(images):
    """Its generator at rest is not the same to rounding, on one device either.

    Normalisation takes the biases before it away, so that their gradients are nothing but rounding,
    of which Adam makes full steps; and the running averages lag behind them.
    """
    config = small("f-AnoGAN")
    gan, encoder = make(config.method, config, 16).stages

    def both_stages(devices, change=0.0):
        state = jax.device_get(jax.jit(gan.init)(jax.random.key(1), {}))
        state = state.replace(variables=jax.tree.map(lambda x: x * (1 + change), state.variables))
        variables, _ = trained(gan, state, images, devices, _STEPS)
        state = jax.jit(encoder.init)(jax.random.key(1), variables)
        _, metrics = trained(encoder, state, images, devices, _STEPS)
        for layer in ("UpsampleConv_0", "UpsampleConv_1"):
            del variables["generator"]["params"][layer]["bias"]
        return {name: networks["params"] for name, networks in variables.items()}, metrics

    (rest, losses), (rest_on_8, losses_on_8) = both_stages(1), both_stages(8)
    assert_close((rest_on_8, rest), 1e-5)
    _, losses_of_another = both_stages(1, change=1e-7)
    assert_close((losses_on_8, losses), 10 * largest_difference(losses_of_another, losses))


def run(command, workdir, layout):
    """Runs main.py to a good end: on so many devices of one process, or of two with two each."""
    errors = workdir.parent / f"{workdir.name} errors 0"
    if layout == "2 x 2":
        running = [process for process, _ in start_both(command, workdir)]
    else:
        running = [start(command, errors, devices=int(layout))]
    assert not any(process.wait() for process in running), errors.read_text()
    return errors.read_text()


def copy_until_half(source, workdir):
    """What there was of a finished run when half of its first stage was done and saved."""
    kept = f"checkpoints/{logged(source)[0]['stage']}/{_STEPS // 2}"
    shutil.copytree(source / kept, workdir / kept)
    for name in ("config.json", "facts.json", "metrics.jsonl"):
        shutil.copy(source / name, workdir)


def checkpoints(workdir):
    return sorted(str(path.relative_to(workdir)) for path in workdir.glob("checkpoints/*/*"))


def assert_same_run(workdir, unbroken):
    """Each step is logged and saved once, and each number logged is that of the unbroken run.

    Those of the encoder only about: see `test_the_encoder_after_adam_on_the_gan`.
    """
    ours, theirs = logged(workdir), logged(unbroken)
    steps = [[(line.pop("stage"), line.pop("step")) for line in lines] for lines in (ours, theirs)]
    assert steps[0] == steps[1] and len(set(steps[0])) == len(steps[0]) >= _STEPS
    encoder = sum(stage == "encoder" for stage, _ in steps[0])
    before = len(ours) - encoder
    assert_close((ours[:before], theirs[:before]), 1e-4)
    if encoder:
        assert_close((ours[before:], theirs[before:]), 5e-2)
    assert checkpoints(workdir) == checkpoints(unbroken)


@pytest.mark.promise("R16")
@pytest.mark.parametrize(
    ("method", "layouts"),
    [
        ("AE", ["8", "8, then 2 x 2"]),
        *(pytest.param(method, _LAYOUTS, marks=pytest.mark.long) for method in METHODS),
    ],
)
def test_the_program_on_other_devices_and_processes(root, tmp_path, method, layouts, tries):
    """From the start, and from the checkpoint of another layout."""
    given = [argument.partition("=")[0] for argument in METHODS[method]]
    flags = [f"{name}={_STEPS}" for name in given if name.endswith(".num_steps")]
    flags += ["--config.every.log=1", f"--config.every.save={_STEPS // 2}"]
    unbroken = tmp_path / "1"
    run(arguments(method, root, unbroken, *flags), unbroken, "1")
    for layout in layouts:
        workdir, (first, *then) = tmp_path / layout, layout.split(", then ")
        if then:
            copy_until_half(tmp_path / first, workdir)
        last = then[0] if then else first
        with tries(f"{method}, {_STEPS} steps of the program, devices {layout}: losses as of 1"):
            said = run(arguments(method, root, workdir, *flags), workdir, last)
            assert f"at step {_STEPS // 2 if then else 0} of {_STEPS}, batches" in said
            assert_same_run(workdir, unbroken)
            devices = json.loads((workdir / "results.json").read_text())["devices"]
            assert len(devices) == {"1": 1, "8": 8, "2 x 2": 4}[last]
