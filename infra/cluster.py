"""The cluster that a stack goes to: the connection, and the check that both speak of the same recovery profile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import pulumi
from pulumi_kubernetes import Provider

from infra.components._names import NAME
from infra.errors import SettingsError
from infra.settings import Settings
from tandem import recovery
from tandem.labels import PROFILE_CONFIG_MAP, SYSTEM_NAMESPACE
from tandem.runtime.errors import ApiError, NotFound
from tandem.runtime.resources import CONFIG_MAPS, DAEMON_SETS, NODES, PODS, Object, Resource
from tandem.survivability import CONTROL_PLANE, quantity

REQUEST_SECONDS: Final = 30.0
"""How long the check waits for the API server. It answers in well under a second, but not where a worker is lost and
everybody lists anew: a run must still work then."""

CORDONED: Final = "cordoned"

RECORD: Final = f"ConfigMap {SYSTEM_NAMESPACE}/{PROFILE_CONFIG_MAP}"

WORKERS: Final = f"!{CONTROL_PLANE}"
"""The label selector of nodes that are not of the control plane."""

if TYPE_CHECKING:
    from tandem.runtime.client import KubeClient

Reader = Callable[[str | None], Mapping[str, str]]
"""Takes a kubeconfig context (None: the current one); returns the data of the ConfigMap. Raises `ClusterError`."""


RoomReader = Callable[[str | None], Mapping[str, str]]
"""Takes a kubeconfig context; returns the allocatable of the smallest worker. Raises `ClusterError`."""

_T = TypeVar("_T")


class ClusterError(Exception):
    """Something could not be read from the cluster; the message says why and what to do."""


def connect(settings: Settings) -> Provider:
    """The provider of the stack's objects. It reads KUBECONFIG itself, so that no path and no key enters the state."""
    render = settings.render_directory
    # Given no kubeconfig, the SDK copies KUBECONFIG's value into the state: a path of this machine, which would be a
    # change on every other, and which `render_yaml_to_directory` refuses. An output of nothing is "given".
    unrecorded = pulumi.Output.from_input(cast(str, None))
    return Provider(
        "cluster",
        kubeconfig=unrecorded,
        context=settings.kube_context,
        cluster_identifier=settings.cluster_name,
        render_yaml_to_directory=str(Path(pulumi.get_root_directory()) / render) if render else None,
    )


def refuse_other_profile(settings: Settings, read: Reader | None = None) -> None:
    """Refuse a stack whose profile is not the one that the cluster was tuned with.

    The pods' tolerations and the cluster's detection belong together: mixed, a failover takes as long as the slower
    of the two, and every prediction is wrong.

    Args:
        settings: of the stack.
        read: reads the record; from the cluster when None.

    Raises:
        SettingsError: another profile, none, or none that can be read.
    """
    if not settings.asks_cluster:
        pulumi.log.info(f"{RECORD} was not compared with profile {settings.profile.name}: the stack's settings say so")
        return
    try:
        problem = _difference(settings.profile, (read or read_record)(settings.kube_context))
    except ClusterError as error:
        problem = str(error)
    if problem:
        where = f"stacks/Pulumi.{settings.stack}.yaml: tandem:profile = {settings.profile.name!r}"
        otherwise = "or, for a preview without a cluster, tandem:cluster_check: skip"
        raise SettingsError(f"{where}\n  {problem}\n  {otherwise}")


def read_record(context: str | None) -> Mapping[str, str]:
    """The data of the ConfigMap in which the tuning recorded the profile.

    Raises:
        ClusterError: there is none, or no way to it.
    """

    def record(api: KubeClient) -> Awaitable[Object]:
        return api.get(CONFIG_MAPS, PROFILE_CONFIG_MAP, namespace=SYSTEM_NAMESPACE, seconds=REQUEST_SECONDS)

    return dict(_wait(_ask(context, RECORD, record, missing=_untuned("is not there"))).get("data") or {})


def read_smallest_worker(context: str | None) -> Mapping[str, str]:
    """The allocatable of the worker with the least memory.

    Raises:
        ClusterError: there is no worker, or no way to it.
    """
    rooms: list[dict[str, str]] = [dict(node["status"].get("allocatable") or {}) for node in _workers(context)]
    if not rooms:
        raise ClusterError("the cluster has no worker")
    return min(rooms, key=lambda room: quantity(room.get("memory", "0")))


def read_daemon_sets(context: str | None) -> list[dict[str, Any]]:
    """Name, pods that are ready and all arguments of every DaemonSet of the cluster.

    Raises:
        ClusterError: they could not be read.
    """
    return [
        {
            "name": each["metadata"]["name"],
            "ready": each["status"].get("numberReady") or 0,
            "arguments": [
                word
                for container in each["spec"]["template"]["spec"]["containers"]
                for word in (*(container.get("command") or ()), *(container.get("args") or ()))
            ],
        }
        for each in _listed(context, "the list of DaemonSets", DAEMON_SETS)
    ]


@dataclass(frozen=True)
class Away:
    """Who cannot take pods now.

    Attributes:
        workers: by name, why.
        stuck: by app, its pods that were told to end on a worker that does not answer.
    """

    workers: Mapping[str, str] = field(default_factory=dict)
    stuck: Mapping[str, Sequence[str]] = field(default_factory=dict)


AwayReader = Callable[[str | None, str], Away]
"""Takes a kubeconfig context and the namespace of the stack's apps. Raises `ClusterError`."""


def read_away(context: str | None, namespace: str) -> Away:
    """The workers that cannot take pods, and the apps' pods that cannot end because of it.

    Raises:
        ClusterError: nodes or pods could not be read.
    """
    away = {node["metadata"]["name"]: why for node in _workers(context) if (why := _why_away(node))}
    if not away:
        return Away()
    stuck: dict[str, list[str]] = {}
    for pod in _listed(context, "the list of pods", PODS, namespace=namespace):
        metadata, node = pod["metadata"], pod["spec"].get("nodeName")
        if "deletionTimestamp" in metadata and away.get(node, CORDONED) != CORDONED:
            stuck.setdefault((metadata.get("labels") or {}).get(NAME, ""), []).append(metadata["name"])
    return Away(away, stuck)


def _why_away(node: Object) -> str | None:
    """Why the node takes no pods; None when it does."""
    for each in node["status"].get("conditions") or ():
        if each["type"] == "Ready" and each["status"] != "True":
            return f"not Ready since {each.get('lastTransitionTime')}"
    return CORDONED if node["spec"].get("unschedulable") else None


def _workers(context: str | None) -> list[Object]:
    return _listed(context, "the list of nodes", NODES, label_selector=WORKERS)


def _listed(
    context: str | None, what: str, resource: Resource, *, namespace: str | None = None, label_selector: str = ""
) -> list[Object]:
    def whole(api: KubeClient) -> Awaitable[Object]:
        return api.list(resource, namespace=namespace, label_selector=label_selector, limit=0, seconds=REQUEST_SECONDS)

    return list(_wait(_ask(context, what, whole))["items"])


def _wait(answer: Coroutine[Any, Any, _T]) -> _T:
    # The program runs inside Pulumi's event loop, in which a synchronous caller cannot wait: another thread and loop.
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(lambda: asyncio.run(answer)).result()


async def _ask(
    context: str | None, what: str, request: Callable[[KubeClient], Awaitable[Object]], missing: str = ""
) -> Object:
    # Loaded when it is needed: a rendering, or a preview of many stacks, asks no cluster.
    from tandem.runtime.client import ConfigError, connect_client  # noqa: PLC0415

    unreachable = "way out: check KUBECONFIG and that the API server answers (kubectl get --raw /readyz)"
    try:
        async with connect_client(context=context, user_agent="tandem-infra") as api:
            return await request(api)
    except NotFound as error:
        reason = missing or f"rule: {what} must be readable; {error}\n  {unreachable}"
        raise ClusterError(reason) from None
    except (ApiError, ConfigError) as error:
        raise ClusterError(f"rule: {what} must be readable; {error}\n  {unreachable}") from None


def _difference(profile: recovery.RecoveryProfile, record: Mapping[str, str]) -> str | None:
    """What is wrong with `profile` on a cluster with this record, with the way out; None when they agree."""
    try:
        recorded = recovery.from_dict(json.loads(record["recovery.json"]))
        name = record["profile"]
    except (KeyError, TypeError, ValueError) as error:
        return _untuned(f"cannot be understood ({error})")
    tune = f"ansible-playbook playbooks/tune.yml -e tandem_profile={profile.name}"
    if name != profile.name:
        return f"rule: the cluster was tuned with profile {name}\n  way out: tandem:profile: {name}, or {tune}"
    ours, theirs = recovery.to_dict(profile), recovery.to_dict(recorded)
    changed = [f"{key} is {theirs[key]} there, {value} here" for key, value in ours.items() if theirs[key] != value]
    if changed:
        return f"rule: the cluster was tuned with other numbers of that name: {'; '.join(changed)}\n  way out: {tune}"
    return None


def _untuned(what: str) -> str:
    return f"rule: {RECORD} {what}, so the cluster was not tuned by Tandem\n  way out: ansible-playbook site.yml"
