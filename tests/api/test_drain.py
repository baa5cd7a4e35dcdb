"""A node is taken out and put back against a real API server: real evictions, real disruption budgets."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from ansible.module_utils.tandem_kube import Kube

from plugins.module_utils.tandem_whole import REBOOT, marked
from plugins.modules import tandem_drain
from tandem.runtime.testing.localapi import LocalApi

pytestmark = pytest.mark.api

MERGE = {"Content-Type": "application/merge-patch+json"}
INFO = (
    *("machineID", "systemUUID", "kernelVersion", "osImage", "containerRuntimeVersion", "kubeletVersion"),
    *("kubeProxyVersion", "operatingSystem", "architecture"),
)


class Site:
    """Two nodes of a test's own and a namespace."""

    def __init__(self, api: LocalApi, name: str) -> None:
        self.kubeconfig = str(api.kubeconfig())
        self.kube, self.namespace = Kube(self.kubeconfig), name
        self.first, self.second = f"{name}-a", f"{name}-b"
        self.kube.request("POST", "/api/v1/namespaces", body={"metadata": {"name": name}})
        for node in (self.first, self.second):
            self.kube.request("POST", "/api/v1/nodes", body={"metadata": {"name": node}})
            self.boots(node, "boot-1")

    def boots(self, node: str, boot: str) -> None:
        status = {
            "conditions": [{"type": "Ready", "status": "True"}],
            "nodeInfo": dict.fromkeys(INFO, "x") | {"bootID": boot},
        }
        self.kube.request("PATCH", f"/api/v1/nodes/{node}/status", body={"status": status}, headers=MERGE)

    def add_pod(self, name: str, node: str, owner: str) -> None:
        uid = f"00000000-0000-0000-0000-{abs(hash(owner)) % 10**12:012}"
        owners = [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": uid, "controller": True}]
        body = {
            "metadata": {"name": name, "labels": {"app": owner}, "ownerReferences": owners},
            "spec": {
                "nodeName": node,
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "c", "image": "busybox:1"}],
            },
        }
        path, kube = f"/api/v1/namespaces/{self.namespace}/pods", Kube(self.kubeconfig)  # a thread calls this too
        kube.request("POST", path, body=body)
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        kube.request("PATCH", f"{path}/{name}/status", body={"status": status}, headers=MERGE)

    def there(self, name: str) -> bool:
        return self.kube.find(f"/api/v1/namespaces/{self.namespace}/pods/{name}") is not None

    def node(self) -> dict[str, Any]:
        found: dict[str, Any] = self.kube.get(f"/api/v1/nodes/{self.first}")
        return found

    def drain(self, seconds: float = 20) -> dict[str, Any]:
        return tandem_drain.drained(self.kube, self.first, [], seconds)


@pytest.fixture
def site(own_api: LocalApi, name: str) -> Site:
    """A site on an API server of its own: the whole cluster has to be whole."""
    return Site(own_api, name)


def test_out_and_back(site: Site) -> None:
    site.add_pod("ledger-1", site.first, "ledger")
    site.add_pod("web-1", site.first, "web")
    site.add_pod("web-2", site.second, "web")
    plan = tandem_drain.planned(site.kube, site.first, [])
    assert plan["refusals"] == []
    assert not plan["booted"]
    assert plan["evicted"] == [f"{site.namespace}/ledger-1", f"{site.namespace}/web-1"]
    assert plan["away"] == [f"{site.namespace}/ReplicaSet/ledger"]
    assert site.there("ledger-1")
    replacement = threading.Timer(1.5, site.add_pod, ("ledger-2", site.second, "ledger"))
    replacement.start()
    done = site.drain()
    replacement.join()
    assert done["changed"]
    assert done["away"][f"{site.namespace}/ReplicaSet/ledger"] >= 1
    assert (site.there("ledger-1"), site.there("web-1"), site.there("web-2")) == (False, False, True)
    assert site.node()["spec"]["unschedulable"]
    assert not site.drain()["changed"], "killed and run again"

    with pytest.raises(tandem_drain.DrainError, match=r"not told the cluster of another boot.*stays cordoned"):
        tandem_drain.booted(site.kube, site.first, _soon())
    site.boots(site.first, "boot-2")
    assert tandem_drain.planned(site.kube, site.first, [])["booted"], "a run that was killed does not reboot it twice"
    tandem_drain.booted(site.kube, site.first, _soon())
    assert tandem_drain.release(site.kube, site.first)
    assert not site.node()["spec"].get("unschedulable")
    assert REBOOT not in (site.node()["metadata"].get("annotations") or {})
    assert not tandem_drain.release(site.kube, site.first)
    tandem_drain.whole(site.kube, site.first, [], [], _soon())
    endpoints = {
        "metadata": {"name": "web", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"], "nodeName": site.second, "conditions": {"ready": False}}],
    }
    path = f"/apis/discovery.k8s.io/v1/namespaces/{site.namespace}/endpointslices"
    site.kube.request("POST", path, body=endpoints)
    with pytest.raises(tandem_drain.DrainError, match=f"Service {site.namespace}/web has no ready endpoint"):
        tandem_drain.whole(site.kube, site.first, [], [f"{site.namespace}/web"], _soon())


@pytest.mark.parametrize("state", ["planned", "drained"])
def test_pods_that_start_are_waited_for(site: Site, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = {"app": "slow"}
    body = {
        "metadata": {"name": "slow"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "c", "image": "busybox:1"}]},
            },
        },
    }
    path = f"/apis/apps/v1/namespaces/{site.namespace}/deployments"
    generation = site.kube.request("POST", path, body=body)["metadata"]["generation"]

    def started() -> None:
        status = {"observedGeneration": generation, "replicas": 1, "readyReplicas": 1, "availableReplicas": 1}
        other = Kube(site.kubeconfig)  # of its own: this runs beside the plan
        other.request("PATCH", f"{path}/slow/status", body={"status": status}, headers=MERGE)

    with monkeypatch.context() as patched:
        patched.setattr(tandem_drain, "SETTLE_SECONDS", 3600)  # nobody asks it to wait
        [refused] = tandem_drain.planned(site.kube, site.first, [])["refusals"]
    assert f"{site.namespace}/Deployment/slow" in refused
    with pytest.raises(tandem_drain.DrainError, match=r"Deployment/slow: .*was not taken out"):
        site.drain(1)
    assert not site.node()["spec"].get("unschedulable"), "a roll-out may have begun since the plan"
    later = threading.Timer(1.0, started)
    later.start()
    if state == "planned":
        assert tandem_drain.planned(site.kube, site.first, [], time.monotonic() + 30)["refusals"] == []
    else:
        assert site.drain()["changed"]
    later.join()


def test_a_budget_that_allows_none_gives_the_node_back(site: Site) -> None:
    site.add_pod("web-1", site.first, "web")
    site.add_pod("web-2", site.second, "web")
    budget = {
        "metadata": {"name": "web"},
        "spec": {"maxUnavailable": 0, "selector": {"matchLabels": {"app": "web"}}},
    }
    path = f"/apis/policy/v1/namespaces/{site.namespace}/poddisruptionbudgets"
    site.kube.request("POST", path, body=budget)
    with pytest.raises(tandem_drain.DrainError, match=r"its disruption budget allows none.*schedulable again"):
        site.drain(1)
    assert site.there("web-1")
    assert not site.node()["spec"].get("unschedulable")


def test_a_node_that_an_operator_cordoned_stays_so(site: Site) -> None:
    body = {"spec": {"unschedulable": True}}
    site.kube.request("PATCH", f"/api/v1/nodes/{site.first}", body=body, headers=MERGE)
    assert "is cordoned" in tandem_drain.planned(site.kube, site.first, [])["refusals"][0]
    assert not tandem_drain.release(site.kube, site.first)
    assert site.node()["spec"]["unschedulable"]


def test_an_annotation_that_outlived_an_uncordon_counts_for_nothing(site: Site) -> None:
    assert site.drain()["changed"]
    body = {"spec": {"unschedulable": None}}
    site.kube.request("PATCH", f"/api/v1/nodes/{site.first}", body=body, headers=MERGE)  # as `kubectl uncordon` does
    site.boots(site.first, "boot-2")  # weeks later, of its own
    assert not tandem_drain.planned(site.kube, site.first, [])["booted"], "it reboots, as it was told to"
    assert site.drain()["changed"]
    assert site.node()["spec"]["unschedulable"]
    assert marked(site.node()) == "boot-2", "so that the next boot is told from this one"
    with pytest.raises(tandem_drain.DrainError, match="not told the cluster of another boot"):
        tandem_drain.booted(site.kube, site.first, _soon())


def test_a_single_writer_that_fits_nowhere_else_is_not_moved(site: Site) -> None:
    site.add_pod("ledger-1", site.first, "ledger")
    status = {"status": {"capacity": {"cpu": "1", "pods": "0"}, "allocatable": {"cpu": "1", "pods": "0"}}}
    site.kube.request("PATCH", f"/api/v1/nodes/{site.second}/status", body=status, headers=MERGE)
    [refused] = tandem_drain.planned(site.kube, site.first, [])["refusals"]
    assert f"{site.namespace}/ledger-1 would need pods 1; {site.second} would have pods 0 left" in refused
    with pytest.raises(tandem_drain.DrainError, match=r"would need pods 1.*was not taken out"):
        site.drain(1)
    assert site.there("ledger-1")
    assert not site.node()["spec"].get("unschedulable")


def _soon() -> float:
    return time.monotonic() + 2.5
