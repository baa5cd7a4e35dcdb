"""Releasing a node against a real API server, and the whole playbook in check mode: nobody here acts on pods but us."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from plugins.action import tandem_let_go
from plugins.module_utils.tandem_kube import Kube
from plugins.module_utils.tandem_kubelet_objects import delete_pod
from plugins.module_utils.tandem_release import TAINT
from tandem.runtime.testing.localapi import LocalApi

pytestmark = pytest.mark.api

INFO = (
    *("machineID", "systemUUID", "kernelVersion", "osImage", "containerRuntimeVersion", "kubeletVersion"),
    *("kubeProxyVersion", "operatingSystem", "architecture"),
)
ROOT = Path(__file__).resolve().parents[2]


class Site:
    """Three nodes of a test's own, one of them gone, and a single writer on it."""

    def __init__(self, api: LocalApi, name: str) -> None:
        self.kube, self.kubeconfig = Kube(str(api.kubeconfig())), str(api.kubeconfig())
        self.owner = str(uuid.uuid4())
        self.gone, self.there, self.namespace = f"{name}-a", f"{name}-b", name
        self.add_node(self.gone, "Unknown")
        self.add_node(self.there, "True")
        self.kube.request("POST", "/api/v1/namespaces", body={"metadata": {"name": name}})
        self.add_volume("share", "/srv/tandem/pvc-1")

    def add_node(self, name: str, ready: str) -> None:
        self.kube.request("POST", "/api/v1/nodes", body={"metadata": {"name": name}})
        status = {
            "conditions": [{"type": "Ready", "status": ready}],
            "addresses": [{"type": "InternalIP", "address": "10.77.0.11"}],
            "nodeInfo": dict.fromkeys(INFO, "x") | {"bootID": "boot-1"},
        }
        headers = {"Content-Type": "application/merge-patch+json"}
        self.kube.request("PATCH", f"/api/v1/nodes/{name}/status", body={"status": status}, headers=headers)

    def add_volume(self, name: str, path: str) -> None:
        spec = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOncePod"], "hostPath": {"path": path}}
        full = f"{self.namespace}-{name}"
        self.kube.request("POST", "/api/v1/persistentvolumes", body={"metadata": {"name": full}, "spec": spec})
        claim = {
            "accessModes": ["ReadWriteOncePod"],
            "volumeName": full,
            "storageClassName": "",
            "resources": {"requests": {"storage": "1Gi"}},
        }
        path = f"/api/v1/namespaces/{self.namespace}/persistentvolumeclaims"
        self.kube.request("POST", path, body={"metadata": {"name": name}, "spec": claim})

    def add_pod(self, name: str, node: str, claim: str = "share") -> dict[str, Any]:
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "ledger", "uid": self.owner, "controller": True}
        body = {
            "metadata": {"name": name, "ownerReferences": [owner], "finalizers": []},
            "spec": {
                "nodeName": node,
                "containers": [{"name": "c", "image": "busybox:1"}],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}],
            },
        }
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        kube = Kube(self.kubeconfig)  # of its own: a thread calls this too
        made: dict[str, Any] = kube.request("POST", path, body=body)
        status = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
        headers = {"Content-Type": "application/merge-patch+json"}
        kube.request("PATCH", f"{path}/{name}/status", body=status, headers=headers)
        return made

    def pod(self, name: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.kube.find(f"/api/v1/namespaces/{self.namespace}/pods/{name}")
        return found

    def node(self) -> dict[str, Any]:
        found: dict[str, Any] = self.kube.get(f"/api/v1/nodes/{self.gone}")
        return found

    def parameters(self, **changes: Any) -> dict[str, Any]:
        entry = {
            "phase": "refused",
            "epoch": 7,
            "boot_ids": ["boot-1"],
            "since": "2026-01-01T00:00:00Z",
            "addresses": ["10.77.0.11"],
        }
        return {
            "node": self.gone,
            "workers": [self.gone, self.there],
            "address": "10.77.0.11",
            "share": "/srv/tandem",
            "servers": ["10.77.0.20"],
            "record": {self.gone: entry},
            "machine": {},
            "accept_ready": False,
            "timeout_seconds": 20,
            **changes,
        }


@pytest.fixture
def site(api: LocalApi, name: str) -> Iterator[Site]:
    """A site, its nodes gone afterwards."""
    made = Site(api, name)
    yield made
    kube = Kube(made.kubeconfig)  # the old connection may have been idle for too long
    kube.request("DELETE", f"/api/v1/namespaces/{name}/pods", body={"gracePeriodSeconds": 0})
    for node in (made.gone, made.there):
        kube.request("DELETE", f"/api/v1/nodes/{node}")


def test_pods_go_by_force_and_the_taint_stays(site: Site) -> None:
    site.add_pod("ledger-1", site.gone)
    path = f"/api/v1/namespaces/{site.namespace}/pods/ledger-1"
    site.kube.request("DELETE", path)  # as the taint manager does: without its kubelet the pod stays
    assert "deletionTimestamp" in (site.pod("ledger-1") or {})["metadata"]
    site.kube.request(
        "PATCH",
        f"/api/v1/nodes/{site.gone}",
        body={"spec": {"taints": [{"key": "others", "effect": "NoSchedule"}]}},
        headers={"Content-Type": "application/merge-patch+json"},
    )
    plan = tandem_let_go.released(site.kube, site.parameters(), check_mode=True)
    assert plan["changed"]
    assert site.pod("ledger-1")
    assert TAINT not in str(site.node()["spec"])

    replacement = threading.Timer(1.5, site.add_pod, ("ledger-2", site.there))
    replacement.start()
    done = tandem_let_go.released(site.kube, site.parameters(), check_mode=False)
    replacement.join()
    assert done["changed"]
    [served] = done["serving"].values()
    assert served["pod"] == f"ledger-2 on {site.there}"
    assert served["seconds"] >= 1
    assert site.pod("ledger-1") is None
    taints = {taint["key"]: taint for taint in site.node()["spec"]["taints"]}
    assert taints[TAINT] | {"timeAdded": ""} == {"key": TAINT, "value": "7", "effect": "NoExecute", "timeAdded": ""}

    again = tandem_let_go.released(site.kube, site.parameters(), check_mode=False)
    assert not again["changed"], "a second run changes nothing"
    assert tandem_let_go.readmitted(site.kube, site.parameters(), check_mode=False)["changed"]
    assert [taint["key"] for taint in site.node()["spec"]["taints"]] == ["others"]
    assert not tandem_let_go.readmitted(site.kube, site.parameters(), check_mode=False)["changed"]


@pytest.mark.parametrize("lost", [True, False])
def test_who_is_waited_for_goes_first(site: Site, lost: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pod = site.add_pod("ledger-1", site.gone)
    taints = [{"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"}] if lost else []
    headers = {"Content-Type": "application/merge-patch+json"}
    site.kube.request("PATCH", f"/api/v1/nodes/{site.gone}", body={"spec": {"taints": taints}}, headers=headers)
    asked, real = [], site.kube.request

    def request(method: str, path: str, *arguments: Any, **named: Any) -> dict[str, Any]:
        asked.append((method, path.rpartition("/")[2]))
        return real(method, path, *arguments, **named)

    monkeypatch.setattr(site.kube, "request", request)
    with pytest.raises(TimeoutError, match="no new pod yet"):
        tandem_let_go.released(site.kube, site.parameters(timeout_seconds=0), check_mode=False)
    writes = [each for each in asked if each[0] != "GET"]
    expected = [("DELETE", pod["metadata"]["name"]), ("PATCH", site.gone)]
    assert writes == (expected if lost else expected[::-1]), "to a node that is open a successor might be sent"


def test_a_successor_of_the_same_name_is_not_hit(site: Site) -> None:
    old = site.add_pod("ledger-0", site.gone)
    stale = {"name": f"{site.namespace}/ledger-0", "uid": "00000000-0000-0000-0000-000000000000"}
    delete_pod(site.kube, stale)
    assert site.pod("ledger-0"), "another UID, another pod"
    delete_pod(site.kube, {**stale, "uid": old["metadata"]["uid"]})
    assert site.pod("ledger-0") is None
    delete_pod(site.kube, stale)


def test_it_says_why_nobody_serves(site: Site) -> None:
    site.add_pod("ledger-1", site.gone)
    begun = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no new pod yet; way out: .*the same command waits again"):
        tandem_let_go.released(site.kube, site.parameters(timeout_seconds=1), check_mode=False)
    assert time.monotonic() - begun < 15


def run(site: Site, tmp_path: Path, playbook: str, *arguments: str, **hosts: Any) -> subprocess.CompletedProcess[str]:
    """The real playbook on a site whose machines are this one; in check mode, or refused before it changes anything."""

    def group(**named: str) -> dict[str, Any]:
        members = {name: {"tandem_address": address, **hosts.get(name, {})} for name, address in named.items()}
        return {"hosts": members}

    variables = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "tandem_kubeconfig": site.kubeconfig,
    }
    workers = {site.gone: "10.77.0.11", site.there: "10.77.0.12"}
    children = {
        "control_plane": group(cp="10.77.0.10"),
        "workers": group(**workers),
        "nfs_server": group(nfs="10.77.0.20"),
    }
    path = tmp_path / "hosts.yml"
    path.write_text(yaml.safe_dump({"all": {"vars": variables, "children": children}}))
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    return subprocess.run(
        [program, "--inventory", str(path), f"playbooks/{playbook}.yml", *arguments],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="nft lists tables for root alone")
def test_the_playbook_in_check_mode_tells_the_plan_and_leaves_all(site: Site, tmp_path: Path) -> None:
    site.add_pod("ledger-1", site.gone)
    done = run(site, tmp_path, "release-node", "--check", "-e", f"node={site.gone}")
    told = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 0, told
    assert f"pods deleted by force: {site.namespace}/ledger-1" in told
    assert f"{site.gone} (10.77.0.11) is refused the share" in told
    assert f"readmit-node.yml -e node={site.gone}" in told
    assert site.pod("ledger-1")
    assert TAINT not in str(site.node()["spec"])


def test_the_playbooks_refuse_before_anything_changes(site: Site, tmp_path: Path) -> None:
    gone = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_ssh_retries": 0}
    for playbook, so_far in (("release-node", "No pod has been deleted"), ("readmit-node", "Nothing has been changed")):
        done = run(site, tmp_path, playbook, "-e", json.dumps({"node": site.gone}), nfs=gone)
        told = " ".join((done.stdout + done.stderr).split())
        assert done.returncode != 0
        assert f"{so_far}. NFS server nfs does not answer" in told
        assert "it alone can refuse a node the share" in told
    done = run(site, tmp_path, "release-node", "-e", f"node={site.there}")
    told = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0
    assert "a node that lives is not released unasked" in told
    assert f"{site.gone}: Ready=Unknown" in told, "and the other worker is not Ready"
    assert "changed=0" in told
    done = run(site, tmp_path, "release-node")
    told = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0
    assert "a worker of the inventory that is a node of the cluster" in told
    assert "Nothing has been changed" in told
