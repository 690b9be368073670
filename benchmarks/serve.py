"""What --mode=serve bears: python -m benchmarks.serve --model=EXPORT --images=FOLDER

Starts the program, and asks it as so many clients of a line would, each with a connection that it
keeps and the next photo as soon as it has its answer. Then the faults: memory over many requests,
kill -9 under load, mutated images, clients that are slow. Prints Markdown; minutes. --seconds is
how long each number of clients asks; --share=0.1 does with a tenth of the faults.
"""

import argparse
import datetime
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]


@contextmanager
def service(model: str, journal: str, keep: str = "none") -> Iterator[tuple[str, int]]:
    """The program at work: its address and process id."""
    command = [sys.executable, "main.py", "--mode=serve", f"--model={model}", "--port=0"]
    command += [f"--journal={journal}", f"--keep={keep}"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = next(line for line in process.stdout or () if line.startswith("Serving"))
            address = line.split()[-1]
            while True:
                try:
                    urllib.request.urlopen(f"{address}ready").close()
                    break
                except OSError:
                    time.sleep(0.2)
            yield address, process.pid
        finally:
            process.terminate()
            process.wait(60)


def ask(connection: http.client.HTTPConnection, data: bytes) -> tuple[int, bytes]:
    """One photo; the code and what was said."""
    connection.request("POST", "/score", data, {"Content-Type": "image/png"})
    answer = connection.getresponse()
    return answer.status, answer.read()


def load(address: str, photos: list[bytes], clients: int, seconds: float) -> dict[str, float]:
    """Requests per second and the times of answers in ms, as `clients` see them."""
    host = urllib.parse.urlsplit(address).netloc
    end, times, codes = time.perf_counter() + seconds, [], Counter()

    def client(first: int) -> None:
        connection, index = http.client.HTTPConnection(host, timeout=60), first
        while (start := time.perf_counter()) < end:
            status, _ = ask(connection, photos[index % len(photos)])
            codes[status] += 1
            if status == 503:
                time.sleep(1)
            else:
                times.append(time.perf_counter() - start)
            index += 1

    threads = [threading.Thread(target=client, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    low, high = np.percentile(times, [50, 99]) * 1000
    return {
        "rate": len(times) / seconds,
        "p50": float(low),
        "p99": float(high),
        "refused": codes[503],
    }


def memory(pid: int) -> float:
    """Resident memory in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, cut out or doubled."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 2, 8, 64))):
        place = rng.randrange(len(content))
        match rng.randrange(4):
            case 0:
                content[place] = rng.randrange(256)
            case 1:
                del content[place : place + rng.randrange(1, 64)]
            case 2:
                content[place:place] = content[place : place + rng.randrange(1, 64)]
            case 3:
                content = content[: max(place, 8)]
        if len(content) < 16:
            break
    return bytes(content)


def mutations(address: str, photos: list[bytes], count: int) -> Counter:
    """The codes of so many mutated images."""
    rng, codes = random.Random(0), Counter()
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(address).netloc, timeout=60)
    for _ in range(count):
        status, said = ask(connection, mutated(rng.choice(photos), rng))
        content = json.loads(said)
        assert (content.get("decision") == "unreadable") == (status == 422), content
        codes[status] += 1
    assert ask(connection, photos[0])[0] == 200
    return codes


def lost(model: str, photos: list[bytes], folder: str, seconds: float) -> tuple[int, int]:
    """Acknowledged answers before a kill -9 under load of 8 clients; how many the journal lacks."""
    acknowledged: list[dict] = []
    with service(model, folder) as (address, pid):
        host = urllib.parse.urlsplit(address).netloc

        def client(index: int) -> None:
            connection = http.client.HTTPConnection(host, timeout=60)
            while True:
                try:
                    status, said = ask(connection, photos[index % len(photos)])
                except (OSError, http.client.HTTPException):
                    return
                if status == 200:
                    acknowledged.append(json.loads(said))
                index += 1

        threads = [threading.Thread(target=client, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
        for thread in threads:
            thread.join()
    with service(model, folder):  # which cuts off the last line, if it is not whole
        pass
    rows = {}
    for path in sorted(Path(folder).glob("journal-*.jsonl")):
        for line in path.read_text().splitlines()[1:]:
            row = json.loads(line)
            rows[row["part"]] = row["sha256"]
    missing = sum(rows.get(one["part"]) != one["sha256"] for one in acknowledged)
    return len(acknowledged), missing


def slow_clients(address: str, photos: list[bytes], count: int) -> float:
    """p99 in ms of 8 clients beside so many that send half a request and then nothing."""
    split = urllib.parse.urlsplit(address)
    head = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 9999\r\n"
    sockets = []
    for index in range(count):
        one = socket.create_connection((split.hostname, split.port))
        one.sendall(head if index % 2 else head + b"\r\nhalf")
        sockets.append(one)
    try:
        return load(address, photos, 8, 5)["p99"]
    finally:
        for one in sockets:
            one.close()


def main() -> None:
    """Prints the tables of docs/factory/serve.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    given = parser.parse_args()
    share = given.share
    photos = [path.read_bytes() for path in sorted(Path(given.images).rglob("*.png"))[:64]]
    size = sum(map(len, photos)) / len(photos) / 1024
    print(f"{datetime.date.today()}, {os.cpu_count()} cores, clients on the same machine; ", end="")
    print(f"{len(photos)} photos of {size:.0f} kB; load average {os.getloadavg()[0]:.1f}\n")
    folder = tempfile.mkdtemp()
    with service(given.model, f"{folder}/j") as (address, pid):
        print("| clients | requests/s | p50, ms | p99, ms | answered 503 |\n|---|---|---|---|---|")
        load(address, photos, 8, 3)
        for clients in (1, 8, 64):
            found = load(address, photos, clients, given.seconds)
            print(
                f"| {clients} | {found['rate']:.0f} | {found['p50']:.0f} | {found['p99']:.0f} | "
                f"{found['refused']:.0f} |",
                flush=True,
            )
        # At a photo a second, an hour is 3,600.
        before, total = memory(pid), 0
        while total < 7200 * share:
            total += int(5 * load(address, photos, 8, 5)["rate"])
        print(f"\nmemory: {before:.0f} MB, after {total:,} further requests {memory(pid):.0f} MB")
        codes = mutations(address, photos, int(10_000 * share))
        print(
            f"{codes.total():,} mutated images: {dict(codes)}, then an answer as before", flush=True
        )
        late = slow_clients(address, photos, 100)
        print(f"8 clients beside 100 that stop half way: p99 {late:.0f} ms")
    tries = [lost(given.model, photos, f"{folder}/k{i}", 3) for i in range(max(1, int(5 * share)))]
    known, missing = map(sum, zip(*tries, strict=True))
    text = f"{known} acknowledged, {missing} not in the journal"
    print(f"kill -9 under load, {len(tries)} times: {text}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
