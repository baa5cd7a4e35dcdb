#!/usr/bin/python
"""Ansible module: the gate between one node's kubelet restart and the next."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.tandem_kube import Kube, KubeError

DOCUMENTATION = """
module: tandem_gate
short_description: Waits until a node whose kubelet restarted is as good as before
description:
  - With C(state=snapshot), notes which pods of the node are ready and which Services have a ready endpoint elsewhere.
  - With C(state=healthy), waits until the node is Ready with a heartbeat written after the call began, every pod of the
    snapshot is ready again with the same UID and restart count (one that was deleted meanwhile is left out, one that
    was evicted fails), and each Service still has its endpoints elsewhere. Restarts of kube-controller-manager and
    kube-scheduler do not count, for both end by themselves when they could not renew their Lease in time.
  - With C(leaders), waits also until those programs lead, and have led long enough to stay. Healthy on its own port is
    also one that only waits for the lead, and none is replaced when a node is lost while nobody leads.
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
  leaders:
    description: Programs of the control plane that have to lead, whichever node's it is.
    type: list
    elements: str
    default: []
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
LEADER_ELECTED = {"kube-controller-manager", "kube-scheduler"}
"""kubeadm's labels (C(component)) of what ends by itself when the API server was slow: no kubelet's doing."""
LED_SECONDS = 12.0
"""How long a leader has to have led. kube-controller-manager ends when the API server is not healthy within 10 s of its
lead (WaitForAPIServer in cmd/kube-controller-manager/app/controllermanager.go); the rest is for one renewal."""


def led_seconds(lease: Mapping[str, Any]) -> float:
    """How long the holder of a Lease has held it, by its own clock; 0 without a holder."""
    spec = lease["spec"]
    if not spec.get("holderIdentity"):
        return 0.0
    acquired, renewed = (datetime.fromisoformat(spec[name]) for name in ("acquireTime", "renewTime"))
    return (renewed - acquired).total_seconds()


def without_lead(first: Mapping[str, str], leases: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Which programs do not lead, as sentences.

    Args:
        first: program to C(renewTime) as the wait began.
        leases: program to its Lease now.
    """
    found = []
    for program, lease in leases.items():
        if lease["spec"].get("renewTime") == first[program]:
            found.append(f"{program}: nobody has renewed its lead since {first[program] or 'ever'}")
        elif led_seconds(lease) < LED_SECONDS:
            found.append(f"{program}: {lease['spec'].get('holderIdentity')} leads since {led_seconds(lease):.0f} s")
    return found


def ready(conditions: list[dict[str, Any]]) -> bool:
    """Whether a list of conditions says Ready=True."""
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


def restarts(pod: dict[str, Any]) -> int:
    """How often a pod's containers restarted; 0 for those that may do so by themselves at any time."""
    if (pod["metadata"].get("labels") or {}).get("component") in LEADER_ELECTED:
        return 0
    return sum(status["restartCount"] for status in pod["status"].get("containerStatuses", []))


def pods_of(pods: list[dict[str, Any]], node: str) -> dict[str, dict[str, Any]]:
    """Ready, not deleted pods of a node: namespace/name to UID and restart count."""
    return {
        f"{pod['metadata']['namespace']}/{pod['metadata']['name']}": {
            "uid": pod["metadata"]["uid"],
            "restarts": restarts(pod),
        }
        for pod in pods
        if pod["spec"].get("nodeName") == node
        and "deletionTimestamp" not in pod["metadata"]
        and ready(pod["status"].get("conditions", []))
    }


def evicted_from(pods: list[dict[str, Any]], node: str) -> set[str]:
    """Pods (namespace/name) of a node that were evicted from it, for a taint or otherwise, and are on their way out."""
    return {
        f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        for pod in pods
        if pod["spec"].get("nodeName") == node
        and any(
            entry["type"] == "DisruptionTarget" and entry["status"] == "True"
            for entry in pod["status"].get("conditions", [])
        )
    }


def present_on(pods: list[dict[str, Any]], node: str) -> set[str]:
    """Pods (namespace/name) of a node that exist and are not being deleted."""
    return {
        f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        for pod in pods
        if pod["spec"].get("nodeName") == node and "deletionTimestamp" not in pod["metadata"]
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
    pods: list[dict[str, Any]],
    services: list[str],
    node: str,
    evicted: set[str],
) -> list[str]:
    """What is not yet as it was, as sentences; empty when the gate may open.

    A pod that somebody deleted meanwhile (a rollout, a user) is not the restart's doing; one that was evicted is.
    """
    ready_now, there = pods_of(pods, node), present_on(pods, node)
    problems = [] if node_ready else ["the node is not Ready"]
    if heartbeat == first_heartbeat:
        problems.append(f"no heartbeat newer than {first_heartbeat or 'none'}")
    for name, before in snapshot.get("pods", {}).items():
        now = ready_now.get(name)
        if name in evicted:
            problems.append(f"pod {name} was evicted")
        elif now is None and name in there:
            problems.append(f"pod {name} is not Ready")
        elif now is None:
            continue
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
            "leaders": {"type": "list", "elements": "str", "default": []},
            "timeout_seconds": {"type": "int", "default": 180},
        },
        supports_check_mode=True,
    )
    node = module.params["node"]
    kube = Kube(module.params["kubeconfig"])
    get = kube.get

    def pods() -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = get(f"/api/v1/pods?fieldSelector=spec.nodeName%3D{node}")["items"]
        return items

    def services() -> list[str]:
        return services_elsewhere(get("/apis/discovery.k8s.io/v1/endpointslices")["items"], node)

    def heartbeat() -> str:
        lease = get(f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{node}")
        return str(lease["spec"].get("renewTime", ""))

    def leases() -> dict[str, dict[str, Any]]:
        """One that does not exist is of a program that leads without election."""
        folder = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
        found = {program: kube.find(f"{folder}/{program}") for program in module.params["leaders"]}
        return {program: lease for program, lease in found.items() if lease is not None}

    if module.params["state"] == "snapshot":
        try:
            taken = {"pods": pods_of(pods(), node), "services": services()}
        except KubeError as error:
            module.fail_json(msg=f"{node}: no snapshot of its pods: {error}")
        module.exit_json(changed=False, snapshot=taken)
    if module.check_mode:
        module.exit_json(changed=False, snapshot=module.params["snapshot"])

    deadline = time.monotonic() + module.params["timeout_seconds"]
    first, problems = None, ["the API did not answer"]
    led: dict[str, str] | None = None
    evicted: set[str] = set()
    while time.monotonic() < deadline:
        try:
            first = heartbeat() if first is None else first
            if led is None:
                led = {program: str(lease["spec"].get("renewTime", "")) for program, lease in leases().items()}
            state = ready(get(f"/api/v1/nodes/{node}")["status"]["conditions"])
            now = pods()
            evicted |= evicted_from(now, node) & set(module.params["snapshot"].get("pods", {}))
            problems = missing(module.params["snapshot"], state, first, heartbeat(), now, services(), node, evicted)
            now_leading = {program: lease for program, lease in leases().items() if program in led}
            problems += without_lead(led, now_leading)
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
