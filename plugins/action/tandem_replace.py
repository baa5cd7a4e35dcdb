"""Ansible action: what a worker that is gone left in the cluster goes; so an empty machine can take its place."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

# The functions live beside this folder; they are found from the project's root.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from plugins.module_utils.tandem_kube import Kube, KubeError
from plugins.module_utils.tandem_kubelet_objects import delete_pod, remove_node
from plugins.module_utils.tandem_replacing import bound, replacement_refusals, reset_refusals, told

DOCUMENTATION = """
module: tandem_replace
short_description: Removes a lost worker's Node, Lease and pods
description:
  - Runs on the control node. C(state=planned) tells what would happen, fails when something forbids it, and changes
    nothing. C(state=removed) deletes by force the pods that the cluster has on the node, then its Lease, last the Node,
    each by its UID. Broken off, it goes on from there. Supports check mode.
  - C(state=drained) fails when a machine may not be cleaned, for its node was not drained; C(state=forgotten) removes
    the Node of a machine that has been cleaned.
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
    choices: [planned, removed, drained, forgotten]
    required: true
  workers:
    description: The inventory's workers.
    type: list
    elements: str
    default: []
  machine:
    description: What the machine in its place says, C(boot_id) and C(joined).
    type: dict
    default: {}
  record:
    description: The record of the fence, by node.
    type: dict
    default: {}
  gone:
    description: Whether somebody said that the old machine is gone for good.
    type: bool
    default: false
  confirmed:
    description: For C(drained) and C(forgotten), the name once more.
    type: str
    default: ''
author: Tandem
"""

RETURN = """
stale:
  description: Whether the cluster has a Node of a machine that is gone.
  returned: always
  type: bool
told:
  description: The plan for people.
  returned: always
  type: str
"""

ARGUMENTS: dict[str, dict[str, Any]] = {
    "kubeconfig": {"type": "path", "required": True},
    "node": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["planned", "removed", "drained", "forgotten"], "required": True},
    "workers": {"type": "list", "elements": "str", "default": []},
    "machine": {"type": "dict", "default": {}},
    "record": {"type": "dict", "default": {}},
    "gone": {"type": "bool", "default": False},
    "confirmed": {"type": "str", "default": ""},
}
POLL_SECONDS = 0.5
GONE_SECONDS = 60
"""How long objects may take to go: finalizers are somebody else's work."""


def planned(api: Kube, parameters: dict[str, Any]) -> dict[str, Any]:
    """What would happen, and what forbids it.

    Raises:
        KubeError: the API refused or cannot be reached.
    """
    name, machine = parameters["node"], parameters["machine"]
    node = api.find(f"/api/v1/nodes/{name}") if name else None
    entry = parameters["record"].get(name)
    forbidden = replacement_refusals(name, node, machine, parameters["workers"], entry, gone=parameters["gone"])
    if forbidden:
        return {"refusals": forbidden, "stale": False, "told": ""}
    pods = bound(api.get(f"/api/v1/pods?fieldSelector=spec.nodeName%3D{name}")["items"], name)
    stale = node is not None and not machine["joined"]
    return {"refusals": [], "stale": stale, "told": told(name, node, machine, pods)}


def removed(api: Kube, parameters: dict[str, Any], *, check_mode: bool) -> dict[str, Any]:
    """Remove what the lost worker left.

    Raises:
        KubeError: the API refused or cannot be reached, or something forbids it by now.
        TimeoutError: an object does not go.
    """
    name = parameters["node"]
    plan = planned(api, parameters)
    if plan["refusals"]:
        raise KubeError(" ".join(plan["refusals"]))
    if not plan["stale"] or check_mode:
        return {**plan, "changed": plan["stale"]}
    _remove(api, api.get(f"/api/v1/nodes/{name}"))
    return {**plan, "changed": True}


def _remove(api: Kube, node: dict[str, Any]) -> None:
    """Delete a node's pods by force, its Lease and itself, and wait until it is gone.

    Raises:
        KubeError: the API refused or cannot be reached.
        TimeoutError: it does not go.
    """
    name = node["metadata"]["name"]
    for pod in bound(api.get(f"/api/v1/pods?fieldSelector=spec.nodeName%3D{name}")["items"], name):
        delete_pod(api, pod)
    remove_node(api, node)
    until = time.monotonic() + GONE_SECONDS
    while api.find(f"/api/v1/nodes/{name}") is not None:
        if time.monotonic() > until:
            raise TimeoutError(
                f"Node {name} does not go in {GONE_SECONDS} s: "
                f"finalizers {node['metadata'].get('finalizers') or 'none'}; way out: see who keeps it, then the same "
                "command, which goes on from here"
            )
        time.sleep(POLL_SECONDS)


def drained(api: Kube, parameters: dict[str, Any]) -> dict[str, Any]:
    """What forbids cleaning a worker's machine.

    Raises:
        KubeError: the API refused or cannot be reached.
    """
    name = parameters["node"]
    node = api.find(f"/api/v1/nodes/{name}") if name else None
    pods = api.get(f"/api/v1/pods?fieldSelector=spec.nodeName%3D{name}")["items"] if node else []
    forbidden = reset_refusals(name, node, pods, parameters["workers"], parameters["confirmed"])
    return {"refusals": forbidden, "stale": node is not None, "told": ""}


def forgotten(api: Kube, parameters: dict[str, Any], *, check_mode: bool) -> dict[str, Any]:
    """Remove the Node of a machine that has been cleaned, with the pods that belong to every node.

    Raises:
        KubeError: the API refused or cannot be reached, or something forbids it by now.
        TimeoutError: an object does not go.
    """
    answer = drained(api, parameters)
    if answer["refusals"]:
        raise KubeError(" ".join(answer["refusals"]))
    if answer["stale"] and not check_mode:
        _remove(api, api.get(f"/api/v1/nodes/{parameters['node']}"))
    return {**answer, "changed": answer["stale"]}


class ActionModule(ActionBase):  # type: ignore[misc]
    """Ansible's entry point."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Do what the state asks for; a failure says what to do next."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, parameters = self.validate_argument_spec(ARGUMENTS)
        state, check_mode = parameters["state"], bool(self._task.check_mode)
        try:
            api = Kube(str(parameters["kubeconfig"]))
            if state in ("removed", "forgotten"):
                change = removed if state == "removed" else forgotten
                return {**result, **change(api, parameters, check_mode=check_mode)}
            plan = (planned if state == "planned" else drained)(api, parameters)
        except TimeoutError as error:
            return {**result, "failed": True, "msg": str(error)}
        except KubeError as error:
            message = f"{parameters['node']}: {error}; way out: the same command, it goes on from here"
            return {**result, "failed": True, "msg": message}
        if plan["refusals"]:
            lines = ["Nothing has been changed. It is refused:", *plan["refusals"]]
            return {**result, "failed": True, "msg": "\n".join(lines)}
        return {**result, "changed": False, **plan}
