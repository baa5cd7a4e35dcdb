"""Deleting what a node that is gone left in the API: its pods by force, its Lease, its Node, each by its UID."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .tandem_kube import Kube, delete  # relative: machines and the control node import this under two names

LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


def delete_pod(api: Kube, pod: Mapping[str, Any]) -> None:
    """Delete a pod (`name` as NAMESPACE/NAME, `uid`) by force: nobody waits for a kubelet that is gone.

    Raises:
        KubeError: the API refused or cannot be reached.
    """
    namespace, _, name = pod["name"].partition("/")
    delete(api, f"/api/v1/namespaces/{namespace}/pods/{name}", pod["uid"], gracePeriodSeconds=0)


def remove_node(api: Kube, node: Mapping[str, Any]) -> None:
    """Delete a Node, its Lease first: were that left, an empty machine of this name would begin with an old heartbeat.

    Raises:
        KubeError: the API refused or cannot be reached.
    """
    name = node["metadata"]["name"]
    lease = api.find(f"{LEASES}/{name}")
    if lease is not None:
        delete(api, f"{LEASES}/{name}", lease["metadata"]["uid"])
    delete(api, f"/api/v1/nodes/{name}", node["metadata"]["uid"])
