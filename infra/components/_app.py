"""What every component that runs an app has in common: its arguments, their rules, and the Service in front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal

import pulumi
from pulumi_kubernetes.core.v1 import PersistentVolumeClaim, Service, ServicePortArgs, ServiceSpecArgs
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs, ObjectMetaArgs
from pulumi_kubernetes.networking.v1 import Ingress
from pulumi_kubernetes.policy.v1 import PodDisruptionBudget, PodDisruptionBudgetSpecArgs

from infra.components import _parts as parts
from infra.components._files import configure
from infra.components._ingress import ingress_spec
from infra.components._names import NAME, check_image, check_name, labels_of
from infra.components._override import check_overrides, check_patch, patching
from infra.components._summary import Seconds, endpoints, predicted
from infra.components._waits import NOT_AWAITED
from infra.errors import ArgsError
from tandem.recovery import Behaviour, RecoveryProfile

SERVICE_PORT: Final = 80

GRACE_MARGIN_SECONDS: Final = 15
"""What the grace period must leave after an app's own drain, so that the kernel's SIGKILL never cuts it short."""


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
        ports: of container and Service, beside the one for HTTP.
        priority_class: decides who keeps a place when one worker must carry both workers' pods (`priority_classes` of
            the stack makes some).
        init_containers: run one after the other before the app starts.
        sidecars: run beside the app; they start before it and end after it.
        files: text by path; a change of it is a new ConfigMap and rolls the pods.
        secret_files: the same as a Secret.
        secret_env: environment variables from that Secret.
        mounts: folders from ConfigMaps and Secrets that others own, or empty ones.
        image_pull_secrets: names of Secrets of the namespace for the registry.
        metrics_path: where its HTTP port answers Prometheus; None: nowhere. `monitoring` of the stack makes use of it.
        scrape_annotations: the pods say so themselves, for a Prometheus without the operator. The stack sets it.
        degraded: a worker is away: an update reaches the other one, and nobody waits for what cannot start. The stack
            sets it.
        ingress: makes the app reachable from outside by name.
        pod_spec_overrides: fields of the PodSpec as Kubernetes spells them, merged over what the component made;
            lists of named things (containers, volumes, env) merge by name, null removes. The rules no longer protect
            what is set here.
        patch: the same for every object that the component makes, by kind: `Service: {spec: {type: LoadBalancer}}`.
            A pod is patched by its template in its controller, or by `pod_spec_overrides`, which comes first.
    """

    OBJECTS: ClassVar[frozenset[str]] = frozenset({"Service", "Ingress", "ConfigMap", "Secret"})
    """Kinds of the objects that the component may make; subclasses add theirs."""

    stops_first: ClassVar[bool] = False
    """Its old pod must have ended before a new one starts."""

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
    ports: Sequence[parts.PortArgs] = ()
    priority_class: str | None = None
    init_containers: Sequence[parts.HelperArgs] = ()
    sidecars: Sequence[parts.HelperArgs] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    secret_files: Mapping[str, str] = field(default_factory=dict)
    secret_env: Mapping[str, str] = field(default_factory=dict)
    mounts: Sequence[parts.MountArgs] = ()
    image_pull_secrets: Sequence[str] = ()
    metrics_path: str | None = None
    scrape_annotations: bool = False
    degraded: bool = False
    ingress: parts.IngressArgs | None = None
    pod_spec_overrides: Mapping[str, Any] = field(default_factory=dict)
    patch: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

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
            parts.check_quantity(name, getattr(self, name))
        parts.check_node_port("node_port", self.node_port)
        grace, needed = self.termination_grace_seconds, self.busy_seconds + GRACE_MARGIN_SECONDS
        if grace < needed:
            rule = f"the app is at work for {self.busy_seconds} s after the order to stop, and {GRACE_MARGIN_SECONDS} s"
            way_out = f"termination_grace_seconds: {needed}, or a shorter drain_seconds"
            raise ArgsError("termination_grace_seconds", grace, f"{rule} must be left", way_out)
        self._check_parts()
        check_overrides(self.pod_spec_overrides)
        check_patch(self.patch, self.OBJECTS)

    @property
    def pods_on_survivor(self) -> int:
        """How many of its pods one worker must hold while the other one is away."""
        return 1

    @property
    def behaviour(self) -> Behaviour | None:
        """How the app answers the loss of a worker; None where that is not about being served."""
        return None

    def predicted(self) -> Seconds:
        """When callers notice what, in seconds after the power loss of a worker that has a pod of the app."""
        return predicted(self.profile, self.behaviour) if self.behaviour else {}

    @property
    def node_ports(self) -> list[int]:
        """All that the app takes on every node."""
        return [each for each in (self.node_port, *(port.node_port for port in self.ports)) if each is not None]

    @property
    def busy_seconds(self) -> int:
        """How long a pod is still at work after it was told to stop."""
        return self.drain_seconds

    def _check_range(self, name: str, low: int, high: int, rule: str) -> None:
        parts.check_range(name, getattr(self, name), low, high, rule)

    def _check_parts(self) -> None:
        """Names and places that two parts of the pod would share."""
        ports = [(each.port, each.protocol) for each in self.ports]
        _check_once("ports", [(self.port, "TCP"), *ports], "each port of the container has one name")
        _check_once("ports", [each.name for each in self.ports], "each port has a name of its own")
        served = [(each.service_port or each.port, each.protocol) for each in self.ports]
        _check_once(
            "ports", [(SERVICE_PORT, "TCP"), *served], f"the Service has each port once, {SERVICE_PORT} is HTTP"
        )
        helpers = [each.name for each in (*self.init_containers, *self.sidecars)]
        _check_once("sidecars", helpers, "each container has a name of its own")
        if self.metrics_path is not None:
            parts.check_path("metrics_path", self.metrics_path)
        paths = [*self.files, *self.secret_files, *(each.path for each in self.mounts)]
        for path in paths:
            parts.check_path("files", path)
        _check_once("files", paths, "each path is mounted once")
        for held in (self.files, {**self.secret_files, **self.secret_env}):
            _check_once("files", [parts.file_key(path) for path in held], "each path has a key of its own, / being _")
        _check_once("secret_env", [*self.env, *self.secret_env], "a variable is either a secret or none")

    def _refuse_service(self, way_out: str) -> None:
        """For an app without a Service: nothing may ask for one."""
        for name, value in (("node_port", self.node_ports), ("ingress", self.ingress)):
            if value:
                raise ArgsError(name, value, "there is no Service to reach", way_out)


def _check_once(name: str, values: Sequence[object], rule: str) -> None:
    if twice := [each for each in values if values.count(each) > 1]:
        raise ArgsError(name, twice[0], rule, "change one of the two")


class App(pulumi.ComponentResource):
    """An app: pods, and a Service of the same name. Subclasses create the pods' controller."""

    kind: ClassVar[str]
    """The component's name in a stack's settings and outputs."""

    has_pods: ClassVar[bool] = True
    """False for an app that is made of others."""

    service: Service | None = None

    claim: PersistentVolumeClaim | None = None
    """The claim that the app made, of its name; those of others are not its to keep."""

    def __init__(self, name: str, args: AppArgs, *, workload: str | None, opts: pulumi.ResourceOptions | None) -> None:
        check_name(name)
        if args.patch:
            # First, so that whoever else looks at the objects sees them patched.
            opts = pulumi.ResourceOptions.merge(pulumi.ResourceOptions(transformations=[patching(args.patch)]), opts)
        super().__init__(f"tandem:components:{type(self).__name__}", name, None, opts)
        self.name = name
        self.args = args
        self.labels = labels_of(name, workload)
        self._first: list[pulumi.Resource] = []
        if self.has_pods:
            self._first = configure(name, args, self.labels, self.child())

    def child(
        self, *, depends_on: list[pulumi.Resource] | None = None, wait_seconds: int = 0
    ) -> pulumi.ResourceOptions:
        """Options of a child; `wait_seconds` bounds any operation on it, so that none hangs for ever."""
        timeouts = None
        if wait_seconds:
            limit = f"{wait_seconds}s"
            timeouts = pulumi.CustomTimeouts(create=limit, update=limit, delete=limit)
        after = [*self._first, *(depends_on or [])] or None
        return pulumi.ResourceOptions(parent=self, depends_on=after, custom_timeouts=timeouts)

    @property
    def scraped(self) -> list[str]:
        """The names under which its pods, or its Service, are found."""
        return [self.name]

    def metadata(self, annotations: Mapping[str, str] | None = None) -> ObjectMetaArgs:
        """Metadata of an object of the app's name."""
        return ObjectMetaArgs(
            name=self.name,
            namespace=self.args.namespace,
            labels=self.labels,
            annotations=dict(annotations or {}) or None,
        )

    def workload_metadata(self, annotations: Mapping[str, str] | None = None) -> ObjectMetaArgs:
        """Metadata of the object that runs the app's pods: while a worker is away nobody waits for them."""
        return self.metadata({**(annotations or {}), **(NOT_AWAITED if self.args.degraded else {})})

    def one_at_a_time(self) -> PodDisruptionBudget:
        """The budget by which a drain takes one pod after the other."""
        return PodDisruptionBudget(
            self.name,
            metadata=self.metadata(),
            spec=PodDisruptionBudgetSpecArgs(
                max_unavailable=1,
                selector=LabelSelectorArgs(match_labels={NAME: self.name}),
                # A pod that is not Ready anyway must not stop the drain of a node.
                unhealthy_pod_eviction_policy="AlwaysAllow",
            ),
            opts=self.child(),
        )

    def expose(self, *, traffic_distribution: str | None = None) -> Service:
        """Create the Service and, where wanted, the Ingress, without a wait: the controller waits for its pods."""
        self.service = Service(
            self.name,
            metadata=self.metadata(NOT_AWAITED),
            spec=ServiceSpecArgs(
                type="NodePort" if self.args.node_ports else "ClusterIP",
                selector={NAME: self.name},
                traffic_distribution=traffic_distribution,
                ports=[
                    ServicePortArgs(
                        name="http",
                        port=SERVICE_PORT,
                        target_port="http",
                        protocol="TCP",
                        node_port=self.args.node_port,
                    ),
                    *(
                        ServicePortArgs(
                            name=each.name,
                            port=each.service_port or each.port,
                            target_port=each.name,
                            protocol=each.protocol,
                            node_port=each.node_port,
                        )
                        for each in self.args.ports
                    ),
                ],
            ),
            opts=self.child(),
        )
        if wanted := self.args.ingress:
            Ingress(
                self.name,
                # Not awaited: its address is the controller's, and no other part of the app needs it.
                metadata=self.metadata({**NOT_AWAITED, **wanted.annotations}),
                spec=ingress_spec(self.name, wanted),
                opts=self.child(depends_on=[self.service]),
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
            "endpoints": endpoints(self.name, self.args) if service else [],
            "predicted_seconds": self.args.predicted(),
            "when_unreachable": None,
        }
