"""A real API server for tests: etcd and kube-apiserver on loopback, up in seconds, gone without a trace.

No kubelet, no scheduler, no controller-manager: what a controller writes is stored, validated, versioned, watched and
audited as in a cluster, and nobody acts on it. Certificates are made afresh and verified by the clients.

    with LocalApi(Programs(etcd, kube_apiserver)) as api:
        use(api.kubeconfig())
        api.stop_answering()  # SIGSTOP: connections stay open, nothing comes

Both programs end with the process that started them, whatever ends that.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tandem.runtime.testing._certificates import Authority

START_SECONDS: Final = 180.0
"""A quiet machine takes about 6 s; a busy one must not fail for it."""
PORT_ATTEMPTS: Final = 3
"""Ports are free when they are chosen; somebody else may take one before the server does."""
_PREFIX: Final = "tandem-api-"
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None)
_AUDIT_POLICY: Final = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Request", "verbs": ["create", "update", "patch", "delete"]},
        {"level": "Metadata"},
    ],
}


class LocalApiError(RuntimeError):
    """The servers did not start; says which, with the end of its log."""


@dataclass(frozen=True)
class Programs:
    """Where the two programs are."""

    etcd: Path
    kube_apiserver: Path


class LocalApi:
    """One API server with its own etcd. Use it as a context, or call `start` and `stop`.

    Attributes:
        url: Address of the API server.
        etcd_url: Address of etcd, for those who want to compact it or count.
        audit_log: File with one JSON event a line; writes carry the request's body.
        folder: Holds everything; removed at the end.
    """

    def __init__(self, programs: Programs, *, extra_flags: tuple[str, ...] = ()) -> None:
        self._programs = programs
        self._extra_flags = extra_flags
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.folder = Path()
        self.url = self.etcd_url = ""
        self.audit_log = Path()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start both and wait until the API server is ready.

        Raises:
            LocalApiError: One of them ended, or was not ready in time.
        """
        sweep()
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_parent()))
        (self.folder / "owner").write_text(str(os.getpid()))
        try:
            self._authority = Authority(self.folder / "pki")
            self.audit_log = self.folder / "audit.jsonl"
            self.audit_log.touch()
            (self.folder / "audit-policy.json").write_text(json.dumps(_AUDIT_POLICY))
            self._start_both()
        except BaseException:
            self.stop()
            raise

    def _start_both(self) -> None:
        """Start them on free ports; another port when somebody else took one in between."""
        for attempt in range(1, PORT_ATTEMPTS + 1):
            client, peer, secure = _free_ports(3)
            self.etcd_url, self.url = f"http://127.0.0.1:{client}", f"https://127.0.0.1:{secure}"
            self._start_etcd(peer)
            self._start_server(secure)
            try:
                self._wait_ready()
            except LocalApiError as error:
                if attempt == PORT_ATTEMPTS or "address already in use" not in str(error):
                    raise
                self._end_processes()
            else:
                return

    def stop(self) -> None:
        """End both and remove the folder. Safe to repeat."""
        self._end_processes()
        if self.folder.name.startswith(_PREFIX):
            shutil.rmtree(self.folder, ignore_errors=True)

    def _end_processes(self) -> None:
        for process in reversed(list(self._processes.values())):
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
        self._processes.clear()

    # --- faults -----------------------------------------------------------------------------------------------------
    def stop_answering(self) -> None:
        """Stop the API server in its tracks (SIGSTOP): the kernel still accepts what is sent, nobody answers."""
        self._processes["kube-apiserver"].send_signal(signal.SIGSTOP)

    def answer_again(self) -> None:
        """Let it go on: what was sent meanwhile is served now."""
        self._processes["kube-apiserver"].send_signal(signal.SIGCONT)

    def kill_server(self) -> None:
        """End the API server at once: connections are reset, new ones refused."""
        process = self._processes.pop("kube-apiserver")
        process.kill()
        process.wait()

    def start_server(self) -> None:
        """Start it again at the same address, on the same etcd, and wait until it is ready."""
        self._start_server(int(self.url.rsplit(":", 1)[1]))
        self._wait_ready()

    # --- access -----------------------------------------------------------------------------------------------------
    def kubeconfig(self, user: str = "admin", groups: tuple[str, ...] = ("system:masters",)) -> Path:
        """A kubeconfig for this user; the audit log tells users apart."""
        path = self.folder / f"kubeconfig-{user.replace(' ', '-')}.json"
        if not path.exists():
            certificate, key = self._authority.issue(user, groups)
            config = {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "local",
                "clusters": [
                    {
                        "name": "local",
                        "cluster": {"server": self.url, "certificate-authority": str(self._authority.certificate)},
                    }
                ],
                "users": [{"name": user, "user": {"client-certificate": str(certificate), "client-key": str(key)}}],
                "contexts": [{"name": "local", "context": {"cluster": "local", "user": user, "namespace": "default"}}],
            }
            path.write_text(json.dumps(config))
        return path

    def request(self, method: str, path: str, body: object = None, *, content: str = "application/json") -> Any:
        """One request as administrator, for the test itself; returns the parsed answer.

        Raises:
            urllib.error.HTTPError: The server refused.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 - an address of our own
            self.url + path, data=data, method=method, headers={"Content-Type": content}
        )
        with urllib.request.urlopen(request, context=self._context(), timeout=30) as answer:  # noqa: S310
            text = answer.read()
        return json.loads(text) if text.startswith(b"{") else text.decode()

    def audit(self) -> Iterator[dict[str, Any]]:
        """What the API server recorded so far, in its order."""
        with self.audit_log.open(encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n"):
                    yield json.loads(line)

    # --- starting ---------------------------------------------------------------------------------------------------
    def _start_etcd(self, peer: int) -> None:
        self._spawn(
            "etcd",
            [
                str(self._programs.etcd),
                f"--data-dir={self.folder / 'etcd'}",
                f"--listen-client-urls={self.etcd_url}",
                f"--advertise-client-urls={self.etcd_url}",
                f"--listen-peer-urls=http://127.0.0.1:{peer}",
                f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
                f"--initial-cluster=default=http://127.0.0.1:{peer}",
                "--unsafe-no-fsync=true",  # the data lives as long as the test
                "--log-level=error",
            ],
        )

    def _start_server(self, port: int) -> None:
        pki = self._authority
        certificate, key = pki.server()
        self._spawn(
            "kube-apiserver",
            [
                str(self._programs.kube_apiserver),
                f"--etcd-servers={self.etcd_url}",
                "--bind-address=127.0.0.1",
                "--advertise-address=127.0.0.1",
                f"--secure-port={port}",
                f"--tls-cert-file={certificate}",
                f"--tls-private-key-file={key}",
                f"--client-ca-file={pki.certificate}",
                f"--cert-dir={self.folder}",
                "--authorization-mode=RBAC",
                "--service-account-issuer=https://tandem.test",
                f"--service-account-key-file={key}",
                f"--service-account-signing-key-file={key}",
                "--service-cluster-ip-range=10.254.0.0/16",
                # nobody makes service accounts for pods here
                "--disable-admission-plugins=ServiceAccount",
                "--endpoint-reconciler-type=none",
                f"--audit-policy-file={self.folder / 'audit-policy.json'}",
                f"--audit-log-path={self.audit_log}",
                "--audit-log-mode=blocking",
                *self._extra_flags,
            ],
        )

    def _spawn(self, name: str, argv: list[str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # its own group, so that a Ctrl-C in the terminal does not reach it before the tests have ended
                process_group=0,
                preexec_fn=_end_with_parent,
            )

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            for name, process in self._processes.items():
                if process.poll() is not None:
                    raise LocalApiError(f"{name} ended with status {process.returncode}:\n{self._log_end(name)}")
            with contextlib.suppress(OSError, urllib.error.URLError):
                if self.request("GET", "/readyz") == "ok" and self.request("GET", "/api/v1/namespaces/default"):
                    return
            if time.monotonic() > deadline:
                raise LocalApiError(f"not ready after {START_SECONDS} s:\n{self._log_end('kube-apiserver')}")
            time.sleep(0.1)

    def _log_end(self, name: str) -> str:
        with contextlib.suppress(OSError):
            return (self.folder / f"{name}.log").read_text(errors="replace")[-2000:]
        return "(no log)"

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self._authority.certificate)
        context.load_cert_chain(*self._authority.issue("admin", ("system:masters",)))
        return context


def sweep() -> None:
    """Remove the folders of runs whose process is gone; their servers ended with it."""
    for folder in _parent().glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError, ValueError):
            if not Path(f"/proc/{int((folder / 'owner').read_text())}").exists():
                shutil.rmtree(folder, ignore_errors=True)


def _parent() -> Path:
    memory = Path("/dev/shm")  # noqa: S108 - a folder of our own below it
    return memory if memory.is_dir() else Path(tempfile.gettempdir())


def _end_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.umask(0o077)


def _free_ports(count: int) -> list[int]:
    """Ports that nobody has now; all are held until the last is known, so that they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
