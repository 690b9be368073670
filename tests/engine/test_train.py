import itertools
import json
import logging as python_logging
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from engine import checkpoint, parallel
from engine.batches import Batches, resident, resident_if_it_fits
from engine.log import read_metrics
from engine.method import Aux, Method, Score, Stage, descend, init_state
from engine.train import Every, dispatches, due, stage_seed, train_stages
from engine.workdir import Facts, read_config, read_facts
from engine.workdir import claim as claim_workdir
from evaluation.scoring import restore, score_to_disk, scorer_of


@pytest.mark.parametrize(
    ("step", "every", "last", "expected"),
    [
        (1, 1, 9, True),
        (1, 2, 9, False),
        (2, 2, 9, True),
        (9, 2, 9, True),
        (8, 100, 9, False),
        (9, 100, 9, True),
        (10, 5, 10, True),
    ],
)
def test_due(step, every, last, expected):
    assert due(step, every, last) is expected


def test_stage_seeds_do_not_meet():
    seeds = [stage_seed(seed, index) for seed in range(100) for index in range(2)]
    assert len(set(seeds)) == 200


def toy(num_steps=4, poison_at=None):
    """One stage that learns the mean of its images; the score is the squared distance to it.

    At step `poison_at` its loss is NaN.
    """
    tx = optax.sgd(0.25)

    def loss_fn(variables, images, rng):
        w = variables["w"]["params"]["mean"]
        return jnp.mean(jnp.square(images - w)), Aux()

    def step(state, images, rng):
        poison = jnp.where(state.step + 1 == (poison_at or -1), jnp.nan, 0.0)
        return descend(loss_fn, tx, "w", state, images + poison, rng)

    def init(rng, variables):
        return init_state({"w": {"params": {"mean": jnp.zeros(())}}}, {"w": tx})

    def score(variables, images):
        residual = jnp.square(images - variables["w"]["params"]["mean"])[..., 0]
        return Score(jnp.mean(residual, axis=(1, 2)), residual)

    stage = Stage("toy", init, step, num_steps, (8,), lambda variables, images: {"seen": images})
    return Method((stage,), score)


def ones(dims, seed, first_step, process):
    """Batches of ones: after n steps of SGD at 0.25 the mean is 1 - 0.5^n."""
    while True:
        yield np.ones((*dims, 2, 2, 1), np.float32)


EXAMPLES = np.zeros((2, 2, 2, 1), np.float32)


def sent(images):
    """Batches of images that are sent as they are."""
    return Batches((), images, lambda _, images: images, grouped=False)


def go(method, workdir, every=None):
    every = every or Every(1, 1, 2)
    return train_stages(method, sent(ones), str(workdir), seed=0, every=every, examples=EXAMPLES)


def test_learns_logs_and_scores(tmp_path):
    variables = go(toy(), tmp_path)
    np.testing.assert_allclose(variables["w"]["params"]["mean"], 1 - 0.5**4)
    lines = read_metrics(str(tmp_path))
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    np.testing.assert_allclose([line["w_loss"] for line in lines], [0.25**n for n in range(4)])
    assert sorted(p.name for p in (tmp_path / "pictures/toy").iterdir()) == [
        "seen_0000002.png",
        "seen_0000004.png",
    ]
    scorer = scorer_of(toy(), restore(toy(), str(tmp_path))[0])
    batches = [np.ones((3, 2, 2, 1), np.float32), np.ones((1, 2, 2, 1), np.float32)]
    score = score_to_disk(scorer, batches, 0, str(tmp_path))
    np.testing.assert_allclose(score.image, np.full(4, 0.5**8))
    assert score.map.shape == (4, 2, 2)


def cut(first, last, every, monkeypatch, *, on_cpu=False, grouped=True):
    monkeypatch.setattr(parallel, "on_cpu", lambda: on_cpu)
    return list(dispatches(first, last, Every(*every), grouped=grouped))


def test_dispatches_end_where_something_is_due(monkeypatch):
    assert cut(0, 60, (20, 40, 60), monkeypatch) == [(20, 20), (40, 20), (60, 20)]
    # Begun within a group, and ended within one: step by step.
    assert cut(18, 43, (20, 20, 20), monkeypatch) == [
        *[(19, 1), (20, 1), (40, 20)],
        *[(41, 1), (42, 1), (43, 1)],
    ]
    assert cut(3, 3, (20, 20, 20), monkeypatch) == []
    for options in ({"on_cpu": True}, {"grouped": False}):
        steps = cut(0, 4, (2, 2, 2), monkeypatch, **options)
        assert steps == [(step, 1) for step in range(1, 5)]


def brightness(dims, seed, first_step, process):
    """Step s shows image s, whole, neither flipped nor turned."""
    corners, turns = np.zeros((*dims, 2), np.int32), np.zeros(dims, np.int32)
    for step in itertools.count(first_step):
        yield np.full(dims, step, np.int32), np.zeros(dims, bool), corners, turns


def test_many_steps_in_one_dispatch_are_the_steps_one_by_one(tmp_path, monkeypatch):
    """Also where a run begins and ends within a group; what is logged and saved is the same."""
    pixels = np.arange(40, 240, 20, dtype=np.uint8)[:, None, None, None] * np.ones((2, 2, 1), "u1")
    batches = resident(pixels, brightness)

    def run(workdir, *lasts):
        for last in lasts:
            variables = train_stages(
                toy(last), batches, str(workdir), seed=0, every=Every(2, 4, 4), examples=EXAMPLES
            )
        lines = read_metrics(str(workdir))
        return variables, [(line["step"], line["w_loss"]) for line in lines]

    single, expected = run(tmp_path / "single", 10)
    monkeypatch.setattr(parallel, "on_cpu", lambda: False)
    grouped, logged = run(tmp_path / "grouped", 3, 10)
    np.testing.assert_allclose(grouped["w"]["params"]["mean"], single["w"]["params"]["mean"])
    assert dict(logged).keys() >= dict(expected).keys()
    for step, loss in expected:
        np.testing.assert_allclose(dict(logged)[step], loss, rtol=1e-6)


@pytest.mark.parametrize(("free", "held"), [(None, True), (64, True), (63, False)])
def test_images_that_do_not_fit_are_streamed_and_a_line_says_why(free, held, monkeypatch):
    lines = []
    monkeypatch.setattr(parallel, "free_bytes", lambda: free)
    monkeypatch.setattr(
        "engine.batches.logging.warning", lambda text, *values: lines.append(text % values)
    )
    pixels = np.zeros((2, 2, 4, 2), np.uint8)  # 32 bytes
    batches = resident_if_it_fits(pixels, brightness, ones)
    assert batches.sent is (brightness if held else ones)
    assert batches.held is pixels if held else batches.held == ()
    assert [("streamed" in line, "free on a device" in line) for line in lines] == (
        [] if held else [(True, True)]
    )


def test_free_memory_is_that_of_the_fullest_device(monkeypatch):
    class Device:
        def __init__(self, stats):
            self.memory_stats = lambda: stats

    def free(*stats):
        monkeypatch.setattr(jax, "local_devices", lambda: [Device(entry) for entry in stats])
        return parallel.free_bytes()

    assert free({"bytes_limit": 9, "bytes_in_use": 2}, {"bytes_limit": 8, "bytes_in_use": 5}) == 3
    assert free(None, None) is None  # a CPU says nothing


def test_the_time_to_the_first_step_is_logged_once_a_stage(tmp_path, monkeypatch):
    lines = []
    info = SimpleNamespace(info=lambda text, *values: lines.append(text % values))
    monkeypatch.setattr("engine.train.logging", info)
    train_stages(
        toy(),
        sent(ones),
        str(tmp_path),
        seed=0,
        every=Every(1, 4, 4),
        examples=EXAMPLES,
    )
    (line,) = [line for line in lines if "after the program" in line]
    seconds = re.fullmatch(r"Stage toy: step 1 done (.*) s after the program's start\.", line)[1]
    since_python_began = python_logging.makeLogRecord({}).relativeCreated / 1000
    assert since_python_began - 60 < float(seconds) <= since_python_began + 0.1


def test_a_finished_stage_passes_through(tmp_path):
    first = go(toy(), tmp_path)

    def no_batches(*args):
        raise AssertionError("a finished stage needs no images")
        yield

    again = train_stages(
        toy(), sent(no_batches), str(tmp_path), seed=0, every=Every(1, 1, 1), examples=EXAMPLES
    )
    assert jax.tree.map(float, again) == jax.tree.map(float, first)


def test_a_batch_that_does_not_divide_stops_before_the_first_stage(tmp_path):
    """Eight devices here."""
    first = toy().stages[0]
    method = Method((first, first._replace(name="last", batch_dims=(70,))), toy().score)
    with pytest.raises(ValueError, match="batch 70 does not divide over 8 devices"):
        go(method, tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_two_checkpoints_are_kept(tmp_path):
    go(toy(), tmp_path)
    assert sorted(p.name for p in (tmp_path / "checkpoints/toy").iterdir()) == ["3", "4"]


@pytest.mark.parametrize("log", [1, 100])
def test_nan_stops_and_keeps_the_last_finite_checkpoint(tmp_path, log):
    with pytest.raises(FloatingPointError, match="step 3: w_loss is nan") as caught:
        go(toy(poison_at=3), tmp_path, Every(log, 1, 100))
    assert "\n" not in str(caught.value)
    saved = checkpoint.newest(str(tmp_path), "toy")
    assert saved["step"] == 2
    np.testing.assert_allclose(saved["variables"]["w"]["params"]["mean"], 0.75)


def test_networks_that_are_not_finite_are_never_saved(tmp_path):
    state = toy().stages[0].init(jax.random.key(0), {})
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan if leaf.dtype == jnp.float32 else leaf, state)
    with (
        checkpoint.Checkpoints(str(tmp_path), "toy") as checkpoints,
        pytest.raises(FloatingPointError, match="NaN or infinity at step 0"),
    ):
        checkpoints.save(broken)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        checkpoint.newest(str(tmp_path), "toy")


def test_scoring_needs_a_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match="train this workdir first"):
        restore(toy(), str(tmp_path))
    with pytest.raises(ValueError, match="no image"):
        score_to_disk(lambda images: None, [], 0, str(tmp_path))


FACTS = Facts(209, "a" * 64)
CONFIG = {"seed": 0, "data": {"category": "bottle", "root": "/a"}, "features": (1, 2)}


def claim(workdir, config, facts=FACTS, *, saved=True):
    """Claims a workdir in which a step is `saved` then."""
    claim_workdir(str(workdir), config, facts, free=("data.root",), main=True)
    if saved:
        (workdir / "checkpoints/gan/20").mkdir(parents=True, exist_ok=True)


@pytest.mark.promise("R7", "a config that differs: each differing field is named")
def test_claim_names_the_differing_keys(tmp_path):
    workdir = tmp_path / "new"
    claim(workdir, CONFIG)
    claim(workdir, CONFIG)
    other = {**CONFIG, "seed": 1, "data": {"category": "carpet", "root": "/a"}, "more": 1}
    with pytest.raises(ValueError, match="holds another experiment") as caught:
        claim(workdir, other)
    message = str(caught.value)
    assert "seed: 0 -> 1" in message
    assert "data.category: 'bottle' -> 'carpet'" in message
    assert "more: '(absent)' -> 1" in message
    assert "features" not in message and "\n" not in message
    assert read_config(str(workdir)) == json.loads(json.dumps(CONFIG))


def test_what_failed_before_the_first_saved_step_may_be_corrected(tmp_path):
    claim(tmp_path, CONFIG, saved=False)
    (tmp_path / "checkpoints/gan").mkdir(parents=True)  # and nothing in it
    (tmp_path / "checkpoints/encoder.tmp/20").mkdir(parents=True)  # killed while it was written
    (tmp_path / "checkpoints/.DS_Store").touch()
    other = {**CONFIG, "seed": 1}
    claim(tmp_path, other, Facts(60, "b" * 64))
    assert read_config(str(tmp_path))["seed"] == 1
    assert read_facts(str(tmp_path)).num_train == 60
    with pytest.raises(ValueError, match="seed: 1 -> 0"):
        claim(tmp_path, CONFIG, Facts(60, "b" * 64))


def test_a_longer_training_is_told_from_another_experiment(tmp_path):
    claim(tmp_path, {**CONFIG, "gan": {"num_steps": 30}})
    with pytest.raises(ValueError, match="30 -> 60.: training of another length is a run of its"):
        claim(tmp_path, {**CONFIG, "gan": {"num_steps": 60}})
    with pytest.raises(ValueError, match="seed: 0 -> 1.: choose another workdir"):
        claim(tmp_path, {**CONFIG, "seed": 1, "gan": {"num_steps": 60}})


@pytest.mark.parametrize("every", [Every(0, 0, 0), Every(0, 4, 0), Every(3, 0, 6)])
def test_zero_is_off(every):
    """But for the last step, of which all is kept."""
    last = 12
    happened = {
        name: [s for s in range(1, last + 1) if due(s, each, last)]
        for name, each in every._asdict().items()
    }
    for name, each in every._asdict().items():
        assert happened[name] == ([*range(each, last + 1, each)] if each else [last])
    steps = [step for step, _ in dispatches(0, last, every, grouped=True)]
    assert steps[-1] == last


@pytest.mark.promise("R7", "a field that changes no result of training may differ")
def test_claim_lets_free_fields_differ(tmp_path):
    claim(tmp_path, CONFIG)
    claim(tmp_path, {**CONFIG, "data": {"category": "bottle", "root": "/b"}})
    assert read_config(str(tmp_path))["data"]["root"] == "/b"


@pytest.mark.promise("R7", "other images, or other numbers of them: each difference is named")
def test_claim_names_the_facts_that_differ(tmp_path):
    claim(tmp_path, CONFIG)
    with pytest.raises(ValueError, match="data.digest: 'a.*'; data.num_train: 209 -> 60") as caught:
        claim(tmp_path, CONFIG, Facts(60, "b" * 64))
    assert "\n" not in str(caught.value)
    assert read_facts(str(tmp_path)) == FACTS


def test_facts_that_are_missing_or_damaged(tmp_path):
    claim(tmp_path, CONFIG)
    level = '{"num_train": 209, "digest": "", "white_level": "4095"}'
    wrong = ("{", "[]", "{}", '{"num_train": "209", "digest": ""}', '{"num_train": 209}', level)
    for content in wrong:
        (tmp_path / "facts.json").write_text(content)
        with pytest.raises(ValueError, match="facts.json is damaged .*: restore it or choose"):
            claim(tmp_path, CONFIG)
    (tmp_path / "facts.json").unlink()
    with pytest.raises(FileNotFoundError, match="facts.json does not exist: restore it"):
        claim(tmp_path, CONFIG)


def test_config_that_is_missing_or_damaged(tmp_path):
    with pytest.raises(FileNotFoundError, match="config.json does not exist"):
        read_config(str(tmp_path))
    (tmp_path / "config.json").write_text('{"seed": ')
    with pytest.raises(ValueError, match="config.json is damaged"):
        read_config(str(tmp_path))
