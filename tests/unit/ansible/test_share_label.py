"""The node's label follows the mount: asked of the API with kubelet's credential, and never of the share."""

from __future__ import annotations

import base64
import contextlib
import datetime
import http.server
import json
import os
import shlex
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.conftest import wait_until

SCRIPT = Path(__file__).resolve().parents[3] / "roles/nfs_mount/files/share_label.py"
KEY = "tandem-ha.io/shared-storage"
HERE = "10.0.0.20:/srv/nfs/tandem /srv/tandem nfs4 rw,hard 0 0\n"


def credential(path: Path) -> bytes:
    """A certificate for 127.0.0.1 that signs itself, with its key, in one file; its certificate alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    form = serialization.PrivateFormat.PKCS8
    path.write_bytes(certificate + key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return certificate


class Server(http.server.ThreadingHTTPServer):
    """Writes down what it is asked; refuses while `status` is no success."""

    asked: list[tuple[str, str, Any]]
    status = 200


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    server: Server

    def do_PATCH(self) -> None:  # the name that the library wants
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, self.headers["Content-Type"], body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing is told."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    certificate = credential(tmp_path / "kubelet.pem")
    running = Server(("127.0.0.1", 0), Handler)
    running.asked = []
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=certificate.decode())
    context.load_cert_chain(tmp_path / "kubelet.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    running.socket = context.wrap_socket(running.socket, server_side=True)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    authority = base64.b64encode(certificate).decode()
    (tmp_path / "kubelet.conf").write_text(
        "clusters:\n- cluster:\n"
        f"    certificate-authority-data: {authority}\n    server: https://localhost:{running.server_port}\n"
    )
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


def command(folder: Path, point: str = "/srv/tandem") -> list[str]:
    said = [sys.executable, str(SCRIPT), "--node", "w1", "--point", point, "--key", KEY]
    return [*said, "--kubeconfig", str(folder / "kubelet.conf"), "--certificate", str(folder / "kubelet.pem")]


@contextlib.contextmanager
def saying(folder: Path, mounts: str) -> Iterator[str]:
    """The script at work, and the first line that it says."""
    (folder / "mounts").write_text(mounts)
    argv = [*command(folder), "--mounts", str(folder / "mounts")]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        try:
            yield running.stderr.readline()
        finally:
            running.kill()


@pytest.mark.parametrize(
    ("mounts", "value"),
    [
        (f"proc /proc proc rw 0 0\n{HERE}", "mounted"),
        (HERE.replace(" /srv/tandem ", " /srv/other "), "lost"),
        ("", "lost"),
    ],
)
def test_the_label_says_what_the_kernel_says(tmp_path: Path, server: Server, mounts: str, value: str) -> None:
    with saying(tmp_path, mounts) as told:
        assert told == f"{KEY}={value}\n"
    wanted = {"metadata": {"labels": {KEY: value}}}
    assert server.asked == [("/api/v1/nodes/w1", "application/merge-patch+json", wanted)]


def test_an_api_server_that_refuses_is_asked_again(tmp_path: Path, server: Server) -> None:
    server.status = 403
    with saying(tmp_path, HERE) as told:
        assert f"{KEY}=mounted could not be said" in told
        wait_until(lambda: len(server.asked) > 1, 60, "it tries again")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_the_label_follows_the_mounts(tmp_path: Path, server: Server) -> None:
    point = tmp_path / "share"
    point.mkdir()
    steps = f"read -r _; mount -t tmpfs none '{point}'; read -r _; umount '{point}'; read -r _; kill $!"

    def so_often(number: int) -> bool:
        return len(server.asked) >= number

    script = f"{shlex.join(command(tmp_path, str(point)))} & {steps}"
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, text=True, bufsize=1) as shell:
        assert shell.stdin is not None
        for number, value in enumerate(("lost", "mounted", "lost"), 1):
            wait_until(partial(so_often, number), 20, "the label is said")
            assert [body["metadata"]["labels"][KEY] for _, _, body in server.asked[number - 1 :]] == [value]
            shell.stdin.write("go on\n")
    assert len(server.asked) == 3, "said when it changed, and not more"


def test_a_node_that_has_not_joined(tmp_path: Path) -> None:
    with saying(tmp_path, HERE) as told:
        assert "kubelet.conf" in told
