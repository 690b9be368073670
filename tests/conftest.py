"""Eight forced CPU devices, strict JAX, and small data shared by the tests.

The environment is set before JAX starts; pytest imports this file first.
"""

import importlib.metadata
import importlib.util
import os
import runpy
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

# Tests that run the same step twice, such as those of resuming, compile it once; so do workers of
# pytest-xdist, which find the folder of the process that started them.
_CACHE = tempfile.TemporaryDirectory(prefix="fanogan-tests-")
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
# What is compiled is small and runs once, so that optimising it is a waste, in most programs that
# tests start too. Those of tests/reliability/programs.py and the notebook are compiled as a user's.
QUICK = "--xla_backend_optimization_level=0"
if importlib.metadata.version("jaxlib").startswith("0.10."):  # one that knows no such flag aborts
    QUICK += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count=8 {QUICK}"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
# Nor is there another machine, for programs that the tests start either.
_OFFLINE = Path(__file__).parent / "offline"
os.environ["OFFLINE_LOG"] = os.path.join(_CACHE.name, "connections")
_PATHS = os.environ.get("PYTHONPATH", "").split(os.pathsep)
os.environ["PYTHONPATH"] = os.pathsep.join([str(_OFFLINE), *filter(None, _PATHS)])
runpy.run_path(str(_OFFLINE / "sitecustomize.py"))

import jax
import numpy as np
import pytest
from absl import logging
from ml_collections import ConfigDict
from PIL import Image

import commands
from configs import (
    ae,
    ae_l2,
    ae_ssim,
    ama,
    anogan,
    contrario,
    fanogan,
    fanogan_resnet,
    few_shot,
    glad,
    meliad,
    ssae,
)

AUTOENCODERS = (ae, ae_l2, ae_ssim)
ALL = (fanogan, fanogan_resnet, anogan, ama, *AUTOENCODERS, ssae, contrario, few_shot, meliad, glad)


def shrink(config: ConfigDict, **sizes: int) -> ConfigDict:
    """A config of the same shape that compiles in seconds: 16 px, few features, few steps."""
    config.data.image_size = 16
    config.every = dict(log=1, save=2, pictures=2)
    if "trunk" in config:
        return _shrink_few_shot(config)
    if "denoiser" in config:
        return _shrink_denoiser(config)
    if "corruption" in config:
        return _shrink_self_supervised(config)
    if "patches" in config:
        config.patches.update(side=3, scales=(1, 2))
        config.training.num_steps = 2
        return config
    if "autoencoder" in config:
        return _shrink_autoencoder(config)
    config.latent = 4
    if "pairs" in config.gan:
        return _shrink_mirrored(config)
    networks = [name for name in ("generator", "critic", "encoder") if name in config]
    if "width" in config.generator:
        for network in networks:
            config[network].width = 2
    else:
        for network in networks:
            config[network].features = (8, 8, 4) if network == "generator" else (4, 8)
    config.gan.update(batch_size=8, num_steps=sizes.get("gan", 2), n_critic=2)
    if "encoding" in config:
        config.encoding.update(batch_size=8, num_steps=sizes.get("encoder", 2))
    else:
        config.score.num_steps = 2
    return config


def _shrink_denoiser(config: ConfigDict) -> ConfigDict:
    config.denoiser.features = (8, 8)
    config.training.update(batch_size=8, num_steps=2)
    config.training.schedule.warmup_steps = 1
    config.score.update(steps=2, draws=2)
    return config


def _shrink_mirrored(config: ConfigDict) -> ConfigDict:
    config.encoder.features = (4, 8)
    config.generator.features = (8, 8, 4)
    config.critic.width = 4
    config.gan.update(batch_size=8, num_steps=2, n_critic=2)
    return config


def _shrink_autoencoder(config: ConfigDict) -> ConfigDict:
    if config.data.crop:
        config.data.update(image_size=32, crop=16)
        config.score.stride = 8
    config.autoencoder.latent = 4
    if "features" in config.autoencoder:
        config.autoencoder.features = (4, 8)
    config.training.update(batch_size=8, num_steps=2)
    return config


def _shrink_few_shot(config: ConfigDict) -> ConfigDict:
    config.trunk.update(fold=2, features=(4, 8), blocks=1)
    if "width" in config.head:
        config.head.width = 4
    config.corruption.weights.seamless = 0.0
    config.training.update(batch_size=8, num_steps=2)
    config.training.schedule.warmup_steps = 1
    return config


def _shrink_self_supervised(config: ConfigDict) -> ConfigDict:
    config.autoencoder.update(features=(4, 8), convolutions=1, blocks=1, branch=2)
    config.autoencoder.dilations = (1, 2)
    config.training.update(batch_size=8, num_steps=2)
    config.training.schedule.warmup_steps = 1
    return config


@pytest.fixture
def config() -> ConfigDict:
    """The original f-AnoGAN, shrunk."""
    return shrink(fanogan.get_config())


# The large residual networks take as long to compile as all others together.
_MARKS = {fanogan_resnet: pytest.mark.long, glad: pytest.mark.slow, meliad: pytest.mark.slow}
_EACH = [pytest.param(each, marks=[_MARKS[each]] if each in _MARKS else []) for each in ALL]


@pytest.fixture(params=_EACH, ids=lambda module: module.__name__)
def any_config(request) -> ConfigDict:
    """Each config of the project, shrunk."""
    return shrink(request.param.get_config())


@pytest.fixture
def no_onnx(monkeypatch):
    """As if jax2onnx were not installed."""
    find = importlib.util.find_spec
    hide = lambda name, *args: None if name == "jax2onnx" else find(name, *args)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", hide)


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """Sixteen images [16, 16, 16, 3] in [-1, 1]: a bright disc on dark ground, a little noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:16j, -1:1:16j]
    disc = np.where(x**2 + y**2 < 0.5, 0.6, -0.6)[None, :, :, None]
    return (disc + 0.1 * rng.standard_normal((16, 16, 16, 3))).astype(np.float32)


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> tuple[Path, str]:
    """The root of a small category, and the workdir of a self-supervised run on it.

    They serve many tests, which write into copies alone.
    """
    root = make_parts(tmp_path_factory.mktemp("parts"))
    config = shrink(ssae.get_config("nut"))
    config.data.update(root=str(root), prepared=str(root / "prepared"), calibration=0.3)
    config.tuning.update(corrupted_weights=(0.1,), draws=2, smoothing=(0.0, 1.0), tops=(0.1,))
    config.tuning.corruption.update(side=(0.5, 0.9), opacity=(0.9, 1.0))
    workdir = str(root / "run")
    commands.train(config, workdir)
    return root, workdir


def make_parts(root: Path, side: int = 16) -> Path:
    """The category 'nut' below `root`: grey noise, and brighter dents."""
    rng = np.random.default_rng(0)
    for i in range(20):
        _save(root / f"nut/train/good/{i}.png", rng, side)
    for i in range(4):
        _save(root / f"nut/test/good/{i}.png", rng, side)
        _save(root / f"nut/test/dent/{i}.png", rng, side, bright=True)
    return root


def _save(path: Path, rng: np.random.Generator, side: int, *, bright: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(60, 120, (side, side, 3)).astype(np.uint8)
    if bright:
        dent = slice(side // 4, side // 4 + side // 3)
        pixels[dent, dent] = 250
    Image.fromarray(pixels).save(path)


@pytest.fixture
def warned(monkeypatch) -> list[str]:
    """The lines that the log warns with, from now on."""
    lines: list[str] = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: lines.append(text % values))
    return lines


@pytest.fixture(autouse=True, scope="module")
def few_mappings() -> Iterator[None]:
    """Lets go of what a module's tests compiled.

    A compiled program takes some hundred memory mappings, of which Linux gives a process 65,530;
    where there are no more XLA aborts.
    """
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True)
def no_connections() -> Iterator[None]:
    """Fails a test that, or whose program, tried to reach another machine."""
    yield
    log = Path(os.environ["OFFLINE_LOG"])
    tried = log.read_text() if log.exists() else ""
    log.unlink(missing_ok=True)
    assert not tried, f"connections to other machines:\n{tried}"


@pytest.fixture
def tries(request) -> Callable[..., AbstractContextManager[None]]:
    """`with tries("what is tried"):` is one try of what the test's mark `promise` names.

    It survives if nothing is raised. All of a promise are lines of the table at the end. One try of
    `times` blows counts as so many tries.
    """
    promise = request.node.get_closest_marker("promise").args[0]
    return lambda what, times=1: _one(request.node, promise, what, times)


@contextmanager
def _one(item: pytest.Item, promise: str, what: str, times: int = 1) -> Iterator[None]:
    """Notes (promise, what was tried, tries, survivals, seconds) in the test's report."""
    start, survived = time.monotonic(), 0
    try:
        yield
        survived = times
    finally:
        seconds = time.monotonic() - start
        item.user_properties.append(("promise", [promise, what, times, survived, seconds]))


def pytest_collection_modifyitems(items):
    """Slow tests first, so that no worker ends with one while the others are idle.

    The notebook, which takes longest, begins.
    """
    items.sort(
        key=lambda item: (
            item.path.name != "test_quickstart.py",
            item.get_closest_marker("slow") is None,
        )
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """A test with the mark `promise(number, what)` is itself one try."""
    mark = item.get_closest_marker("promise")
    if mark is None or len(mark.args) < 2:
        return (yield)
    with _one(item, *mark.args):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """File names that are no text are logged by some tests; pytest-xdist cannot send them."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report


def pytest_terminal_summary(terminalreporter):
    """The table of docs/reliability.md."""
    noted = [
        note
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, note in report.user_properties
        if name == "promise"
    ]
    if not noted:
        return
    tally = {}  # (promise, what was tried) -> [tries, survivals, seconds of the slowest]
    for promise, what, tries, survived, seconds in noted:
        counts = tally.setdefault((promise, what), [0, 0, 0.0])
        counts[:] = counts[0] + tries, counts[1] + survived, max(counts[2], seconds)
    terminalreporter.section("promises")
    terminalreporter.line("| promise | what was tried | tries | survived | worst time |")
    terminalreporter.line("|---|---|---|---|---|")
    for (promise, what), (count, survived, worst) in sorted(
        tally.items(), key=lambda entry: (int(entry[0][0].removeprefix("R")), entry[0][1])
    ):
        terminalreporter.line(f"| {promise} | {what} | {count} | {survived} | {worst:.1f} s |")
