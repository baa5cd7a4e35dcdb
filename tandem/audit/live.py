"""Objects from a live cluster: every kind that a rule or the survey asks for, listed side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from tandem.audit import credentials
from tandem.audit.files import SourceError
from tandem.drill.api import NETWORK_ERRORS, Api, ApiError, connect
from tandem.drill.cluster import applied_profile
from tandem.recovery import RecoveryProfile

Object = dict[str, Any]

LISTED: Final[dict[str, str]] = {
    "Deployment": "/apis/apps/v1/deployments",
    "StatefulSet": "/apis/apps/v1/statefulsets",
    "DaemonSet": "/apis/apps/v1/daemonsets",
    "PodDisruptionBudget": "/apis/policy/v1/poddisruptionbudgets",
    "HorizontalPodAutoscaler": "/apis/autoscaling/v2/horizontalpodautoscalers",
    "Service": "/api/v1/services",
    "EndpointSlice": "/apis/discovery.k8s.io/v1/endpointslices",
    "PersistentVolumeClaim": "/api/v1/persistentvolumeclaims",
    "PersistentVolume": "/api/v1/persistentvolumes",
    "StorageClass": "/apis/storage.k8s.io/v1/storageclasses",
    "Lease": "/apis/coordination.k8s.io/v1/leases",
    "Role": "/apis/rbac.authorization.k8s.io/v1/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/rolebindings",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "ValidatingWebhookConfiguration": "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
    "MutatingWebhookConfiguration": "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
    "APIService": "/apis/apiregistration.k8s.io/v1/apiservices",
    "Node": "/api/v1/nodes",
    "Pod": "/api/v1/pods",
}
CLUSTER_SCOPED: Final = frozenset(
    {
        "PersistentVolume",
        "StorageClass",
        "ClusterRole",
        "ClusterRoleBinding",
        "ValidatingWebhookConfiguration",
        "MutatingWebhookConfiguration",
        "APIService",
        "Node",
    }
)
PAGE: Final = "500"
AT_ONCE: Final = 6
"""Requests at a time: an audit must not look like an outage to a small API server."""


@dataclass(frozen=True)
class Live:
    """What was listed, the profile recorded in the cluster, what could not be listed and why, and what ends when."""

    objects: Sequence[Object]
    recorded: RecoveryProfile | None
    notes: tuple[str, ...]
    credentials: tuple[credentials.Credential, ...] = ()


async def read(kubeconfig: Path | None, context: str | None, namespace: str | None = None) -> Live:
    """List the cluster; where only `namespace` may be listed, that.

    Raises:
        SourceError: there is no way to the cluster, or nothing in it may be listed.
    """
    try:
        async with connect(kubeconfig, context) as api:
            found = await _read(api, namespace)
        return replace(found, credentials=tuple(await credentials.read(kubeconfig, context)))
    except NETWORK_ERRORS as error:
        reason = str(error) or type(error).__name__
        raise SourceError(f"the cluster does not answer: {reason}. Check KUBECONFIG, or name files to judge") from error
    except ApiError as error:
        raise SourceError(str(error)) from error


async def _read(api: Api, namespace: str | None = None) -> Live:
    recorded: RecoveryProfile | None = None
    notes: list[str] = []
    refused: list[str] = []
    gate = asyncio.Semaphore(AT_ONCE)
    try:
        recorded = await applied_profile(api)
    except ApiError as error:
        if error.status == 401:
            raise
        notes.append(f"the recorded profile could not be read: {error}")

    async def listed(kind: str, path: str) -> list[Object]:
        places = [path]
        if namespace and kind not in CLUSTER_SCOPED:
            base, _, plural = path.rpartition("/")
            places.append(f"{base}/namespaces/{namespace}/{plural}")
        said = ""
        async with gate:
            for place in places:
                try:
                    return await _pages(api, kind, place)
                except ApiError as error:
                    if error.status == 404:
                        return []  # this cluster does not serve the kind
                    said = str(error)
        # Said, not passed over: rules that need the kind were not asked.
        notes.append(f"{kind} was not judged: {said}")
        refused.append(kind)
        return []

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(listed(kind, path)) for kind, path in LISTED.items()]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None  # a connection that broke breaks them all alike
    if len(refused) == len(LISTED):
        raise SourceError(f"nothing may be listed: {notes[-1]}")
    return Live([obj for task in tasks for obj in task.result()], recorded, tuple(notes))


async def _pages(api: Api, kind: str, path: str) -> list[Object]:
    found: list[Object] = []
    query = {"limit": PAGE}
    while True:
        page = await api.get(path, **query)
        # The items of a list carry no kind of their own.
        found += [{**item, "kind": kind} for item in page.get("items") or []]
        going_on = (page.get("metadata") or {}).get("continue")
        if not going_on:
            return found
        query["continue"] = going_on
