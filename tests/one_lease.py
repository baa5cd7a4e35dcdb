"""As much of an API server as one object needs, for real runs of ansible-playbook that ask for little more."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests import local_https
from tests.local_https import Answers


class Leases(Answers, http.server.BaseHTTPRequestHandler):
    """Answers every question with one object, a Lease most of the time."""

    lease: dict[str, Any] | None = None
    version = 0
    forbidding = 0
    guard = threading.Lock()

    def do_GET(self) -> None:
        if Leases.forbidding:
            Leases.forbidding -= 1
            self.answer(403, {})
            return
        with self.guard:
            found = Leases.lease
        self.answer(200 if found else 404, found or {})

    def do_POST(self) -> None:
        self._write(lambda body: Leases.lease is None)

    def do_PUT(self) -> None:
        self._write(lambda body: body["metadata"]["resourceVersion"] == str(Leases.version))

    def _write(self, allowed: Any) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.guard:
            if not allowed(body):
                self.answer(409, {})
                return
            Leases.version += 1
            body["metadata"]["resourceVersion"] = str(Leases.version)
            Leases.lease = body
        self.answer(200, body)


@contextlib.contextmanager
def serving(tmp_path: Path) -> Iterator[Path]:
    """A kubeconfig for a server that runs meanwhile and holds nothing yet."""
    Leases.lease, Leases.version = None, 0
    with local_https.serving(tmp_path, Leases) as kubeconfig:
        yield kubeconfig
