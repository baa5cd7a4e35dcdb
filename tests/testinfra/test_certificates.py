"""Certificates near their end are seen, and renewed without a restarted pod; a renewal that is killed resumes."""

from __future__ import annotations

import os
import random
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from cryptography import x509

from plugins.module_utils.tandem_kube import Kube
from tests.testinfra.playbooks import TIMEOUT_SECONDS, command, killed_after, outcome

RENEW = {"tandem_renew_certificates": True}
SYSTEM = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd")
SEEDS = range(int(os.environ.get("TANDEM_KILL_SEEDS", "5")))

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.disruptive, pytest.mark.timeout(4 * TIMEOUT_SECONDS)]


def serving(kubeconfig: Path) -> int:
    """Serial number of the certificate that the API server shows to the outside."""
    cluster = yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]
    address = urlsplit(cluster["server"])
    pem = ssl.get_server_certificate((str(address.hostname), address.port or 443))
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


def others(kube: Kube) -> dict[str, tuple[str, int]]:
    """UID and restarts of every pod but those of the control plane.

    Restarts of controllers do not count: the only API server is away for longer than they may go without their Lease,
    and then they end by themselves, as they should.
    """
    return {
        f"{pod['metadata']['namespace']}/{pod['metadata']['name']}": (
            pod["metadata"]["uid"],
            0
            if pod["metadata"].get("labels", {}).get("tandem-ha.io/workload") == "controller"
            else sum(status["restartCount"] for status in pod["status"].get("containerStatuses", [])),
        )
        for pod in kube.get("/api/v1/pods")["items"]
        if pod["metadata"].get("labels", {}).get("component") not in SYSTEM
        and pod["metadata"].get("labels", {}).get("app.kubernetes.io/name") != "local-path-provisioner"
    }


def dates(machine: Callable[[str], Any], name: str) -> dict[str, str]:
    """End of every certificate below /etc/kubernetes but the authorities, on one machine."""
    script = (
        "for f in /etc/kubernetes/pki/*.crt /etc/kubernetes/pki/etcd/*.crt; do "
        "case $f in *ca.crt) continue;; esac; echo $f $(openssl x509 -noout -serial -in $f); done; "
        "for f in /etc/kubernetes/*.conf; do grep -q client-certificate-data $f || continue; "
        "echo $f $(sed -n 's/.*client-certificate-data: //p' $f | base64 -d | openssl x509 -noout -serial); done"
    )
    return dict(line.split(" ", 1) for line in machine(name).check_output(script).splitlines())


def test_an_end_that_comes_near_is_told_and_then_fails(
    profile: str, control_plane: list[str], workers: list[str]
) -> None:
    status, told = outcome("verify", profile, tandem_certificate_warn_days=400)
    assert status == 0, told[-3000:]
    assert f"{control_plane[0]}: certificate /etc/kubernetes/pki/apiserver.crt ends in" in told
    assert f"{control_plane[0]}: certificate /etc/kubernetes/scheduler.conf ends in" in told
    status, told = outcome("verify", profile, tandem_certificate_fail_days=400)
    assert status != 0
    for host, path in (
        (control_plane[0], "/etc/kubernetes/admin.conf"),
        (control_plane[0], "/etc/kubernetes/pki/etcd/peer.crt"),
        (workers[0], "/var/lib/kubelet/pki/kubelet-client-current.pem"),
    ):
        assert f"{host}: certificate {path}: wanted 'valid for 400 days'" in told


def test_all_are_renewed_and_no_pod_is_restarted(
    kube: Kube, machine: Callable[[str], Any], profile: str, control_plane: list[str], kubeconfig_folder: Path
) -> None:
    kubeconfig = kubeconfig_folder / "admin.conf"
    before, shown, pods, own = (
        dates(machine, control_plane[0]),
        serving(kubeconfig),
        others(kube),
        kubeconfig.read_text(),
    )
    status, told = outcome("certs", profile, "--check", **RENEW)
    assert status == 0, told[-3000:]
    assert "restarted one by one: etcd, kube-apiserver, kube-controller-manager, kube-scheduler" in told
    assert dates(machine, control_plane[0]) == before
    status, told = outcome("certs", profile, **RENEW)
    assert status == 0, told[-3000:]
    after = dates(machine, control_plane[0])
    assert set(after) == set(before)
    assert len(after) >= 11
    assert [path for path in before if after[path] == before[path]] == [], "not renewed"
    assert serving(kubeconfig) != shown
    assert kubeconfig.read_text() != own
    assert Kube(str(kubeconfig)).get("/version")
    assert others(kube) == pods
    status, told = outcome("certs", profile)
    assert status == 0
    assert "nothing to do" in told
    for host in control_plane:
        assert "changed=0" in told.rpartition(f"{host} :")[2]
    status, told = outcome("verify", profile)
    assert status == 0, told[-3000:]
    assert "may use the one of before" not in told


@pytest.mark.parametrize("seed", SEEDS)
def test_killed_at_a_random_moment_and_run_again(seed: int, profile: str) -> None:
    moment = random.Random(seed).uniform(15, 75)
    killed_after(command("certs", profile, **RENEW), moment)
    status, told = outcome("certs", profile)
    assert status == 0, told[-3000:]
    status, told = outcome("verify", profile)
    assert status == 0, told[-3000:]
    assert "may use the one of before" not in told, "no program runs with a certificate of before"
