"""A tuning that is killed at a random moment: the cluster serves, what is live is safe, and the next run converges.

One seed here, for every run of the tests, and the shortest way back; ten in `test_tuning_faults.py`.
"""

from __future__ import annotations

import datetime
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plugins.module_utils.tandem_kube import Kube, KubeError
from tests.testinfra.playbooks import ROOT, TIMEOUT_SECONDS, command, killed_after, run, told

SEED = int(os.environ.get("TANDEM_KILL_SEED", "0"))
SERVED = ("kubernetes", "kube-dns")
"""Services that every cluster has: their ready endpoints say that it serves."""
LED_SECONDS = 12.0
"""As `plugins/modules/tandem_gate.py` has it, with the source of the number."""

pytestmark = [pytest.mark.lab, pytest.mark.disruptive, pytest.mark.timeout(2 * TIMEOUT_SECONDS)]


def live_findings(kubeconfig: Path) -> tuple[int, str]:
    """What `tandem predict --from-cluster` says of the flags and kubelet settings that are in force at this moment.

    Its status is 1 for an error, and 2 while the cluster cannot be read, which is waited for.
    """
    until = time.monotonic() + 300
    while True:
        argv = [sys.executable, "-m", "tandem", "predict", "--from-cluster", "--kubeconfig", str(kubeconfig)]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode != 2 or time.monotonic() > until:
            return done.returncode, done.stdout + done.stderr
        time.sleep(1)


def without_endpoint(kube: Kube) -> set[str]:
    """Services without a ready endpoint."""
    ready = set()
    for piece in kube.get("/apis/discovery.k8s.io/v1/endpointslices")["items"]:
        if any(endpoint["conditions"].get("ready") for endpoint in piece.get("endpoints") or []):
            ready.add(piece["metadata"]["labels"]["kubernetes.io/service-name"])
    return set(SERVED) - ready


def unserved(kube: Kube) -> str:
    """What is not as it should be: a node that is not Ready, a Service without an endpoint; empty when all is well."""
    try:
        nodes, missing = kube.get("/api/v1/nodes")["items"], without_endpoint(kube)
    except KubeError as error:
        return f"the API is away: {error}"
    conditions = {
        node["metadata"]["name"]: {each["type"]: each["status"] for each in node["status"]["conditions"]}["Ready"]
        for node in nodes
    }
    return "" if set(conditions.values()) == {"True"} and not missing else f"{conditions}, no endpoint: {missing}"


def serves(kube: Kube) -> None:
    """See that it serves; an API server that is on its way up is waited for."""
    until = time.monotonic() + 180
    while wrong := unserved(kube):
        assert time.monotonic() < until, wrong
        time.sleep(1)


def led(kube: Kube, program: str) -> bool:
    """Whether a program leads, and has led for longer than one needs to give up that finds the API server unhealthy."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{program}"
    try:
        before = kube.get(path)["spec"]
        time.sleep(5)
        now = kube.get(path)["spec"]
    except KubeError:
        return False
    acquired, renewed = (datetime.datetime.fromisoformat(now[name]) for name in ("acquireTime", "renewTime"))
    return now["renewTime"] != before["renewTime"] and (renewed - acquired).total_seconds() >= LED_SECONDS


def leads(kube: Kube) -> None:
    """See that the control plane's programs lead: without them nothing is made, and nothing fails over.

    One that has ended several times is started again after up to 300 s.
    """
    until = time.monotonic() + 420
    for program in ("kube-controller-manager", "kube-scheduler"):
        while not led(kube, program):
            assert time.monotonic() < until, f"{program} does not lead"


def safe(kube: Kube, kubeconfig: Path) -> None:
    """See that the cluster serves, and that what is in force at this moment has no error."""
    serves(kube)
    status, said = live_findings(kubeconfig)
    assert status == 0, said


def test_killed_at_a_random_moment(kube: Kube, kubeconfig_folder: Path, profile: str) -> None:
    other, moment = "article" if profile != "article" else "balanced", random.Random(SEED).uniform(10, 90)
    assert killed_after(command("tune", other), moment), f"it was over before {moment:.0f} s"
    safe(kube, kubeconfig_folder / "admin.conf")
    done = run("tune", profile)
    assert done.returncode == 0, told(done)[-3000:]
    again = run("tune", profile)
    assert "changed=0" in told(again)
    safe(kube, kubeconfig_folder / "admin.conf")
    leads(kube)
