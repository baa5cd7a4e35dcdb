"""What forbids moving a claim onto the share, and what a move does next."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from plugins.module_utils import tandem_adopting as adopting
from plugins.module_utils.tandem_claims import Site, World, data_node, owners

SITE = Site("/srv/tandem", "tandem-shared", ("tandem-ha.io/shared-storage", "mounted"), ["w1", "w2"])
CLAIM = "shop/data-db-0"


def node(name: str, ready: str = "True", label: str = "mounted") -> dict[str, Any]:
    labels = {"kubernetes.io/hostname": name, "tandem-ha.io/shared-storage": label}
    return {
        "metadata": {"name": name, "labels": labels},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }


def volume(name: str = "old", path: str = "/opt/local/pvc-1", where: str = "w1", **spec: Any) -> dict[str, Any]:
    term = {"key": "kubernetes.io/hostname", "operator": "In", "values": [where]}
    affinity = {"required": {"nodeSelectorTerms": [{"matchExpressions": [term]}]}}
    base = {"storageClassName": "local-path", "persistentVolumeReclaimPolicy": "Delete", "nodeAffinity": affinity}
    return {
        "metadata": {"name": name},
        "spec": {**base, **(spec or {"hostPath": {"path": path}})},
        "status": {"phase": "Bound"},
    }


def claim(bound: str = "old", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "data-db-0", "annotations": {"pv.kubernetes.io/bind-completed": "yes", "note": "n"}},
        "spec": {"volumeName": bound, "storageClassName": "local-path", "accessModes": ["ReadWriteOnce"], **spec},
        "status": {"phase": "Bound"},
    }


def workload(name: str, *, uses: str = "", template: str = "", ready: int = 1, **meta: Any) -> dict[str, Any]:
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": uses}}] if uses else []
    spec: dict[str, Any] = {"replicas": 1, "template": {"spec": {"volumes": volumes}}}
    if template:
        spec["volumeClaimTemplates"] = [{"metadata": {"name": template}}]
    return {"metadata": {"name": name, **meta}, "spec": spec, "status": {"readyReplicas": ready}}


def pod(name: str, kind: str, above: str, phase: str = "Running") -> dict[str, Any]:
    owner = [{"controller": True, "kind": kind, "name": above, "uid": "u"}] if kind else []
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "data-db-0"}}]
    return {
        "metadata": {"name": name, "ownerReferences": owner, "uid": name},
        "spec": {"nodeName": "w1", "volumes": volumes},
        "status": {"phase": phase},
    }


WORLD = World(
    claim=claim(),
    volume=volume(),
    storage_class={"metadata": {"name": "tandem-shared"}},
    nodes=[node("w1"), node("w2")],
    pods=[pod("db-0", "StatefulSet", "db")],
    statefulsets=[workload("db", template="data")],
)
ENTRY = {**adopting.record(CLAIM, adopting.ADOPT, WORLD, SITE), "share": "new"}


def refused(world: World, todo: str = adopting.ADOPT, site: Site = SITE) -> str:
    found = adopting.refusals(CLAIM, todo, world, site)
    assert found, "nothing forbids it"
    for sentence in found:
        assert "rule: " in sentence
        assert "way out: " in sentence
    return " ".join(found)


def records(**changes: Any) -> dict[str, Any]:
    return {"shop_data-db-0": {**ENTRY, **changes}}


def test_a_statefulsets_claim_on_a_workers_own_disk_moves() -> None:
    assert adopting.choice(CLAIM, WORLD, SITE, back=False) == (adopting.ADOPT, "")
    assert adopting.refusals(CLAIM, adopting.ADOPT, WORLD, SITE) == []
    entry = adopting.record(CLAIM, adopting.ADOPT, WORLD, SITE)
    assert (entry["node"], entry["path"], entry["policy"]) == ("w1", "/opt/local/pvc-1", "Delete")
    assert entry["owners"] == [{"kind": "StatefulSet", "name": "db", "replicas": 1}]
    body = adopting.claim_body("shop", "data-db-0", entry, "new", "tandem-shared")
    assert body["spec"]["volumeName"] == "new"
    assert body["metadata"]["annotations"] == {"note": "n"}, "how it was bound before is not said again"


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ("a claim of the cluster", {"claim": None, "volume": None}),
        ("Bound, for an unbound claim", {"volume": None}),
        ("ebs.csi.aws.com", {"volume": volume(csi={"driver": "ebs.csi.aws.com"})}),
        ("a folder of its own", {"volume": volume(path="/opt")}),
        ("block device", {"claim": claim(volumeMode="Block")}),
        ("names one node", {"volume": volume(where="w9")}),
        ("Ready is 'Unknown'", {"nodes": [node("w1", "Unknown"), node("w2")]}),
        ("label tandem-ha.io/shared-storage is 'lost'", {"nodes": [node("w1", label="lost")]}),
        ("a worker of the inventory", {"volume": volume(where="cp1"), "nodes": [node("cp1")]}),
        ("playbooks/storage.yml", {"storage_class": None}),
        ("made by is 'bare Pod shell'", {"pods": [pod("shell", "", "")]}),
        ("made by is 'Job nightly'", {"pods": [pod("nightly-1", "Job", "nightly")]}),
        ("kubectl delete pod db-0", {"pods": [pod("db-0", "StatefulSet", "db", "Failed")]}),
        ("used by is 'DaemonSet agent'", {"others": {"DaemonSet": [workload("agent", uses="data-db-0")]}}),
        ("ready replicas is 0", {"statefulsets": [workload("db", template="data", ready=0)]}),
        (
            "controlled by is 'Postgres pg'",
            {
                "statefulsets": [
                    workload(
                        "db",
                        template="data",
                        ownerReferences=[{"controller": True, "kind": "Postgres", "name": "pg", "uid": "u"}],
                    )
                ]
            },
        ),
        (
            "tandem_adopt_gitops_paused=true",
            {"statefulsets": [workload("db", template="data", labels={"argocd.argoproj.io/instance": "shop"})]},
        ),
        (
            "no autoscaler",
            {
                "autoscalers": [
                    {
                        "metadata": {"name": "h"},
                        "spec": {"scaleTargetRef": {"kind": "StatefulSet", "name": "db"}},
                    }
                ]
            },
        ),
        ("one claim at a time", {"records": {"shop_other": {**ENTRY, "of": "shop/other"}}}),
        ("a way back that began", {"records": records(direction="back", phase="stopping")}),
    ],
)
def test_what_forbids_it(words: str, changes: dict[str, Any]) -> None:
    assert words in refused(replace(WORLD, **changes))


def test_a_set_that_deletes_its_claims_when_it_is_stopped() -> None:
    fierce = workload("db", template="data")
    fierce["spec"]["persistentVolumeClaimRetentionPolicy"] = {"whenScaled": "Delete"}
    assert "or the claim would be deleted" in refused(replace(WORLD, statefulsets=[fierce]))


def test_a_share_that_forgets_owners() -> None:
    assert "keeps owners of files" in refused(WORLD, site=replace(SITE, squash="all_squash"))


def test_a_deployments_pods_are_known_by_its_replica_set() -> None:
    above = [{"controller": True, "kind": "Deployment", "name": "web", "uid": "u"}]
    world = replace(
        WORLD,
        statefulsets=[],
        deployments=[workload("web", uses="data-db-0")],
        pods=[pod("web-1-x", "ReplicaSet", "web-1")],
        others={"ReplicaSet": [workload("web-1", uses="data-db-0", ownerReferences=above)]},
    )
    assert adopting.refusals(CLAIM, adopting.ADOPT, world, SITE) == []
    assert owners("data-db-0", world)[0]["kind"] == "Deployment"
    assert "ReplicaSet web-1" in refused(replace(world, others={}))


def test_on_the_share_already() -> None:
    here = replace(WORLD, volume=volume("new", "/srv/tandem/pvc-2", storageClassName="tandem-shared"))
    todo, sentence = adopting.choice(CLAIM, here, SITE, back=False)
    assert todo == adopting.NOTHING
    assert "is on the share already" in sentence
    assert adopting.choice(CLAIM, WORLD, SITE, back=True)[0] == adopting.NOTHING


SHARED = replace(
    WORLD,
    claim=claim("new"),
    volume=volume("new", hostPath={"path": "/srv/tandem/pvc-2"}, storageClassName="tandem-shared"),
    old={**volume(), "status": {"phase": "Released"}},
    records=records(phase="done"),
)


def test_the_way_back() -> None:
    assert adopting.choice(CLAIM, SHARED, SITE, back=True) == (adopting.RETURN, "")
    assert adopting.refusals(CLAIM, adopting.RETURN, SHARED, SITE) == []
    entry = adopting.record(CLAIM, adopting.RETURN, SHARED, SITE)
    assert (entry["direction"], entry["phase"], entry["old"]) == ("back", "copying", "old")
    assert "its data are on the share alone" in refused(replace(SHARED, old=None), adopting.RETURN)
    taken = volume(hostPath={"path": "/x/y"}, claimRef={"namespace": "shop", "name": "other"})
    assert "nobody else uses the volume" in refused(replace(SHARED, old=taken), adopting.RETURN)
    assert "record of a move" in refused(replace(SHARED, records={}), adopting.RETURN)


def test_a_record_of_a_claim_that_is_another_one_by_now_does_not_count() -> None:
    another = replace(SHARED, records=records(phase="done", share="gone"))
    assert "record of a move" in refused(another, adopting.RETURN)


@pytest.mark.parametrize(
    ("phase", "todo"), [("copying", "abort"), ("stopping", "abort"), ("switching", "return"), ("starting", "return")]
)
def test_turned_round_on_the_way(phase: str, todo: str) -> None:
    world = replace(SHARED if phase == "starting" else WORLD, records=records(phase=phase))
    assert adopting.choice(CLAIM, world, SITE, back=True)[0] == todo
    if phase == "switching":
        assert "are finished first" in refused(world, todo)
    else:
        assert adopting.refusals(CLAIM, todo, world, SITE) == []


def test_a_workload_that_is_still_stopped_keeps_its_number() -> None:
    stopped = workload("db", template="data", ready=0)
    stopped["spec"]["replicas"] = 0
    world = replace(SHARED, statefulsets=[stopped], pods=[], records=records(phase="starting"))
    assert adopting.record(CLAIM, adopting.RETURN, world, SITE)["owners"][0]["replicas"] == 1
    world = replace(WORLD, statefulsets=[stopped], pods=[], records=records(phase="stopping"))
    assert adopting.refusals(CLAIM, adopting.ADOPT, world, SITE) == []
    assert adopting.record(CLAIM, adopting.ADOPT, world, SITE)["owners"][0]["replicas"] == 1


@pytest.mark.parametrize("phase", ["switching", "starting"])
def test_nothing_but_the_rest_is_asked_for_once_the_data_are_copied(phase: str) -> None:
    world = World(records=records(phase=phase))
    assert adopting.choice(CLAIM, world, SITE, back=False)[0] == adopting.ADOPT
    assert adopting.refusals(CLAIM, adopting.ADOPT, world, SITE) == []
    assert adopting.record(CLAIM, adopting.ADOPT, world, SITE)["phase"] == phase


def test_longhorns_volume_is_read_where_its_pod_runs() -> None:
    world = replace(WORLD, volume=volume(csi={"driver": "driver.longhorn.io"}))
    assert adopting.refusals(CLAIM, adopting.ADOPT, world, SITE) == []
    found = data_node(CLAIM, world, SITE, back=False)
    assert found is not None
    assert found["metadata"]["name"] == "w1"
    assert adopting.record(CLAIM, adopting.ADOPT, world, SITE)["kind"] == "longhorn"
    alone = replace(world, claim=claim(accessModes=["ReadWriteOncePod"]))
    assert "a second pod can mount it" in refused(alone)


def test_room_for_the_data() -> None:
    source = {"bytes": 10 * 2**30, "files": 100, "devices": [], "owners": [0]}
    wide = {"free": 20 * 2**30, "inodes": 1000}
    assert adopting.space_refusals(CLAIM, source, wide, "share") == []
    narrow = {"free": 10 * 2**30, "inodes": 50}
    found = adopting.space_refusals(CLAIM, {**source, "devices": ["x"]}, narrow, "share")
    assert len(found) == 3
    assert "10240 MiB of data, and a margin" in found[1]


def test_roots_files_become_nobodys_and_are_roots_again() -> None:
    assert adopting.owners_map("root_squash", {"direction": "forward"}) == ["0=65534"]
    assert adopting.owners_map("root_squash", {"direction": "back", "mixed": False}) == ["65534=0"]
    assert adopting.owners_map("root_squash", {"direction": "back", "mixed": True}) == []
    assert adopting.owners_map("no_root_squash", {"direction": "forward"}) == []
