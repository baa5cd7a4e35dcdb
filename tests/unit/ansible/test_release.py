"""What a release would do and what forbids it, from the API's objects."""

from __future__ import annotations

from typing import Any

import pytest

from plugins.module_utils import tandem_release as release

RECORD = {"w1": {"phase": "refused", "epoch": 4, "boot_ids": ["old"], "since": "2026-11-22T10:00:00Z", "addresses": []}}


def node(name: str, ready: str = "True", boot: str = "old", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {"podCIDR": "10.244.1.0/24", **spec},
        "status": {
            "conditions": [{"type": "Ready", "status": ready}],
            "addresses": [{"type": "InternalIP", "address": "10.77.0.11"}, {"type": "Hostname", "address": name}],
            "nodeInfo": {"bootID": boot},
        },
    }


def pod(name: str, kind: str = "ReplicaSet", where: str = "w1", claim: str = "", **changes: Any) -> dict[str, Any]:
    owner = {"kind": kind, "name": f"{name}-owner", "uid": f"{name}-owner-uid", "controller": True}
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}] if claim else []
    made = {
        "metadata": {"namespace": "n", "name": name, "uid": f"{name}-uid", "ownerReferences": [owner] if kind else []},
        "spec": {"nodeName": where, "volumes": [*volumes, {"name": "tmp", "emptyDir": {}}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }
    for key, value in changes.items():
        made["metadata"][key] = value
    return made


def claim(name: str, volume: str) -> dict[str, Any]:
    return {"metadata": {"namespace": "n", "name": name}, "spec": {"volumeName": volume}}


def volume(name: str, **backend: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"capacity": {"storage": "1Gi"}, **backend}}


@pytest.fixture
def volumes() -> release.Volumes:
    """A claim of each kind."""
    backends: dict[str, dict[str, Any]] = {
        "share": {"hostPath": {"path": "/srv/tandem/pvc-1"}},
        "beside": {"hostPath": {"path": "/srv/tandem-other/pvc-1"}},
        "ours": {"nfs": {"server": "10.77.0.20", "path": "/srv/nfs/tandem"}},
        "theirs": {"nfs": {"server": "10.9.9.9", "path": "/x"}},
        "longhorn": {"csi": {"driver": "driver.longhorn.io"}},
        "iscsi": {"iscsi": {"targetPortal": "10.9.9.9"}},
    }
    return release.Volumes(
        [*(claim(name, name) for name in backends), claim("unbound", "")],
        [volume(name, **backend) for name, backend in backends.items()],
        "/srv/tandem",
        ["10.77.0.20", "nfs1"],
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("share", (True, [])),
        ("beside", (False, [])),
        ("ours", (True, [])),
        ("theirs", (False, ["data (NFS of 10.9.9.9)"])),
        ("longhorn", (False, ["data (CSI driver driver.longhorn.io)"])),
        ("iscsi", (False, ["data (storage of another kind)"])),
        ("unbound", (False, ["data (a claim without a volume)"])),
    ],
)
def test_what_the_fence_covers(volumes: release.Volumes, name: str, expected: tuple[bool, list[str]]) -> None:
    assert volumes.of(pod("p", claim=name)) == expected


def test_pods_by_what_becomes_of_them(volumes: release.Volumes) -> None:
    static = pod("static", "Node", annotations={"kubernetes.io/config.mirror": "x"})
    ended = pod("ended", "Job")
    ended["status"]["phase"] = "Succeeded"
    pods = [
        pod("ledger", claim="share"),
        pod("control", "StatefulSet", claim="share"),
        pod("web"),
        pod("going", claim="share", deletionTimestamp="now"),
        pod("longhorn", claim="longhorn"),
        pod("bare", ""),
        pod("agent", "DaemonSet"),
        pod("elsewhere", where="w2", claim="share"),
        static,
        ended,
    ]
    found = release.sorted_pods(pods, "w1", volumes)
    assert [each["name"] for each in found["forced"]] == ["n/ledger", "n/control", "n/web", "n/going"]
    assert [each["share"] for each in found["forced"]] == [True, True, False, True]
    left = {each["name"]: each["reason"] for each in found["left"]}
    assert "driver.longhorn.io" in left["n/longhorn"]
    assert left["n/bare"] == "nobody would make it anew"
    assert set(left) == {"n/longhorn", "n/bare"}
    awaited = release.awaited(pods, "w1", found["forced"], volumes, "")
    assert list(awaited) == ["ledger-owner-uid", "control-owner-uid", "going-owner-uid"]
    assert awaited["control-owner-uid"] == "n/StatefulSet/control-owner"


def test_a_later_attempt_waits_for_what_the_first_one_deleted(volumes: release.Volumes) -> None:
    new = pod("new", where="", claim="share", creationTimestamp="2026-11-22T10:00:05Z")
    new["status"]["conditions"] = [{"type": "PodScheduled", "status": "False", "message": "claim in use"}]
    old = pod("old", where="", claim="share", creationTimestamp="2026-11-22T09:00:00Z")
    old["status"]["conditions"] = []
    awaited = release.awaited([new, old], "w1", [], volumes, "2026-11-22T10:00:00Z")
    assert list(awaited) == ["new-owner-uid"]
    assert release.serving([new], "w1") == {}
    assert "claim in use" in release.waiting_for([new], "w1", "new-owner-uid")
    assert release.waiting_for([], "w1", "new-owner-uid") == "no new pod yet"
    assert release.serving([pod("p", where="w2"), pod("q")], "w1") == {"p-owner-uid": "p on w2"}


def refusals(name: str = "w1", *, record: Any = None, accept: bool = False, **nodes: Any) -> list[str]:
    there = {"cp1": node("cp1"), "w1": node("w1", "Unknown"), "w2": node("w2"), **nodes}
    there = {key: value for key, value in there.items() if value}
    refused = {each for each, entry in (record or {}).items() if entry["phase"] != "lifted"}
    worker = there.get(name) if name in ("w1", "w2") and name not in refused else None
    alive = release.unasked(name, worker, accept_ready=accept)
    return [*alive, *release.refusals(name, there, ["w1", "w2"], record or {})]


def test_what_forbids_a_release() -> None:
    assert refusals() == []
    assert "one of: w1, w2" in refusals("w9")[0]
    assert "one of: w1, w2" in refusals("cp1")[0]
    assert "one of: w1, w2" in refusals("")[0]
    alive = node("w1")
    assert "tandem_release_ready=true" in refusals(w1=alive)[0]
    assert refusals(w1=alive, accept=True) == []
    assert refusals(w1=alive, record=RECORD) == [], "a resumed release of a node whose network healed"
    lifted = {"w1": {**RECORD["w1"], "phase": "lifted"}}
    assert refusals(w1=alive, record=lifted) != []
    for word, other in {
        "w2: Ready=Unknown": node("w2", "Unknown"),
        "w2: cordoned": node("w2", unschedulable=True),
        "w2: refused by": node("w2", taints=[{"key": release.TAINT, "effect": "NoExecute"}]),
        "w2: not a node": None,
    }.items():
        assert word in refusals(w2=other)[0]
    assert "w2: refused by" in refusals(record={"w2": RECORD["w1"]})[0], "never the last one"
    for sentence in refusals("w9"):
        assert "rule: " in sentence
        assert "way out: " in sentence


def test_a_lost_or_cordoned_node_gets_no_pods() -> None:
    assert not release.closed(node("w1"))
    assert not release.closed(node("w1", taints=[{"key": "others", "effect": "NoSchedule"}])), "a pod may tolerate it"
    assert release.closed(node("w1", unschedulable=True))
    for key in release.LOST:
        assert release.closed(node("w1", taints=[{"key": key, "effect": "NoSchedule"}]))
        assert not release.closed(node("w1", taints=[{"key": key, "effect": "PreferNoSchedule"}]))


def test_a_node_comes_back_by_a_new_boot_alone() -> None:
    def judge(entry: Any = None, machine: str = "new", **changes: Any) -> list[str]:
        live = node("w1", **{"boot": "new", **changes})
        return release.readmission_refusals("w1", live, entry or RECORD["w1"], {"boot_id": machine})

    assert judge() == []
    assert "systemctl reboot" in judge(machine="old", boot="old")[0]
    assert "wait until its kubelet runs" in judge(boot="old")[0]
    assert "itself says" in judge(machine="")[0]
    assert "journalctl" in judge(ready="False")[0]
    assert judge({**RECORD["w1"], "phase": "lifted"}, machine="old", boot="old") == [], "resumed after the lifting"
    assert release.readmission_refusals("w1", None, RECORD["w1"], {}) != []


def test_where_its_packets_come_from() -> None:
    assert release.addresses(node("w1"), "192.0.2.11") == ["192.0.2.11", "10.77.0.11", "10.244.1.0/24"]
    dual = node("w1", podCIDRs=["10.244.1.0/24", "fd00::/64"])
    assert release.addresses(dual, "") == ["10.77.0.11", "10.244.1.0/24"]


def test_verification_tells_a_release_and_a_rule_that_went() -> None:
    entry = {**RECORD["w1"], "addresses": ["10.77.0.11", "10.244.1.0/24"]}
    facts: dict[str, Any] = {"nodes": {"w1": entry}, "live": ["10.77.0.11/32", "10.244.0.0/16"], "error": ""}
    assert release.fence_differences("nfs1", {}) == []
    [told] = release.fence_differences("nfs1", facts)
    assert "readmit-node.yml -e node=w1" in told["found"]
    told, gone = release.fence_differences("nfs1", {**facts, "live": ["10.77.0.11/32"]})
    assert "lets 10.244.1.0/24 pass" in gone["found"]
    assert (
        len(release.fence_differences("nfs1", {**facts, "nodes": {"w1": {**entry, "phase": "lifted"}}, "live": []}))
        == 1
    )
    assert "guess" in release.fence_differences("nfs1", {"nodes": {}, "live": [], "error": "on a guess"})[0]["found"]
