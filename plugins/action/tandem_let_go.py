"""Ansible action: a released node's pods serve elsewhere, and the node's way back. The cluster's side of both.

An action, for it runs within ansible-playbook itself: a release is timed, and each module's start costs half a second.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

# The functions live beside this folder; they are found from the project's root.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from plugins.module_utils import tandem_lock
from plugins.module_utils.tandem_kube import MERGE, Kube, KubeError
from plugins.module_utils.tandem_kubelet_objects import delete_pod
from plugins.module_utils.tandem_release import (
    TAINT,
    Volumes,
    addresses,
    awaited,
    closed,
    heirs,
    readmission_refusals,
    refusals,
    serving,
    sorted_pods,
    tainted,
    told,
    unasked,
    waiting_for,
)

DOCUMENTATION = """
module: tandem_let_go
short_description: Plans a node's release, deletes its pods by force once it is fenced, and takes its taint off again
description:
  - Runs on the control node. C(state=planned) fails when something forbids the release, tells what the NFS server has
    to know, and takes the lock for this run; in check mode it takes no lock and tells of the pods too.
  - C(state=released) deletes the node's pods by force (each by its UID, so that no successor is hit; those on the
    share first), taints it, and waits until every workload with a volume on the share has a Ready pod elsewhere. Only
    for a node whose fence was acknowledged.
  - C(state=judged) tells what forbids taking the node back; C(state=readmitted) takes the taint off.
  - Supports check mode.
options:
  kubeconfig:
    description: Path of the kubeconfig.
    type: path
    required: true
  node:
    description: Name of the node.
    type: str
    required: true
  state:
    description: What to do.
    type: str
    choices: [planned, released, judged, readmitted]
    required: true
  workers:
    description: The inventory's workers.
    type: list
    elements: str
    default: []
  address:
    description: The node's address by the inventory.
    type: str
    default: ''
  share:
    description: Where nodes mount the share.
    type: str
    default: ''
  servers:
    description: Addresses and names of the NFS server.
    type: list
    elements: str
    default: []
  record:
    description: The fence's record, by node.
    type: dict
    default: {}
  machine:
    description: For C(state=judged), the C(boot_id) as the machine itself says.
    type: dict
    default: {}
  accept_ready:
    description: Whether a node that is Ready may be released.
    type: bool
    default: false
  timeout_seconds:
    description: How long the pods may take to serve elsewhere.
    type: int
    default: 120
author: Tandem
"""

EXAMPLES = """
- name: What the release would do is known
  tandem_let_go: {kubeconfig: admin.conf, node: w1, state: planned, workers: [w1, w2]}
  register: plan
"""

RETURN = """
refusals:
  description: What forbids taking the node back, as sentences.
  returned: when judged
  type: list
plan:
  description: The node's boot id and addresses, its pods that go by force, those that are left and why; the workers
    that can take them over; and what forbids it unless the NFS server refuses the node already.
  returned: when planned or released
  type: dict
deleted_seconds:
  description: After how many seconds the pods on the share were deleted.
  returned: when released
  type: float
serving:
  description: Where each workload with a volume on the share serves, and after how many seconds.
  returned: when released
  type: dict
"""

POLL_SECONDS = 0.5
ATTEMPTS = 10


def planned(api: Kube, parameters: dict[str, Any], *, check_mode: bool) -> dict[str, Any]:
    """What forbids a release, and what the NFS server has to know for it; in check mode, what it would do to pods too.

    Raises:
        KubeError: the API refused or cannot be reached.
    """
    nodes = _by_name(api.get("/api/v1/nodes"))
    forbidden, plan = _judged(parameters, nodes)
    if forbidden:
        return {"refusals": forbidden, "plan": {}}
    if check_mode:
        found, volumes = _of_pods(parameters, *api.gather(*_lists(parameters["node"])))
        plan |= {**found, "awaited": _awaited(api, parameters, found["forced"], volumes)}
        return {"refusals": [], "plan": {**plan, "told": told(plan)}}
    line = f"{plan['node']} ({', '.join(plan['addresses'])}) is refused the share until it has booted anew"
    return {"refusals": [], "plan": {**plan, "told": [line]}}


def _by_name(items: dict[str, Any]) -> dict[str, Any]:
    return {item["metadata"]["name"]: item for item in items["items"]}


def _judged(parameters: dict[str, Any], nodes: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """What of the nodes forbids a release, else the plan as far as nodes matter."""
    name, record = parameters["node"], parameters["record"]
    worker = nodes.get(name) if name in parameters["workers"] else None
    alive = unasked(name, worker, accept_ready=parameters["accept_ready"])
    forbidden = refusals(name, nodes, parameters["workers"], record)
    if forbidden:
        return [*alive, *forbidden], {}
    return [], {
        "node": name,
        "boot_id": nodes[name]["status"]["nodeInfo"].get("bootID", ""),
        "addresses": addresses(nodes[name], parameters["address"]),
        "tainted": tainted(nodes[name]),
        "unless_refused": alive,
        "heirs": heirs(name, nodes, parameters["workers"], record),
    }


def _lists(name: str) -> tuple[str, str, str]:
    """Where a node's pods are listed, and what tells their volumes."""
    claims = "/api/v1/persistentvolumeclaims"
    return f"/api/v1/pods?fieldSelector=spec.nodeName%3D{name}", claims, "/api/v1/persistentvolumes"


def _of_pods(
    parameters: dict[str, Any], pods: dict[str, Any], claims: dict[str, Any], volumes: dict[str, Any]
) -> tuple[dict[str, Any], Volumes]:
    """The plan as far as the node's pods matter, those on the share first; and the volumes that tell them."""
    known = Volumes(claims["items"], volumes["items"], parameters["share"], parameters["servers"])
    found = sorted_pods(pods["items"], parameters["node"], known)
    found["forced"].sort(key=lambda pod: not pod["share"])
    return found, known


def _awaited(api: Kube, parameters: dict[str, Any], forced: list[dict[str, Any]], volumes: Volumes) -> dict[str, str]:
    """Which workloads have to serve elsewhere, by UID."""
    name = parameters["node"]
    since = str(parameters["record"].get(name, {}).get("since", ""))
    return awaited(api.get("/api/v1/pods")["items"], name, forced, volumes, since)


def released(api: Kube, parameters: dict[str, Any], *, check_mode: bool) -> dict[str, Any]:
    """Delete the node's pods by force, taint it, wait until they serve elsewhere.

    Somebody waits for the pods on the share, so they go before everything else. Before the taint too: it makes the
    cluster evict them, which makes successors that cannot be scheduled while the old pod has the claim, and are tried
    again seconds later. Only where a successor might be sent to this very node the taint comes first.

    Raises:
        KubeError: the API refused or cannot be reached, or the other workers went meanwhile.
        TimeoutError: a workload does not serve elsewhere in time; the message says why.
    """
    name, begun = parameters["node"], time.monotonic()
    answers = api.gather("/api/v1/nodes", *_lists(name))
    nodes = _by_name(answers[0])
    forbidden, plan = _judged(parameters, nodes)
    if forbidden:
        raise KubeError(f"the node is fenced, but its pods were left: {' '.join(forbidden)}")
    found, volumes = _of_pods(parameters, *answers[1:])
    forced = found["forced"]
    answer: dict[str, Any] = {"changed": not plan["tainted"] or bool(forced)}
    if check_mode:
        plan |= {**found, "awaited": _awaited(api, parameters, forced, volumes)}
        return {**answer, "plan": {**plan, "told": told(plan)}, "serving": {}, "deleted_seconds": 0.0}
    taint = {"key": TAINT, "value": str(parameters["record"][name]["epoch"]), "effect": "NoExecute"}
    missing, last = not plan["tainted"], closed(nodes[name])
    if missing and not last:
        _taint(api, name, taint, nodes[name])
    for pod in forced:
        if pod["share"]:
            delete_pod(api, pod)
    answer["deleted_seconds"] = round(time.monotonic() - begun, 1)
    if missing and last:
        _taint(api, name, taint, nodes[name])
    for pod in forced:
        if not pod["share"]:
            delete_pod(api, pod)
    plan |= {**found, "awaited": _awaited(api, parameters, forced, volumes)}
    serve = _wait(api, name, plan["awaited"], begun, parameters["timeout_seconds"])
    return {**answer, "plan": {**plan, "told": told(plan)}, "serving": serve}


def _wait(api: Kube, name: str, owners: dict[str, str], begun: float, seconds: float) -> dict[str, Any]:
    """Wait until every owner has a Ready pod elsewhere; which, and after how many seconds.

    Only their own namespaces are asked for, and not often: an API server that has just lost a node is busy.

    Raises:
        KubeError: the API refused or cannot be reached.
        TimeoutError: one does not serve in time; the message says why.
    """
    found: dict[str, Any] = {}
    namespaces = sorted({owner.partition("/")[0] for owner in owners.values()})
    while True:
        pods = [pod for each in namespaces for pod in api.get(f"/api/v1/namespaces/{each}/pods")["items"]]
        there = serving(pods, name)
        for uid, owner in owners.items():
            if uid in there and owner not in found:
                found[owner] = {"pod": there[uid], "seconds": round(time.monotonic() - begun, 1)}
        missing = {uid: owner for uid, owner in owners.items() if owner not in found}
        if not missing:
            return found
        if time.monotonic() - begun > seconds:
            why = "; ".join(f"{owner}: {waiting_for(pods, name, uid)}" for uid, owner in missing.items())
            raise TimeoutError(
                f"{name} is released, but not all serve elsewhere after {seconds:g} s: {why}; way out: mend that; the "
                "fence holds, and the same command waits again"
            )
        time.sleep(POLL_SECONDS)


def _taint(api: Kube, name: str, taint: dict[str, Any] | None, known: dict[str, Any] | None = None) -> None:
    """Put our taint on a node, or take it off (None). Taints are one list to the API: those of others stay.

    Args:
        api: the cluster.
        name: the node.
        taint: the taint, or None.
        known: the node as it was read just now, to spare one request.

    Raises:
        KubeError: the API refused, or somebody else wrote the node each time.
    """
    for attempt in range(1, ATTEMPTS + 1):
        node = known if known is not None and attempt == 1 else api.get(f"/api/v1/nodes/{name}")
        others = [each for each in node["spec"].get("taints") or [] if each["key"] != TAINT]
        # The version that it was decided on: a taint that somebody adds in between must not be lost.
        body = {
            "metadata": {"resourceVersion": node["metadata"]["resourceVersion"]},
            "spec": {"taints": [*others, *([taint] if taint else [])]},
        }
        try:
            api.request("PATCH", f"/api/v1/nodes/{name}", body=body, headers=MERGE)
        except KubeError as error:
            if error.status != 409 or attempt == ATTEMPTS:
                raise
        else:
            return


def judged(api: Kube, parameters: dict[str, Any]) -> dict[str, Any]:
    """What forbids taking the node back.

    Raises:
        KubeError: the API refused or cannot be reached.
    """
    name = parameters["node"]
    entry = parameters["record"].get(name)
    node = api.find(f"/api/v1/nodes/{name}")
    still = node is not None and tainted(node)
    if entry is None:
        return {"refusals": [], "tainted": still, "released": False}
    return {
        "refusals": readmission_refusals(name, node, entry, parameters["machine"]),
        "tainted": still,
        "released": True,
    }


def readmitted(api: Kube, parameters: dict[str, Any], *, check_mode: bool) -> dict[str, Any]:
    """Take the taint off.

    Raises:
        KubeError: the API refused or cannot be reached.
    """
    node = api.get(f"/api/v1/nodes/{parameters['node']}")
    if tainted(node) and not check_mode:
        _taint(api, parameters["node"], None)
    return {"changed": tainted(node)}


ARGUMENTS: dict[str, dict[str, Any]] = {
    "kubeconfig": {"type": "path", "required": True},
    "node": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["planned", "released", "judged", "readmitted"], "required": True},
    "workers": {"type": "list", "elements": "str", "default": []},
    "address": {"type": "str", "default": ""},
    "share": {"type": "str", "default": ""},
    "servers": {"type": "list", "elements": "str", "default": []},
    "record": {"type": "dict", "default": {}},
    "machine": {"type": "dict", "default": {}},
    "accept_ready": {"type": "bool", "default": False},
    "timeout_seconds": {"type": "int", "default": 120},
}


class ActionModule(ActionBase):  # type: ignore[misc]
    """Ansible's entry point."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Do what the state asks for; a failure says what to do next."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, parameters = self.validate_argument_spec(ARGUMENTS)
        state, name = parameters["state"], parameters["node"]
        check_mode = bool(self._task.check_mode)
        entry = parameters["record"].get(name, {})
        if state == "released" and entry.get("phase") != "refused" and not check_mode:
            message = (
                f"{name}: the NFS server has not acknowledged that it refuses it; rule: no pod is deleted by force "
                "before that; nothing has been changed in the cluster; way out: playbooks/release-node.yml does both "
                "in order"
            )
            return {**result, "failed": True, "msg": message}
        try:
            api = Kube(str(parameters["kubeconfig"]))
            if state in ("planned", "judged"):
                if state == "judged":
                    return {**result, "changed": False, **judged(api, parameters)}
                answer = planned(api, parameters, check_mode=check_mode)
                if answer["refusals"]:
                    lines = ["Nothing has been changed. The release is refused:", *answer["refusals"]]
                    return {**result, "failed": True, "msg": "\n".join(lines)}
                if not check_mode:
                    tandem_lock.hold(api, str(parameters["kubeconfig"]), tandem_lock.owner())
                return {**result, "changed": False, **answer}
            change = released if state == "released" else readmitted
            return {**result, **change(api, parameters, check_mode=check_mode)}
        except (TimeoutError, tandem_lock.LockError) as error:
            return {**result, "failed": True, "msg": str(error)}
        except KubeError as error:
            message = f"{name}: {error}; way out: run the same playbook again, it goes on from here"
            return {**result, "failed": True, "msg": message}
