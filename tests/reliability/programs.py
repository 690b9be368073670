"""Small runs of main.py, to be killed, stopped and held against unbroken ones."""

import json
import os
import socket
import subprocess
import sys

import jax
from test_main import ROOT

from engine import checkpoint

EVERY = ["--config.every.log=20", "--config.every.save=20", "--config.every.pictures=200"]
METHODS = {
    "f-AnoGAN": [
        "--config=configs/fanogan.py:part",
        "--config.latent=8",
        "--config.generator.features=(8,8,4)",
        "--config.critic.features=(4,8)",
        "--config.encoder.features=(4,8)",
        "--config.gan.batch_size=8",
        "--config.gan.n_critic=2",
        "--config.gan.num_steps=400",
        "--config.encoding.batch_size=8",
        "--config.encoding.num_steps=400",
    ],
    "AE": [
        "--config=configs/ae.py:part",
        "--config.autoencoder.latent=8",
        "--config.autoencoder.features=(8,16)",
        "--config.training.batch_size=8",
        "--config.training.num_steps=2000",
    ],
    "SSAE": [
        "--config=configs/ssae.py:part",
        "--config.autoencoder.features=(4,8)",
        "--config.autoencoder.convolutions=1",
        "--config.autoencoder.blocks=1",
        "--config.autoencoder.branch=2",
        "--config.autoencoder.dilations=(1,2)",
        "--config.training.batch_size=8",
        "--config.training.num_steps=400",
        "--config.training.schedule.warmup_steps=10",
    ],
}


def start(arguments, errors, *, devices=1, before=(), instead=()):
    """main.py on so many CPU devices; what it says on stderr goes into the file `errors`.

    `before` are the first words of its command line, which `instead` replaces as a whole.
    """
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "XLA_FLAGS": flags}
    command = [*before, sys.executable, "main.py", *map(str, arguments)]
    with open(errors, "wb") as file:
        return subprocess.Popen(
            instead or command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=file
        )


def free_port():
    """Of this machine."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def start_both(arguments, workdir, *of_the_second):
    """Two processes of two devices, with flags of the second's own: (process, its stderr) each."""
    joined = [f"--coordinator_address=localhost:{free_port()}", "--num_processes=2"]
    running = []
    for index, own in enumerate([(), of_the_second]):
        errors = workdir.parent / f"{workdir.name} errors {index}"
        command = [*arguments, *joined, f"--process_id={index}", *own]
        running.append((start(command, errors, devices=2), errors))
    return running


def arguments(method, images, workdir, *others):
    """Those of a small run on the images of tests/commands/test_main.py."""
    return [
        *METHODS[method],
        f"--config.data.root={images}",
        f"--config.data.prepared={images}/../prepared",
        "--config.data.image_size=16",
        f"--workdir={workdir}",
        *EVERY,
        *others,
    ]


def finish(command, errors):
    """Runs it to its end, which has to be a good one."""
    assert start(command, errors).wait() == 0, errors.read_text()


def leaves(workdir):
    """Path in the tree -> bytes of every array of the newest checkpoint of every stage."""
    found = {}
    for stage in sorted(path.name for path in (workdir / "checkpoints").iterdir()):
        tree = checkpoint.newest(str(workdir), stage)
        for path, leaf in jax.tree.leaves_with_path(tree):
            found[stage, jax.tree_util.keystr(path)] = leaf.dtype.str, leaf.shape, leaf.tobytes()
    return found


def assert_same_run(workdir, unbroken):
    """Every array, every score and every step of the log is that of the unbroken run."""
    ours, theirs = leaves(workdir), leaves(unbroken)
    assert len(ours) > 10 and ours == theirs
    assert (workdir / "scores.csv").read_bytes() == (unbroken / "scores.csv").read_bytes()
    assert losses(workdir) == losses(unbroken)


def losses(workdir):
    """The lines of metrics.jsonl without what a clock says."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if "second" not in k} for line in lines]
