"""Which claim of a running cluster can move onto the share, what forbids it, and how far a move is. Pure functions.

A claim moves while its workload is stopped, and nothing else may write to it meanwhile: only Deployments and
StatefulSets are stopped and started again, for they alone stay stopped when they are told to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from .tandem_claims import (  # relative: machines and the control node import this under two names
    Site,
    World,
    by_template,
    claims_of,
    data_node,
    key_of,
    kind_of,
    object_of,
    on_share,
    owners,
    root_of,
    spare_of,
    template_of,
    users,
)
from .tandem_release import controller, ready, refusal

MOVED: Final = "tandem-ha.io/adopted-claim"
"""Annotation of both volumes: whose data they hold."""
COPYING, STOPPING, SWITCHING, STARTING, DONE = "copying", "stopping", "switching", "starting", "done"
FORWARD, BACK = "forward", "back"
ADOPT, RETURN, ABORT, NOTHING = "adopt", "return", "abort", "nothing"
NOBODY: Final = 65534
"""What the share makes of root: nobody, on Debian and Red Hat alike."""
MARGIN_BYTES: Final = 256 * 1024 * 1024
MARGIN: Final = 1.1
GITOPS: Final = ("argocd.argoproj.io/instance", "argocd.argoproj.io/tracking-id", "kustomize.toolkit.fluxcd.io/name")
GITOPS_HELM: Final = "helm.toolkit.fluxcd.io/name"
NOT_KEPT: Final = re.compile(r"(pv|volume|volume\.beta)\.kubernetes\.io/.*|kubectl\.kubernetes\.io/last-applied-.*")
"""Annotations of a claim that say how it was bound before, or what a manifest said of it."""


def entry_of(claim: str, world: World) -> Mapping[str, Any] | None:
    """The record of the claim's move; None when there is none, or somebody made another claim of this name since."""
    entry = world.records.get(key_of(claim))
    bound = world.claim["spec"].get("volumeName", "") if world.claim else ""
    return None if entry is not None and entry["phase"] == DONE and bound != entry["share"] else entry


def unfinished(claim: str, world: World) -> list[str]:
    """Other claims whose move has begun and not ended."""
    return [
        f"{each['of']} ({each['direction']}, {each['phase']})"
        for key, each in sorted(world.records.items())
        if key != key_of(claim) and each["phase"] != DONE
    ]


def choice(claim: str, world: World, site: Site, *, back: bool) -> tuple[str, str]:
    """What is to be done (`ADOPT`, `RETURN`, `ABORT` or `NOTHING`), and a sentence when that is nothing."""
    entry = entry_of(claim, world)
    here = world.volume is not None and on_share(world.volume, site)
    if not back:
        if (entry is None or entry["phase"] == DONE) and here:
            return NOTHING, f"{claim} is on the share already. Nothing has been changed"
        return ADOPT, ""
    if entry is None:
        if world.claim is not None and not here:
            return NOTHING, f"{claim} is not on the share, and no move of it has begun. Nothing has been changed"
        return RETURN, ""
    return (ABORT if entry["direction"] == FORWARD and entry["phase"] in (COPYING, STOPPING) else RETURN), ""


def refusals(claim: str, todo: str, world: World, site: Site) -> list[str]:
    """What forbids it, as sentences; empty when nothing does."""
    where = f"claim {claim}"
    others = unfinished(claim, world)
    if others:
        way_out = "finish that one first: the same command with its name"
        return [refusal("adopt", "unfinished move", ", ".join(others), "one claim at a time", way_out)]
    entry = entry_of(claim, world)
    if world.claim is None and entry is None:
        return [refusal("adopt", "tandem_adopt_claim", claim, "a claim of the cluster", "correct NAMESPACE/NAME")]
    wrong = _wrong_way(where, todo, entry)
    if wrong or todo == ABORT:
        return wrong
    if entry is not None and entry["phase"] in (SWITCHING, STARTING) and _resumes(todo, entry):
        return []  # nothing is copied any more
    if world.claim is None:
        return [refusal("adopt", "tandem_adopt_claim", claim, "a claim of the cluster", "correct NAMESPACE/NAME")]
    if world.volume is None:
        phase = world.claim.get("status", {}).get("phase", "Pending")
        return [refusal(where, "phase", phase, "Bound, for an unbound claim holds no data", "see `kubectl describe`")]
    kind, path = kind_of(world.volume)
    found = _of_claim(where, world.claim)
    if todo == ADOPT:
        found += _of_volume(where, world.volume, kind, path)
        if kind == "longhorn" and world.claim["spec"].get("accessModes") == ["ReadWriteOncePod"]:
            rule = "a second pod can mount it on the same node while it is read"
            found.append(refusal(where, "accessModes", "ReadWriteOncePod", rule, "move it by hand"))
    elif entry is not None:
        found += _of_old(where, claim, entry, world)
    if found:
        return found
    node = data_node(claim, world, site, back=todo == RETURN)
    return [
        *_of_node(where, node, site),
        *_of_share(world, site),
        *_of_pods(claim, world),
        *_of_owners(claim, entry, todo, world, site),
    ]


def _resumes(todo: str, entry: Mapping[str, Any]) -> bool:
    return (todo == RETURN) == bool(entry["direction"] == BACK)


def _wrong_way(where: str, todo: str, entry: Mapping[str, Any] | None) -> list[str]:
    """A move that is half done in the other direction."""
    if todo == RETURN and entry is None:
        rule = "the record of its adoption says which volume it came from"
        way_out = "bind the old volume by hand (docs/adopt.md)"
        return [refusal(where, "record of a move", "none", rule, way_out)]
    if entry is None or entry["phase"] == DONE or _resumes(todo, entry) or todo == ABORT:
        return []
    if todo == ADOPT:
        way_out = "the same command with -e tandem_adopt_way_back=true"
        return [refusal(where, "way back", entry["phase"], "a way back that began is finished first", way_out)]
    if entry["phase"] == SWITCHING:
        way_out = "the same command without tandem_adopt_way_back, then with it"
        return [refusal(where, "phase", SWITCHING, "claims that are being exchanged are finished first", way_out)]
    return []


def _of_claim(where: str, claim: Mapping[str, Any]) -> list[str]:
    spec, meta = claim["spec"], claim["metadata"]
    found = []
    if spec.get("volumeMode", "Filesystem") != "Filesystem":
        rule = "Filesystem: a block device has no files to copy"
        found.append(refusal(where, "volumeMode", spec["volumeMode"], rule, "move its data with its own program"))
    if "deletionTimestamp" in meta:
        found.append(refusal(where, "deletion", meta["deletionTimestamp"], "a claim that stays", "see who deleted it"))
    if any(each["kind"] == "Pod" for each in meta.get("ownerReferences") or []):
        rule = "a claim that outlives its pods; an ephemeral volume goes with its pod"
        found.append(refusal(where, "owner", "a Pod", rule, "there is nothing to keep"))
    return found


def _of_volume(where: str, volume: Mapping[str, Any], kind: str, path: str) -> list[str]:
    name = volume["metadata"]["name"]
    if not kind:
        source = next((key for key in volume["spec"] if key in ("csi", "nfs", "iscsi", "fc", "rbd", "cephfs")), "other")
        driver = (volume["spec"].get("csi") or {}).get("driver", source)
        rule = "a local or hostPath volume of one worker, or Longhorn's"
        way_out = "move it by hand (docs/statefulset-migration.md)"
        return [refusal(where, f"volume {name}", driver, rule, way_out)]
    parts = PurePosixPath(path).parts
    if kind == "local" and (not path.startswith("/") or ".." in parts or len(parts) < 3):
        rule = "a folder of its own on the worker"
        return [refusal(where, f"path of volume {name}", path, rule, "move it by hand")]
    return []


def _of_old(where: str, claim: str, entry: Mapping[str, Any], world: World) -> list[str]:
    """The way back needs the volume that the claim came from, and nobody else's."""
    if world.old is None:
        rule = "the volume that it came from is there"
        return [refusal(where, f"volume {entry['old']}", "not there", rule, "its data are on the share alone")]
    reference = world.old["spec"].get("claimRef") or {}
    user = f"{reference.get('namespace')}/{reference.get('name')}"
    namespace = claim.partition("/")[0]
    if world.old.get("status", {}).get("phase") == "Bound" and user not in (
        claim,
        f"{namespace}/{spare_of(claim)}",
    ):
        rule = "nobody else uses the volume that it came from"
        return [refusal(f"volume {entry['old']}", "bound to", user, rule, "free it first")]
    return []


def _of_node(where: str, node: Mapping[str, Any] | None, site: Site) -> list[str]:
    if node is None:
        rule = "its volume names one node of the cluster by kubernetes.io/hostname"
        return [refusal(where, "node of the data", "not known", rule, "see `kubectl get pv --output=yaml`")]
    name, (key, value) = node["metadata"]["name"], site.label
    if name not in site.workers:
        return [refusal(where, "node of the data", name, "a worker of the inventory", "put it into the group workers")]
    if ready(node) != "True":
        return [refusal(f"node {name}", "Ready", ready(node), "True: its disk has the data", "bring it back first")]
    label = node["metadata"].get("labels", {}).get(key, "")
    if label != value:
        way_out = "playbooks/storage.yml, or see `systemctl status tandem-share` on it"
        return [refusal(f"node {name}", f"label {key}", label, f"{value}: it sees the share", way_out)]
    return []


def _of_share(world: World, site: Site) -> list[str]:
    if world.storage_class is None:
        rule = "the class of the shared storage is in the cluster"
        return [refusal("cluster", "StorageClass", f"no {site.class_name}", rule, "playbooks/storage.yml")]
    if site.squash == "all_squash":
        rule = "the share keeps owners of files"
        way_out = "nfs_server_squash: root_squash, and playbooks/storage.yml"
        return [refusal("NFS server", "nfs_server_squash", site.squash, rule, way_out)]
    return []


def _of_pods(claim: str, world: World) -> list[str]:
    name = claim.partition("/")[2]
    known = {(each["kind"], each["name"]) for each in owners(name, world)}
    found = []
    for pod in users(name, world):
        kind, above = root_of(pod, world)
        pod_name = pod["metadata"]["name"]
        if (kind, above) not in known:
            rule = "only a Deployment's and a StatefulSet's pods use it, for they stay stopped when they are told to"
            way_out = "stop that one by hand, then the same command"
            found.append(refusal(f"pod {pod_name}", "made by", f"{kind} {above}", rule, way_out))
        elif pod["status"].get("phase") in ("Succeeded", "Failed"):
            rule = "no pod that has ended holds the claim"
            way_out = f"kubectl delete pod {pod_name}"
            found.append(refusal(f"pod {pod_name}", "phase", pod["status"]["phase"], rule, way_out))
    for kind, items in world.others.items():
        for item in items:
            if kind == "ReplicaSet" and controller(item):
                continue
            over = kind == "Job" and any(
                each["type"] in ("Complete", "Failed") and each["status"] == "True"
                for each in item.get("status", {}).get("conditions") or []
            )
            if name in claims_of(template_of(item)) and not over:
                rule = "only Deployments and StatefulSets use it, for they stay stopped when they are told to"
                found.append(
                    refusal(f"claim {claim}", "used by", f"{kind} {item['metadata']['name']}", rule, "stop it")
                )
    return found


def _of_owners(claim: str, entry: Mapping[str, Any] | None, todo: str, world: World, site: Site) -> list[str]:
    name, found = claim.partition("/")[2], []
    begun = entry is not None and _resumes(todo, entry) and entry["phase"] in (STOPPING, SWITCHING, STARTING)
    for owner in owners(name, world):
        where = f"{owner['kind']} {owner['name']}"
        item = object_of(owner["kind"], owner["name"], world)
        above = controller(item)
        if above:
            rule = "nobody starts it again while it is stopped"
            way_out = "stop that one's controller, or move the claim by hand"
            found.append(refusal(where, "controlled by", f"{above['kind']} {above['name']}", rule, way_out))
        marks = {**item["metadata"].get("annotations", {}), **item["metadata"].get("labels", {})}
        tools = [mark for mark in (*GITOPS, GITOPS_HELM) if mark in marks]
        if tools and not site.paused:
            rule = "no GitOps tool starts it again while it is stopped"
            way_out = "pause its synchronisation, then -e tandem_adopt_gitops_paused=true"
            found.append(refusal(where, "label", tools[0], rule, way_out))
        for scaler in world.autoscalers:
            target = scaler["spec"]["scaleTargetRef"]
            if (target["kind"], target["name"]) == (owner["kind"], owner["name"]):
                rule = "no autoscaler starts it again while it is stopped"
                way_out = "delete it, and create it again afterwards"
                found.append(refusal(where, "HorizontalPodAutoscaler", scaler["metadata"]["name"], rule, way_out))
        policy = (item["spec"].get("persistentVolumeClaimRetentionPolicy") or {}).get("whenScaled", "Retain")
        if policy != "Retain" and by_template(item, name):
            rule = "Retain, or the claim would be deleted when it is stopped"
            way_out = "set persistentVolumeClaimRetentionPolicy.whenScaled: Retain first"
            found.append(refusal(where, "whenScaled", policy, rule, way_out))
        there = int(item.get("status", {}).get("readyReplicas", 0))
        if todo == ADOPT and there < owner["replicas"] and not begun:
            rule = f"{owner['replicas']}, or nobody could say afterwards whether the move broke it"
            found.append(refusal(where, "ready replicas", there, rule, "mend it first, or scale it to 0"))
    return found


def space_refusals(claim: str, source: Mapping[str, Any], target: Mapping[str, Any], place: str) -> list[str]:
    """What of the data forbids it.

    Args:
        claim: the claim.
        source: the folder with the data, as it was measured.
        target: the file system that takes them.
        place: how the place that takes them is called.
    """
    where, found = f"claim {claim}", []
    if source["devices"]:
        rule = "files, folders, links and pipes are copied"
        found.append(refusal(where, "devices", source["devices"], rule, "remove them, or move it by hand"))
    needed = int(source["bytes"] * MARGIN) + MARGIN_BYTES
    if target["free"] < needed:
        value = f"{mib(target['free'])} free"
        rule = f"at least {mib(needed)}: {mib(source['bytes'])} of data, and a margin"
        found.append(refusal(place, "space", value, rule, "make room, or move another claim first"))
    if 0 <= target["inodes"] < source["files"]:
        rule = f"at least {source['files']}, one for each entry"
        found.append(refusal(place, "free inodes", target["inodes"], rule, "make room"))
    return found


def mib(size: float) -> str:
    """A size for people."""
    return f"{size / 2**20:.0f} MiB"


def record(claim: str, todo: str, world: World, site: Site) -> dict[str, Any]:
    """The record of a move that begins, or begins again before its workload was stopped.

    Raises:
        ValueError: the claim has no volume.
    """
    name, before = claim.partition("/")[2], dict(entry_of(claim, world) or {})
    if before and _resumes(todo, before) and before["phase"] not in (COPYING, DONE):
        return before
    direction = FORWARD if todo == ADOPT else BACK
    bound = world.volume["metadata"]["name"] if world.volume else ""
    if before and (todo == RETURN or before["old"] == bound):
        # Stopped by the move that is turned round: they are at 0 now, and what they were is in the record alone.
        live = before["owners"] if before["phase"] == STARTING else owners(name, world)
        return {**before, "direction": direction, "phase": COPYING, "owners": live}
    if world.claim is None or world.volume is None:
        raise ValueError(f"claim {claim} has no volume; what forbids a move is asked first (`refusals`)")
    meta, spec = world.claim["metadata"], world.claim["spec"]
    node = data_node(claim, world, site, back=todo == RETURN)
    kind, path = kind_of(world.volume)
    return {
        "of": claim,
        "direction": direction,
        "phase": COPYING,
        "kind": kind,
        "path": path,
        "node": node["metadata"]["name"] if node else "",
        "old": world.volume["metadata"]["name"],
        "policy": world.volume["spec"].get("persistentVolumeReclaimPolicy", "Retain"),
        "share": "",
        "folder": "",
        "owners": owners(name, world),
        "claim": {
            "labels": meta.get("labels") or {},
            "annotations": {
                key: value for key, value in (meta.get("annotations") or {}).items() if not NOT_KEPT.fullmatch(key)
            },
            "spec": {key: spec[key] for key in ("accessModes", "resources", "volumeMode") if key in spec},
        },
        "class": spec.get("storageClassName", ""),
    }


def mixed(source: Mapping[str, Any]) -> bool:
    """Whether files of root and of nobody lie side by side, so that the way back could not tell them apart."""
    return 0 in source["owners"] and NOBODY in source["owners"]


def owners_map(squash: str, entry: Mapping[str, Any]) -> list[str]:
    """User and group ids that become others on the way: the share makes nobody of root, the way back root of nobody."""
    if squash != "root_squash" or (entry["direction"] == BACK and entry.get("mixed")):
        return []
    return [f"{NOBODY}=0" if entry["direction"] == BACK else f"0={NOBODY}"]


def told(claim: str, todo: str, entry: Mapping[str, Any], stop_seconds: float, ready_seconds: float) -> list[str]:
    """The plan for people."""
    names = ", ".join(f"{each['kind']} {each['name']} ({each['replicas']})" for each in entry["owners"]) or "nobody"
    where = f"{entry['kind']} volume {entry['old']} of {entry['node']}"
    if todo == ABORT:
        return [f"the move of {claim} onto the share is undone; it stays on {where}"]
    if entry["phase"] != COPYING:
        begun = f"goes on where it was: {entry['phase']}"
    elif todo == ADOPT:
        begun = f"goes from {where} to the share"
    else:
        begun = f"goes from the share back to {where}, with what was written since"
    return [
        f"{claim} {begun}",
        f"copied while it runs, then stopped for the rest: {names}",
        f"stopped for at most {stop_seconds} s before the claim is exchanged, else started again as it was",
        f"Ready again within {ready_seconds} s",
    ]


def claim_body(namespace: str, name: str, entry: Mapping[str, Any], volume: str, class_name: str) -> dict[str, Any]:
    """The claim as it was, for another volume."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": entry["claim"]["labels"],
            "annotations": entry["claim"]["annotations"],
        },
        "spec": {**entry["claim"]["spec"], "storageClassName": class_name, "volumeName": volume},
    }
