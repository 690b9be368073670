"""The program needs no network, and the tests have none."""

import os
import shutil
import socket
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
from conftest import QUICK
from test_main import ROOT, arguments, picture, save

NOBODY = "192.0.2.1"  # an address of no machine (RFC 5737)


def no_network_interface(*command):
    """Runs a command where there is none, for sockets of C++ either."""
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rn", "true"]).returncode:
        pytest.skip("`unshare -rn` makes no network namespace here")
    environment = {**os.environ, "XLA_FLAGS": QUICK}
    command = ["unshare", "-rn", *map(str, command)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)


def test_there_is_no_interface_but_loopback():
    devices = no_network_interface("cat", "/proc/net/dev").stdout.splitlines()[2:]
    assert [line.split(":")[0].strip() for line in devices] in ([], ["lo"])


@pytest.mark.promise("R15", "TensorFlow, TFDS and JAX decode, train and evaluate without a network")
@pytest.mark.slow
def test_training_needs_no_network(tmp_path):
    rng = np.random.default_rng(0)
    for index in range(20):
        save(tmp_path / f"part/train/good/{index}.png", picture(rng))
    for index in range(2):
        save(tmp_path / f"part/test/good/{index}.png", picture(rng))
        save(tmp_path / f"part/test/square/{index}.png", picture(rng, bright=6))
    few = ("--config.gan.num_steps=2", "--config.encoding.num_steps=2")
    by_tensorflow = "--config.data.resident=False"
    command = arguments(tmp_path, tmp_path / "w", *few, by_tensorflow)
    done = no_network_interface(sys.executable, "main.py", *command)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "w/report/index.html").exists()
    root, copy = str(tmp_path), str(tmp_path / "tfds")
    code = f"from data import mvtec_ad; mvtec_ad.prepare_tfrecords('part', {root!r}, {copy!r})"
    done = no_network_interface(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "tfds").glob("*/mvtec_ad/part/1.1.0/*.tfrecord*"))


def call(method, *arguments, family=socket.AF_INET, kind=socket.SOCK_STREAM):
    with socket.socket(family, kind) as one:
        return getattr(one, method)(*arguments)


WAYS = {
    "connect": lambda: call("connect", (NOBODY, 80)),
    "connect_ex": lambda: call("connect_ex", (NOBODY, 80)),
    "IPv6": lambda: call("connect", ("2001:db8::1", 80), family=socket.AF_INET6),
    "sendto": lambda: call("sendto", b"x", (NOBODY, 53), kind=socket.SOCK_DGRAM),
    "sendmsg": lambda: call("sendmsg", [b"x"], [], 0, (NOBODY, 53), kind=socket.SOCK_DGRAM),
    "create_connection": lambda: socket.create_connection((NOBODY, 80)),
    "a name": lambda: socket.getaddrinfo("example.org", 443),
    "a name as bytes": lambda: socket.getaddrinfo(b"example.org", 443),
    "gethostbyname": lambda: socket.gethostbyname("example.org"),
    "http": lambda: urllib.request.urlopen(f"http://{NOBODY}/"),
}


@pytest.fixture
def log(tmp_path, monkeypatch):
    """Where connections are noted that a test wants to be tried."""
    monkeypatch.setenv("OFFLINE_LOG", str(tmp_path / "log"))
    return tmp_path / "log"


@pytest.mark.promise("R15")
@pytest.mark.parametrize("way", WAYS)
def test_no_other_machine_can_be_reached(way, log, tries):
    with tries("the suite: a connection of Python to another machine is refused and noted"):
        with pytest.raises(OSError, match="the tests run without a network"):
            WAYS[way]()
        assert len(log.read_text().splitlines()) == 1


def test_this_machine_can_be_reached(log):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for host in ("localhost", "127.0.0.1"):
            socket.create_connection((host, port)).close()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendmsg([b"x"])
        assert theirs.recv(1) == b"x"
    assert not log.exists()


def test_nor_by_a_program_that_passes_over_the_error(log):
    code = "import socket\ntry: socket.create_connection(('example.org', 80))\nexcept OSError: pass"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert "socket.getaddrinfo 'example.org'" in log.read_text()
