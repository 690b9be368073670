"""What the CPU's forms of convolutions are worth: steps of the original f-AnoGAN, plain and chosen.

python -m benchmarks.convolution

One optimiser step each of critic (with gradient penalty), generator and encoder at 64 px, batch 32,
with XLA's own convolutions and with those of engine/convolution.py; then the generator's two
upsampling convolutions, on the large image and folded onto the small one, both with the chosen
convolutions; then the step of configs/ssae_small.py, with dilated convolutions, at its own batch.
Alternating; medians.
"""

from engine import startup

startup.keep_memory()  # as main.py does

import statistics
import time
from functools import partial
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from configs import fanogan, ssae_small
from engine import convolution, parallel
from engine.make import make
from engine.method import TrainState, descend, init_state
from fanogan_jax.models import Networks

BATCH, REPEATS = 32, 7


def started(config):
    """The networks of the config, and their first variables."""
    networks = Networks(
        generator=make(config.generator, config.data.image_size),
        critic=make(config.critic),
        encoder=make(config.encoder, config.latent),
        latent=config.latent,
    )
    latents = np.zeros((1, config.latent), np.float32)
    image = np.zeros((1, config.data.image_size, config.data.image_size, 3), np.float32)
    inputs = {"generator": latents, "critic": image, "encoder": image}
    variables = {
        name: jax.jit(getattr(networks, name).init)(jax.random.key(0), value)
        for name, value in inputs.items()
    }
    return networks, variables


def steps(config, networks, variables):
    """For each network its name, its step, and a state in which it learns."""
    losses = {
        "critic": config.gan.critic_loss,
        "generator": config.gan.generator_loss,
        "encoder": config.encoding.loss,
    }
    tx = make(config.gan.critic_optimizer)
    for name, section in losses.items():
        step = partial(descend, make(section, networks), tx, name)
        yield name, step, init_state(variables, {name: tx})


def compiled(step, state: TrainState, images, *, plain: bool):
    """The step, compiled with XLA's own convolutions or with the chosen ones."""
    run = parallel.per_device(step, 0)
    devices = jax.vmap(run, in_axes=(None, 0), out_axes=None, axis_name=parallel._AXIS)
    on_cpu = parallel.on_cpu() and not plain
    with mock.patch.object(parallel, "on_cpu", return_value=on_cpu):
        return jax.jit(devices).lower(state, images).compile()


def upsampling():
    """Name -> (the call on the large image, the folded call), of the original generator."""
    for side, channels, features in ((16, 128, 128), (32, 128, 64)):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(BATCH, side, side, channels)).astype(np.float32)
        w = rng.normal(size=(3, 3, channels, features)).astype(np.float32)

        def gradient(form, x, w):
            return jax.grad(lambda x, w: jnp.sum(jnp.square(form(x, w))), (0, 1))(x, w)

        forms = (convolution.upsample_convolve, convolution.upsample_convolve_folded)
        for kind, made in (
            ("", lambda form: form),
            (" grad", lambda form: partial(gradient, form)),
        ):
            runs = [jax.jit(made(form)).lower(x, w).compile() for form in forms]
            yield f"up {side}{kind}", *(partial(run, x, w) for run in runs)


def compare(name, plain, chosen):
    """Prints the medians of both, alternating, and their ratio."""
    seconds = {plain: [], chosen: []}
    for _ in range(REPEATS):
        for run, times in seconds.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            times.append(time.perf_counter() - start)
    first, second = (statistics.median(times) for times in seconds.values())
    print(f"{name:12} {first:10.3f} {second:10.3f} {second / first:6.2f}", flush=True)


def main():
    """Prints a line per step: both medians and their ratio."""
    startup.prepare()
    config, small = fanogan.get_config(), ssae_small.get_config()
    images = np.random.default_rng(0).uniform(-1, 1, (1, BATCH, 64, 64, 3)).astype(np.float32)
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, batch {BATCH}, {REPEATS} pairs")
    print(f"{'step':12} {'plain (s)':>10} {'chosen (s)':>10} {'ratio':>6}")
    for name, step, state in steps(config, *started(config)):
        runs = [compiled(step, state, images, plain=plain) for plain in (True, False)]
        compare(name, *(partial(run, state, images) for run in runs))
    for row in upsampling():
        compare(*row)
    stage = make(small.method, small).stages[0]
    images = images[:, : small.training.batch_size].repeat(2, axis=2).repeat(2, axis=3)
    state = jax.jit(stage.init)(jax.random.key(0), {})
    runs = [compiled(stage.step, state, images, plain=plain) for plain in (True, False)]
    compare("restoring", *(partial(run, state, images) for run in runs))


if __name__ == "__main__":
    main()
