#!/usr/bin/python
"""Ansible module: a node is taken out of the cluster for its reboot and put back afterwards, in bounded time."""

from __future__ import annotations

import json
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.tandem_kube import MERGE, Kube, KubeError
from ansible.module_utils.tandem_release import ready, serving, waiting_for
from ansible.module_utils.tandem_whole import (
    REBOOT,
    baskets,
    drain_refusals,
    leaving,
    marked,
    not_whole,
    on_the_way,
    services,
    taken_out,
)

DOCUMENTATION = """
module: tandem_drain
short_description: Takes a node out for its reboot, and puts it back
description:
  - With C(state=planned), tells which pods would be evicted, which workloads would be away while they move, and what
    forbids it; pods that are only starting are waited for first. With C(state=drained), waits until nothing forbids it
    any more, cordons the node, evicts its pods within their disruption budgets, and waits until those that were alone
    serve elsewhere. When that does not come about in time the node is given back, and it fails.
  - With C(state=returned), waits until the node is Ready with another boot id, uncordons it, and waits until the
    cluster is whole. With C(state=whole), waits for that alone. Every Service that had a ready endpoint has one again.
  - An annotation of the node remembers its boot id, so that a run that was killed goes on where it was. It counts while
    the node is cordoned; of one that somebody uncordoned it is written anew. Check mode changes nothing.
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
    choices: [planned, drained, returned, whole]
    required: true
  accept:
    description: Workloads (NAMESPACE/KIND/NAME) that need not be whole, and whose pods may wait for the node.
    type: list
    elements: str
    default: []
  services:
    description: Services that had a ready endpoint before.
    type: list
    elements: str
    default: []
  boots:
    description: With C(state=returned), whether it has to have booted anew, or only to be Ready.
    type: bool
    default: true
  timeout_seconds:
    description:
      - How long it may take. With C(state=drained), how long the cluster may take to be whole before it, and as long
        again for the pods to leave and to serve elsewhere.
    type: int
    default: 300
author: Tandem
"""

EXAMPLES = """
- name: The node is taken out
  tandem_drain: {kubeconfig: admin.conf, node: w1, state: drained}
"""

RETURN = """
refusals:
  description: What forbids it, as sentences.
  returned: when planned
  type: list
booted:
  description: Whether an earlier run has taken the node out already and it has booted since.
  returned: when planned
  type: bool
evicted:
  description: Pods that would go, or went.
  returned: when planned or drained
  type: list
away:
  description: Workloads of one pod, which are away while they move; when drained, for how many seconds at most.
  returned: when planned or drained
  type: raw
services:
  description: Services with a ready endpoint.
  returned: when planned
  type: list
"""

POLL_SECONDS = 0.5
SETTLE_SECONDS = 2.0
"""Between two looks at pods that start; several nodes' plans ask at once."""
KINDS = (("deployments", "Deployment"), ("statefulsets", "StatefulSet"), ("daemonsets", "DaemonSet"))


class DrainError(Exception):
    """The node could not be taken out or put back in time; the message says why, and in which state it is."""


def workloads(api: Kube) -> list[dict[str, Any]]:
    """All workloads, each with its kind."""
    return [{**item, "kind": kind} for plural, kind in KINDS for item in api.get(f"/apis/apps/v1/{plural}")["items"]]


Objects = list[dict[str, Any]]


def judged(api: Kube, name: str, accept: list[str]) -> tuple[list[str], Objects, Objects, Objects]:
    """What forbids taking the node out now; and the nodes, workloads and pods by which that was judged."""
    nodes, pods = api.get("/api/v1/nodes")["items"], api.get("/api/v1/pods")["items"]
    items = workloads(api)
    return drain_refusals(name, nodes, items, pods, accept), nodes, items, pods


def planned(api: Kube, name: str, accept: list[str], until: float = 0.0) -> dict[str, Any]:
    """What taking the node out would do, and what forbids it.

    Args:
        api: the cluster.
        name: the node.
        accept: workloads that need not be whole, and whose pods may wait for the node.
        until: how long pods that start are waited for, by the monotonic clock: a roll-out is no fault.
    """
    while True:
        refusals, nodes, items, pods = judged(api, name, accept)
        if not refusals or time.monotonic() > until or not on_the_way(name, nodes, items, accept):
            break
        time.sleep(SETTLE_SECONDS)
    mine = next((node for node in nodes if node["metadata"]["name"] == name), None)
    before = marked(mine) if mine and taken_out(mine) else ""
    found = services(api.get("/apis/discovery.k8s.io/v1/endpointslices")["items"])
    return {
        "refusals": refusals,
        "booted": bool(before) and mine is not None and mine["status"]["nodeInfo"].get("bootID") != before,
        "evicted": [_name(pod) for pod in leaving(pods, name)["evicted"]],
        "away": list(baskets(pods, name)[1].values()),
        "services": sorted(service for service, where in found.items() if where),
    }


def _name(pod: Any) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def _wait_until_nothing_forbids(api: Kube, name: str, accept: list[str], seconds: float) -> None:
    """The plan's answer is old by now: an upgrade has rolled CoreDNS out since, and restarted the API server.

    Raises:
        DrainError: not in time.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            refusals = judged(api, name, accept)[0]
        except KubeError as error:
            refusals = [str(error)]
        if not refusals:
            return
        if time.monotonic() > until:
            raise DrainError(f"{'; '.join(refusals)}. Waited {seconds:g} s for that; {name} was not taken out")
        time.sleep(POLL_SECONDS)


def drained(api: Kube, name: str, accept: list[str], seconds: float) -> dict[str, Any]:
    """Cordon out of a whole cluster, evict, wait.

    Raises:
        DrainError: not in time; the node is schedulable again, or still.
        KubeError: the API refused.
    """
    _wait_until_nothing_forbids(api, name, accept, seconds)
    node = api.get(f"/api/v1/nodes/{name}")
    pods = api.get("/api/v1/pods")["items"]
    alone = baskets(pods, name)[1]
    first = {_name(pod): pod for pod in leaving(pods, name)["evicted"]}
    changed = not taken_out(node) or bool(first)
    if not taken_out(node):
        value = json.dumps({"boot_id": node["status"]["nodeInfo"].get("bootID", "")})
        body = {"metadata": {"annotations": {REBOOT: value}}, "spec": {"unschedulable": True}}
        api.request("PATCH", f"/api/v1/nodes/{name}", body=body, headers=MERGE)
    begun = time.monotonic()
    away: dict[str, float] = {}
    while True:
        pods = api.get("/api/v1/pods")["items"]
        left = leaving(pods, name)["evicted"]
        refused = [said for pod in left if "deletionTimestamp" not in pod["metadata"] and (said := _evict(api, pod))]
        there = serving(pods, name)
        for uid, owner in alone.items():
            if uid in there:
                away.setdefault(owner, round(time.monotonic() - begun, 1))
        missing = {uid: owner for uid, owner in alone.items() if owner not in away}
        if not left and not missing:
            return {"changed": changed, "evicted": sorted(first), "away": away}
        if time.monotonic() - begun > seconds:
            break
        time.sleep(POLL_SECONDS)
    release(api, name)
    why = [
        *refused,
        *(f"{_name(pod)} does not end" for pod in left if "deletionTimestamp" in pod["metadata"]),
        *(f"{owner}: {waiting_for(pods, name, uid)}" for uid, owner in missing.items()),
    ]
    raise DrainError(
        f"{name} could not be taken out in {seconds:g} s: {'; '.join(why)}. It was not rebooted and is schedulable "
        "again; way out: mend that (pods on a share that hangs do not end before it answers), then the same command"
    )


def _evict(api: Kube, pod: Any) -> str:
    """Evict one pod; why it may not go yet, else empty."""
    meta = pod["metadata"]
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": meta["name"], "namespace": meta["namespace"]},
        "deleteOptions": {"preconditions": {"uid": meta["uid"]}},
    }
    try:
        api.request("POST", f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/eviction", body=body)
    except KubeError as error:
        if error.status == 429:
            return f"{_name(pod)} may not go: its disruption budget allows none"
        if error.status not in (404, 409):
            raise
    return ""


def release(api: Kube, name: str) -> bool:
    """Make the node schedulable again if we made it so; whether anything changed."""
    node = api.get(f"/api/v1/nodes/{name}")
    if not marked(node):
        return False
    body = {"metadata": {"annotations": {REBOOT: None}}, "spec": {"unschedulable": None}}
    api.request("PATCH", f"/api/v1/nodes/{name}", body=body, headers=MERGE)
    return True


def booted(api: Kube, name: str, until: float, *, anew: bool = True) -> None:
    """Wait until the node is Ready, with another boot id than the one written down if it was to boot anew.

    Raises:
        DrainError: not in time.
    """
    reason = "the API does not answer"
    while time.monotonic() < until:
        try:
            node = api.get(f"/api/v1/nodes/{name}")
        except KubeError as error:
            reason = str(error)
        else:
            before = marked(node)
            other = node["status"]["nodeInfo"].get("bootID") != before or not anew
            if not before or (ready(node) == "True" and other):
                return
            reason = "it has not told the cluster of another boot" if ready(node) == "True" else "it is not Ready"
        time.sleep(POLL_SECONDS)
    raise DrainError(
        f"{name} is not back: {reason}. It stays cordoned; way out: look at the machine, then the same command"
    )


def whole(api: Kube, name: str, accept: list[str], wanted: list[str], until: float) -> None:
    """Wait until the cluster is whole and each of the Services has a ready endpoint.

    Raises:
        DrainError: not in time.
    """
    lacks = ["the API does not answer"]
    while time.monotonic() < until:
        try:
            lacks = not_whole(api.get("/api/v1/nodes")["items"], workloads(api), accept)
            found = services(api.get("/apis/discovery.k8s.io/v1/endpointslices")["items"])
            lacks += [f"Service {each} has no ready endpoint" for each in wanted if each in found and not found[each]]
        except KubeError as error:
            lacks = [str(error)]
        if not lacks:
            return
        time.sleep(POLL_SECONDS)
    raise DrainError(
        f"the cluster is not whole again after the reboot of {name}: {'; '.join(lacks)}; nothing else is rebooted; "
        "way out: mend that, then the same command for the machines that are left"
    )


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "kubeconfig": {"type": "path", "required": True},
            "node": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["planned", "drained", "returned", "whole"], "required": True},
            "accept": {"type": "list", "elements": "str", "default": []},
            "services": {"type": "list", "elements": "str", "default": []},
            "boots": {"type": "bool", "default": True},
            "timeout_seconds": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    name, state, accept = module.params["node"], module.params["state"], module.params["accept"]
    seconds = module.params["timeout_seconds"]
    until = time.monotonic() + seconds
    try:
        api = Kube(module.params["kubeconfig"])
        if state == "planned" or module.check_mode:
            plan = planned(api, name, accept, until if state == "planned" else 0.0)
            module.exit_json(changed=state != "planned", **plan)
        if state == "drained":
            module.exit_json(**drained(api, name, accept, seconds))
        changed = False
        if state == "returned":
            booted(api, name, until, anew=module.params["boots"])
            changed = release(api, name)
        whole(api, name, accept, module.params["services"], until)
    except DrainError as error:
        module.fail_json(msg=str(error))
    except KubeError as error:
        module.fail_json(msg=f"{name}: {error}; way out: the same command, it goes on from here")
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
