"""Devices: the only pmap, axis name, process index and question for the backend in the project.

The state has no device axis, neither going into a step nor coming out of it; images have a leading
axis of local devices. pmap is used in its `out_axes=None` form. Whoever moves this file to
`jax.shard_map` must pass `check_vma=False`: with the default, gradients of replicated parameters
arrive already summed, and the mean below makes them wrong by the number of devices, silently.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_AXIS = "devices"

BatchNorm = partial(nn.BatchNorm, axis_name=_AXIS)
"""Flax's batch normalisation with statistics over the batches of all devices."""


def mean(tree: Any) -> Any:
    """Averages every leaf over all devices of all processes."""
    return jax.lax.pmean(tree, _AXIS)


def _devices() -> int:
    """Over how many devices what is being traced runs; 1 outside of a training step."""
    try:
        return jax.lax.axis_size(_AXIS)
    except NameError:  # as JAX says that there is no such axis
        return 1


def share(draw: Callable[[int], jax.Array], count: int, axis: int = 0) -> jax.Array:
    """This device's part of a draw for the images of all devices, so that no layout changes it.

    Args:
      draw: number of images -> something random for each of them, along `axis`.
      count: of this device's images.
    """
    if (devices := _devices()) == 1:
        return draw(count)
    first = jax.lax.axis_index(_AXIS) * count
    return jax.lax.dynamic_slice_in_dim(draw(count * devices), first, count, axis)


def gather(mine: jax.Array) -> jax.Array:
    """Everyone's rows, in the order of the devices; outside of a training step, `mine`."""
    return mine if _devices() == 1 else jax.lax.all_gather(mine, _AXIS, tiled=True)


def per_device(step: Callable[..., Any], seed: int) -> Callable[..., Any]:
    """Turns a stage's `(state, images, rng)` step into one device's `(state, images)` step.

    The key is derived from (seed, step), so it is never saved, and the same on all devices: see
    `share`. The step is counted here.
    """

    def run(state: Any, images: Any) -> tuple[Any, Any]:
        rng = jax.random.fold_in(jax.random.key(seed), state.step)
        rng = jax.random.fold_in(rng, 0)  # once the device's index: runs of one device stay as is
        state, metrics = step(state, images, rng)
        return dataclasses.replace(state, step=state.step + 1), mean(metrics)

    return run


def data_parallel(
    step: Callable[..., Any], seed: int, images_of: Callable[..., Any]
) -> Callable[..., Any]:
    """`(state, held, sent [local devices, n, ...]) -> (state, metrics)`; uses the state up.

    One dispatch of n steps in a row. `images_of(held, sent)` makes a step's images on the device
    from what all devices hold and from its own share of what is sent. The metrics are those of the
    last step.
    """
    one_step = per_device(step, seed)

    def run(state: Any, held: Any, sent: Any) -> tuple[Any, Any]:
        state, metrics = jax.lax.scan(
            lambda state, sent: one_step(state, images_of(held, sent)), state, sent
        )
        return state, jax.tree.map(lambda values: values[-1], metrics)

    parallel_run: Callable[..., Any] = jax.pmap(
        run, axis_name=_AXIS, in_axes=(None, None, 0), out_axes=None, donate_argnums=0
    )
    return parallel_run


def replicate(tree: Any) -> Any:
    """Places `tree` on every local device, as a step returns it.

    Without this the second step compiles again, and across processes the first one fails. The
    result may share memory with `tree`, so that a step that uses it up uses up `tree` as well.
    """
    mesh = Mesh(np.array(jax.local_devices()), (_AXIS,))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def local_dims(batch_dims: tuple[int, ...]) -> tuple[int, ...]:
    """Batch dimensions of one process: (5, 64) on 8 devices of one process -> (8, 5, 8).

    Raises:
      ValueError: the batch does not divide over the devices.
    """
    *leading, batch = batch_dims
    if batch % jax.device_count():
        raise ValueError(
            f"batch {batch} does not divide over {jax.device_count()} devices: "
            f"choose a multiple of {jax.device_count()} for batch_size"
        )
    return (jax.local_device_count(), *leading, batch // jax.device_count())


def process() -> tuple[int, int]:
    """(index of this process, number of processes)."""
    return jax.process_index(), jax.process_count()


def is_main() -> bool:
    """Whether this process is the one that writes files. Of a run of one, no device is asked."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def on_cpu() -> bool:
    """Whether computations run on XLA:CPU, which wants other forms of some of them."""
    return jax.default_backend() == "cpu"


def free_bytes() -> int | None:
    """Free memory of the fullest local device; None where it is the host's, as on CPU."""
    stats = [device.memory_stats() for device in jax.local_devices()]
    free = [s["bytes_limit"] - s["bytes_in_use"] for s in stats if s and "bytes_limit" in s]
    return min(free, default=None)


def device_names() -> list[str]:
    """The kind of every device of the run, such as ['cpu'] or ['NVIDIA H100 80GB HBM3'] * 8."""
    return [device.device_kind for device in jax.devices()]
