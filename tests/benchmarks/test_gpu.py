"""What runs on a GPU unseen: within its minutes, whatever fails; with small commands, on a CPU."""

import json
import os
import re
import sys
import time
from pathlib import Path

import pytest
from conftest import make_parts

import commands
from benchmarks import gpu, run
from benchmarks.measurements import Ended, Given, Measurement, Sizes, all_measurements
from configs import fanogan, ssae

ROOT = Path(__file__).parents[2]
COPIES = {64: "/copies/bottle_64px.npz", 256: "/copies/bottle_256px.npz"}


def given(folder, seconds=60.0, **fields):
    return Given(folder, COPIES, "bottle", Sizes(), seconds, ())._replace(**fields)


def measurement(name, command, *, share=0.5, least=0, read=None):
    def number(given, ended):
        yield {
            "result": ended.log.strip(),
            "seconds": -7.0,
        }  # those of the command come to its place

    return Measurement(name, share, least, lambda given: command, read or number)


def shell(text):
    return ["/bin/sh", "-c", text]


def test_what_fails_is_a_row_and_the_rest_is_measured(tmp_path):
    def unable(given):
        raise ValueError("no images")

    def unreadable(given, ended):
        yield {"result": given.rows[-1]["no such number"]}

    all_of_them = [
        measurement("good", shell("echo seven")),
        measurement("ends badly", shell("echo 'error: no device'; echo more; exit 3")),
        measurement("unable", [])._replace(command=unable),
        measurement("unreadable", shell("exit 0"), read=unreadable),
        measurement("silent", shell("exit 0"), read=lambda given, ended: iter(())),
        measurement("missing", ["/no/such/program"]),
        measurement("too long", shell("exit 0"), least=1000),
        measurement("last", shell("echo eight")),
    ]
    written = []
    rows = gpu.measure(all_of_them, given(tmp_path), lambda rows: written.append(len(rows)))
    told = {row["measurement"]: row.get("failed") for row in rows if row.get("failed")}
    assert told["ends badly"] == "exit code 3: error: no device"
    assert told["unable"] == "ValueError: no images"
    assert told["unreadable"] == "KeyError: 'no such number'"
    assert told["silent"] == "it wrote no numbers"
    assert told["missing"].startswith("FileNotFoundError: ")
    assert re.fullmatch(r"left out: \d+ s are left, it needs 1000", told["too long"])
    assert [row["result"] for row in rows if "result" in row] == [
        *("seven", "error: no device\nmore", "eight")
    ]
    assert all(row["seconds"] >= 0 for row in rows)
    assert written == [1, 3, 4, 5, 6, 7, 8, 9]
    log = (tmp_path / "log").read_text()
    assert "$ /bin/sh -c echo seven\nseven\n" in log and log.endswith("eight\n")


def test_a_command_is_stopped_with_all_that_it_started(tmp_path):
    hangs = shell(f"echo begun; sleep 600 & echo $! > {tmp_path}/pid; sleep 600")
    start = time.monotonic()
    (row, failed) = gpu.measured(measurement("hangs", hangs), given(tmp_path, seconds=3.0))
    assert time.monotonic() - start < 60
    assert row["result"] == "begun"  # what it wrote before is kept
    assert re.fullmatch(r"stopped after \d+ s, which were its share", failed["failed"])
    pid = int((tmp_path / "pid").read_text())
    time.sleep(0.1)
    state = Path(f"/proc/{pid}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_each_has_its_share_of_what_is_left(tmp_path):
    seconds = []

    def noted(given):
        seconds.append(given.seconds)
        raise ValueError("noted")  # before time goes by

    shares = ((0.5, 0), (0.5, 40), (0.25, 60))
    each = [measurement("m", [], share=a, least=b)._replace(command=noted) for a, b in shares]
    gpu.measure(each, given(tmp_path, seconds=110.0), len)
    assert seconds == pytest.approx([50, 50, 60], abs=2)  # of 100 left, 10 to end in; 25 < 60


def test_table():
    rows = [
        {"measurement": "a", "seconds": 61.4, "result": "1 | 2"},
        {"measurement": "a", "seconds": 61.4, "failed": "stopped\n"},
        {"measurement": "b", "seconds": 0.0, "result": "3"},
    ]
    assert gpu.table(rows).splitlines()[2:] == [
        *("| a | 1 / 2 | 61 |", "| a | **no**: stopped? |  |", "| b | 3 | 0 |")
    ]


# ---------------------------------------------------------------- the commands, and what they wrote


def named(name):
    return next(each for each in all_measurements() if each.name == name)


def test_trains_as_many_steps_as_fit(tmp_path):
    trained, step = named("trained-bfloat16"), {"measurement": "step-bfloat16"}
    timed = {**step, "seconds": 40.0, "step_seconds": 0.1, "result": "-"}

    def steps(seconds, rows):
        command = trained.command(given(tmp_path, seconds=seconds, rows=rows))
        found = re.search(r"num_steps=(\d+) .*warmup_steps=(\d+)", " ".join(command))
        assert "--config.data.root=/copies/bottle_256px.npz" in command
        return tuple(map(int, found.groups()))

    assert steps(185.0, [timed]) == (900, 45)  # 100 s beside start and evaluation, a tenth less
    assert steps(1e4, [timed]) == (2700, 135)  # of 5 minutes
    assert steps(1e4, [{**timed, "step_seconds": 1e-3}]) == (10_000, 500)  # the config's own
    assert steps(185.0, [{**step, "seconds": 9.0, "failed": "-"}]) == (500, 25)
    with pytest.raises(ValueError, match="80 s are too few for 100 steps"):
        steps(80.0, [timed])
    with pytest.raises(ValueError, match=r"no images of 256 px: .*--pack"):
        trained.command(given(tmp_path, copies={}))


def test_the_commands_name_what_there_is(tmp_path):
    rows = [{"measurement": "recipe", "first_step": 40.0, "seconds": 90.0}]
    for each in all_measurements():
        program, *flags = each.command(given(tmp_path, seconds=500.0, rows=rows))[1:]
        if program == "main.py":
            module = ssae if each.name.startswith("trained") else fanogan
            assert f"--config=configs/{module.__name__.split('.')[1]}.py:bottle" in flags
            for flag in flags:
                if field := re.match(r"--config\.([^=]+)=", flag):
                    assert commands.unknown_field(module.get_config(), field[1]) == ""
        else:
            source = (ROOT / (flags[0].replace(".", "/") + ".py")).read_text()
            for flag in flags[1:]:
                if flag.startswith("--"):
                    assert f'"{flag.partition("=")[0]}"' in source


def test_the_warm_start_needs_a_cold_one(tmp_path):
    with pytest.raises(ValueError, match="recipe took no step"):
        named("start").command(given(tmp_path))


def ended(log="", code=0):
    return Ended(90.0, code, False, log)


def test_a_run_is_read(tmp_path):
    workdir, read = tmp_path / "recipe", named("recipe").read
    assert list(read(given(tmp_path), ended())) == []
    workdir.mkdir()
    lines = [
        *({"stage": "gan", "step": step, "seconds": 10 + step / 50} for step in (20, 40, 60)),
        {"stage": "encoder", "step": 20, "seconds": 3.0},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (workdir / "metrics.jsonl").write_text(text + '{"stage": "enc')
    log = "Stage gan: step 20 done 31.5 s after the program's start."
    (row,) = read(given(tmp_path), ended(log))
    begun = "60 steps of gan at 20.00 ms; 20 steps of encoder; first step after 31.5 s"
    assert row["result"] == begun
    results = {
        "image": {"auroc": 0.9687, "average_precision": 0.5},
        "pixel": {"auroc": 0.9, "average_precision": None, "au_pro": 0.66},
        "devices": ["cpu"],
    }
    (workdir / "results.json").write_text(json.dumps(results))
    (row,) = read(given(tmp_path), ended(log))
    assert row["result"] == f"{begun}; image AUROC 0.969; pixel AUROC 0.900; AU-PRO 0.660"
    assert row["devices"] == ["cpu"] and row["seconds_per_step"]["encoder"] is None


def test_numbers_of_other_benchmarks_are_read(tmp_path):
    speed = {"images_per_second": 16000.0, "flops": 1e12, "roofline_share": 0.125}
    critic = {
        **{"step": "critic", "batch": 32, "ours_seconds": 0.002, **speed},
        **{
            "torch_seconds": 0.005,
            "ratio": 0.4,
            "failed": {"torch_compiled": "not differentiable"},
        },
        **{"torch_channels_last_seconds": 0.004, "ratio_channels_last": 0.5},
    }
    (tmp_path / "steps.json").write_text(json.dumps([critic]))
    (row,) = named("steps").read(given(tmp_path), ended())
    assert row["result"] == (
        "critic, batch 32: 2.00 ms, PyTorch eager 5.00 ms (ratio 0.40), PyTorch channels-last "
        "4.00 ms (ratio 0.50), no PyTorch compiled (not differentiable), 16,000 images/s, "
        "500.00 TFLOP/s, 12.5% of the roofline"
    )
    step = {"size": 256, "batch": 32, "step_seconds": 0.1, "corruption_seconds": 0.004}
    step |= {"share": 0.04, "memory_bytes": 2.5e10, **speed, "roofline_share": None}
    (tmp_path / "step_float32.json").write_text(json.dumps(step))
    (row,) = named("step-float32").read(given(tmp_path), ended())
    assert row["result"] == (
        "256 px, batch 32: 100.00 ms, corruption 4.00 ms, 4.0% of the step, 16,000 images/s, "
        "10.00 TFLOP/s, peak unknown, 25.0 GB"
    )
    scored = {"network": "ssae:bfloat16", "size": 256, "batch": 64, "images_per_second": 1234.5}
    (tmp_path / "scoring.json").write_text(json.dumps([scored]))
    (row,) = named("scoring").read(given(tmp_path), ended())
    assert row["result"] == "ssae:bfloat16, 256 px, batch 64: 1,234 images/s"


def test_cut_numbers_are_told(tmp_path):
    (tmp_path / "steps.json").write_text('[{"step": ')
    cut = named("steps")._replace(command=lambda given: ["true"])
    (row,) = gpu.measured(cut, given(tmp_path))
    assert row["failed"].startswith("JSONDecodeError: ")
    (tmp_path / "steps.json").write_text('[{"step": "critic", "batch": 32, "ours_seconds": NaN}]')
    (row,) = gpu.measured(cut, given(tmp_path))
    assert row["failed"].startswith("TypeError: ")
    json.dumps(row, allow_nan=False)


# ---------------------------------------------------------------- the program


def program(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["gpu", *map(str, flags)])
    gpu.main()


def test_packs_and_measures(tmp_path, monkeypatch, capsys):
    root = make_parts(tmp_path / "parts")
    program(monkeypatch, f"--pack={tmp_path}", f"--root={root}", "--category=nut")
    assert capsys.readouterr().out == f"decoded images: {tmp_path}/decoded\n"
    category, copies = gpu.copies_of(f"{tmp_path}/decoded/*.npz")
    assert category == "nut"
    assert copies == {side: f"{tmp_path}/decoded/nut_{side}px.npz" for side in (64, 256)}
    # The only one that needs no command to say that it cannot be measured.
    monkeypatch.setattr(run, "environment", lambda folder: os.environ)
    data, file = f"--data={tmp_path}/decoded/*.npz", tmp_path / "numbers.json"
    program(monkeypatch, data, "--minutes=1", f"--json={file}", "--only", "start")
    written = json.loads(file.read_text())
    assert written["category"] == "nut" and written["versions"]["jax"]
    (row,) = written["rows"]
    assert row["failed"] == "ValueError: recipe took no step, so nothing of it is compiled"
    assert capsys.readouterr().out.splitlines()[-1].startswith("| start | **no**: ")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ([], "give --data, or --pack and --root"),
        (["--pack=F"], "give --data, or --pack and --root"),
        (["--data=/no/such/*.npz"], "--data=/no/such/*.npz finds no file: .*--pack"),
        (["--data=pyproject.toml"], "pyproject.toml holds no decoded images"),
        (["--data=x", "--minutes=-1"], "--minutes=-1.0 must be a positive number"),
        (["--data=x", "--minutes=nan"], "--minutes=nan must be a positive number"),
        (["--pack=/tmp/none", "--root=/no/such"], "/no/such"),
    ],
)
def test_wrong_flags_are_told_in_one_line(flags, told, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit, match=told.replace("*.npz f", r"\*\.npz f")) as error:
        program(monkeypatch, *flags)
    assert "\n" not in str(error.value)


def test_two_categories_are_refused(tmp_path):
    for name in ("nut", "bolt"):
        root = make_parts(tmp_path / name)
        os.rename(root / "nut", root / name)
        gpu.load_splits(name, root, 16, data_dir=tmp_path)
    with pytest.raises(ValueError, match="finds several categories: bolt, nut"):
        gpu.copies_of(f"{tmp_path}/decoded/*.npz")
