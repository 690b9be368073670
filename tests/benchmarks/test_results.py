"""The table of results: which runs are missing, what is said of each, and that no run is lost."""

import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import make_parts, shrink

from benchmarks import results, results_tables
from configs import ae
from engine.workdir import hold
from report.page import Spread, to_markdown

ROOT = Path(__file__).parents[2]


def own_config(path, config):
    """A config file of one's own that gives `config`, as JSON has it."""
    path.write_text(
        "import json\nfrom ml_collections import ConfigDict\n"
        f"def get_config(category):\n    return ConfigDict(json.loads({json.dumps(config)!r}))\n"
    )
    return str(path)


def test_first_seeds_come_first():
    cells = results.cells_of(["fanogan", "ae"], ["bottle", "grid"], [0, 1])
    assert [(Path(c.config).stem, c.category, c.seed) for c in cells[:5]] == [
        *(("fanogan", "bottle", 0), ("fanogan", "grid", 0)),
        *(("ae", "bottle", 0), ("ae", "grid", 0), ("fanogan", "bottle", 1)),
    ]


@pytest.mark.parametrize(
    ("configs", "words"),
    [(["fanogan", "none"], "none.py is no file"), (["ae", "ae"], "twice"), ([], "name one")],
)
def test_what_is_no_table_is_said(configs, words):
    with pytest.raises(ValueError, match=words):
        results.cells_of(configs, ["bottle"], [0])


@pytest.fixture
def cell(trained, tmp_path):
    """A finished run of the table below tmp_path/out, in a workdir that a test may change."""
    config = json.loads((Path(trained[1]) / "config.json").read_text())
    (cell,) = results.cells_of([own_config(tmp_path / "own.py", config)], ["nut"], [0])
    shutil.copytree(trained[1], cell.workdir(str(tmp_path / "out")))
    return cell


@pytest.mark.slow
def test_the_state_of_a_run_is_said(cell, trained, tmp_path):
    root, output = str(trained[0]), str(tmp_path / "out")
    workdir = Path(cell.workdir(output))
    assert workdir == tmp_path / "out" / "own" / "nut" / "seed0"

    def state():
        return results.state_of(cell, root, output)

    assert state() == "finished"
    with hold(str(workdir)):
        assert state().startswith("in use by process ")
    (workdir / "results.json").rename(tmp_path / "results.json")
    assert state() == "stopped before it was evaluated"
    (workdir / "checkpoints/autoencoder/2").rename(workdir / "checkpoints/autoencoder/1")
    assert state() == "stopped at autoencoder step 1 of 2"
    Path(f"{workdir}.jsonl").write_text('{"error": ""}\n{"error": "the disk is full"}\n{"er')
    assert state() == "failed at autoencoder step 1 of 2: the disk is full"
    config = json.loads((workdir / "config.json").read_text())
    config["training"]["batch_size"] = 4
    (workdir / "config.json").write_text(json.dumps(config))
    assert "holds another experiment (training.batch_size: 4 -> 8)" in state()
    shutil.rmtree(workdir)
    assert state() == "failed: the disk is full"
    Path(f"{workdir}.jsonl").unlink()
    assert state() == "not run"


def finished(config, category, seed, auroc, wrong=0):
    rate = {"count": 10, "wrong": wrong}
    return {
        **{"config": config, "category": category, "seed": seed, "state": "finished"},
        "image": {"auroc": auroc, "average_precision": 0.5},
        "pixel": {"auroc": auroc / 2, "average_precision": None, "au_pro": 0.25},
        "at_threshold": {"good": rate, "dent": rate, "chip": {"count": 5, "wrong": 1}},
        "seconds": {"autoencoder": 60.0 * (seed + 1)},
        "sessions": [{"commit": "abc", "hardware": "cpu", "date": f"2026-11-2{seed}T01:00"}],
    }


def test_the_tables_hold_means_and_what_is_missing():
    aurocs = [0.9, 0.8, 0.95]
    stopped = {"config": "ae", "category": "nut", "seed": 1, "sessions": []}
    stopped["state"] = "failed at autoencoder step 1 of 2: no | space"
    runs = [finished("restorer", "nut", seed, auroc, 1) for seed, auroc in enumerate(aurocs)]
    runs += [finished("ae", "nut", 0, 0.5), stopped, finished("restorer", "bolt", 0, 0.7)]
    about = {"commit": "abc", "hardware": "cpu", "date": "2026-11-28", "command": "c"}
    tables = results_tables.tables_of({"runs": runs, **about})
    nut, bolt, means, missing, where = tables
    mean, std = statistics.mean(aurocs), statistics.stdev(aurocs)
    (_, seeds, image, _, pixel, absent, _, good, missed, minutes), ae_row = nut.rows
    assert image == Spread(pytest.approx(mean), pytest.approx(std))
    assert pixel == Spread(pytest.approx(mean / 2), pytest.approx(std / 2)) and absent is None
    assert (seeds, good, missed, minutes) == (["0", "1", "2"], "3 of 30", "6 of 45", "1 to 3")
    assert ae_row[1] == ["0", "1: failed"] and ae_row[2] == 0.5 and ae_row[-1] == "1"
    assert bolt.rows[0][2] == 0.7
    assert means.rows[0][:3] == ["restorer", ["nut", "bolt"], pytest.approx((mean + 0.7) / 2)]
    assert means.rows[1][:3] == ["ae", ["nut"], 0.5]
    assert missing.rows == [["ae", "nut", 1, stopped["state"]]]
    assert where.rows[1][:3] == ["5 sessions of training", "abc", "cpu"]
    assert where.rows[1][3] == "2026-11-20 to 2026-11-22"
    assert "no \\| space" in to_markdown(missing)


def test_pages_hold_the_tables_of_the_files_beside_them():
    """README.md and docs/results.md have what `python -m benchmarks.results_tables` prints."""
    files = [ROOT / "docs" / name for name in ("results.json", "results_demo.json")]
    contents = [json.loads(path.read_text()) for path in files]
    overview = results_tables.body(results_tables.overview(contents[0]))
    assert overview in (ROOT / "README.md").read_text()
    page = (ROOT / "docs/results.md").read_text()
    for content in contents:
        for table in results_tables.tables_of(content)[:-2]:  # without what is of the run alone
            assert results_tables.body(table) in page, table.title


def command(config, root, output, *flags, seeds="0"):
    return [
        *(sys.executable, "-m", "benchmarks.results", f"--configs={config}", f"--root={root}"),
        *("--categories=nut", f"--output={output}", f"--seeds={seeds}", *flags),
    ]


def small(root, num_steps):
    config = shrink(ae.get_config("nut"))
    config.data.update(prepared=str(root / "prepared"), calibration=0.3)
    config.training.num_steps = num_steps
    return json.loads(config.to_json())


def written(output):
    content = json.loads((output / "results.json").read_text())
    return [(run["seed"], run["state"], len(run["sessions"])) for run in content["runs"]]


@pytest.mark.slow
def test_two_commands_share_a_table_and_a_third_finds_nothing_to_do(tmp_path):
    root, output = make_parts(tmp_path / "parts"), tmp_path / "out"
    config = own_config(tmp_path / "own.py", small(root, 2))
    both = command(config, root, output, seeds="0,1")
    subprocess.run([*both, "--minutes=0"], check=True, cwd=ROOT)
    assert written(output) == [(0, "not run", 0), (1, "not run", 0)]
    processes = [subprocess.Popen(both, cwd=ROOT) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    workdirs = [output / f"own/nut/seed{seed}" for seed in (0, 1)]
    sessions = [results.read_sessions(str(workdir)) for workdir in workdirs]
    subprocess.run(both, check=True, cwd=ROOT)
    finished = [(seed, "finished", len(each)) for seed, each in enumerate(sessions)]
    assert written(output) == finished  # without a session more
    for workdir, each in zip(workdirs, sessions, strict=True):
        codes = [session["exit_code"] for session in each]
        # Who came to a held workdir was sent away; who came just after found it trained.
        assert 0 in codes and set(codes) <= {0, 1}
        lines = (workdir / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == [1, 2]
    assert (output / "compare.html").exists()


@pytest.mark.long
def test_time_that_is_up_leaves_a_run_that_goes_on(tmp_path):
    root, output = make_parts(tmp_path / "parts"), tmp_path / "out"
    config = own_config(tmp_path / "own.py", small(root, 10**6))
    subprocess.run([*command(config, root, output), "--minutes=0.5"], check=True, cwd=ROOT)
    ((_, state, sessions),) = written(output)
    assert state.startswith("stopped at autoencoder step ") and sessions == 1
    assert "of 1,000,000" in (output / "results.md").read_text()


def test_errors_are_one_line(tmp_path):
    done = subprocess.run(
        command("none", tmp_path, tmp_path / "out"), cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: ") and "is no file" in done.stderr
