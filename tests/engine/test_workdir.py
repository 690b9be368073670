"""A run that takes finished stages out of another run's workdir."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from etils import epath

from engine import checkpoint
from engine.batches import Batches
from engine.log import read_metrics
from engine.method import Aux, Method, Stage, descend, init_state
from engine.train import Every, train_stages
from engine.workdir import Facts, claim
from engine.workdir import reuse as take_over

FACTS = Facts(4, "d")
STAGES = {"one": 4, "two": 3}
FREE = ("data.root", "name", "method", "score")
CONFIG = {
    "name": "first",
    "data": {"root": "/a"},
    "one": {"rate": 0.25, "features": (1, 2)},
    "two": {"rate": 0.25},
}


def stage(name, num_steps):
    """Learns the mean of its images; its network has the stage's name."""
    tx = optax.adam(0.25)

    def loss_fn(variables, images, rng):
        return jnp.mean(jnp.square(images - variables[name]["params"]["mean"])), Aux()

    def init(rng, variables):
        return init_state({**variables, name: {"params": {"mean": jnp.zeros(())}}}, {name: tx})

    def step(state, images, rng):
        return descend(loss_fn, tx, name, state, images, rng)

    return Stage(name, init, step, num_steps, (8,), lambda variables, images: {})


def ones(dims, seed, first_step, process):
    while True:
        yield np.ones((*dims, 2, 2, 1), np.float32)


def run(workdir, batches=ones, **stages):
    """Trains stages of so many steps."""
    method = Method(tuple(stage(*item) for item in stages.items()), lambda *_: None)
    examples = np.zeros((2, 2, 2, 1), np.float32)
    every = Every(1, 1, 9)
    sent = Batches((), batches, lambda _, images: images, grouped=False)
    return train_stages(method, sent, str(workdir), seed=0, every=every, examples=examples)


def reuse(source, workdir, stages=STAGES, config=CONFIG, main=True, facts=FACTS):
    return take_over(str(source), str(workdir), stages, config, facts, free=FREE, main=main)


def files(folder):
    """Path -> content of every file, and the folders."""
    found = {path.relative_to(folder): path for path in sorted(folder.rglob("*"))}
    return {str(k): path.read_bytes() if path.is_file() else None for k, path in found.items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A workdir with both stages finished; not to be written to."""
    workdir = tmp_path_factory.mktemp("trained")
    claim(str(workdir), CONFIG, FACTS, free=FREE, main=True)
    run(workdir, **STAGES)
    return workdir


@pytest.fixture
def source(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "source")


def test_the_newest_checkpoint_is_copied_bit_by_bit_and_the_source_only_read(source, tmp_path):
    workdir = tmp_path / "new"
    # What a run that is writing has open there, and what an interrupted copy has left here.
    (source / "checkpoints/one/9.orbax-checkpoint-tmp").mkdir()
    (workdir / "checkpoints/one.tmp/stray").mkdir(parents=True)
    before = files(source)
    assert reuse(source, workdir, {"one": 4}) == ["one"]
    assert files(source) == before
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == ["one"]
    assert [path.name for path in (workdir / "checkpoints/one").iterdir()] == ["4"]
    assert files(workdir / "checkpoints/one/4") == files(source / "checkpoints/one/4")
    ours, theirs = (checkpoint.newest(str(w), "one") for w in (workdir, source))
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_stage_taken_is_not_trained_and_one_that_is_not_there_is(source, tmp_path):
    shutil.rmtree(source / "checkpoints/two")
    workdir = tmp_path / "new"
    assert reuse(source, workdir) == ["one"]

    def no_batches(*_):
        raise AssertionError("the stage is finished")
        yield

    variables = run(workdir, no_batches, one=4)
    expected = checkpoint.newest(str(source), "one")["variables"]["one"]["params"]["mean"]
    np.testing.assert_array_equal(variables["one"]["params"]["mean"], expected)
    run(workdir, **STAGES)
    trained = [(line["stage"], line["step"]) for line in read_metrics(str(workdir))]
    assert trained == [("two", 1), ("two", 2), ("two", 3)]
    state = checkpoint.newest(str(workdir), "two")
    np.testing.assert_array_equal(state["variables"]["one"]["params"]["mean"], expected)


def test_the_second_call_does_nothing(source, tmp_path):
    workdir = tmp_path / "new"
    assert reuse(source, workdir) == ["one", "two"]
    before = files(workdir)
    shutil.rmtree(source)  # nor does it need the source
    assert reuse(source, workdir) == []
    assert files(workdir) == before


def test_what_the_workdir_has_stays(source, tmp_path):
    workdir = tmp_path / "new"
    run(workdir, one=2)
    before = files(workdir / "checkpoints/one")
    assert reuse(source, workdir) == ["two"]
    assert files(workdir / "checkpoints/one") == before
    # A run that took one stage goes on, though the source has nothing more to give.
    shutil.rmtree(source / "checkpoints/two")
    shutil.rmtree(workdir / "checkpoints/two")
    assert reuse(source, workdir) == []


def test_fields_that_both_have_must_be_equal(source, tmp_path):
    config = {
        **CONFIG,
        "name": "second",
        "data": {"root": "/b"},
        "one": {"rate": 0.5, "features": (1, 2), "decay": 0.1},
    }
    with pytest.raises(ValueError, match="was trained otherwise") as caught:
        reuse(source, tmp_path / "new", config=config, facts=Facts(4, "other"))
    message = str(caught.value)
    assert f"{source} was trained otherwise" in message and "reuse another workdir" in message
    assert "data.digest: 'd' -> 'other'" in message
    assert "one.rate: 0.25 -> 0.5" in message
    assert "one.decay: '(absent)' -> 0.1" in message  # of a section that both have
    for free in ("data.root", "name", "features", "two"):
        assert free not in message
    assert "\n" not in message and not (tmp_path / "new").exists()


def test_sections_that_one_config_has_alone_do_not_matter(source, tmp_path):
    config = {name: section for name, section in CONFIG.items() if name != "two"}
    config["more"] = {"field": 1}
    assert reuse(source, tmp_path / "new", {"one": 4}, config) == ["one"]


def test_an_unfinished_stage_is_refused(source, tmp_path):
    message = "stage two is at step 3 of 9: train it to its end first"
    with pytest.raises(ValueError, match=message):
        reuse(source, tmp_path / "new", {"one": 4, "two": 9})
    assert not (tmp_path / "new").exists()


def test_nothing_to_take(source, tmp_path):
    with pytest.raises(ValueError, match="holds no checkpoint of three or four: reuse a workdir"):
        reuse(source, tmp_path / "new", {"three": 1, "four": 1})
    with pytest.raises(FileNotFoundError, match=r"nowhere.config\.json does not exist"):
        reuse(tmp_path / "nowhere", tmp_path / "new")


def test_only_the_main_process_writes(source, tmp_path):
    assert reuse(source, tmp_path / "new", main=False) == ["one", "two"]
    assert not (tmp_path / "new").exists()


def test_an_interrupted_copy_leaves_no_checkpoint(source, tmp_path, monkeypatch):
    workdir, count = tmp_path / "new", iter(range(3))
    copy = epath.Path.copy

    def failing(self, *args, **kwargs):
        if next(count, None) is None:
            raise OSError("no space left on device")
        return copy(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(type(epath.Path(workdir)), "copy", failing)
        with pytest.raises(OSError, match="no space left"):
            reuse(source, workdir)
    assert (workdir / "checkpoints/one.tmp").exists()  # it failed halfway
    with pytest.raises(FileNotFoundError, match="train this workdir first"):
        checkpoint.newest(str(workdir), "one")
    assert reuse(source, workdir) == ["one", "two"]
    assert files(workdir / "checkpoints/one/4") == files(source / "checkpoints/one/4")
