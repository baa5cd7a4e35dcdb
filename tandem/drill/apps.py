"""Which apps a drill watches: found by their label, and how each will answer the loss of its node.

Pure functions of API objects; the fetching stands in `tandem.drill.cluster`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tandem import labels
from tandem.recovery import Behaviour

Object = Mapping[str, Any]

DATA_DIR: Final = "DATA_DIR"
"""The environment variable that makes an app a writer: its clients append records instead of asking who it is."""


@dataclass(frozen=True)
class App:
    """One watched app.

    `cluster_ip`, `port` and `node_port` are its Service's, None without one. `volume` is the folder of its first claim
    as the nodes see it, where the writers' journal is read at the end.
    """

    name: str
    namespace: str
    kind: str
    behaviour: Behaviour
    replicas: int
    selector: Mapping[str, str]
    service: str | None = None
    cluster_ip: str | None = None
    port: int | None = None
    node_port: int | None = None
    writer: bool = False
    volume: str | None = None

    def owns(self, pod_labels: Mapping[str, str]) -> bool:
        """Whether a pod with these labels is one of the app's."""
        return all(pod_labels.get(key) == value for key, value in self.selector.items())


def discover(
    workloads: Iterable[Object], services: Iterable[Object], claims: Iterable[Object], volumes: Iterable[Object]
) -> list[App]:
    """The labelled Deployments and DaemonSets and all StatefulSets of one namespace as apps, by name.

    Args:
        workloads: the objects, each with its `kind`.
        services: the namespace's Services; an app's is the first whose selector its pods match.
        claims: the namespace's PersistentVolumeClaims.
        volumes: the cluster's PersistentVolumes.
    """
    services, named = list(services), {claim["metadata"]["name"]: claim for claim in claims}
    folders = {volume["metadata"]["name"]: _folder(volume) for volume in volumes}
    apps = []
    for workload in workloads:
        meta, spec = workload["metadata"], workload["spec"]
        # The rules would refuse a labelled StatefulSet on two workers; a drill must show what it does all the same.
        if labels.WORKLOAD not in meta.get("labels", {}) and workload["kind"] != "StatefulSet":
            continue
        template = spec["template"]
        pod_labels = template["metadata"].get("labels", {})
        mounted = [named[name] for name in _claim_names(workload) if name in named]
        service = next((s for s in services if _selects(s, pod_labels)), None)
        port = (service or {}).get("spec", {}).get("ports", [{}])[0]
        containers = template["spec"].get("containers", [])
        apps.append(
            App(
                name=meta["name"],
                namespace=meta["namespace"],
                kind=workload["kind"],
                behaviour=behaviour(workload, mounted),
                replicas=spec.get("replicas", 1),
                selector=dict(spec["selector"].get("matchLabels", {})),
                service=service["metadata"]["name"] if service else None,
                cluster_ip=_address(service),
                port=port.get("port"),
                node_port=port.get("nodePort"),
                writer=any(env["name"] == DATA_DIR for c in containers for env in c.get("env", [])),
                volume=next((folders.get(claim["spec"].get("volumeName", "")) for claim in mounted), None),
            )
        )
    return sorted(apps, key=lambda app: app.name)


def behaviour(workload: Object, claims: Iterable[Object]) -> Behaviour:
    """How the workload answers the loss of its node, by what its manifest says."""
    if workload["kind"] == "DaemonSet":
        return "node-agent"
    if workload["kind"] == "StatefulSet":
        return "stateful"
    if workload["spec"].get("replicas", 1) > 1:
        constraints = workload["spec"]["template"]["spec"].get("topologySpreadConstraints", [])
        strict = any(
            c["whenUnsatisfiable"] == "DoNotSchedule" and c.get("nodeTaintsPolicy", "Ignore") == "Ignore"
            for c in constraints
            if c["topologyKey"] == "kubernetes.io/hostname"
        )
        return "spread-wait" if strict else "spread-crowd"
    once = any("ReadWriteOncePod" in claim["spec"].get("accessModes", []) for claim in claims)
    return "hold" if once else "replace"


def _claim_names(workload: Object) -> list[str]:
    spec = workload["spec"]
    volumes = spec["template"]["spec"].get("volumes", [])
    names = [v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v]
    templates = spec.get("volumeClaimTemplates", [])
    return names + [f"{t['metadata']['name']}-{workload['metadata']['name']}-0" for t in templates]


def _selects(service: Object, pod_labels: Mapping[str, str]) -> bool:
    selector = service["spec"].get("selector") or {}
    return bool(selector) and all(pod_labels.get(key) == value for key, value in selector.items())


def _address(service: Object | None) -> str | None:
    address = (service or {}).get("spec", {}).get("clusterIP")
    return None if address in {None, "None", ""} else str(address)


def _folder(volume: Object) -> str | None:
    path = volume["spec"].get("hostPath", {}).get("path")
    return None if path is None else str(path)
