"""The API server that the other tests lean on: real, verified, audited, and gone afterwards."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tandem.runtime.client import connect_client
from tandem.runtime.resources import LEASES
from tandem.runtime.testing import localapi
from tandem.runtime.testing.localapi import LocalApi, LocalApiError, Programs, sweep

pytestmark = pytest.mark.api


async def test_serves_the_runtimes_client_with_verified_certificates(api: LocalApi, name: str) -> None:
    async with connect_client(str(api.kubeconfig())) as client:
        body = {"metadata": {"name": name, "namespace": "default"}, "spec": {}}
        created = await client.create(LEASES, body, seconds=10)
    assert created["metadata"]["resourceVersion"]


def test_its_certificate_is_nobody_elses(api: LocalApi) -> None:
    with pytest.raises(urllib.error.URLError) as refused:
        urllib.request.urlopen(f"{api.url}/version", context=ssl.create_default_context())  # noqa: S310
    assert "CERTIFICATE_VERIFY_FAILED" in str(refused.value)


async def test_the_audit_log_has_user_and_body_of_writes(api: LocalApi, name: str) -> None:
    async with connect_client(str(api.kubeconfig("somebody"))) as client:
        body = {"metadata": {"name": name, "namespace": "default"}, "spec": {"holderIdentity": "me"}}
        await client.create(LEASES, body, seconds=10)
    [event] = [event for event in api.audit() if event["verb"] == "create" and event["objectRef"].get("name") == name]
    assert event["user"]["username"] == "somebody"
    assert event["requestObject"]["spec"]["holderIdentity"] == "me"
    assert event["responseStatus"]["code"] == 201


def test_starts_within_15_seconds_and_leaves_nothing(programs: Programs) -> None:
    before = time.monotonic()
    cpu_before = os.times()
    with LocalApi(programs) as api:
        took = time.monotonic() - before
        folder = api.folder
        pids = [process.pid for process in api._processes.values()]
        api.kill_server()
        api.start_server()
        pids += [process.pid for process in api._processes.values()]
    assert not folder.exists()
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    # On a machine that is busy with other things wall time says nothing.
    idle = os.getloadavg()[0] < (os.cpu_count() or 1)
    print(f"ready after {took:.1f} s, {os.times().children_user - cpu_before.children_user:.1f} s of CPU")
    if idle:
        assert took < 15


def test_a_port_that_somebody_took_is_left_for_another(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = localapi._free_ports
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        answers = iter([[*chosen(2), taken.getsockname()[1]]])
        monkeypatch.setattr(localapi, "_free_ports", lambda count: next(answers, None) or chosen(count))
        with LocalApi(programs) as api:
            assert api.url.rsplit(":", 1)[1] != str(taken.getsockname()[1])
            assert api.request("GET", "/readyz") == "ok"


def test_a_server_that_cannot_start_says_why(programs: Programs) -> None:
    with pytest.raises(LocalApiError, match="unknown flag"), LocalApi(programs, extra_flags=("--no-such-flag",)):
        pass


def test_what_a_killed_test_run_left_is_swept(programs: Programs) -> None:
    """Its processes end with it; its folder is removed by the next start."""
    script = (
        "import os, signal, sys, pathlib\n"
        "from tandem.runtime.testing.localapi import LocalApi, Programs\n"
        "api = LocalApi(Programs(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])))\n"
        "api.start()\n"
        "print(api.folder, *[p.pid for p in api._processes.values()], flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    child = subprocess.run(
        [sys.executable, "-c", script, programs.etcd, programs.kube_apiserver],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert child.returncode == -signal.SIGKILL
    folder, *pids = child.stdout.split()
    deadline = time.monotonic() + 10
    while [pid for pid in pids if Path(f"/proc/{pid}/exe").exists()] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in pids if Path(f"/proc/{pid}/exe").exists()]
    assert Path(folder).exists()
    sweep()
    assert not Path(folder).exists()
