"""Messages about a workdir that name a remedy: each is followed here as a user follows it."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from conftest import make_parts
from test_remedies import small
from trees import picture, save

import commands
from commands import inputs
from configs import ae, fanogan, restorer_head
from configs.workdir import get_config

pytestmark = pytest.mark.slow  # runs are trained and scored again


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The root of a small category, and the workdir of an autoencoder on it: quickly trained."""
    root = make_parts(tmp_path_factory.mktemp("parts"))
    config = small(ae, root, "nut", calibration=0.3)
    commands.train(config, str(root / "run"))
    return root, root / "run"


@pytest.fixture
def run(plain, tmp_path):
    """A copy of that run, which a test may damage."""
    return Path(shutil.copytree(plain[1], tmp_path / "run"))


@pytest.fixture
def restoring(trained, tmp_path):
    """A copy of a self-supervised run."""
    return Path(shutil.copytree(trained[1], tmp_path / "run"))


def predicted(plain, run):
    """The rows of new images, into a folder of their own."""
    output = run.parent / "out"
    shutil.rmtree(output, ignore_errors=True)
    assert commands.predict(str(run), str(plain[0] / "nut/test/good"), str(output)) == 0
    return (output / "predictions.csv").read_text()


def follow_command(said):
    """Gives the command that the message says to give."""
    mode, workdir = re.search(r"main\.py --mode=(\w+) --workdir=([^\s`,]+)", said).groups()
    getattr(commands, mode)(get_config(workdir), workdir)


def raised(command, *arguments):
    with pytest.raises((ValueError, OSError, FloatingPointError)) as error:
        command(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_threshold_is_set_again_as_told(plain, run):
    before = predicted(plain, run)
    for content in (
        None,
        "{}",
        (run / "threshold.json").read_text().replace('"step": 2', '"step": 1'),
    ):
        (run / "threshold.json").unlink()
        if content is not None:
            (run / "threshold.json").write_text(content)
        follow_command(raised(predicted, plain, run))
        assert predicted(plain, run) == before


def of_another_seed(run):
    other = Path(shutil.copytree(run, run.parent / "another"))
    text = (other / "config.json").read_text()
    (other / "config.json").write_text(text.replace('"seed": 0', '"seed": 1'))
    return other


@pytest.fixture
def another(run):
    """A second run to compare with: the first one by another seed's name."""
    return of_another_seed(run)


@pytest.mark.parametrize("content", [None, "{"])
def test_results_are_written_again_as_told(run, another, content):
    names = ("results.json", "scores.csv", "predictions.npz", "sources.json")
    for number, name in enumerate(names):
        (run / name).unlink()
        if content is not None:
            (run / name).write_text(content)
        output = str(run.parent / f"comparison {number}")
        follow_command(raised(commands.compare, [str(run), str(another)], output))
        commands.compare([str(run), str(another)], output)


def test_the_config_that_the_workdir_was_made_with_goes_on(run):
    config = get_config(run)
    config.training.batch_size = 16
    said = raised(commands.train, config, str(run))
    assert "choose another workdir, or the config it was made with" in said
    commands.train(get_config(run), str(run))
    commands.train(config, str(run.parent / "another"))


def test_without_a_whole_checkpoint_a_copy_is_put_back_or_the_stage_trained_anew(plain, run):
    before = predicted(plain, run)
    (step,) = (run / "checkpoints/autoencoder").iterdir()
    copy = shutil.copytree(step, run.parent / "copy")
    shutil.rmtree(step)
    step.mkdir()
    assert "put a copy of one back" in raised(predicted, plain, run)
    shutil.rmtree(step)
    shutil.copytree(copy, step)
    assert predicted(plain, run) == before
    shutil.rmtree(step)
    step.mkdir()
    shutil.rmtree(raised(predicted, plain, run).partition(" holds no checkpoint")[0])
    commands.train(get_config(run), str(run))
    assert predicted(plain, run) == before


def test_a_damaged_line_of_metrics_is_deleted(run):
    path = run / "metrics.jsonl"
    path.write_text("oh\n" + path.read_text())
    said = raised(commands.evaluate, get_config(run), str(run))
    number = int(re.search(r"line (\d+) is no JSON; delete that line", said)[1])
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: number - 1] + lines[number:]))
    commands.evaluate(get_config(run), str(run))


def test_a_damaged_choice_is_removed_or_made_again(restoring):
    (restoring / "tuning.json").write_text("{}")
    assert "tune again, or remove it" in raised(
        commands.evaluate, get_config(restoring), str(restoring)
    )
    (restoring / "tuning.json").unlink()
    commands.evaluate(get_config(restoring), str(restoring))
    (restoring / "tuning.json").write_text("{}")
    config = get_config(restoring)
    config.tuning.corruption.opacity = (1e-9, 1e-9)
    said = raised(commands.tune, config, str(restoring))
    config.tuning.update_from_flattened_dict(
        {re.search(r"raise tuning\.(\S+)", said)[1]: (0.9, 1.0)}
    )
    commands.tune(config, str(restoring))
    commands.evaluate(get_config(restoring), str(restoring))


def test_a_run_that_is_not_finished_is_trained_to_its_end(plain, run):
    path = run / "config.json"
    path.write_text(path.read_text().replace('"num_steps": 2', '"num_steps": 4'))
    assert "train it to its end" in raised(predicted, plain, run)
    commands.train(get_config(run), str(run))
    predicted(plain, run)


def test_what_a_run_to_reuse_has_otherwise_is_set_as_told(trained, restoring):
    config = small(restorer_head, trained[0], "nut", calibration=0.3)
    config.data.update(image_size=16)
    config.training, config.autoencoder = (
        get_config(restoring).training,
        get_config(restoring).autoencoder,
    )
    config.training.batch_size = 16
    config.head_training.update(batch_size=8, num_steps=2)
    config.head_training.schedule.warmup_steps = 1
    config.head_training.corruption.weights.seamless = 0  # which takes long to compile
    workdir = str(restoring.parent / "head")
    said = raised(lambda: commands.train(config, workdir, reuse=str(restoring)))
    assert "set these fields as it has them" in said
    differing = re.findall(r"([\w.]+): (\S+) -> ([^\s;)]+)", said)
    config.update_from_flattened_dict({name: json.loads(theirs) for name, theirs, _ in differing})
    commands.train(config, workdir, reuse=str(restoring))


def test_outputs_go_where_the_message_sends_them(plain, run):
    config, photos = get_config(run), plain[0] / "nut/test/good"
    inside = str(plain[0] / "nut/out")
    said = raised(inputs.located, config, inside)
    assert "choose a folder outside of it" in said
    inputs.located(config, str(plain[0] / "out"))
    said = raised(commands.predict, str(run), str(photos), str(photos / "out"))
    assert "choose a folder outside of" in said
    predicted(plain, run)


@pytest.fixture
def own(plain, tmp_path):
    """A copy of the run and of its images, which a test may change."""
    root = Path(shutil.copytree(plain[0], tmp_path / "parts"))
    path = root / "run/config.json"
    path.write_text(path.read_text().replace(str(plain[0]), str(root)))
    return root


def test_held_out_images_that_changed(own, monkeypatch):
    """What an export writes takes long, and is tested elsewhere."""
    monkeypatch.setattr(sys.modules["commands.export"], "write_export", lambda *_, **__: None)
    run = own / "run"
    name = next(iter(json.loads((run / "sources.json").read_text())["calibration"]))
    save(own / "nut" / name, picture(5))
    output = str(own.parent / "export")
    follow_command(raised(commands.export, str(run), output, get_config(run)))
    commands.export(str(run), output, get_config(run))


def test_test_images_that_changed(own):
    run = own / "run"
    other = of_another_seed(run)
    name = next(iter(json.loads((run / "sources.json").read_text())["test"]))
    before = (own / "nut" / name).read_bytes()
    save(own / "nut" / name, picture(5))
    output, runs = str(own.parent / "comparison"), [str(run), str(other)]
    said = raised(commands.compare, runs, output)
    assert "put them back" in said
    (own / "nut" / name).write_bytes(before)
    commands.compare(runs, output)


def test_another_white_level_gets_a_workdir_of_its_own(run):
    config = get_config(run)
    config.data.white_level = 1023
    said = raised(commands.evaluate, config, str(run))
    assert "train into another workdir" in said
    commands.train(config, str(run.parent / "another"))


def test_a_lower_learning_rate_in_another_workdir(plain, tmp_path):
    config = small(fanogan, plain[0], "nut", calibration=0.3)
    config.gan.num_steps = config.encoding.num_steps = 4
    optimizers = config.gan.critic_optimizer, config.gan.generator_optimizer
    lower = [optimizer.learning_rate for optimizer in optimizers]
    for optimizer in optimizers:
        optimizer.learning_rate = 1e3
    said = raised(commands.train, config, str(tmp_path / "nan"))
    assert "train into another workdir with a lower learning rate" in said
    for optimizer, rate in zip(optimizers, lower, strict=True):
        optimizer.learning_rate = rate
    commands.train(config, str(tmp_path / "another"))
