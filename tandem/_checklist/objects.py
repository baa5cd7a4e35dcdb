"""Reading plain Kubernetes objects, with the API server's defaults where an object leaves something out.

Rendered files and live objects must be judged alike, and the API server fills in what a file leaves out before any
admission policy sees it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

Object = Mapping[str, Any]

WORKLOADS: Final = ("Deployment", "StatefulSet", "DaemonSet")
HOSTNAME: Final = "kubernetes.io/hostname"
CONTROL_PLANE: Final = "node-role.kubernetes.io/control-plane"

PINNED_IMAGE: Final = r":[^/:]+$"
"""A digest or a tag at the end; a registry's port is followed by a slash."""

LATEST_IMAGE: Final = r":latest$"

THREE_WORDS: Final = r"\S+\s+\S+\s+\S+"
"""A reason is at least three words; fewer are a placeholder."""


def kind(obj: Object) -> str:
    """The object's kind."""
    return str(obj.get("kind") or "")


def name(obj: Object) -> str:
    """The object's name, or what its generated name begins with."""
    meta = obj.get("metadata") or {}
    return str(meta.get("name") or meta.get("generateName") or "")


def namespace(obj: Object) -> str:
    """The object's namespace; empty in files that leave it to the one who applies them."""
    return str((obj.get("metadata") or {}).get("namespace") or "")


def labels(obj: Object) -> Mapping[str, str]:
    """The object's labels."""
    return (obj.get("metadata") or {}).get("labels") or {}


def annotations_of(obj: Object) -> Mapping[str, str]:
    """The object's annotations."""
    return (obj.get("metadata") or {}).get("annotations") or {}


def spec(obj: Object) -> Mapping[str, Any]:
    """The object's spec."""
    return obj.get("spec") or {}


def replicas(obj: Object) -> int:
    """How many replicas the spec asks for: 1 when it does not say."""
    value = spec(obj).get("replicas")
    return 1 if value is None else int(value)


def template(obj: Object) -> Mapping[str, Any]:
    """A workload's pod template."""
    return spec(obj).get("template") or {}


def pod(obj: Object) -> Mapping[str, Any]:
    """The pod's specification in a workload's template."""
    return template(obj).get("spec") or {}


def pod_labels(obj: Object) -> Mapping[str, str]:
    """The labels of a workload's pods."""
    return labels(template(obj))


def containers(obj: Object) -> Sequence[Mapping[str, Any]]:
    """The containers of a workload's pods, without init containers."""
    return pod(obj).get("containers") or []


def all_containers(obj: Object) -> Sequence[Mapping[str, Any]]:
    """The containers of a workload's pods, init containers first."""
    return [*(pod(obj).get("initContainers") or []), *containers(obj)]


def strategy(obj: Object) -> str:
    """A Deployment's strategy: RollingUpdate by default."""
    return str((spec(obj).get("strategy") or {}).get("type") or "RollingUpdate")


def grace_seconds(obj: Object) -> int:
    """The pods' termination grace period: 30 s by default."""
    value = pod(obj).get("terminationGracePeriodSeconds")
    return 30 if value is None else int(value)


def claims(obj: Object) -> list[str]:
    """The names of the claims that a workload's pods mount by name."""
    volumes = pod(obj).get("volumes") or []
    return [str(v["persistentVolumeClaim"]["claimName"]) for v in volumes if v.get("persistentVolumeClaim")]


def max_unavailable(obj: Object) -> int:
    """How many replicas an update of a Deployment may take away: 25 %, rounded down, by default.

    As the Deployment controller reckons: when neither surge nor unavailability allows a step, it takes one away.
    """
    rolling = (spec(obj).get("strategy") or {}).get("rollingUpdate") or {}
    away = rolling.get("maxUnavailable")
    more = rolling.get("maxSurge")
    down = _share("25%" if away is None else away, replicas(obj), up=False)
    surge = _share("25%" if more is None else more, replicas(obj), up=True)
    return 1 if down == 0 and surge == 0 else down


def budget_share(value: object, of: int) -> int:
    """A minAvailable or maxUnavailable of a PodDisruptionBudget as a number of pods: a percentage is rounded up."""
    return _share(value, of, up=True)


def amount(value: object) -> str:
    """A number or percentage as text; some transports (protobuf's Struct) carry every number as a float."""
    return str(int(value)) if isinstance(value, float) else str(value)


def _share(value: object, of: int, *, up: bool) -> int:
    text = amount(value)
    if text.endswith("%"):
        share = int(text[:-1]) * of
        return -(-share // 100) if up else share // 100
    return int(text)


def selects(selector: Mapping[str, Any] | None, found: Mapping[str, str]) -> bool:
    """Whether a LabelSelector selects these labels. None selects nothing, an empty one everything."""
    if selector is None:
        return False
    if any(found.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_matches(each, found) for each in selector.get("matchExpressions") or [])


def _matches(requirement: Mapping[str, Any], found: Mapping[str, str]) -> bool:
    key, operator, values = requirement.get("key", ""), requirement.get("operator"), requirement.get("values") or []
    if operator == "In":
        return found.get(key) in values
    if operator == "NotIn":
        return found.get(key) not in values
    return (key in found) == (operator == "Exists")


def is_pinned(image: str) -> bool:
    """Whether an image's name has a digest, or a tag other than `latest`."""
    return bool(re.search(PINNED_IMAGE, image)) and not re.search(LATEST_IMAGE, image)


def pull_policy(container: Mapping[str, Any]) -> str:
    """A container's pull policy: Always by default for `latest` or no tag, else IfNotPresent."""
    given = container.get("imagePullPolicy")
    image = str(container.get("image") or "")
    by_tag = "IfNotPresent" if "@" in image or is_pinned(image) else "Always"
    return str(given or by_tag)


def listed(names: Iterable[str], limit: int = 6) -> str:
    """Names in one phrase."""
    found = list(names)
    more = f" and {len(found) - limit} more" if len(found) > limit else ""
    return ", ".join(found[:limit]) + more


def is_reason(text: str) -> bool:
    """Whether a text is long enough to be a reason."""
    return bool(re.search(THREE_WORDS, text))
