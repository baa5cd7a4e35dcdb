"""Claims that go and come back with another volume, and the pod that keeps a volume mounted meanwhile.

Each step finds out by itself whether it was done before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .tandem_adopting import claim_body
from .tandem_claims import ROLE, SPARE, spare_of
from .tandem_kube import (  # relative: machines and the control node import this under two names
    MERGE,
    Kube,
    KubeError,
    delete,
)
from .tandem_moves import VOLUMES, claims_path, pods_path, post, until


def bind(
    api: Kube, claim: str, name: str, content: Mapping[str, Any], volume: str, class_name: str, seconds: float
) -> None:
    """A claim is bound to a volume; it is created when it is not there.

    Args:
        api: the cluster.
        claim: the claim of the move; its namespace counts.
        name: the claim to bind.
        content: the record, which says what the claim was.
        volume: the volume that it is bound to.
        class_name: the volume's class.
        seconds: how long that may take.

    Raises:
        KubeError: the API refused, or somebody made another claim of this name.
        TimeoutError: it is not bound in time.
    """
    namespace, path = claim.partition("/")[0], f"{claims_path(claim)}/{name}"
    there = api.find(path)
    if there is None:
        # Bound to this claim alone from now on: no other one can take it in between.
        reference = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": namespace, "name": name}
        body = {"spec": {"claimRef": {**reference, "uid": None, "resourceVersion": None}}}
        api.request("PATCH", f"{VOLUMES}/{volume}", body=body, headers=MERGE)
        post(api, claims_path(claim), claim_body(namespace, name, content, volume, class_name))
        there = api.get(path)
    if there["spec"].get("volumeName") != volume:
        raise KubeError(f"claim {namespace}/{name} is bound to {there['spec'].get('volumeName')}, not to {volume}")
    until(
        lambda: _unbound(api.find(path)),
        seconds,
        f"claim {namespace}/{name} is bound to {volume}",
        "see `kubectl describe` of both, then the same command",
    )


def _unbound(there: Mapping[str, Any] | None) -> str:
    phase = (there or {}).get("status", {}).get("phase", "not there")
    return "" if phase == "Bound" else str(phase)


def spare(api: Kube, claim: str, content: Mapping[str, Any], volume: str, class_name: str, seconds: float) -> str:
    """The claim that exists for the time of a move; the volume that it is bound to.

    Args:
        api: the cluster.
        claim: the claim that moves.
        content: the record of its move.
        volume: the volume to bind; empty for a new one of the class.
        class_name: the class.
        seconds: how long it may take to be bound.

    Raises:
        KubeError: the API refused.
        TimeoutError: it is not bound in time.
    """
    name, namespace = spare_of(claim), claim.partition("/")[0]
    path = f"{claims_path(claim)}/{name}"
    if volume:
        bind(api, claim, name, {**content, "claim": _plain(content)}, volume, class_name, seconds)
        return volume
    if api.find(path) is None:
        body = claim_body(namespace, name, {**content, "claim": _plain(content)}, "", class_name)
        del body["spec"]["volumeName"]
        post(api, claims_path(claim), body)
    until(
        lambda: _unbound(api.find(path)),
        seconds,
        f"claim {namespace}/{name} gets a volume of class {class_name}",
        f"`kubectl describe pvc {name} --namespace={namespace}`; the workload runs as before; then the same command",
    )
    return str(api.get(path)["spec"]["volumeName"])


def _plain(content: Mapping[str, Any]) -> dict[str, Any]:
    """What a claim was, without its own labels, which others may select by."""
    return {**content["claim"], "labels": {ROLE: SPARE}, "annotations": {}}


def holder(api: Kube, claim: str, name: str, node: str, image: str, seconds: float) -> dict[str, Any]:
    """The pod that keeps a volume mounted on a node, once it runs.

    Raises:
        KubeError: the API refused.
        TimeoutError: it does not run in time.
    """
    path = f"{pods_path(claim)}/{spare_of(claim)}"
    if api.find(path) is None:
        post(api, pods_path(claim), holder_body(claim, name, node, image))
    until(
        lambda: _not_running(api.find(path)),
        seconds,
        f"pod {spare_of(claim)} on {node} mounts the volume",
        f"`kubectl describe pod {spare_of(claim)} --namespace={claim.partition('/')[0]}`, then the same command",
    )
    return api.get(path)


def _not_running(pod: Mapping[str, Any] | None) -> str:
    phase = (pod or {}).get("status", {}).get("phase", "not there")
    return "" if phase == "Running" else str(phase)


def holder_body(claim: str, name: str, node: str, image: str) -> dict[str, Any]:
    """The pod: it does nothing; the node's kubelet mounts its volume, and the node's root reads it there."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": spare_of(claim), "labels": {ROLE: SPARE}},
        "spec": {
            "nodeName": node,
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65534,
                "runAsGroup": 65534,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "holder",
                    "image": image,
                    "command": ["sh", "-c", "while true; do sleep 3600; done"],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
                    "volumeMounts": [{"name": "volume", "mountPath": "/volume"}],
                }
            ],
            "volumes": [{"name": "volume", "persistentVolumeClaim": {"claimName": name}}],
        },
    }


def remove_holder(api: Kube, claim: str, seconds: float) -> None:
    """The pod that keeps a volume mounted goes, if there is one.

    Raises:
        KubeError: the API refused.
        TimeoutError: it does not go in time.
    """
    _remove(api, f"{pods_path(claim)}/{spare_of(claim)}", seconds)


def remove_spare(api: Kube, claim: str, seconds: float) -> None:
    """The claim for the time of a move goes, if there is one.

    Raises:
        KubeError: the API refused.
        TimeoutError: it does not go in time.
    """
    _remove(api, f"{claims_path(claim)}/{spare_of(claim)}", seconds)


def _remove(api: Kube, path: str, seconds: float) -> None:
    there = api.find(path)
    if there is None:
        return
    uid = there["metadata"]["uid"]
    delete(api, path, uid)
    until(
        lambda: _left(api.find(path), uid),
        seconds,
        f"{there.get('kind', 'object')} {there['metadata']['name']} goes",
        "see what holds it (a pod that uses it, most likely), then the same command",
    )


def _left(there: Mapping[str, Any] | None, uid: str) -> str:
    if there is None or there["metadata"]["uid"] != uid:
        return ""
    return f"finalizers {there['metadata'].get('finalizers') or 'none'}"


def exchange(
    api: Kube, claim: str, content: Mapping[str, Any], volumes: tuple[str, str], class_name: str, seconds: float
) -> None:
    """The claim goes and comes back, bound to its other volume.

    Args:
        api: the cluster.
        claim: the claim.
        content: the record of its move.
        volumes: the volume that it has, and the one that it gets.
        class_name: the class of the latter.
        seconds: how long each step may take.

    Raises:
        KubeError: the API refused, or somebody made another claim of this name.
        TimeoutError: a claim does not go, or is not bound in time.
    """
    name, (here, there) = claim.partition("/")[2], volumes
    path = f"{claims_path(claim)}/{name}"
    now = api.find(path)
    if now is not None and now["spec"].get("volumeName") == here:
        _remove(api, path, seconds)
    remove_spare(api, claim, seconds)
    bind(api, claim, name, content, there, class_name, seconds)
