"""The program as a user runs it, on small data: what it writes, and what it says of bad input."""

import csv
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import forks
import numpy as np
import pytest
from conftest import QUICK
from ml_collections import ConfigDict
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

ROOT = Path(__file__).parents[2]
SMALL = [
    "--config.data.image_size=16",
    "--config.latent=8",
    "--config.generator.features=(8,8,4)",
    "--config.critic.features=(4,8)",
    "--config.encoder.features=(4,8)",
    "--config.gan.batch_size=8",
    "--config.gan.n_critic=2",
    "--config.gan.num_steps=30",
    "--config.encoding.batch_size=8",
    "--config.encoding.num_steps=60",
    "--config.every.log=10",
    "--config.every.save=20",
    "--config.every.pictures=30",
]


def program(*arguments, **environment):
    """Runs main.py on one CPU device; its exit code, output and errors.

    In the usual environment it is a fork of a process that has imported it: see forks.py.
    """
    usual = {**os.environ, "XLA_FLAGS": QUICK}
    if not environment and sys.platform == "linux":
        usual.pop("PYTEST_CURRENT_TEST", None)  # another in every test
        return forks.run(arguments, usual)
    merged = {name: value for name, value in {**usual, **environment}.items() if value is not None}
    command = [sys.executable, "main.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=merged)


def fails(*arguments):
    """The one line that the program ends with, after which nothing may be said."""
    done = program(*arguments)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: "), done.stderr
    return last


def picture(rng, bright=None):
    """A grey disc with some noise; a defect is a bright square."""
    y, x = np.mgrid[-1:1:20j, -1:1:20j]
    pixels = np.where(x**2 + y**2 < 0.6, 150.0, 60.0)[..., None] + rng.normal(0, 4, (20, 20, 3))
    if bright:
        pixels[bright : bright + 6, 7:13] = 255
    return np.clip(pixels, 0, 255).astype(np.uint8)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Twenty good parts to train on; six good and six defective ones to test."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for index in range(20):
        save(folder / f"part/train/good/{index:03}.png", picture(rng))
    for index in range(6):
        save(folder / f"part/test/good/{index:03}.png", picture(rng))
        save(folder / f"part/test/square/{index:03}.png", picture(rng, bright=4 + index))
        mask = np.zeros((20, 20), np.uint8)
        mask[4 + index : 10 + index, 7:13] = 255
        save(folder / f"part/ground_truth/square/{index:03}_mask.png", mask)
    return folder


def arguments(root, workdir, *others):
    return [
        "--config=configs/fanogan.py:part",
        f"--config.data.root={root}",
        f"--config.data.prepared={root}/../prepared",
        f"--workdir={workdir}",
        *SMALL,
        *others,
    ]


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory):
    """The workdir of a finished run, and what the program printed."""
    workdir = tmp_path_factory.mktemp("run") / "w"
    done = program(*arguments(root, workdir), XLA_FLAGS=QUICK)  # a process of its own
    assert done.returncode == 0, done.stderr
    return workdir, done


def read_scores(workdir):
    with open(workdir / "scores.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_results_have_what_is_promised(finished):
    workdir, done = finished
    results = json.loads((workdir / "results.json").read_text())
    assert results["method"] == "f-AnoGAN" and results["category"] == "part"
    assert results["counts"] == {
        "train": 18,
        "calibration": 2,
        "test_good": 6,
        "test_defective": 6,
    }
    assert set(results["image"]) == {"auroc", "average_precision", "prevalence"}
    assert set(results["image_terms"]) == {"A_R", "A_D"}
    assert results["per_defect"]["square"]["count"] == 6
    assert {"auroc", "average_precision", "au_pro"} <= set(results["pixel"])
    assert results["pixel"]["resolution"] == "256 x 256"
    assert results["steps"] == {"gan": 30, "encoder": 60}
    assert all(seconds > 0 for seconds in results["seconds"].values())
    assert results["versions"]["jax"] and len(results["devices"]) == 1
    assert f"image AUROC {results['image']['auroc']:.3f}" in done.stdout


def test_the_bright_square_is_found(finished):
    results = json.loads((finished[0] / "results.json").read_text())
    assert results["image"]["auroc"] > 0.9
    assert results["pixel"]["auroc"] > 0.8


def test_metrics_recomputed_from_the_scores(finished):
    """By scikit-learn, from scores.csv alone."""
    workdir, _ = finished
    results = json.loads((workdir / "results.json").read_text())
    rows = read_scores(workdir)
    assert list(rows[0]) == ["path", "defect", "label", "score", "A_D", "A_R"]
    assert len(rows) == 12 and rows[-1]["path"] == "test/square/005.png"
    labels = [int(row["label"]) for row in rows]
    assert labels == [int(row["defect"] != "good") for row in rows]
    for column, metrics in [
        ("score", results["image"]),
        ("A_R", results["image_terms"]["A_R"]),
        ("A_D", results["image_terms"]["A_D"]),
    ]:
        scores = [float(row[column]) for row in rows]
        assert metrics["auroc"] == pytest.approx(roc_auc_score(labels, scores))
        expected = average_precision_score(labels, scores)
        assert metrics["average_precision"] == pytest.approx(expected)
    for row in rows:
        total = float(row["A_R"]) + float(row["A_D"])
        assert float(row["score"]) == pytest.approx(total, rel=1e-5)


def test_the_workdir_holds_what_is_promised(finished):
    workdir, _ = finished
    for name in (
        "config.json",
        "metrics.jsonl",
        "report/index.html",
        "report/roc.png",
        "report/precision_recall.png",
        "report/histogram.png",
        "report/training_curves.png",
        "report/defect_good.png",
        "report/defect_square.png",
        "pictures/gan/samples_0000030.png",
        "pictures/encoder/reconstructions_0000060.png",
        "checkpoints/gan/30",
        "checkpoints/encoder/60",
    ):
        assert (workdir / name).exists(), name
    assert list((workdir / "tensorboard" / "gan").iterdir())
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert {"wasserstein", "gradient_penalty", "critic_loss", "generator_loss"} <= set(lines[0])
    assert lines[0]["steps_per_second"] > 0


def test_evaluate_gives_the_same_scores_from_the_workdir_alone(finished, tmp_path):
    workdir, _ = finished
    copy = tmp_path / "w"
    shutil.copytree(workdir, copy)
    for name in ("results.json", "scores.csv"):
        (copy / name).unlink()
    shutil.rmtree(copy / "report")
    done = program("--mode=evaluate", f"--workdir={copy}")
    assert done.returncode == 0, done.stderr
    assert (copy / "scores.csv").read_bytes() == (workdir / "scores.csv").read_bytes()
    assert (copy / "report" / "index.html").exists()


def test_the_same_command_again_trains_no_more(finished, root):
    workdir, _ = finished
    before = (workdir / "metrics.jsonl").read_bytes()
    done = program(*arguments(root, workdir))
    assert done.returncode == 0, done.stderr
    assert (workdir / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_killed_and_started_again_ends_with_the_same_bits(finished, root, tmp_path):
    """kill -9 within the first stage, then the same command."""
    workdir = tmp_path / "w"
    log, environment = workdir / "metrics.jsonl", {**os.environ, "XLA_FLAGS": QUICK}
    command = [sys.executable, "main.py", *map(str, arguments(root, workdir))]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as running:
        while running.poll() is None and not (log.exists() and '"step": 20' in log.read_text()):
            time.sleep(0.01)
        running.kill()
    assert running.returncode == -signal.SIGKILL
    done = program(*arguments(root, workdir))
    assert done.returncode == 0, done.stderr
    assert (workdir / "scores.csv").read_bytes() == (finished[0] / "scores.csv").read_bytes()
    both = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["step"] for line in both] == [10, 20, 30, 10, 20, 30, 40, 50, 60]


@pytest.mark.parametrize("prepared", ["found", "made"])
@pytest.mark.slow
def test_a_run_needs_no_tensorflow(finished, root, tmp_path, prepared):
    """It cannot even be imported, whether the decoded copy is there or not; the same bits."""
    for name in ("tensorflow", "tensorflow_datasets"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('blocked by a test')")
    blocked = {"PYTHONPATH": str(tmp_path)}
    others = [f"--config.data.prepared={tmp_path}/none"] if prepared == "made" else []
    done = program(*arguments(root, tmp_path / "w", *others), **blocked)
    assert done.returncode == 0, done.stderr
    scores = (tmp_path / "w" / "scores.csv").read_bytes()
    assert scores == (finished[0] / "scores.csv").read_bytes()
    if prepared == "made":
        return
    done = program(*arguments(root, tmp_path / "w2", "--config.data.resident=False"), **blocked)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert "TensorFlow is needed to stream batches" in last and "blocked by a test" in last


def test_a_run_from_the_decoded_copy_alone(finished, root, tmp_path):
    """Where the images are not at hand; the same program, so the same bits."""
    copy = root.parent / "prepared" / "decoded" / "part_16px.npz"
    done = program(*arguments(copy, tmp_path / "w", f"--config.data.prepared={tmp_path}/none"))
    assert done.returncode == 0, done.stderr
    scores = (tmp_path / "w" / "scores.csv").read_bytes()
    assert scores == (finished[0] / "scores.csv").read_bytes()


@pytest.mark.slow
def test_a_streamed_run_ends_with_the_bits_of_a_resident_one(root, tmp_path):
    """Two programs, which agree to the bit as XLA compiles them for users."""
    workdirs = [tmp_path / "streamed", tmp_path / "resident"]
    for workdir in workdirs:
        held = f"--config.data.resident={workdir.name == 'resident'}"
        done = program(*arguments(root, workdir, held), XLA_FLAGS="")
        assert done.returncode == 0, done.stderr
    one, other = ((workdir / "scores.csv").read_bytes() for workdir in workdirs)
    assert one == other
    streamed, resident = (
        json.loads((workdir / "metrics.jsonl").read_text().splitlines()[0]) for workdir in workdirs
    )
    for name in ("step", "critic_loss", "generator_loss", "wasserstein"):
        assert streamed[name] == resident[name], name


def test_the_first_steps_time_is_told(finished):
    assert re.search(r"Stage gan: step 1 done \d+\.\d s after", finished[1].stderr)


@pytest.mark.slow
def test_anogan_takes_the_gan_of_a_finished_workdir(finished, root, tmp_path):
    """Nothing is trained; the refusal of another GAN leaves the workdir free."""
    networks = [flag for flag in SMALL if "encod" not in flag]
    command = [
        "--config=configs/anogan.py:part",
        *arguments(root, tmp_path / "w")[1:4],
        *networks,
        "--config.score.num_steps=3",
        f"--reuse={finished[0]}",
    ]
    line = fails(*command, "--config.gan.n_critic=3")
    assert "gan.n_critic: 2 -> 3" in line
    done = program(*command)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "w" / "results.json").read_text())
    assert results["method"] == "AnoGAN" and set(results["image_terms"]) == {"R", "D"}
    assert results["steps"] == {} and results["seconds_per_image"] > 0
    assert (tmp_path / "w/checkpoints/gan/30").exists()


@pytest.mark.promise("R7", "another config in a workdir: refused, with the differing fields")
def test_another_experiment_is_refused(finished, root):
    line = fails(*arguments(root, finished[0], "--config.latent=9", "--config.seed=1"))
    assert "latent: 8 -> 9" in line and "seed: 0 -> 1" in line


def test_unknown_category(root, tmp_path):
    line = fails(
        "--config=configs/fanogan.py:botle", f"--config.data.root={root}", f"--workdir={tmp_path}"
    )
    assert "'botle'" in line and "metal_nut" in line


def test_missing_data_says_where_to_get_it(tmp_path):
    line = fails(
        "--config=configs/fanogan.py:bottle",
        f"--config.data.root={tmp_path}/none",
        f"--workdir={tmp_path}/w",
    )
    assert f"{tmp_path}/none/bottle" in line
    assert "mvtec.com" in line and "CC BY-NC-SA 4.0" in line and ":demo" in line


def test_misspelt_key_and_missing_flags(tmp_path):
    line = fails("--config=configs/fanogan.py", "--config.gan.n_critik=3", f"--workdir={tmp_path}")
    assert line == (
        "error: --config.gan.n_critik: there is no such field: did you mean gan.n_critic?"
    )
    assert "'x'" in fails("--config=configs/fanogan.py", "--config.seed=x", f"--workdir={tmp_path}")
    glob = ("--mode=predict", f"--workdir={tmp_path}", "--images=main.py", "README.md", "docs")
    assert "has put 3 files in the place of a pattern: put it in quotes" in fails(*glob)
    assert "unexpected argument 'x'" in fails(f"--workdir={tmp_path}", "x")
    assert "configs/nope.py" in fails("--config=configs/nope.py", f"--workdir={tmp_path}")
    done = program("--config=configs/fanogan.py")
    assert done.returncode != 0 and "--workdir" in done.stderr
    assert "config.json does not exist" in fails(f"--workdir={tmp_path}/none")


def test_help_explains_every_flag():
    done = program("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for flag in ("--config", "--workdir", "--mode", "--workdirs", "--reuse"):
        assert flag in done.stdout


@pytest.mark.parametrize("platform", ["cuda", "nonsense"])
def test_a_device_that_is_not_there(tmp_path, platform):
    arguments = ("--config=configs/fanogan.py:demo", f"--workdir={tmp_path}/w")
    done = program(*arguments, JAX_PLATFORMS=platform)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith(f"error: JAX finds no device of JAX_PLATFORMS={platform} here")


def test_misspelt_function(root, tmp_path):
    line = fails(*arguments(root, tmp_path, "--config.gan.critic_loss.fn=fanogan_jax.losses:critc"))
    assert "fanogan_jax.losses:critc" in line
    assert not (tmp_path / "config.json").exists()  # the corrected command is not refused


def test_batch_that_does_not_divide_leaves_the_workdir_free(root, tmp_path):
    devices = f"--xla_force_host_platform_device_count=8 {QUICK}"
    command = arguments(root, tmp_path, "--config.encoding.batch_size=10")
    done = program(*command, XLA_FLAGS=devices)
    assert done.returncode == 1
    assert "error: batch 10 does not divide over 8 devices" in done.stderr
    assert not (tmp_path / "config.json").exists()


def test_corrupt_image_is_named(root, tmp_path):
    broken = tmp_path / "images"
    shutil.copytree(root / "part", broken / "part")
    path = broken / "part/train/good/003.png"
    path.write_bytes(path.read_bytes()[:200])
    line = fails(*arguments(broken, tmp_path / "w"))
    assert str(path) in line and "truncated" in line


def test_workdir_that_is_a_file(root, tmp_path):
    (tmp_path / "w").write_text("")
    assert str(tmp_path / "w") in fails(*arguments(root, tmp_path / "w"))


@pytest.mark.parametrize("name", ["fanogan", "fanogan_resnet", "anogan", "ae", "ae_l2", "ae_ssim"])
@pytest.mark.parametrize("category", ["bottle", "carpet", "demo"])
def test_configs_survive_json(name, category):
    config = importlib.import_module(f"configs.{name}").get_config(category)
    assert config.data.category == category
    again = ConfigDict(json.loads(json.dumps(config.to_dict())))
    assert json.loads(json.dumps(again.to_dict())) == json.loads(json.dumps(config.to_dict()))


def example_of_the_page(number, page="docs/research/own.md"):
    """The page, and an example of it, as they stand."""
    text = (ROOT / page).read_text()
    return text, text.split("```python\n")[number].split("```")[0]


def test_the_loss_of_the_page_trains(root, tmp_path):
    section, example = example_of_the_page(1)
    assert len(example.strip().splitlines()) <= 12
    name = "my_loss:izi_l1"
    assert f"--config.encoding.loss.fn={name}" in section
    (tmp_path / "my_loss.py").write_text(example)
    few = ("--config.gan.num_steps=1", "--config.encoding.num_steps=20")
    command = arguments(root, tmp_path / "w", *few, f"--config.encoding.loss.fn={name}")
    done = program(*command, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "w/metrics.jsonl").read_text().splitlines()]
    losses = [line["encoder_loss"] for line in lines if line["stage"] == "encoder"]
    assert losses[-1] < losses[0]


def test_the_metric_of_the_page_is_shown(finished, tmp_path):
    section, example = example_of_the_page(3)
    assert len(example.strip().splitlines()) <= 12
    name = "my_metrics:recall_at_no_false_alarm"
    assert f"`--config.evaluation.metrics={name}`" in section
    (tmp_path / "my_metrics.py").write_text(example)
    workdir = shutil.copytree(finished[0], tmp_path / "w")
    command = ["--mode=evaluate", f"--workdir={workdir}", f"--config.evaluation.metrics={name}"]
    done = program(*command, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    rows = read_scores(workdir)
    highest = max(float(row["score"]) for row in rows if row["label"] == "0")
    found = [float(row["score"]) > highest for row in rows if row["label"] == "1"]
    own = json.loads((workdir / "results.json").read_text())["own"]
    assert own == {"recall_at_no_false_alarm": pytest.approx(np.mean(found))}
    assert f"recall at no false alarm {np.mean(found):.3f}" in done.stdout


def test_a_metric_that_is_not_there_is_refused_before_training(root, tmp_path):
    line = fails(*arguments(root, tmp_path / "w", "--config.evaluation.metrics=my_metrics:f"))
    assert line.startswith("error: evaluation.metrics: fn='my_metrics:f' names nothing")
    assert not (tmp_path / "w" / "config.json").exists()
