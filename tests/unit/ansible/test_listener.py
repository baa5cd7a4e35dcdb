"""The check that decides whether a worker may hold the shared address, against real listeners."""

from __future__ import annotations

import http.server
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

LISTENER = Path(__file__).resolve().parents[3] / "roles/virtual_ip/files/listener.sh"


class Answers(http.server.BaseHTTPRequestHandler):
    """200 for /healthz, 503 for all else."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200 if self.path == "/healthz" else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def asked(port: int, *path: str) -> bool:
    argv = ["bash", str(LISTENER), "127.0.0.1", str(port), *path]
    return subprocess.run(argv, capture_output=True, timeout=10, check=False).returncode == 0


def test_it_says_whether_the_listener_serves(port: int) -> None:
    assert asked(port)
    assert asked(port, "/healthz")
    assert not asked(port, "/broken"), "503 is no service"


def test_nobody_and_somebody_else_are_told_from_a_web_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert not asked(port)
    with socket.create_server(("127.0.0.1", 0)) as other:

        def greet() -> None:
            connection, _ = other.accept()
            connection.sendall(b"220 mail\r\n")
            connection.close()

        threading.Thread(target=greet, daemon=True).start()
        assert not asked(other.getsockname()[1], "/healthz")
