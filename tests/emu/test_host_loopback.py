"""--net host-loopback: a guest reaches 127.0.0.1 of the host and is reached there, and nothing else."""

import http.client
import http.server
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from debian import Unavailable, busybox

from emu import Machine

REPO = pathlib.Path(__file__).resolve().parents[2]
DEADLINE = 30.0  # seconds; reached only by a failure


@pytest.fixture(scope="module", params=["amd64", "arm64"])
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    try:
        program = busybox(request.param)
    except Unavailable as why:
        pytest.skip(f"busybox-static is not to be had: {why}")
    root = tmp_path_factory.mktemp(request.param)
    (root / "www").mkdir()
    (root / "www/page").write_text("of the guest\n" * 20000)
    (root / "busybox").write_bytes(program)
    (root / "busybox").chmod(0o755)
    return root


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"of the host\n" * 20000
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def server() -> Iterator[int]:
    """The port of a server on the host's loopback."""
    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def run(root: pathlib.Path, *words: str, net: str = "host-loopback") -> tuple[int, bytes, bytes]:
    with Machine(root=str(root), net=net, stdin=b"", stdout="capture", stderr="capture") as machine:
        machine.load("/busybox", ["busybox", *words])
        end = machine.run(timeout=DEADLINE)
        assert end.reason == "exit", machine.errors
        return end.status, machine.output, machine.errors


def test_the_guest_fetches_from_the_host(root: pathlib.Path, server: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    status, output, errors = run(root, "wget", "-q", "-O", "-", f"http://127.0.0.1:{server}/")
    assert (status, errors) == (0, b"")
    assert output == b"of the host\n" * 20000
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # the server may still hold its end


def test_nothing_is_reached_without_the_option(root: pathlib.Path, server: int) -> None:
    status, output, _ = run(root, "wget", "-q", "-O", "-", f"http://127.0.0.1:{server}/", net="internal")
    assert (status != 0, output) == (True, b"")


@pytest.mark.parametrize("address", ["10.1.2.3", "127.0.0.2", "192.0.2.1"])
def test_other_addresses_are_unreachable(root: pathlib.Path, address: str) -> None:
    status, _, errors = run(root, "wget", "-q", "-O", "-", f"http://{address}:80/")
    assert status != 0
    assert b"Network is unreachable" in errors


def listeners() -> set[str]:
    """The last eight digits of the address, and the port, of every TCP socket that listens on the host."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in pathlib.Path(table).read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == "0A":
                found.add(local[-13:])
    return found


def test_the_host_fetches_from_the_guest(root: pathlib.Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["--root", str(root), "--net", "host-loopback", "/busybox", "httpd", "-f", "-p", str(port), "-h", "/www"]
    process = subprocess.Popen([sys.executable, "-m", "emu", "run", *words], cwd=REPO, stdin=subprocess.DEVNULL)
    try:
        end = time.monotonic() + DEADLINE
        while f"0100007F:{port:04X}" not in (listening := listeners()):
            assert time.monotonic() < end, listening
            assert process.poll() is None
            os.sched_yield()
        assert f"00000000:{port:04X}" not in listening
        for _ in range(3):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
            connection.request("GET", "/page")
            assert connection.getresponse().read() == b"of the guest\n" * 20000
            connection.close()
    finally:
        process.kill()
        process.wait()
