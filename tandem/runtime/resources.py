"""Names of API resources, of objects, and the few fields that every object has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from urllib.parse import quote

Object = dict[str, Any]
"""An API object as the server sent it. Objects of a cache are shared: copy before you change one."""


class Key(NamedTuple):
    """The name of one object among those of its resource; `namespace` is empty for cluster-scoped ones."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(frozen=True)
class Resource:
    """One kind of object as the API serves it.

    Attributes:
        group: the API group; empty for core.
        plural: the path's name, lower case.
        namespaced: whether its objects live in namespaces.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """`v1`, `apps/v1`: what an object says in apiVersion."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str = "", subresource: str = "") -> str:
        """The path of the collection or of one object.

        Raises:
            ValueError: a namespace for a cluster-scoped resource, or none for one object of a namespaced resource.
        """
        if namespace and not self.namespaced:
            raise ValueError(f"{self.plural} are cluster-scoped; they have no namespace {namespace!r}")
        if name and self.namespaced and not namespace:
            raise ValueError(f"{self.kind} {name!r}: a namespace is needed")
        parts = [f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"]
        if namespace:
            parts.append(f"namespaces/{quote(namespace, safe='')}")
        parts.append(self.plural)
        parts += [quote(part, safe="") for part in (name, subresource) if part]
        return "/".join(parts)


LEASES: Final = Resource("coordination.k8s.io", "v1", "leases", "Lease")
EVENTS: Final = Resource("events.k8s.io", "v1", "events", "Event")
PODS: Final = Resource("", "v1", "pods", "Pod")
NODES: Final = Resource("", "v1", "nodes", "Node", namespaced=False)
NAMESPACES: Final = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
CONFIG_MAPS: Final = Resource("", "v1", "configmaps", "ConfigMap")
SERVICES: Final = Resource("", "v1", "services", "Service")
PERSISTENT_VOLUME_CLAIMS: Final = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
PERSISTENT_VOLUMES: Final = Resource("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False)
DEPLOYMENTS: Final = Resource("apps", "v1", "deployments", "Deployment")
STATEFUL_SETS: Final = Resource("apps", "v1", "statefulsets", "StatefulSet")
DAEMON_SETS: Final = Resource("apps", "v1", "daemonsets", "DaemonSet")
REPLICA_SETS: Final = Resource("apps", "v1", "replicasets", "ReplicaSet")
POD_DISRUPTION_BUDGETS: Final = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
ENDPOINT_SLICES: Final = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")


def key_of(obj: Object) -> Key:
    """The object's key."""
    metadata = obj["metadata"]
    return Key(metadata.get("namespace", ""), metadata["name"])


def version_of(obj: Object) -> str:
    """The object's resourceVersion, an opaque string; empty when it has none yet."""
    version: str = obj.get("metadata", {}).get("resourceVersion", "")
    return version


def owner_keys(obj: Object, kind: str) -> Iterable[Key]:
    """Keys of the object's owners of one kind, to map a child's event to the object that is reconciled."""
    metadata = obj["metadata"]
    return [
        Key(metadata.get("namespace", ""), owner["name"])
        for owner in metadata.get("ownerReferences", ())
        if owner["kind"] == kind
    ]
