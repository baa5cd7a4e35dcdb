"""Can the cluster survive the loss of this node? One module decides, for drills before they start and for the audit.

Pure: a `Snapshot` of API objects in, problems out. A drill that would only prove what is already known to be broken is
refused before anything is touched, by the name of what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tandem.drill.apps import App
from tandem.drill.observe import condition
from tandem.findings import Finding
from tandem.recovery import RecoveryProfile, pod_tolerations

Object = Mapping[str, Any]

CONTROL_PLANE: Final = "node-role.kubernetes.io/control-plane"


@dataclass(frozen=True)
class Snapshot:
    """The cluster's state as far as the question needs it: nodes, all pods, the watched apps."""

    nodes: Sequence[Object]
    pods: Sequence[Object]
    apps: Sequence[App] = field(default_factory=tuple)


def is_control_plane(node: Object) -> bool:
    """Whether a node belongs to the control plane."""
    return CONTROL_PLANE in (node["metadata"].get("labels") or {})


def workers(snapshot: Snapshot) -> dict[str, Object]:
    """The nodes that are not of the control plane, by name."""
    return {node["metadata"]["name"]: node for node in snapshot.nodes if not is_control_plane(node)}


def judge(snapshot: Snapshot, node: str, profile: RecoveryProfile | None) -> tuple[Finding, ...]:
    """What speaks against losing this node now.

    Args:
        snapshot: the cluster.
        node: the node to lose.
        profile: the applied profile, whose tolerations the pods must carry; None when the cluster records none.
    """
    names = {n["metadata"]["name"] for n in snapshot.nodes}
    mine = workers(snapshot)
    if node not in names:
        return (_error("unknown-node", f"there is no node {node}", f"choose one of {_list(mine)}"),)
    if node not in mine:
        fix = f"choose a worker: {_list(mine)}"
        return (_error("not-a-worker", f"{node} is of the control plane, which no other node replaces", fix),)
    problems = []
    if condition(mine[node], "Ready") != "True":
        problems.append(_error("node-not-ready", f"{node} is not Ready already", f"see `kubectl describe node {node}`"))
    survivors = {name: worker for name, worker in mine.items() if name != node and usable(worker)}
    if not survivors:
        others = {name: condition(worker, "Ready") for name, worker in mine.items() if name != node}
        state = ", ".join(f"{name} Ready={ready}" for name, ready in others.items()) or "there is no other worker"
        fix = "make another worker Ready and schedulable first"
        problems.append(_error("no-survivor", f"no other worker could take the pods of {node}: {state}", fix))
        return tuple(problems)
    moving = _moving(snapshot, node)
    problems += missing_images(moving, survivors)
    problems += missing_capacity(moving, survivors, snapshot.pods)
    if profile is None:
        problems.append(
            Finding(
                "warning",
                "no-profile",
                "the cluster records no recovery profile, so nothing can be predicted",
                "apply one with playbooks/tune.yml, or name it with --profile",
            )
        )
    else:
        problems += unfit_tolerations(snapshot, profile)
    return tuple(problems)


def usable(node: Object) -> bool:
    """Whether a node can take pods: Ready and schedulable."""
    return condition(node, "Ready") == "True" and not node["spec"].get("unschedulable", False)


def _moving(snapshot: Snapshot, node: str) -> list[Object]:
    """The watched pods on the node that are to start again elsewhere."""
    elsewhere = {"replace", "hold", "spread-crowd"}
    apps = [app for app in snapshot.apps if app.behaviour in elsewhere]
    return [
        pod
        for pod in snapshot.pods
        if pod["spec"].get("nodeName") == node
        and any(
            pod["metadata"]["namespace"] == a.namespace and a.owns(pod["metadata"].get("labels") or {}) for a in apps
        )
    ]


def missing_images(pods: Iterable[Object], survivors: Mapping[str, Object]) -> list[Finding]:
    """An error for each image of these pods that a survivor would have to pull first."""
    problems = []
    present = {
        name: {image_name(i) for image in node["status"].get("images") or [] for i in image.get("names") or []}
        for name, node in survivors.items()
    }
    wanted: dict[str, str] = {}
    for pod in pods:
        for container in pod["spec"].get("containers", []):
            wanted.setdefault(container["image"], pod["metadata"]["name"])
    for image, user in wanted.items():
        if lacking := sorted(name for name, images in present.items() if image_name(image) not in images):
            fix = "pull it there beforehand, else the drill measures the registry"
            problems.append(_error("image-missing", f"image {image} of pod {user} is not on {', '.join(lacking)}", fix))
    return problems


def missing_capacity(
    pods: Iterable[Object], survivors: Mapping[str, Object], all_pods: Iterable[Object]
) -> list[Finding]:
    """An error for each of these pods that no survivor has room for, beside what runs there already."""
    free: dict[str, dict[str, float]] = {}
    for name, node in survivors.items():
        room = {key: quantity(value) for key, value in node["status"]["allocatable"].items() if key in _RESOURCES}
        for pod in all_pods:
            running = pod.get("status", {}).get("phase") not in {"Succeeded", "Failed"}
            if pod["spec"].get("nodeName") == name and running:
                room = {key: room[key] - _request(pod, key) for key in room}
        free[name] = room
    problems = []
    # Largest first onto the roomiest node: not the scheduler's way, but what does not fit so is at least doubtful.
    for pod in sorted(pods, key=lambda p: -_request(p, "memory")):
        needs = {key: _request(pod, key) for key in _RESOURCES}
        fitting = [name for name, room in free.items() if all(room.get(key, 0) >= needs[key] for key in _RESOURCES)]
        if not fitting:
            name = pod["metadata"]["name"]
            left = "; ".join(f"{n}: {_room(room)}" for n, room in free.items())
            fix = "lower requests, or free room on the survivor"
            problems.append(
                _error("no-capacity", f"pod {name} ({_room(needs)}) fits on no survivor (left: {left})", fix)
            )
            continue
        best = max(fitting, key=lambda n: free[n].get("memory", 0))
        free[best] = {key: room - needs[key] for key, room in free[best].items()}
    return problems


def unfit_tolerations(snapshot: Snapshot, profile: RecoveryProfile) -> list[Finding]:
    """An error for each pod of a watched app that does not carry the profile's tolerations, a warning for others."""
    wanted = {str(t["key"]): t["tolerationSeconds"] for t in pod_tolerations(profile)}
    problems = []
    strangers: list[str] = []
    for pod in snapshot.pods:
        meta = pod["metadata"]
        if "deletionTimestamp" in meta:  # on its way out, as after a change of the tolerations just now
            continue
        app = next(
            (a for a in snapshot.apps if a.namespace == meta["namespace"] and a.owns(meta.get("labels") or {})), None
        )
        if app is not None and app.behaviour == "node-agent":
            continue
        found = {key: _tolerated(pod, key) for key in wanted}
        wrong = [f"{key} {found[key]} s" for key in wanted if found[key] not in {wanted[key], None}]
        if app is not None:
            wrong += [f"{key} not limited" for key in wanted if found[key] is None]
        if not wrong:
            continue
        if app is None:
            strangers.append(f"{meta['namespace']}/{meta['name']}")
            continue
        right = " and ".join(f"{key} {seconds} s" for key, seconds in wanted.items())
        message = f"pod {meta['name']} tolerates {', '.join(wrong)}; profile {profile.name} says {right}"
        fix = "deploy the app with the profile's tolerations: pods keep those they were created with"
        problems.append(_error("tolerations", message, fix))
    if strangers:
        message = f"other pods still have other tolerations than profile {profile.name}: {_list(sorted(strangers), 6)}"
        problems.append(
            Finding("warning", "stale-tolerations", message, "restart their workloads to take the new defaults")
        )
    return problems


def _tolerated(pod: Object, key: str) -> int | None:
    """For how many seconds the pod tolerates the taint; None for ever, or when it names no such toleration."""
    tolerations = pod["spec"].get("tolerations") or []
    return next((t.get("tolerationSeconds") for t in tolerations if t.get("key") == key), None)


_RESOURCES: Final = ("cpu", "memory", "pods")


def _request(pod: Object, resource: str) -> float:
    if resource == "pods":
        return 1
    containers = pod["spec"].get("containers", [])
    return sum(quantity(c.get("resources", {}).get("requests", {}).get(resource, "0")) for c in containers)


def _room(room: Mapping[str, float]) -> str:
    return (
        f"cpu {room.get('cpu', 0):.2f}, memory {room.get('memory', 0) / 2**20:.0f} Mi, pods {room.get('pods', 0):.0f}"
    )


_SUFFIXES: Final = {
    "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40,
}  # fmt: skip


def quantity(text: str | int | float) -> float:
    """A Kubernetes quantity as a number: `250m` is 0.25, `64Mi` is 67108864."""
    text = str(text)
    number = text.rstrip("mkKMGTi")
    return float(number) * _SUFFIXES[text[len(number) :]]


def image_name(name: str) -> str:
    """An image's name as containerd spells it: registry and `library/` added, the tag `latest` written out."""
    first, slash, rest = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif not ("." in first or ":" in first or first == "localhost"):
        name = f"docker.io/{first}/{rest}"
    last = name.rsplit("/", 1)[1]
    return name if "@" in name or ":" in last else f"{name}:latest"


def _error(rule: str, message: str, fix: str) -> Finding:
    return Finding("error", rule, message, fix)


def _list(names: Iterable[str], limit: int = 20) -> str:
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "none") + more
