"""The gateway as a process, with the rights that its component gives it, on a real API server that goes away.

The cluster addresses of this API server are loopback ones: a Service is what listens on its address.
"""

from __future__ import annotations

import http.client
import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.components import Gateway, GatewayArgs
from lab.story import ROOT
from tandem import recovery
from tandem.runtime.testing.localapi import LocalApi, Programs
from tests.api.processes import wait_for
from tests.pulumi.registered import register

pytestmark = pytest.mark.api

APPS, HOME = "shop", "tandem-gateway"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
INGRESSES = f"/apis/networking.k8s.io/v1/namespaces/{APPS}/ingresses"
SERVICES = f"/api/v1/namespaces/{APPS}/services"


class Running:
    """The process, its port for requests, and its log."""

    def __init__(self, kubeconfig: Path, folder: Path, ports: tuple[int, int]) -> None:
        self.port, self.health = ports
        self.log = folder / "gateway.log"
        settings = {
            "KUBECONFIG": str(kubeconfig),
            "TANDEM_NAMESPACES": APPS,
            "TANDEM_GATEWAY_PORT": str(self.port),
            "TANDEM_HEALTH_PORT": str(self.health),
            "TANDEM_HEALTH_HOST": "127.0.0.1",
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tandem.controllers.gateway"],
                cwd=ROOT,
                env=os.environ | settings,
                stdout=log,
                stderr=log,
            )

    def get(self, host: str, path: str = "/", port: int | None = None) -> tuple[int, str]:
        """Status and text; 0 where nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=10)
        try:
            connection.request("GET", path, headers={"Host": host})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError as error:
            return 0, str(error)
        finally:
            connection.close()

    def ready(self) -> tuple[int, int]:
        """What the address's check sees, and what kubelet's probe sees."""
        return self.get("", "/.tandem/ready")[0], self.get("", "/readyz", self.health)[0]

    def until(self, host: str, status: int) -> str:
        """Wait for an answer of this status; returns its text."""
        said = [""]

        def answered() -> bool:
            found, said[0] = self.get(host)
            return found == status

        wait_for(answered, 30, lambda: f"{host}: {self.get(host)}, wanted {status}; {self.log.read_text()[-2000:]}")
        return said[0]


@pytest.fixture
def own_api(programs: Programs) -> Iterator[LocalApi]:
    with LocalApi(programs, extra_flags=("--service-cluster-ip-range=127.64.0.0/16",)) as running:
        yield running


@pytest.fixture
def gateway(own_api: LocalApi, tmp_path: Path, free_ports: tuple[int, int]) -> Iterator[Running]:
    made = register(
        lambda: Gateway(GatewayArgs(image="example.org/controllers:1"), apps=APPS, profile=recovery.profile("balanced"))
    )
    for namespace in (APPS, HOME):
        own_api.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    for kind in ("Role", "RoleBinding"):
        own_api.request("POST", f"{RBAC}/namespaces/{APPS}/{kind.lower()}s", made.one(kind).inputs)
    own_api.request("POST", "/apis/networking.k8s.io/v1/ingressclasses", made.one("IngressClass").inputs)
    account = own_api.kubeconfig(f"system:serviceaccount:{HOME}:gateway", ("system:serviceaccounts",))
    kubeconfig = tmp_path / "kubeconfig.json"  # a colon in the account's name would part the path into two
    kubeconfig.write_text(account.read_text())
    running = Running(kubeconfig, tmp_path, free_ports)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


@pytest.fixture
def free_ports(unused_tcp_port_factory: object) -> tuple[int, int]:
    assert callable(unused_tcp_port_factory)
    return int(unused_tcp_port_factory()), int(unused_tcp_port_factory())


class Told(http.server.BaseHTTPRequestHandler):
    """Says what was asked."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{self.headers['Host']} {self.path}".encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def serving(address: str, port: int) -> Iterator[None]:
    """An app at the Service's address."""
    server = http.server.ThreadingHTTPServer((address, port), Told)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def refused(api: LocalApi) -> list[str]:
    """What the gateway asked for and had no right to; a server that has just begun knows of no rights for a moment."""
    asked = [event for event in api.audit() if event["user"]["username"].endswith(":gateway")]
    assert asked
    return [event["requestURI"] for event in asked if event.get("responseStatus", {}).get("code") == 403]


def test_it_follows_the_cluster_survives_its_absence_and_ends_in_order(
    own_api: LocalApi, gateway: Running, free_ports: tuple[int, int]
) -> None:
    wait_for(lambda: gateway.ready() == (200, 200), 60, lambda: f"{gateway.ready()} {gateway.log.read_text()[-2000:]}")
    assert gateway.get("shop.example")[0] == 404
    backend = {"service": {"name": "web", "port": {"name": "http"}}}
    rule = {"host": "shop.example", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    spec = {"ingressClassName": "tandem", "rules": [rule]}
    own_api.request("POST", INGRESSES, {"metadata": {"name": "web"}, "spec": spec})
    assert "does not exist" in gateway.until("shop.example", 503)
    port = free_ports[0] + 1
    ports = [{"name": "http", "port": port}]
    service = own_api.request("POST", SERVICES, {"metadata": {"name": "web"}, "spec": {"ports": ports}})
    assert "no endpoint of shop/web" in gateway.until("shop.example", 502)
    with serving(service["spec"]["clusterIP"], port):
        assert gateway.until("shop.example", 200) == "shop.example /"
        assert refused(own_api) == [], "the rights are enough"
        own_api.kill_server()
        assert gateway.ready() == (200, 200), "what it knows is enough without the API server"
        assert gateway.get("shop.example", "/x?y=1") == (200, "shop.example /x?y=1")
        own_api.start_server()
    own_api.request("DELETE", f"{INGRESSES}/web")
    gateway.until("shop.example", 404)

    began = time.monotonic()
    gateway.process.send_signal(signal.SIGTERM)
    wait_for(lambda: gateway.ready() == (503, 500), 10, lambda: f"it says that it ends: {gateway.ready()}")
    assert gateway.get("shop.example")[0] == 404, "and goes on serving"
    assert gateway.process.wait(30) == 0
    assert 4.5 < time.monotonic() - began < 15
