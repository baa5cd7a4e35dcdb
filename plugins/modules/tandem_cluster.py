#!/usr/bin/python
"""Ansible module: the state of a cluster, read through the API in one go and without changing anything."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.tandem_kube import MERGE, Kube, KubeError

DOCUMENTATION = """
module: tandem_cluster
short_description: Reads what Tandem's roles need to know about a cluster
description:
  - One read-only call on the control node in place of a dozen. Runs in check mode.
options:
  kubeconfig:
    description: Path of the kubeconfig.
    type: path
    required: true
  configz:
    description: Whether to ask each kubelet for its live configuration.
    type: bool
    default: false
  without:
    description: Nodes that are not asked, for they are lost. Until the API server has noticed, they are Ready.
    type: list
    elements: str
    default: []
  storage_class:
    description: Name of the storage class to look up.
    type: str
    default: ''
  storage_namespace:
    description: Namespace of the volume provisioner.
    type: str
    default: ''
  node_restriction:
    description: Whether to try, as the first worker's kubelet and in dry run, to change another node.
    type: bool
    default: false
  workloads:
    description: Whether to read the workloads' own tolerations and disruption budgets.
    type: bool
    default: false
  wait_seconds:
    description:
      - How long to wait for an API server that does not answer yet. After a run that was killed, or a boot, kubelet may
        be about to start it; its pause between attempts grows to minutes.
      - A kubeconfig that cannot be read is not waited for.
    type: int
    default: 0
author: Tandem
"""

EXAMPLES = """
- name: The cluster's state is known
  tandem_cluster:
    kubeconfig: build/kubeconfig/lab/admin.conf
  register: cluster
  delegate_to: localhost
"""

RETURN = """
cluster:
  description: The cluster's state. C(reachable) is false, with an C(error), when the API does not answer.
  returned: always
  type: dict
"""

REFUSAL = "is not allowed to modify node"
"""What the NodeRestriction plugin says; a refusal by the authorizer alone would say something else."""

POLL_SECONDS = 2.0
CONTROL_PLANE_LABEL = "node-role.kubernetes.io/control-plane"


def node_state(node: dict[str, Any]) -> dict[str, Any]:
    """What matters of a Node object."""
    conditions = {condition["type"]: condition for condition in node["status"].get("conditions", [])}
    addresses = {entry["type"]: entry["address"] for entry in node["status"].get("addresses", [])}
    return {
        "ready": conditions.get("Ready", {}).get("status", "Unknown"),
        "labels": node["metadata"].get("labels", {}),
        "taints": [taint["key"] for taint in node["spec"].get("taints", [])],
        "pod_cidr": node["spec"].get("podCIDR", ""),
        "address": addresses.get("InternalIP", ""),
        "kubelet_version": node["status"]["nodeInfo"]["kubeletVersion"],
        "control_plane": CONTROL_PLANE_LABEL in node["metadata"].get("labels", {}),
    }


def owner_of(item: dict[str, Any]) -> dict[str, str]:
    """Kind and name of the controller of an object; empty when it has none."""
    for reference in item["metadata"].get("ownerReferences", []):
        if reference.get("controller"):
            return {"kind": reference["kind"], "name": reference["name"]}
    return {}


def workloads(api: Kube) -> dict[str, Any]:
    """What a roll of old pods needs: the tolerations that templates ask for themselves, budgets, and who owns whom."""
    found: dict[str, Any] = {"templates": {}, "replica_sets": {}, "budgets": []}
    for plural, kind in (("deployments", "Deployment"), ("statefulsets", "StatefulSet"), ("daemonsets", "DaemonSet")):
        for item in api.get(f"/apis/apps/v1/{plural}")["items"]:
            name = f"{item['metadata']['namespace']}/{kind}/{item['metadata']['name']}"
            found["templates"][name] = {
                "tolerations": item["spec"]["template"]["spec"].get("tolerations", []),
                "labels": item["spec"]["template"]["metadata"].get("labels", {}),
                "replicas": item["spec"].get("replicas", 0),
                "strategy": (item["spec"].get("strategy") or item["spec"].get("updateStrategy") or {}).get("type", ""),
            }
    for item in api.get("/apis/apps/v1/replicasets")["items"]:
        found["replica_sets"][f"{item['metadata']['namespace']}/{item['metadata']['name']}"] = owner_of(item)
    for item in api.get("/apis/policy/v1/poddisruptionbudgets")["items"]:
        found["budgets"].append(
            {
                "namespace": item["metadata"]["namespace"],
                "name": item["metadata"]["name"],
                "selector": item["spec"].get("selector"),
                "allowed": item.get("status", {}).get("disruptionsAllowed", 0),
            }
        )
    return found


def pod_state(pod: dict[str, Any]) -> dict[str, Any]:
    """What matters of a Pod object."""
    statuses = pod["status"].get("containerStatuses", [])
    conditions = {entry["type"]: entry["status"] for entry in pod["status"].get("conditions", [])}
    return {
        "namespace": pod["metadata"]["namespace"],
        "name": pod["metadata"]["name"],
        "uid": pod["metadata"]["uid"],
        "node": pod["spec"].get("nodeName", ""),
        "labels": pod["metadata"].get("labels", {}),
        "ready": conditions.get("Ready") == "True",
        "restarts": sum(status["restartCount"] for status in statuses),
        "static": "kubernetes.io/config.mirror" in pod["metadata"].get("annotations", {}),
        "tolerations": pod["spec"].get("tolerations", []),
        "owner": owner_of(pod),
        "deleting": "deletionTimestamp" in pod["metadata"],
    }


def node_restriction(api: Kube, nodes: dict[str, Any]) -> dict[str, Any]:
    """Whether a kubelet's identity may change another node: it must not. Asked for real, in dry run."""
    workers = sorted(name for name, state in nodes.items() if not state["control_plane"])
    others = sorted(name for name in nodes if name not in workers[:1])
    if not workers or not others:
        return {"asked": False}
    headers = {
        "Impersonate-User": f"system:node:{workers[0]}",
        "Impersonate-Group": "system:nodes",
        **MERGE,
    }
    body = {"metadata": {"labels": {"tandem-ha.io/node-restriction-test": "yes"}}}
    try:
        api.request("PATCH", f"/api/v1/nodes/{others[0]}?dryRun=All", body=body, headers=headers)
    except KubeError as error:
        return {"asked": True, "refused": REFUSAL in str(error), "status": error.status, "as": workers[0]}
    return {"asked": True, "refused": False, "status": 200, "as": workers[0]}


def gather(api: Kube, parameters: dict[str, Any]) -> dict[str, Any]:
    """Everything, as one dict."""
    nodes = {node["metadata"]["name"]: node_state(node) for node in api.get("/api/v1/nodes")["items"]}
    system = "/api/v1/namespaces/kube-system"

    def data(path: str) -> dict[str, str]:
        return dict((api.find(path) or {}).get("data", {}))

    state: dict[str, Any] = {
        "reachable": True,
        "version": api.get("/version")["gitVersion"],
        "nodes": nodes,
        "kubeadm_config": data(f"{system}/configmaps/kubeadm-config").get("ClusterConfiguration", ""),
        "kubelet_config": data(f"{system}/configmaps/kubelet-config").get("kubelet", ""),
        "record": data("/api/v1/namespaces/tandem-system/configmaps/recovery-profile"),
        "pods": [pod_state(pod) for pod in api.get("/api/v1/pods")["items"]],
        "coredns": api.find("/apis/apps/v1/namespaces/kube-system/deployments/coredns"),
        "configz": {},
    }
    if parameters["configz"]:
        for name, node in nodes.items():
            if node["ready"] == "True" and name not in parameters["without"]:
                state["configz"][name] = api.get(f"/api/v1/nodes/{name}/proxy/configz")["kubeletconfig"]
    if parameters["storage_class"]:
        state["storage_class"] = api.find(f"/apis/storage.k8s.io/v1/storageclasses/{parameters['storage_class']}")
    if parameters["storage_namespace"]:
        namespace = parameters["storage_namespace"]
        state["provisioner"] = api.find(f"/apis/apps/v1/namespaces/{namespace}/deployments/local-path-provisioner")
    if parameters["workloads"]:
        state["workloads"] = workloads(api)
    if parameters["node_restriction"]:
        state["node_restriction"] = node_restriction(api, nodes)
    return state


def patient(
    look: Callable[[], dict[str, Any]],
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """What a look gives, repeated until the API answers or the time is over; then the last error."""
    until = clock() + seconds
    while True:
        try:
            return look()
        except KubeError as error:
            if clock() >= until:
                return unreachable(error)
        sleep(POLL_SECONDS)


def unreachable(error: KubeError) -> dict[str, Any]:
    """The state of a cluster of which nothing is known."""
    return {"reachable": False, "error": str(error), "nodes": {}, "pods": []}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "kubeconfig": {"type": "path", "required": True},
            "configz": {"type": "bool", "default": False},
            "without": {"type": "list", "elements": "str", "default": []},
            "storage_class": {"type": "str", "default": ""},
            "storage_namespace": {"type": "str", "default": ""},
            "node_restriction": {"type": "bool", "default": False},
            "workloads": {"type": "bool", "default": False},
            "wait_seconds": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    try:
        api = Kube(module.params["kubeconfig"])
    except KubeError as error:
        module.exit_json(changed=False, cluster=unreachable(error))
    state = patient(lambda: gather(api, module.params), module.params["wait_seconds"])
    module.exit_json(changed=False, cluster=state)


if __name__ == "__main__":
    main()
