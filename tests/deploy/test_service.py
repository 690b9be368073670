"""The service: answers as predict's, refusals, the journal after a kill, the page in a browser."""

import csv
import importlib.util
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from conftest import QUICK, make_parts, shrink
from PIL import Image

import commands
from commands.serve import served_workdir
from configs import contrario
from deploy import forms, journal
from deploy.line import Line
from deploy.served import model_digest, read_export
from evaluation import drift

pytest.importorskip("fastapi", reason="requirements-serve.txt is not installed")
from fastapi.testclient import TestClient

from deploy.limits import limited
from deploy.service import Gauges, application

ROOT = Path(__file__).parents[2]
SIZES = (1, 4)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# TestClient's streams are closed by the collector, and httpx warns of its own future.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The root of a small category, and the workdir of a run on it that needs no gradient."""
    root = make_parts(tmp_path_factory.mktemp("parts"))
    config = shrink(contrario.get_config("nut"))
    config.data.update(root=str(root), prepared=str(root / "prepared"), calibration=0.3)
    commands.train(config, str(root / "run"))
    return root, str(root / "run")


@pytest.fixture(scope="module")
def photos(trained):
    """The test images of the small run."""
    return sorted((trained[0] / "nut/test").rglob("*.png"))


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """The small run as an export, without ONNX, which is not needed here."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forms, "write_onnx", lambda *args, **kwargs: "not asked for")
        commands.export(trained[1], folder)
    return folder


@pytest.fixture(scope="module")
def predicted(trained, photos, tmp_path_factory):
    """predict's rows by file."""
    output = tmp_path_factory.mktemp("predicted") / "out"
    commands.predict(trained[1], str(trained[0] / "nut/test"), output)
    lines = (output / "predictions.jsonl").read_text().splitlines()
    return {row["path"]: row for row in map(json.loads, lines)}


@pytest.fixture(scope="module")
def model(exported):
    return read_export(str(exported))


@contextmanager
def serving(model, book=None, *, body=2**20, waiting=16):
    """A client of the service in this process."""
    gauges = Gauges(lambda: line.admitted)
    line = Line(
        model, book, sizes=SIZES, waiting=waiting, seen=lambda parts, watch: gauges.batch(parts)
    )
    assert line.ready.wait(60)
    app = limited(application(line, gauges), body=body)
    with TestClient(app) as client:
        client.line = line
        yield client


@pytest.fixture(scope="module")
def client(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("journal")
    book = journal.Journal(str(folder), model.threshold, model_digest(model), "all")
    with serving(model, book) as client:
        client.folder = folder
        yield client


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def post(client, data, query="", kind="image/png"):
    return client.post(f"/score{query}", content=data, headers={"content-type": kind})


def as_predicted(content, row):
    assert content["decision"] == row["decision"]
    assert content["score"] == pytest.approx(row["score"], rel=1e-4)
    assert content["p_value"] == row["p_value"] and content["threshold"] == row["threshold"]
    area = content["region"]["area"] if content["region"] else None
    assert area == row["region_area"]
    assert content["brightness"] == row["brightness"]


def test_answers_are_predicts(client, photos, predicted):
    """One by one as bodies, and all together as files of a form."""
    for path in photos[:3]:
        answer = post(client, path.read_bytes(), f"?name={path.name}")
        assert answer.status_code == 200, answer.text
        as_predicted(answer.json(), predicted[str(path)])
        assert answer.json()["path"] == path.name
    files = [("images", (path.name, path.read_bytes(), "image/png")) for path in photos]
    parts = client.post("/score", files=files).json()["parts"]
    for part, path in zip(parts, photos, strict=True):
        as_predicted(part, predicted[str(path)])
    assert {part["decision"] for part in parts} == {"good", "defective"}


def test_a_workdir_decides_as_its_export(trained, photos, predicted):
    with serving(served_workdir(trained[1])) as client:
        as_predicted(post(client, photos[0].read_bytes()).json(), predicted[str(photos[0])])
        assert "image AUROC" in client.get("/model").json()["card"]


def test_pictures(client, photos):
    path = next(path for path in photos if "dent" in str(path))
    content = post(client, path.read_bytes(), "?maps=photo,overlay,heat,mask").json()
    pictures = content["pictures"]
    for name in ("overlay", "heat", "mask"):
        with urllib.request.urlopen(pictures[name]) as file:
            picture = np.asarray(Image.open(io.BytesIO(file.read())))
        assert picture.shape[:2] == (content["height"], content["width"])
    assert picture.sum() == (content["region"] or {"area": 0})["area"] or picture.any()
    assert pictures["photo"].startswith("data:image/jpeg")
    assert post(client, path.read_bytes(), "?maps=nude").status_code == 400


@pytest.mark.parametrize(
    ("data", "kind", "status", "reason"),
    [
        (b"", "image/png", 400, "no image"),
        (b"no image", "image/png", 422, "not a readable"),
        (b"no image", "", 422, "not a readable"),
        (png(np.zeros((7, 30, 3), np.uint8)), "image/png", 422, "too small"),
        (png(np.zeros((30, 30, 3), np.uint8))[:-12], "image/png", 422, "no IEND"),
        (b"{}", "application/json", 415, "application/json is no image"),
        (b"a=b", "application/x-www-form-urlencoded", 415, "is no image"),
        (b"--x\r\nbroken", "multipart/form-data; boundary=x", 400, ""),
        (b"--x--\r\n", "multipart/form-data; boundary=x", 400, "holds no file"),
        (b"x", "multipart/form-data", 400, "boundary"),
        (b"x" * (2**20 + 1), "image/png", 413, "1,048,576 bytes at most"),
    ],
)
def test_refusals(client, data, kind, status, reason):
    answer = post(client, data, kind=kind)
    assert answer.status_code == status
    assert reason in answer.json()["detail"]
    assert client.get("/health").status_code == 200


def test_a_large_body_without_a_length_is_refused(client):
    answer = client.post("/score", content=(b"x" * 2**16 for _ in range(20)))
    assert answer.status_code == 413


def test_pages_of_other_sites_may_not_ask(client, photos):
    headers = {"sec-fetch-site": "cross-site", "content-type": "image/png"}
    answer = client.post("/score", content=photos[0].read_bytes(), headers=headers)
    assert answer.status_code == 403


def test_the_refusals_are_predicts(client, trained, tmp_path):
    """The same reason for the same file."""
    bad = {"text.png": b"no image", "small.png": png(np.zeros((3, 9, 3), np.uint8))}
    for name, data in bad.items():
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    assert commands.predict(trained[1], str(tmp_path / "in"), tmp_path / "out") == len(bad)
    with open(tmp_path / "out/predictions.csv", encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            answer = post(client, bad[Path(row["path"]).name])
            assert answer.status_code == 422 and answer.json()["detail"] == row["reason"]


def test_a_bad_image_never_affects_its_neighbours(client, photos, predicted):
    good, hostile = photos[0], "../../../etc/\u202epasswd\n.png"
    files = [
        ("images", (hostile, b"no image", "image/png")),
        ("images", (good.name, good.read_bytes(), "image/png")),
        ("images", ("x" * 500 + ".png", b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "image/png")),
    ]
    answer = client.post("/score", files=files)
    assert answer.status_code == 200
    first, second, third = answer.json()["parts"]
    assert first["decision"] == third["decision"] == "unreadable" and third["reason"]
    as_predicted(second, predicted[str(good)])
    assert all(path.parent == client.folder / "images" for path in client.folder.rglob("0*.*"))


def test_what_is_full_says_when_to_come_again(model, photos):
    with serving(model, waiting=2) as client:
        with client.line.admission(2):
            answer = post(client, photos[0].read_bytes())
            assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
            assert "2 photos are waiting" in answer.json()["detail"]
        assert post(client, photos[0].read_bytes()).status_code == 200
        assert client.line.admitted == 0


def test_a_full_disk_is_said_and_nothing_is_acknowledged(model, photos, tmp_path, monkeypatch):
    book = journal.Journal(str(tmp_path), model.threshold, model_digest(model), "none")
    with serving(model, book) as client:
        real = os.fsync
        monkeypatch.setattr(
            os, "fsync", lambda file: (_ for _ in ()).throw(OSError(28, "No space"))
        )
        assert "No space" in post(client, photos[0].read_bytes()).json()["detail"]
        monkeypatch.setattr(os, "fsync", real)
        assert post(client, photos[0].read_bytes()).json()["part"] == 1
    assert [row["part"] for row in lines_of(tmp_path)] == [1]


def test_what_is_seen_of_the_line(client, photos):
    count = client.line.watch.parts
    post(client, photos[0].read_bytes())
    content = client.get(f"/recent?after={count}").json()
    (part,) = content["parts"]
    assert part["part"] == count + 1 and part["thumbnail"].startswith("data:image/jpeg")
    assert content["drift"]["light"] in ("green", "amber", "red")
    whole = client.get(f"/recent/{count + 1}?maps=heat").json()
    assert whole["part"] == count + 1 and "heat" in whole["pictures"]
    assert client.get("/recent/999999").status_code == 404
    assert client.get("/health").json()["alive"] and client.get("/ready").json()["ready"]
    metrics = client.get("/metrics").text
    assert 'jaxomaly_photos_total{decision="good"}' in metrics
    assert 'jaxomaly_drift_evidence{of="brightness"}' in metrics
    about = client.get("/model").json()
    assert len(about["digests"]["weights.safetensors"]) == 64 and "# Anomaly" in about["card"]
    assert "/score" in client.get("/openapi.json").json()["paths"]
    assert "POST /score" in client.get("/docs").text
    page = client.get("/").text
    assert about["statement"][0].split(".")[0] in page and "http://" not in page


def test_batches_are_of_few_sizes_and_a_power_of_two(model, photos):
    sizes = []

    def scorer(pixels):
        sizes.append(len(pixels))
        return model.scorer(pixels)

    with serving(model._replace(scorer=scorer), waiting=64) as client:
        data = [photos[index % len(photos)].read_bytes() for index in range(24)]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda each: post(client, each), data))
        assert {answer.status_code for answer in answers} == {200}
        assert sorted(answer.json()["part"] for answer in answers) == list(range(1, 25))
    assert set(sizes) <= set(SIZES)


def lines_of(folder):
    """The rows of all files of a journal."""
    rows = []
    for path in sorted(Path(folder).glob("journal-*.jsonl")):
        rows += [json.loads(line) for line in path.read_text().splitlines()[1:]]
    return rows


def test_the_journal_has_each_answer_and_the_photos(client, photos):
    data = photos[-1].read_bytes()
    content = post(client, data, "?name=a/../b.png").json()
    row = next(row for row in lines_of(client.folder) if row["part"] == content["part"])
    for name in ("decision", "score", "p_value", "sha256", "time"):
        assert row[name] == content[name]
    assert row["path"] == "a/../b.png" and row["image"] == f"images/{row['part']:09}.png"
    assert (client.folder / row["image"]).read_bytes() == data
    assert [row["part"] for row in lines_of(client.folder)] == list(range(1, row["part"] + 1))


def test_a_journal_goes_on_and_another_threshold_begins_anew(model, photos, tmp_path, monkeypatch):
    """Also over the end of a file, and after a crash in the last group."""
    monkeypatch.setattr(journal, "_LINES", 3)
    digest = model_digest(model)

    def book(named=digest, threshold=model.threshold):
        return journal.Journal(str(tmp_path), threshold, named, "defective")

    with serving(model, book()) as client:
        for path in photos[:7]:
            post(client, path.read_bytes())
        watch = client.line.watch
    newest = sorted(tmp_path.glob("journal-*.jsonl"))[-1]
    assert int(newest.stem[-6:]) >= 3
    with open(newest, "ab") as file:
        file.write(b'{"part": 8, "time": "cut o')
    (tmp_path / "journal-000099.jsonl").write_bytes(b"")
    again = book()
    assert again.watch == watch and watch.parts == 7
    with pytest.raises(OSError, match="is in use by process"):
        book()
    again.close()
    rows = lines_of(tmp_path)
    kept = [row for row in rows if row["image"]]
    assert [row["decision"] for row in kept] == ["defective"] * len(kept) and kept
    other = book("another")
    assert other.watch == drift.start_watch(model.threshold, 7)
    other.close()
    newest = sorted(tmp_path.glob("journal-*.jsonl"))[-1]
    newest.write_bytes(newest.read_bytes() + b'{"part": 9}\n')
    with pytest.raises(ValueError, match=r"damaged at line 2 .*move it away"):
        book("another")
    newest.unlink()  # the remedy
    book("another").close()


@contextmanager
def program(*arguments):
    """The program itself, serving; its address and process."""
    environment = {**os.environ, "XLA_FLAGS": QUICK}
    command = [sys.executable, "main.py", "--mode=serve", "--port=0", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=environment, **pipes) as process:
        try:
            lines = iter(process.stdout.readline, "")
            line = next((line for line in lines if line.startswith("Serving")), "")
            assert line, process.stderr.read()
            address = line.split()[-1]
            wait_ready(address)
            yield address, process
        finally:
            process.kill()


def wait_ready(address):
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"{address}ready"):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("never ready")


def ask(address, data):
    request = urllib.request.Request(f"{address}score", data, {"Content-Type": "image/png"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def killed(exported, photos, tmp_path_factory):
    """The journal of a service that was killed at work, and what it had acknowledged."""
    folder, acknowledged = tmp_path_factory.mktemp("killed"), []

    def client(address):
        for index in range(400):
            try:
                answer = ask(address, photos[index % len(photos)].read_bytes())
            except OSError:
                return
            acknowledged.append(answer)

    with program(f"--model={exported}", f"--journal={folder}") as (address, process):
        with ThreadPoolExecutor(4) as pool:
            for _ in range(4):
                pool.submit(client, address)
            while len(acknowledged) < 40:
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
        process.wait()
    return folder, acknowledged


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_by_kill_9(killed, model):
    folder, acknowledged = killed
    book = journal.Journal(str(folder), model.threshold, model_digest(model), "none")
    book.close()
    rows = {row["part"]: row for row in lines_of(folder)}
    assert len(acknowledged) >= 40
    for answer in acknowledged:
        row = rows[answer["part"]]
        assert (row["score"], row["decision"]) == (answer["score"], answer["decision"])
    assert sorted(rows) == list(range(1, len(rows) + 1)) and book.watch.parts == len(rows)


@pytest.fixture(scope="module")
def running(trained, exported, killed):
    """The program on the journal of the killed one; for the tests that need its sockets."""
    with program(f"--model={exported}", f"--journal={killed[0]}") as (address, process):
        yield address, process


@pytest.mark.slow
def test_odd_clients_stop_nobody(running, photos):
    """Half requests, huge heads, no HTTP at all, and many that say nothing."""
    address, _ = running
    port = int(address.rstrip("/").rpartition(":")[2])
    half = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\nab"
    said = {
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000 + b"\r\n\r\n": b"400",
        b"\x16\x03\x01 no HTTP\r\n\r\n": b"400",
        b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n": b"400",
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n": b"404",
        b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n": b"404",
    }
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
    for one in silent[:25]:
        one.sendall(half)
    for request, code in said.items():
        with socket.create_connection(("127.0.0.1", port)) as one:
            try:
                one.sendall(request)
                assert code in one.recv(100)
            except ConnectionError:
                assert code == b"400"  # closed while the head was still being sent
    assert ask(address, photos[0].read_bytes())["decision"] in ("good", "defective")
    for one in silent:
        one.close()
    assert ask(address, photos[0].read_bytes())["decision"] in ("good", "defective")


def browser_path():
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("playwright") is None, reason="Playwright is not installed"
)
@pytest.mark.skipif(browser_path() is None, reason="there is no Chromium: apt install chromium")
@pytest.mark.filterwarnings("ignore")
def test_the_page_in_a_browser(running, photos, predicted, tmp_path):
    """Three files are dropped, and their verdicts are predict's; by keyboard, and 360 px wide."""
    from playwright.sync_api import sync_playwright

    address, _ = running
    chosen = [photos[0], photos[-1], photos[1]]
    assert {predicted[str(path)]["decision"] for path in chosen} == {"good", "defective"}
    flags = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync"
    flags += " --disable-background-networking --disable-component-update"
    flags += " --use-fake-device-for-media-stream --use-fake-ui-for-media-stream"
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=browser_path(), args=flags.split())
        page = browser.new_page(viewport={"width": 360, "height": 740})
        asked, errors = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        for path in chosen:
            drop(page, path)
            page.wait_for_function(
                "name => document.getElementById('name').textContent.endsWith(name)", arg=path.name
            )
            row = predicted[str(path)]
            assert page.inner_text("#verdict").lower() == row["decision"]
            assert f"{row['score']:#.4g}"[:6] in page.inner_text("#facts")
        page.wait_for_selector("#strip button[data-part]")
        assert page.locator("#strip button").count() >= 3
        assert page.inner_text("#drift") != "The watch has not answered yet."
        page.focus("#opacity")
        page.keyboard.press("End")
        assert page.evaluate("getComputedStyle(document.getElementById('heat')).opacity") == "1"
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 360
        page.screenshot(path=os.environ.get("PAGE_PICTURE", tmp_path / "page.png"), full_page=True)
        page.focus("#strip li:last-child button")
        part = page.get_attribute("#strip li:last-child button", "data-part")
        page.keyboard.press("Enter")
        page.wait_for_function(
            "part => document.getElementById('name').textContent.startsWith('Part ' + part)",
            arg=part,
        )
        page.set_input_files("#files", {"name": "x.png", "mimeType": "image/png", "buffer": b"x"})
        page.wait_for_function(
            "() => document.getElementById('verdict').textContent === 'Cannot be read'"
        )
        page.click("#camera")
        page.wait_for_function("() => document.getElementById('video').videoWidth > 0")
        page.click("#shoot")
        page.wait_for_function(
            "() => document.getElementById('name').textContent.endsWith('camera.png')"
        )
        unnamed = page.evaluate(
            "[...document.querySelectorAll('input, button, img')]"
            ".filter(e => !(e.labels && e.labels.length))"
            ".filter(e => !e.textContent && !e.hasAttribute('alt')).length"
        )
        assert unnamed == 0
        browser.close()
    assert asked and all(url.startswith((address, "data:", "blob:")) for url in asked)
    # The one unreadable file is answered 422, which the browser notes.
    assert [error for error in errors if "422" not in error] == []


def drop(page, path):
    """What a browser does where a person drops a file on the page."""
    data = list(path.read_bytes())
    page.evaluate(
        """([data, name]) => {
            const files = new DataTransfer();
            files.items.add(new File([new Uint8Array(data)], name, {type: 'image/png'}));
            for (const kind of ['dragenter', 'dragover', 'drop']) {
                document.body.dispatchEvent(new DragEvent(kind,
                    {dataTransfer: files, bubbles: true, cancelable: true}));
            }
        }""",
        [data, path.name],
    )


@pytest.mark.slow
def test_sigterm_answers_what_is_in_flight_and_exits_0(running, photos):
    """The last test of `running`, which it ends."""
    address, process = running
    answers = []
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(ask, address, photos[0].read_bytes()) for _ in range(24)]
        while sum(future.done() for future in futures) < 8:
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        for future in futures:
            with suppress(OSError):  # of one that came after: the door was closed
                answers.append(future.result())
    assert process.wait(30) == 0
    assert len(answers) >= 8 and "Traceback" not in process.stderr.read()
    assert "Stopped after part" in process.stdout.read()


def test_what_cannot_be_served(exported, tmp_path):
    with pytest.raises(FileNotFoundError, match="name a folder that --mode=export wrote"):
        commands.serve(model=tmp_path)
    with pytest.raises(ValueError, match="name its folder, --journal"):
        commands.serve(model=exported, keep="all")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"--port={port} .*name another --port"):
            commands.serve(model=exported, port=port)
    damaged = tmp_path / "damaged"
    shutil.copytree(exported, damaged)
    (damaged / "threshold.json").write_text("{}")
    with pytest.raises(ValueError, match="threshold.json does not match SHA256SUMS: export again"):
        commands.serve(model=damaged)


def test_recalibration_sets_a_threshold_and_keeps_the_old_one(trained, tmp_path, capsys):
    root, workdir = trained
    shutil.copytree(workdir, tmp_path / "w")
    rng = np.random.default_rng(1)
    (tmp_path / "new").mkdir()
    for index in range(25):
        pixels = rng.integers(30, 60, (16, 16, 3)).astype(np.uint8)  # a dimmer lamp
        Image.fromarray(pixels).save(tmp_path / f"new/{index}.png")
    before = json.loads((tmp_path / "w/threshold.json").read_text())
    with pytest.raises(ValueError, match=r"14 of 20 photos were trained on .*name others"):
        commands.recalibrate(tmp_path / "w", str(root / "nut/train"))
    (tmp_path / "new/bad.png").write_text("no image")
    with pytest.raises(ValueError, match="1 bad files"):
        commands.recalibrate(tmp_path / "w", str(tmp_path / "new"))
    assert json.loads((tmp_path / "w/threshold.json").read_text()) == before
    (tmp_path / "new/bad.png").unlink()
    commands.recalibrate(tmp_path / "w", str(tmp_path / "new"))
    said = capsys.readouterr().out
    after = json.loads((tmp_path / "w/threshold.json").read_text())
    assert len(after["calibration_scores"]) == 25 and after["date"].endswith("Z")
    assert f"The threshold was {before['threshold']:.6g} (from 6 images)" in said
    was, now = re.search(r"median brightness was (0\.\d+) and is (0\.\d+)", said).groups()
    assert float(was) == pytest.approx(90 / 255, abs=0.01)
    assert float(now) == pytest.approx(44.5 / 255, abs=0.01)
    assert (
        f"25 good photos of {after['date'][:10]}" in said
        and "held-out" not in after["statement"][1]
    )
    (kept,) = (tmp_path / "w").glob("threshold.until-*.json")
    assert json.loads(kept.read_text()) == before
    # predict decides by the new one, and by hand: k = ceil(26 * 0.95) = 25, the highest score.
    score = commands.restore_scorer(tmp_path / "w")
    made = score(tmp_path / "new/3.png")
    assert made.threshold == after["threshold"]
    assert any(np.isclose(made.score, s, rtol=1e-4) for s in after["calibration_scores"])
    assert after["threshold"] == pytest.approx(max(after["calibration_scores"]), rel=2e-4)


def test_predict_prints_what_the_watch_says(trained, tmp_path, capsys):
    """Photos of a lamp at half its power: predict says so."""
    rng = np.random.default_rng(2)
    (tmp_path / "new").mkdir()
    for index in range(40):
        pixels = rng.integers(30, 60, (16, 16, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"new/{index}.png")
    commands.predict(trained[1], str(tmp_path / "new"), tmp_path / "out")
    said = capsys.readouterr().out
    assert "Watch: " in said
    light = json.loads((Path(trained[1]) / "threshold.json").read_text())["quality"]
    assert len(light["brightness"]) == 6
