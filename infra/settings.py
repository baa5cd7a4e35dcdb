"""A stack's settings: read in one place, typed, and refused with a way out before anything is registered."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Final, Literal

import pulumi
from pydantic import BaseModel, ConfigDict, PositiveFloat, TypeAdapter, ValidationError

from infra.apps import KINDS
from infra.components import (
    AppArgs,
    GatewayArgs,
    LonghornSettingsArgs,
    MonitoringArgs,
    NetworkPoliciesArgs,
    PriorityClassArgs,
    PriorityClassesArgs,
    RebalanceArgs,
    SharedStorageArgs,
    StorageClassArgs,
    WorkspaceArgs,
)
from infra.components._names import check_name
from infra.components._parts import check_quantity
from infra.components.rebalancer import BY
from infra.components.shared_storage import storage_class_name
from infra.components.workspace import Admission, PodSecurity
from infra.errors import ArgsError, SettingsError
from tandem import checklist, recovery

PROJECT: Final = "tandem"
GIVEN_BY_STACK: Final = frozenset(
    {"namespace", "profile", "protect", "scrape_annotations", "degraded", "one_is_enough"}
)
"""Arguments of an app that the stack gives to all of them."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a stack wants.

    Args:
        stack: its name.
        namespace: where its apps go.
        namespaces: others that the stack makes, e.g. those of a controller's shards.
        pod_security: the Pod Security Standard that all of them enforce.
        priority_classes: those that the stack makes.
        profile: the recovery profile that the cluster was tuned with.
        recovery_target_seconds: what the site requires of a single-replica app after a power loss; None: nothing.
        cluster_check: `enforce` compares `profile` with the one recorded in the cluster; `skip` is for a preview or a
            rendering without a cluster.
        cluster_name: names the cluster in the state, so that a new kubeconfig does not replace every object.
        kube_context: the kubeconfig's context; its current one when None. The file is KUBECONFIG or kubectl's default.
        worker: what its smallest worker has for pods, as quantities of cpu, memory and pods, to warn when the apps
            would not fit on one; the cluster is asked when None.
        admission: how its namespace takes part in the admission policy; unless `off`, the stack deploys that policy.
        keep_data: volumes outlive `pulumi destroy`.
        protect: no `pulumi destroy` and no change deletes a claim or a namespace of the stack: for production.
        degraded: for the time of an incident: a worker is away, so an update must reach the other one, and nobody waits
            for what cannot start.
        storage_classes: further classes on the shared file system, by name.
        monitoring: monitors and alerts for Prometheus; none when None.
        longhorn: settings of a Longhorn that the site runs; left alone when None.
        gateway: lets clients outside reach apps by name through a port of the workers; nothing does when None.
        rebalance: brings replicas that crowd on one worker apart after the other one's return; nobody does when None.
        network_policies: who may reach the stack's pods, where the network enforces it; anybody when None.
        render_directory: write YAML files there for kubectl or a GitOps tool, instead of talking to a cluster.
        apps: by name.
    """

    stack: str
    namespace: str
    namespaces: Sequence[str]
    pod_security: PodSecurity
    priority_classes: PriorityClassesArgs
    profile: recovery.RecoveryProfile
    recovery_target_seconds: float | None
    cluster_check: Literal["enforce", "skip"]
    cluster_name: str
    kube_context: str | None
    worker: Mapping[str, str] | None
    admission: Admission
    keep_data: bool
    protect: bool
    degraded: bool
    storage_classes: Mapping[str, StorageClassArgs]
    monitoring: MonitoringArgs | None
    longhorn: LonghornSettingsArgs | None
    gateway: GatewayArgs | None
    rebalance: RebalanceArgs | None
    network_policies: NetworkPoliciesArgs | None
    render_directory: str | None
    apps: Mapping[str, AppArgs]

    @property
    def asks_cluster(self) -> bool:
        """Whether the program may talk to the cluster itself."""
        return self.cluster_check == "enforce" and not self.render_directory

    def workspace(self, namespace: str) -> WorkspaceArgs:
        """The arguments of one of the stack's namespaces."""
        return WorkspaceArgs(
            namespace=namespace, pod_security=self.pod_security, admission=self.admission, protect=self.protect
        )

    @property
    def storage(self) -> SharedStorageArgs:
        """The arguments of the stack's storage."""
        return SharedStorageArgs(keep_data=self.keep_data, classes=self.storage_classes)


class StackFile(BaseModel):
    """The keys of a stack's file, under `tandem:`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    namespace: str
    namespaces: tuple[str, ...] = ()
    pod_security: PodSecurity = "baseline"
    priority_classes: dict[str, PriorityClassArgs] = {}
    profile: str
    recovery_target_seconds: PositiveFloat | None = None
    cluster_check: Literal["enforce", "skip"] = "enforce"
    cluster_name: str | None = None
    kube_context: str | None = None
    worker: dict[Literal["cpu", "memory", "pods"], str] | None = None
    admission: Admission = "off"
    keep_data: bool = True
    protect: bool = False
    degraded: bool = False
    storage_classes: dict[str, StorageClassArgs] = {}
    monitoring: MonitoringArgs | None = None
    longhorn: LonghornSettingsArgs | None = None
    gateway: GatewayArgs | None = None
    rebalance: RebalanceArgs | None = None
    network_policies: NetworkPoliciesArgs | None = None
    render_directory: str | None = None
    apps: dict[str, dict[str, Any]]


def load_settings() -> Settings:
    """The settings of the stack that Pulumi runs.

    Raises:
        SettingsError: naming file, key, value, rule and way out.
    """
    # The whole map, because `pulumi.Config` answers only for keys that one asks for, and a misspelt key must not pass.
    raw = {**pulumi.runtime.get_config_env(), **pulumi.runtime.config.CONFIG.get()}
    return parse_settings(raw, pulumi.get_stack())


def parse_settings(raw: Mapping[str, str], stack: str) -> Settings:
    """The settings in `raw`, Pulumi's map of full key (`tandem:profile`) to text or JSON.

    Raises:
        SettingsError: naming file, key, value, rule and way out.
    """
    refuse = _Refusal(stack)
    values: dict[str, Any] = {}
    for full, text in raw.items():
        namespace, _, key = full.partition(":")
        if namespace == PROJECT:
            values[key] = _structured(text)
    try:
        file = StackFile.model_validate(values)
    except ValidationError as error:
        raise refuse.invalid("", error, known=StackFile.model_fields) from None

    with refuse.arguments(""):
        worker = _worker(file)
        _check_namespaces(file)
        SharedStorageArgs(classes=file.storage_classes)
        if file.protect and not file.keep_data:
            rule = "the stack's volumes are of a class that deletes them, so nothing is protected"
            raise ArgsError("protect", file.protect, rule, "keep_data: true")
        priority_classes = PriorityClassesArgs(classes=file.priority_classes)
    return Settings(
        stack=stack,
        namespace=file.namespace,
        namespaces=file.namespaces,
        pod_security=file.pod_security,
        priority_classes=priority_classes,
        profile=_profile(file, refuse),
        recovery_target_seconds=file.recovery_target_seconds,
        cluster_check=file.cluster_check,
        cluster_name=file.cluster_name or stack,
        kube_context=file.kube_context,
        worker=worker,
        admission=file.admission,
        keep_data=file.keep_data,
        protect=file.protect,
        degraded=file.degraded,
        storage_classes=file.storage_classes,
        monitoring=file.monitoring,
        longhorn=file.longhorn,
        gateway=file.gateway,
        rebalance=file.rebalance,
        network_policies=file.network_policies,
        render_directory=file.render_directory,
        apps=_apps(file, refuse),
    )


class _Refusal:
    """Makes the errors of one stack's file; as a context manager it turns an `ArgsError` into one."""

    def __init__(self, stack: str, path: str = "") -> None:
        self.stack = stack
        self.file = f"stacks/Pulumi.{stack}.yaml"
        self.path = path

    def error(self, key: str, value: object, rule: str, way_out: str) -> SettingsError:
        """The refusal of one value."""
        shown = json.dumps(value, default=str)
        if "secret_" in key or "secret_" in shown:
            shown = "(not shown: it may be a secret)"
        where = f"{self.file}: {PROJECT}:{key}"
        return SettingsError(f"{where} = {shown}\n  rule: {rule}\n  way out: {way_out}")

    def invalid(self, path: str, error: ValidationError, known: Sequence[str] | Mapping[str, object]) -> SettingsError:
        """The refusal of the first value that has the wrong shape."""
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, ArgsError):
            return self.error(path + cause.field, cause.value, cause.rule, cause.way_out)
        key = path + ".".join(str(part) for part in first["loc"])
        match first["type"]:
            case "missing":
                return self.error(key, None, "the key is required", "add it")
            case "extra_forbidden" | "unexpected_keyword_argument":
                nested = key.removeprefix(path).count(".")
                way_out = "correct its spelling, or remove it" if nested else f"one of {', '.join(sorted(known))}"
                return self.error(key, first["input"], "no such key", way_out)
            case _:
                message = first["msg"]
                return self.error(key, first["input"], message[0].lower() + message[1:], "correct the value")

    def arguments(self, path: str) -> _Refusal:
        """A context in which an `ArgsError` becomes the refusal of the key below `path`."""
        return _Refusal(self.stack, path)

    def __enter__(self) -> None:
        return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        if isinstance(error, ArgsError):
            raise self.error(self.path + error.field, error.value, error.rule, error.way_out) from None


def _structured(text: str) -> object:
    """Pulumi hands lists and mappings over as JSON, everything else as plain text."""
    if text[:1] not in ("{", "["):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _check_namespaces(file: StackFile) -> None:
    WorkspaceArgs(namespace=file.namespace)
    for name in file.namespaces:
        check_name(name, "namespaces")
        WorkspaceArgs(namespace=name)
    if len({file.namespace, *file.namespaces}) <= len(file.namespaces):
        rule = "each namespace is made once; the one of the apps is made anyhow"
        raise ArgsError("namespaces", list(file.namespaces), rule, "name each once")


def _worker(file: StackFile) -> Mapping[str, str] | None:
    if not file.worker:
        return None
    room: dict[str, str] = {str(name): value for name, value in file.worker.items()}
    for name, value in room.items():
        check_quantity(f"worker.{name}", value)
    return room


def _profile(file: StackFile, refuse: _Refusal) -> recovery.RecoveryProfile:
    try:
        profile = recovery.profile(file.profile)
    except recovery.UnknownProfileError:
        known = ", ".join(recovery.PROFILES)
        raise refuse.error("profile", file.profile, "no such recovery profile", f"one of {known}") from None
    for finding in recovery.check(profile):
        if finding.level == "error":
            raise refuse.error("profile", file.profile, finding.message, finding.fix)
    target = file.recovery_target_seconds
    if target is not None and (missed := recovery.check_target(profile, target)):
        raise refuse.error("recovery_target_seconds", target, missed.message, missed.fix)
    return profile


@cache
def _adapter(kind: str) -> TypeAdapter[AppArgs]:
    """Made once for a kind of app: pydantic takes 15 ms to build one, a second for each 70 workloads."""
    return TypeAdapter(KINDS[kind].args)


def _apps(file: StackFile, refuse: _Refusal) -> Mapping[str, AppArgs]:
    common = {
        "namespace": file.namespace,
        "profile": recovery.profile(file.profile),
        "protect": file.protect,
        "degraded": file.degraded,
        "one_is_enough": checklist.rule("replicas").levels[checklist.environment_of(refuse.stack)] == "off",
        "scrape_annotations": file.monitoring is not None and file.monitoring.scrape == "annotations",
    }
    storage_class = storage_class_name(keep_data=file.keep_data)
    apps: dict[str, AppArgs] = {}
    for name, given in file.apps.items():
        path = f"apps.{name}."
        values = dict(given)
        kind = KINDS.get(values.pop("kind", ""))
        if kind is None:
            raise refuse.error(f"{path}kind", given.get("kind"), "no such kind of app", f"one of {', '.join(KINDS)}")
        names = {field.name for field in fields(kind.args)}
        settable = names - GIVEN_BY_STACK
        for key, value in values.items():
            if key not in settable:
                way_out = f"one of {', '.join(sorted(settable))}"
                raise refuse.error(path + key, value, f"no such key for kind {given['kind']}", way_out)
        given_by_stack = {key: value for key, value in common.items() if key in names}
        usual = {"storage_class": storage_class, "rebalanced_by": BY if file.rebalance else ""}
        defaults = {key: value for key, value in usual.items() if key in names}
        with refuse.arguments(path):
            check_name(name)
        try:
            apps[name] = _adapter(given["kind"]).validate_python({**defaults, **values, **given_by_stack})
        except ValidationError as error:
            raise refuse.invalid(path, error, known=sorted(names)) from None
    _refuse_shared_ports(apps, refuse)
    for name, args in apps.items():
        unknown = args.priority_class not in file.priority_classes
        if file.priority_classes and args.priority_class and unknown and not args.priority_class.startswith("system-"):
            known = ", ".join(file.priority_classes)
            rule = "the stack makes no such class, and pods of an unknown one are never created"
            raise refuse.error(f"apps.{name}.priority_class", args.priority_class, rule, f"one of {known}")
    return apps


def _refuse_shared_ports(apps: Mapping[str, AppArgs], refuse: _Refusal) -> None:
    owner: dict[int, str] = {}
    for name, args in apps.items():
        for port in args.node_ports:
            if owner.setdefault(port, name) != name:
                raise refuse.error(f"apps.{name}.node_port", port, f"app {owner[port]} has this port", "choose another")
