"""What every component that runs an app has in common: its arguments, their rules, and the Service in front."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal

import pulumi
from pulumi_kubernetes.core.v1 import Service, ServicePortArgs, ServiceSpecArgs
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from infra.components._names import NAME, check_image, check_name, labels_of
from infra.components._override import check_overrides
from infra.errors import ArgsError
from tandem.recovery import RecoveryProfile

SERVICE_PORT: Final = 80

GRACE_MARGIN_SECONDS: Final = 15
"""What the grace period must leave after an app's own drain, so that the kernel's SIGKILL never cuts it short."""

NODE_PORTS: Final = range(30000, 32768)
"""Kubernetes' default --service-node-port-range."""

_QUANTITY: Final = re.compile(r"\d+(\.\d+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?")


@dataclass(frozen=True, kw_only=True)
class AppArgs:
    """The arguments that all apps share.

    Args:
        namespace: where the objects go; it must exist (`Workspace` makes it).
        profile: the cluster's recovery profile; the pods' tolerations come from it.
        image: with a tag other than `latest`, or a digest: a replacement must run what the lost pod ran.
        image_pull_policy: `IfNotPresent` lets a replacement start while the registry is away.
        port: the container's HTTP port. The Service listens on 80.
        health_path: answers 200 when the app can serve. It must not touch shared storage, whose stall would then
            restart the app, and never mean leadership, for a standby would never become Ready.
        env: environment variables, as strings. NODE_NAME, POD_NAME and POD_NAMESPACE are always set.
        cpu_request: what the scheduler reserves, as a Kubernetes quantity.
        memory_request: the same for memory.
        memory_limit: above it the container is killed. A limit, because one worker must carry both workers' pods.
        run_as_user: numeric user and group; never 0.
        startup_seconds: how long the app may take to answer `health_path` for the first time.
        drain_seconds: what the app needs between SIGTERM and its exit.
        termination_grace_seconds: what it gets, preStop included: at least `drain_seconds` and 15 s more.
        deploy_timeout_seconds: how long `pulumi up` waits for the app to become ready before it reports a failure.
        node_port: makes the Service reachable on every node at this port; cluster-internal when None.
        pod_spec_overrides: fields of the PodSpec as Kubernetes spells them, merged over what the component made;
            lists of named things (containers, volumes, env) merge by name, null removes. The rules no longer protect
            what is set here.
    """

    namespace: str
    profile: RecoveryProfile
    image: str
    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    port: int = 8080
    health_path: str = "/healthz"
    env: Mapping[str, str] = field(default_factory=dict)
    cpu_request: str = "50m"
    memory_request: str = "64Mi"
    memory_limit: str = "128Mi"
    run_as_user: int = 65532
    startup_seconds: int = 60
    drain_seconds: int = 10
    termination_grace_seconds: int = 30
    deploy_timeout_seconds: int = 300
    node_port: int | None = None
    pod_spec_overrides: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check every rule that one argument or a pair of them can break.

        Raises:
            ArgsError: the first one broken.
        """
        check_image(self.image)
        self._check_range("port", 1, 65535, "a TCP port of the container")
        self._check_range("run_as_user", 1, 2**31 - 1, "containers run as a numeric user other than root")
        self._check_range("startup_seconds", 1, 3600, "the startup probe fails once a second")
        self._check_range("drain_seconds", 0, 3600, "seconds between SIGTERM and exit")
        self._check_range("deploy_timeout_seconds", 30, 3600, "a rollout takes at least a pod's start and drain")
        if not self.health_path.startswith("/"):
            raise ArgsError("health_path", self.health_path, "a probe's path starts with /", "health_path: /healthz")
        for name in ("cpu_request", "memory_request", "memory_limit"):
            value = getattr(self, name)
            if not _QUANTITY.fullmatch(value):
                raise ArgsError(name, value, "must be a Kubernetes quantity", "64Mi for memory, 50m for cpu")
        if self.node_port is not None and self.node_port not in NODE_PORTS:
            rule = f"outside Kubernetes' node port range {NODE_PORTS.start} to {NODE_PORTS.stop - 1}"
            raise ArgsError("node_port", self.node_port, rule, "choose a port in the range, or leave it out")
        grace, needed = self.termination_grace_seconds, self.busy_seconds + GRACE_MARGIN_SECONDS
        if grace < needed:
            rule = f"the app is at work for {self.busy_seconds} s after the order to stop, and {GRACE_MARGIN_SECONDS} s"
            way_out = f"termination_grace_seconds: {needed}, or a shorter drain_seconds"
            raise ArgsError("termination_grace_seconds", grace, f"{rule} must be left", way_out)
        check_overrides(self.pod_spec_overrides)

    @property
    def busy_seconds(self) -> int:
        """How long a pod is still at work after it was told to stop."""
        return self.drain_seconds

    def _check_range(self, name: str, low: int, high: int, rule: str) -> None:
        value = getattr(self, name)
        if not low <= value <= high:
            raise ArgsError(name, value, f"{rule}; {low} to {high}", f"choose a value from {low} to {high}")


class App(pulumi.ComponentResource):
    """An app: pods, and a Service of the same name. Subclasses create the pods' controller."""

    kind: ClassVar[str]
    """The component's name in a stack's settings and outputs."""

    service: Service | None = None

    def __init__(self, name: str, args: AppArgs, *, workload: str | None, opts: pulumi.ResourceOptions | None) -> None:
        check_name(name)
        super().__init__(f"tandem:components:{type(self).__name__}", name, None, opts)
        self.name = name
        self.args = args
        self.labels = labels_of(name, workload)

    def child(
        self, *, depends_on: list[pulumi.Resource] | None = None, wait_seconds: int = 0
    ) -> pulumi.ResourceOptions:
        """Options of a child; `wait_seconds` bounds any operation on it, so that none hangs for ever."""
        timeouts = None
        if wait_seconds:
            limit = f"{wait_seconds}s"
            timeouts = pulumi.CustomTimeouts(create=limit, update=limit, delete=limit)
        return pulumi.ResourceOptions(parent=self, depends_on=depends_on, custom_timeouts=timeouts)

    def metadata(self, annotations: Mapping[str, str] | None = None) -> ObjectMetaArgs:
        """Metadata of an object of the app's name."""
        return ObjectMetaArgs(
            name=self.name,
            namespace=self.args.namespace,
            labels=self.labels,
            annotations=dict(annotations or {}) or None,
        )

    def expose(self, *, traffic_distribution: str | None = None) -> Service:
        """Create the Service. It does not wait for endpoints: the pods' controller already waits for the pods."""
        self.service = Service(
            self.name,
            metadata=self.metadata({"pulumi.com/skipAwait": "true"}),
            spec=ServiceSpecArgs(
                type="ClusterIP" if self.args.node_port is None else "NodePort",
                selector={NAME: self.name},
                traffic_distribution=traffic_distribution,
                ports=[
                    ServicePortArgs(
                        name="http",
                        port=SERVICE_PORT,
                        target_port="http",
                        protocol="TCP",
                        node_port=self.args.node_port,
                    )
                ],
            ),
            opts=self.child(),
        )
        return self.service

    def summary(self) -> dict[str, Any]:
        """What the stack exports about the app: how to find it, and what it does when its node is lost."""
        service = self.service
        return {
            "kind": self.kind,
            "namespace": self.args.namespace,
            "service": self.name if service else None,
            "cluster_ip": service.spec.cluster_ip if service else None,
            "node_port": self.args.node_port,
            "when_unreachable": None,
        }
