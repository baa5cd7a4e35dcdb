#!/usr/bin/python
"""Ansible module: a released node's pods serve elsewhere, and the node's way back. The cluster's side of both."""

from __future__ import annotations

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.tandem_kube import Kube, KubeError
from ansible.module_utils.tandem_release import (
    TAINT,
    Volumes,
    addresses,
    awaited,
    readmission_refusals,
    refusals,
    serving,
    sorted_pods,
    tainted,
    told,
    waiting_for,
)

DOCUMENTATION = """
module: tandem_let_go
short_description: Plans a node's release, deletes its pods by force once it is fenced, and takes its taint off again
description:
  - Runs on the control node. C(state=planned) tells what would happen and what forbids it, and changes nothing.
  - C(state=released) taints the node, deletes its pods by force (each by its UID, so that no successor is hit), and
    waits until every workload with a volume on the share has a Ready pod elsewhere. Only for a node whose fence was
    acknowledged.
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
  description: What forbids it, as sentences.
  returned: when planned or judged
  type: list
plan:
  description: The node's boot id and addresses, its pods that go by force, those that are left and why.
  returned: when planned and possible, or released
  type: dict
serving:
  description: Where each workload with a volume on the share serves, and after how many seconds.
  returned: when released
  type: dict
"""

POLL_SECONDS = 0.25
ATTEMPTS = 10


def planned(api: Kube, parameters: dict[str, Any]) -> dict[str, Any]:
    """What a release would do, and what forbids it.

    Raises:
        KubeError: the API refused or cannot be reached.
    """
    name, record = parameters["node"], parameters["record"]
    nodes = {item["metadata"]["name"]: item for item in api.get("/api/v1/nodes")["items"]}
    forbidden = refusals(name, nodes, parameters["workers"], record, accept_ready=parameters["accept_ready"])
    if forbidden:
        return {"refusals": forbidden, "plan": {}}
    pods = api.get("/api/v1/pods")["items"]
    volumes = Volumes(
        api.get("/api/v1/persistentvolumeclaims")["items"],
        api.get("/api/v1/persistentvolumes")["items"],
        parameters["share"],
        parameters["servers"],
    )
    found = sorted_pods(pods, name, volumes)
    since = str(record.get(name, {}).get("since", ""))
    plan = {
        "node": name,
        "boot_id": nodes[name]["status"]["nodeInfo"].get("bootID", ""),
        "addresses": addresses(nodes[name], parameters["address"]),
        "tainted": tainted(nodes[name]),
        **found,
        "awaited": awaited(pods, name, found["forced"], volumes, since),
    }
    return {"refusals": [], "plan": {**plan, "told": told(plan)}}


def released(api: Kube, parameters: dict[str, Any], *, check_mode: bool) -> dict[str, Any]:
    """Taint the node, delete its pods by force, wait until they serve elsewhere.

    Raises:
        KubeError: the API refused or cannot be reached, or the other workers went meanwhile.
        TimeoutError: a workload does not serve elsewhere in time; the message says why.
    """
    name = parameters["node"]
    answer = planned(api, parameters)
    plan = answer["plan"]
    changed = bool(plan) and (not plan["tainted"] or bool(plan["forced"]))
    if not plan:
        raise KubeError(f"the node is fenced, but its pods were left: {' '.join(answer['refusals'])}")
    if check_mode:
        return {**answer, "changed": changed, "serving": {}}
    begun = time.monotonic()
    if not plan["tainted"]:
        epoch = str(parameters["record"][name]["epoch"])
        _taint(api, name, {"key": TAINT, "value": epoch, "effect": "NoExecute"})
    for pod in plan["forced"]:
        _delete(api, pod)
    found: dict[str, Any] = {}
    until = begun + parameters["timeout_seconds"]
    while True:
        pods = api.get("/api/v1/pods")["items"]
        there = serving(pods, name)
        for uid, owner in plan["awaited"].items():
            if uid in there and owner not in found:
                found[owner] = {"pod": there[uid], "seconds": round(time.monotonic() - begun, 1)}
        missing = {uid: owner for uid, owner in plan["awaited"].items() if owner not in found}
        if not missing:
            return {**answer, "changed": changed, "serving": found}
        if time.monotonic() > until:
            why = "; ".join(f"{owner}: {waiting_for(pods, name, uid)}" for uid, owner in missing.items())
            raise TimeoutError(
                f"{name} is released, but not all serve elsewhere after {parameters['timeout_seconds']} s: {why}; "
                "way out: mend that; the fence holds, and the same command waits again"
            )
        time.sleep(POLL_SECONDS)


def _delete(api: Kube, pod: dict[str, Any]) -> None:
    """Delete one pod by force; one that went meanwhile, or whose name is another's by now, is left."""
    namespace, _, name = pod["name"].partition("/")
    body = {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "gracePeriodSeconds": 0,
        "preconditions": {"uid": pod["uid"]},
    }
    try:
        api.request("DELETE", f"/api/v1/namespaces/{namespace}/pods/{name}", body=body)
    except KubeError as error:
        if error.status not in (404, 409):
            raise


def _taint(api: Kube, name: str, taint: dict[str, Any] | None) -> None:
    """Put our taint on a node, or take it off (None). Taints are one list to the API: those of others stay.

    Raises:
        KubeError: the API refused, or somebody else wrote the node each time.
    """
    headers = {"Content-Type": "application/merge-patch+json"}
    for attempt in range(1, ATTEMPTS + 1):
        node = api.get(f"/api/v1/nodes/{name}")
        others = [each for each in node["spec"].get("taints") or [] if each["key"] != TAINT]
        # The version that it was decided on: a taint that somebody adds in between must not be lost.
        body = {
            "metadata": {"resourceVersion": node["metadata"]["resourceVersion"]},
            "spec": {"taints": [*others, *([taint] if taint else [])]},
        }
        try:
            api.request("PATCH", f"/api/v1/nodes/{name}", body=body, headers=headers)
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


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
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
        },
        supports_check_mode=True,
    )
    parameters = module.params
    state, name = parameters["state"], parameters["node"]
    entry = parameters["record"].get(name, {})
    if state == "released" and entry.get("phase") != "refused" and not module.check_mode:
        module.fail_json(
            msg=f"{name}: the NFS server has not acknowledged that it refuses it; rule: no pod is deleted by force "
            "before that; nothing has been changed in the cluster; way out: playbooks/release-node.yml does both in "
            "order"
        )
    try:
        api = Kube(parameters["kubeconfig"])
        if state in ("planned", "judged"):
            act = planned if state == "planned" else judged
            module.exit_json(changed=False, **act(api, parameters))
        change = released if state == "released" else readmitted
        module.exit_json(**change(api, parameters, check_mode=module.check_mode))
    except TimeoutError as error:
        module.fail_json(msg=str(error))
    except KubeError as error:
        module.fail_json(msg=f"{name}: {error}; way out: run the same playbook again, it goes on from here")


if __name__ == "__main__":
    main()
