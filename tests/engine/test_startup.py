"""What is settled before JAX starts; each case in a process of its own."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = """
import os, sys
from engine import startup
{before}
startup.prepare()
print(os.environ.get("XLA_FLAGS", ""))
import jax
assert float(jax.jit(lambda x: x + 1)(1.0)) == 2.0  # XLA takes the flags
"""


def flags(before="", **environment):
    """The XLA_FLAGS that a program runs with."""
    environment = {**os.environ, "XLA_FLAGS": "", **environment}
    command = [sys.executable, "-c", CODE.format(before=before)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_flag_is_set_beside_the_users_own():
    known = importlib.metadata.version("jaxlib").startswith(("0.10.", "0.11.", "0.12."))
    ours = "--xla_cpu_experimental_ynn_fusion_type=-library_fusion_type_individual_convolution"
    assert flags() == (ours if known else "")
    theirs = "--xla_force_host_platform_device_count=2"
    assert flags(XLA_FLAGS=theirs) == (f"{theirs} {ours}" if known else theirs)


@pytest.mark.parametrize(
    "before",
    [
        "import importlib.metadata; importlib.metadata.version = lambda name: '0.99.1'",
        "import importlib.util; importlib.util.find_spec = lambda name: name == 'jax_plugins'",
    ],
    ids=["unknown jaxlib", "accelerator"],
)
def test_no_flag_for_versions_that_may_not_know_it_nor_beside_accelerators(before):
    platforms = {"JAX_PLATFORMS": ""} if "find_spec" in before else {}
    assert flags(before, **platforms) == ""


def test_a_value_of_the_users_own_stays():
    theirs = "--xla_cpu_experimental_ynn_fusion_type=-library_fusion_type_individual_dot"
    if not importlib.metadata.version("jaxlib").startswith(("0.10.", "0.11.", "0.12.")):
        pytest.skip("this jaxlib may not know the flag")
    assert flags(XLA_FLAGS=theirs) == theirs


def test_compilations_are_kept_in_the_users_cache(tmp_path):
    """Made where the user keeps caches; where that cannot be, a warning and no error."""
    environment = {**os.environ, "XLA_FLAGS": "", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    for name in [name for name in environment if name.startswith(("JAX_COMPILATION", "JAX_PERS"))]:
        del environment[name]
    command = [sys.executable, "-c", CODE.format(before="")]

    def errors():
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stderr

    assert errors() == ""
    kept = list((tmp_path / "cache" / "fanogan_jax" / "xla").iterdir())
    assert kept
    assert errors() == ""  # a warm start is as quiet
    assert len(list((tmp_path / "cache" / "fanogan_jax" / "xla").iterdir())) == len(kept)
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("a file in the way")
    (line,) = errors().splitlines()
    assert "No compilation cache" in line
    assert str(tmp_path / "cache") in line and "XDG_CACHE_HOME" in line


@pytest.mark.parametrize("prepared", [True, False])
@pytest.mark.slow
def test_memory_is_kept_from_step_to_step(prepared):
    """Page faults of steps whose results have 64 MB, 16,000 pages: none after a while."""
    code = f"""
import resource
from engine import startup
{"startup.keep_memory()" if prepared else ""}
import jax, jax.numpy as jnp
step = jax.jit(lambda x: x + 1)
x = jnp.ones((4000, 4000))
for i in range(310):
    if i == 300:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step(x).block_until_ready()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 10)
"""
    environment = {**os.environ, "XLA_FLAGS": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment
    )
    assert done.returncode == 0, done.stderr
    if platform.libc_ver()[0] == "glibc":
        assert (float(done.stdout) < 2000) == prepared
