"""Another profile on a running cluster and back: pods and the operator's flags stay, verify sees every difference."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from plugins.module_utils.tandem_kube import Kube

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = "/api/v1/namespaces/kube-system"
MERGE = {"Content-Type": "application/merge-patch+json"}
TIMEOUT_SECONDS = 1500

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.disruptive, pytest.mark.timeout(3 * TIMEOUT_SECONDS)]


def playbook(name: str, profile: str, *, fails: bool = False) -> str:
    """Run one of our playbooks for a profile; its output."""
    command = [
        str(Path(sys.executable).with_name("ansible-playbook")),
        name,
        "--extra-vars",
        f"tandem_profile={profile}",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    assert (done.returncode != 0) == fails, done.stdout[-4000:] + done.stderr[-1000:]
    return done.stdout


def workloads(kube: Kube) -> dict[str, tuple[str, int]]:
    """UID and restarts of all pods but the control plane's own and CoreDNS (whose patch holds tolerations)."""
    return {
        f"{pod['metadata']['namespace']}/{pod['metadata']['name']}": (
            pod["metadata"]["uid"],
            sum(status["restartCount"] for status in pod["status"].get("containerStatuses", [])),
        )
        for pod in kube.get("/api/v1/pods")["items"]
        if "kubernetes.io/config.mirror" not in pod["metadata"].get("annotations", {})
        and pod["metadata"].get("labels", {}).get("k8s-app") != "kube-dns"
    }


def cluster_configuration(kube: Kube) -> dict[str, Any]:
    """The ClusterConfiguration that kubeadm keeps in the cluster."""
    text = kube.get(f"{SYSTEM}/configmaps/kubeadm-config")["data"]["ClusterConfiguration"]
    document: dict[str, Any] = yaml.safe_load(text)
    return document


@pytest.fixture
def operators_flag(kube: Kube) -> Iterator[dict[str, str]]:
    """A flag of the operator's own in kubeadm's document, taken out again afterwards."""
    flag = {"name": "profiling", "value": "false"}

    def write(document: dict[str, Any]) -> None:
        body = {"data": {"ClusterConfiguration": yaml.safe_dump(document)}}
        kube.request("PATCH", f"{SYSTEM}/configmaps/kubeadm-config", body=body, headers=MERGE)

    document = cluster_configuration(kube)
    document["apiServer"]["extraArgs"] = [*document["apiServer"].get("extraArgs", []), flag]
    write(document)
    yield flag
    document = cluster_configuration(kube)
    document["apiServer"]["extraArgs"].remove(flag)
    write(document)


def test_there_and_back(kube: Kube, profile: str, operators_flag: dict[str, str]) -> None:
    before = workloads(kube)
    for other in ("article" if profile != "article" else "balanced", "stock", profile):
        playbook("playbooks/tune.yml", other)
        playbook("playbooks/verify.yml", other)
        assert operators_flag in cluster_configuration(kube)["apiServer"]["extraArgs"]
        assert workloads(kube) == before
    assert "changed=0" in playbook("playbooks/tune.yml", profile)


def test_verify_names_host_key_wanted_and_found(kube: Kube, profile: str, workers: list[str]) -> None:
    path = f"/api/v1/nodes/{workers[0]}"
    key = "tandem-ha.io/shared-storage"
    kube.request("PATCH", path, body={"metadata": {"labels": {key: "lost"}}}, headers=MERGE)
    try:
        told = playbook("playbooks/verify.yml", profile, fails=True)
    finally:
        kube.request("PATCH", path, body={"metadata": {"labels": {key: "mounted"}}}, headers=MERGE)
    assert f"{workers[0]}: label {key}: wanted 'mounted', found 'lost'" in " ".join(told.split())


def test_another_profile_than_the_live_one_is_seen(profile: str) -> None:
    other = "article" if profile != "article" else "balanced"
    told = " ".join(playbook("playbooks/verify.yml", other, fails=True).split())
    assert "kube-controller-manager --node-monitor-grace-period" in told
    assert "kubelet configz nodeLeaseDurationSeconds" in told


def test_check_mode_changes_nothing(kube: Kube, profile: str) -> None:
    other = "article" if profile != "article" else "balanced"
    before = kube.get(f"{SYSTEM}/configmaps/kubeadm-config")["metadata"]["resourceVersion"]
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1"}
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "playbooks/tune.yml", "--check", "--diff"]
    done = subprocess.run(
        [*command, "--extra-vars", f"tandem_profile={other}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert kube.get(f"{SYSTEM}/configmaps/kubeadm-config")["metadata"]["resourceVersion"] == before
    assert "node-monitor-grace-period" in done.stdout
