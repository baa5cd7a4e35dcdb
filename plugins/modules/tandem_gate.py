#!/usr/bin/python
"""Ansible module: the gate between one node's kubelet restart and the next."""

from __future__ import annotations

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.tandem_kube import Kube, KubeError

DOCUMENTATION = """
module: tandem_gate
short_description: Waits until a node whose kubelet restarted is as good as before
description:
  - With C(state=snapshot), notes which pods of the node are ready and which Services have a ready endpoint elsewhere.
  - With C(state=healthy), waits until the node is Ready with a heartbeat written after the call began, every pod of the
    snapshot is ready again with the same UID and restart count, and each Service still has its endpoints elsewhere.
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
    description: Take a snapshot, or wait for the node to be as the snapshot says.
    type: str
    choices: [snapshot, healthy]
    required: true
  snapshot:
    description: What C(state=snapshot) returned.
    type: dict
    default: {}
  timeout_seconds:
    description: How long to wait.
    type: int
    default: 180
author: Tandem
"""

EXAMPLES = """
- name: The node's pods are noted
  tandem_gate: {kubeconfig: admin.conf, node: w1, state: snapshot}
  register: before
"""

RETURN = """
snapshot:
  description: Ready pods of the node and Services with an endpoint elsewhere.
  returned: always
  type: dict
"""

POLL_SECONDS = 0.5


def ready(conditions: list[dict[str, Any]]) -> bool:
    """Whether a list of conditions says Ready=True."""
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


def pods_of(pods: list[dict[str, Any]], node: str) -> dict[str, dict[str, Any]]:
    """Ready, not deleted pods of a node: namespace/name to UID and restart count."""
    return {
        f"{pod['metadata']['namespace']}/{pod['metadata']['name']}": {
            "uid": pod["metadata"]["uid"],
            "restarts": sum(status["restartCount"] for status in pod["status"].get("containerStatuses", [])),
        }
        for pod in pods
        if pod["spec"].get("nodeName") == node
        and "deletionTimestamp" not in pod["metadata"]
        and ready(pod["status"].get("conditions", []))
    }


def services_elsewhere(slices: list[dict[str, Any]], node: str) -> list[str]:
    """Services (namespace/name) with a ready endpoint on another node."""
    found = set()
    for entry in slices:
        service = entry["metadata"].get("labels", {}).get("kubernetes.io/service-name")
        if service and any(
            endpoint.get("nodeName") not in (None, node) and endpoint.get("conditions", {}).get("ready")
            for endpoint in entry.get("endpoints") or []
        ):
            found.add(f"{entry['metadata']['namespace']}/{service}")
    return sorted(found)


def missing(
    snapshot: dict[str, Any],
    node_ready: bool,
    first_heartbeat: str,
    heartbeat: str,
    pods: dict[str, dict[str, Any]],
    services: list[str],
) -> list[str]:
    """What is not yet as it was, as sentences; empty when the gate may open."""
    problems = [] if node_ready else ["the node is not Ready"]
    if heartbeat == first_heartbeat:
        problems.append(f"no heartbeat newer than {first_heartbeat or 'none'}")
    for name, before in snapshot.get("pods", {}).items():
        now = pods.get(name)
        if now is None:
            problems.append(f"pod {name} is not Ready")
        elif now != before:
            problems.append(f"pod {name} was {before} and is {now}")
    lost = sorted(set(snapshot.get("services", [])) - set(services))
    return problems + [f"Service {name} has no ready endpoint on another node" for name in lost]


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "kubeconfig": {"type": "path", "required": True},
            "node": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["snapshot", "healthy"], "required": True},
            "snapshot": {"type": "dict", "default": {}},
            "timeout_seconds": {"type": "int", "default": 180},
        },
        supports_check_mode=True,
    )
    node = module.params["node"]
    kube = Kube(module.params["kubeconfig"])
    get = kube.get

    def pods() -> dict[str, dict[str, Any]]:
        return pods_of(get(f"/api/v1/pods?fieldSelector=spec.nodeName%3D{node}")["items"], node)

    def services() -> list[str]:
        return services_elsewhere(get("/apis/discovery.k8s.io/v1/endpointslices")["items"], node)

    def heartbeat() -> str:
        lease = get(f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{node}")
        return str(lease["spec"].get("renewTime", ""))

    if module.params["state"] == "snapshot":
        try:
            taken = {"pods": pods(), "services": services()}
        except KubeError as error:
            module.fail_json(msg=f"{node}: no snapshot of its pods: {error}")
        module.exit_json(changed=False, snapshot=taken)
    if module.check_mode:
        module.exit_json(changed=False, snapshot=module.params["snapshot"])

    deadline = time.monotonic() + module.params["timeout_seconds"]
    first, problems = None, ["the API did not answer"]
    while time.monotonic() < deadline:
        try:
            first = heartbeat() if first is None else first
            state = ready(get(f"/api/v1/nodes/{node}")["status"]["conditions"])
            problems = missing(module.params["snapshot"], state, first, heartbeat(), pods(), services())
        except KubeError as error:
            problems = [f"the API did not answer: {error}"]
        if not problems:
            module.exit_json(changed=False, snapshot=module.params["snapshot"])
        time.sleep(POLL_SECONDS)
    module.fail_json(
        msg=f"{node}: not as good as before its kubelet restarted after {module.params['timeout_seconds']} s: "
        + "; ".join(problems)
    )


if __name__ == "__main__":
    main()
