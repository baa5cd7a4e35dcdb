"""Shared storage: one share on all workers, safe when it is missing, claims served also while a worker is off."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lab.runtime import Lab
from plugins.module_utils.tandem_kube import Kube, KubeError

Connect = Callable[[str], Any]
SHARE = "/srv/tandem"
FEW_CLAIMS, MANY_CLAIMS = 3, 20
NAMESPACE = "tandem-claims-test"
WAIT_SECONDS = 300


@pytest.fixture
def namespace(kube: Kube) -> Iterator[str]:
    """A namespace of the test's own, gone afterwards."""
    try:
        kube.request("POST", "/api/v1/namespaces", body={"metadata": {"name": NAMESPACE}})
    except KubeError as error:
        if error.status != 409:
            raise
    yield NAMESPACE
    kube.request("DELETE", f"/api/v1/namespaces/{NAMESPACE}")
    wait(lambda: kube.find(f"/api/v1/namespaces/{NAMESPACE}") is None, "the namespace is gone")


def wait(done: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
    """Wait until something is true, or fail saying what was not."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not after {seconds} s: {what}"
        time.sleep(1)


def claims_come_and_go(kube: Kube, namespace: str, count: int) -> None:
    """Make claims at once, see all of them bound, delete them, see their volumes go."""
    path = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"
    for number in range(count):
        spec = {
            "storageClassName": "tandem-shared",
            "accessModes": ["ReadWriteMany" if number % 2 else "ReadWriteOncePod"],
            "resources": {"requests": {"storage": "1Mi"}},
        }
        kube.request("POST", path, body={"metadata": {"name": f"claim-{number}"}, "spec": spec})

    def volumes() -> list[dict[str, Any]]:
        items = kube.get("/api/v1/persistentvolumes")["items"]
        return [item for item in items if item["spec"].get("claimRef", {}).get("namespace") == namespace]

    wait(
        lambda: all(item["status"]["phase"] == "Bound" for item in kube.get(path)["items"]),
        f"{count} claims are bound",
    )
    assert len(volumes()) == count
    assert not any(volume["spec"].get("nodeAffinity") for volume in volumes())
    kube.request("DELETE", path)
    if volumes()[:1] and volumes()[0]["spec"]["persistentVolumeReclaimPolicy"] == "Delete":
        wait(lambda: not volumes(), "the volumes of deleted claims are gone")


def test_mount_is_hard_and_its_bare_mount_point_immutable(machine: Connect, workers: list[str]) -> None:
    for name in workers:
        mount = machine(name).mount_point(SHARE)
        assert mount.exists
        assert mount.filesystem == "nfs4"
        assert {"hard", "vers=4.2", "noatime"} <= set(mount.options)
        bare = machine(name).check_output("unshare --mount sh -c 'mount --bind /srv /mnt && lsattr -d /mnt/tandem'")
        assert "i" in bare.split()[0]
        refused = machine(name).run("unshare --mount sh -c 'mount --bind /srv /mnt && mkdir /mnt/tandem/stray'")
        assert refused.rc != 0


def test_kubelet_does_not_require_the_share(machine: Connect, workers: list[str]) -> None:
    for name in workers:
        unit = machine(name).check_output("systemctl show kubelet --property=Requires,BindsTo,Requisite,After")
        after = next(line for line in unit.splitlines() if line.startswith("After="))
        assert "srv-tandem.mount" in after
        assert "srv-tandem.mount" not in unit.replace(after, "")


def test_a_file_written_on_one_worker_is_read_on_the_other(machine: Connect, workers: list[str]) -> None:
    token, path = uuid.uuid4().hex, f"{SHARE}/.tandem-test-{uuid.uuid4().hex}"
    writer, reader = workers[:2]
    nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups"
    try:
        machine(writer).check_output(f"{nobody} sh -c 'echo {token} > {path} && sync -f {path}'")
        assert machine(reader).check_output(f"{nobody} cat {path}") == token
    finally:
        machine(writer).run(f"{nobody} rm -f {path}")


def test_label_and_sentinel(machine: Connect, workers: list[str], kube: Kube) -> None:
    for name in workers:
        assert machine(name).file(f"{SHARE}/.tandem-share").exists
        assert kube.get(f"/api/v1/nodes/{name}")["metadata"]["labels"]["tandem-ha.io/shared-storage"] == "mounted"


def test_claims_come_and_go(kube: Kube, namespace: str) -> None:
    claims_come_and_go(kube, namespace, FEW_CLAIMS)


@pytest.mark.long
def test_many_claims_come_and_go(kube: Kube, namespace: str) -> None:
    claims_come_and_go(kube, namespace, MANY_CLAIMS)


def test_helpers_tolerate_no_dead_node(kube: Kube) -> None:
    pod = {
        "metadata": {"generateName": "helper-pod-test-", "labels": {"tandem-ha.io/role": "volume-helper"}},
        "spec": {
            "containers": [{"name": "helper-pod", "image": "docker.io/library/busybox:1.37"}],
            "tolerations": [{"operator": "Exists"}],
        },
    }
    made = kube.request("POST", "/api/v1/namespaces/tandem-storage/pods?dryRun=All", body=pod)
    assert all(toleration.get("key") for toleration in made["spec"]["tolerations"])
    assert all(toleration["tolerationSeconds"] <= 60 for toleration in made["spec"]["tolerations"])


@pytest.mark.lab
@pytest.mark.long
@pytest.mark.disruptive
@pytest.mark.timeout(1500)
def test_claims_come_and_go_while_a_worker_is_off(kube: Kube, namespace: str, workers: list[str]) -> None:
    lab, victim = Lab("default"), workers[0]

    def ready() -> str:
        conditions = kube.get(f"/api/v1/nodes/{victim}")["status"]["conditions"]
        return str(next(entry["status"] for entry in conditions if entry["type"] == "Ready"))

    lab.power_off(victim)
    try:
        wait(lambda: ready() != "True", f"{victim} is seen as lost")
        claims_come_and_go(kube, namespace, MANY_CLAIMS)
    finally:
        lab.power_on(victim)
    wait(lambda: ready() == "True", f"{victim} is Ready again by itself")
