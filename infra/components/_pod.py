"""The pods of the components: one container that runs as nobody, can be moved, and says when it is ready."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pulumi_kubernetes.core.v1 import (
    AffinityArgs,
    CapabilitiesArgs,
    ContainerArgs,
    ContainerPortArgs,
    EmptyDirVolumeSourceArgs,
    EnvVarArgs,
    EnvVarSourceArgs,
    HTTPGetActionArgs,
    LifecycleArgs,
    LifecycleHandlerArgs,
    LocalObjectReferenceArgs,
    NodeAffinityArgs,
    NodeSelectorArgs,
    NodeSelectorRequirementArgs,
    NodeSelectorTermArgs,
    ObjectFieldSelectorArgs,
    PersistentVolumeClaimVolumeSourceArgs,
    PodSecurityContextArgs,
    PodSpecArgs,
    PodTemplateSpecArgs,
    ProbeArgs,
    ResourceRequirementsArgs,
    SeccompProfileArgs,
    SecurityContextArgs,
    SleepActionArgs,
    TolerationArgs,
    TopologySpreadConstraintArgs,
    VolumeArgs,
    VolumeMountArgs,
)
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from infra.components._app import AppArgs
from infra.components._files import mounted
from infra.components._names import NAME
from infra.components._override import with_overrides
from infra.components._parts import HelperArgs
from tandem.labels import SHARED_STORAGE
from tandem.recovery import RecoveryProfile, pod_tolerations

CONTAINER = "app"
DATA_PATH = "/data"


def pod_template(
    args: AppArgs,
    labels: Mapping[str, str],
    *,
    annotations: Mapping[str, str] | None = None,
    pre_stop_seconds: int = 0,
    claim: str | None = None,
    tolerations: Sequence[TolerationArgs] = (),
    spread: Sequence[TopologySpreadConstraintArgs] = (),
    on_control_plane: bool = False,
    command: Sequence[str] = (),
    ready_path: str | None = None,
    service_account: str | None = None,
) -> PodTemplateSpecArgs:
    """The template of an app's pods.

    Args:
        args: the app's arguments.
        labels: of the pods.
        annotations: of the pods.
        pre_stop_seconds: how long a pod goes on serving after its endpoint was withdrawn, before SIGTERM.
        claim: a PersistentVolumeClaim to mount at /data (also in DATA_DIR); the pod then needs a node with the share.
        tolerations: how long a pod stays bound to a node that is gone.
        spread: topology spread constraints.
        on_control_plane: allow control plane nodes.
        command: what the container runs; the image's own when empty.
        ready_path: asked by the readiness probe when it is another than `health_path`.
        service_account: whose token the pods mount; None mounts none.
    """
    volumes = [VolumeArgs(name="tmp", empty_dir=EmptyDirVolumeSourceArgs(size_limit="64Mi"))]
    mounts = [VolumeMountArgs(name="tmp", mount_path="/tmp")]  # noqa: S108 - a volume of the pod's own
    env = [_from_pod("NODE_NAME", "spec.nodeName"), _from_pod("POD_NAME", "metadata.name")]
    env.append(_from_pod("POD_NAMESPACE", "metadata.namespace"))
    if claim:
        source = PersistentVolumeClaimVolumeSourceArgs(claim_name=claim)
        volumes.append(VolumeArgs(name="data", persistent_volume_claim=source))
        mounts.append(VolumeMountArgs(name="data", mount_path=DATA_PATH))
        env.append(EnvVarArgs(name="DATA_DIR", value=DATA_PATH))
    env += [EnvVarArgs(name=name, value=value) for name, value in sorted(args.env.items())]
    own = mounted(labels[NAME], args)
    volumes += own.volumes
    shared = [*mounts[1:], *own.mounts]
    container = ContainerArgs(
        name=CONTAINER,
        image=args.image,
        command=list(command) or None,
        image_pull_policy=args.image_pull_policy,
        ports=[
            ContainerPortArgs(name="http", container_port=args.port, protocol="TCP"),
            *(
                ContainerPortArgs(name=each.name, container_port=each.port, protocol=each.protocol)
                for each in args.ports
            ),
        ],
        env=[*env, *own.env],
        resources=ResourceRequirementsArgs(
            requests={"cpu": args.cpu_request, "memory": args.memory_request}, limits={"memory": args.memory_limit}
        ),
        startup_probe=_probe(args, period_seconds=1, failures=args.startup_seconds),
        # Once a second: a replacement serves as soon as it can. Three failures: one slow answer withdraws nothing.
        readiness_probe=_probe(args, period_seconds=1, failures=3, path=ready_path),
        liveness_probe=_probe(args, period_seconds=10, failures=3),
        lifecycle=_pre_stop(pre_stop_seconds),
        security_context=container_security(),
        volume_mounts=[*mounts, *own.mounts],
    )
    # Sidecars first: what runs before the app may need them. Kubernetes ends them after the app, in reverse order.
    helpers = [_helper(args, each, mounts[:1], shared, restart_policy="Always") for each in args.sidecars]
    helpers += [_helper(args, each, mounts[:1], shared) for each in args.init_containers]
    if args.metrics_path and args.scrape_annotations:
        scrape = {"scrape": "true", "port": str(args.port), "path": args.metrics_path}
        annotations = {f"prometheus.io/{key}": value for key, value in scrape.items()} | dict(annotations or {})
    spec = PodSpecArgs(
        init_containers=helpers or None,
        containers=[container],
        image_pull_secrets=[LocalObjectReferenceArgs(name=each) for each in args.image_pull_secrets] or None,
        priority_class_name=args.priority_class,
        volumes=volumes,
        affinity=worker_affinity(with_share=claim is not None, on_control_plane=on_control_plane),
        tolerations=list(tolerations) or None,
        topology_spread_constraints=list(spread) or None,
        termination_grace_period_seconds=args.termination_grace_seconds,
        security_context=pod_security(args.run_as_user),
        service_account_name=service_account,
        automount_service_account_token=service_account is not None,
        enable_service_links=False,
    )
    return PodTemplateSpecArgs(
        metadata=ObjectMetaArgs(labels=dict(labels), annotations=dict(annotations or {}) or None),
        spec=with_overrides(spec, args.pod_spec_overrides),
    )


def _helper(
    args: AppArgs,
    helper: HelperArgs,
    always: list[VolumeMountArgs],
    shared: list[VolumeMountArgs],
    *,
    restart_policy: str | None = None,
) -> ContainerArgs:
    return ContainerArgs(
        name=helper.name,
        image=helper.image,
        command=list(helper.command) or None,
        args=list(helper.arguments) or None,
        image_pull_policy=args.image_pull_policy,
        restart_policy=restart_policy,
        env=[EnvVarArgs(name=name, value=value) for name, value in sorted(helper.env.items())] or None,
        resources=ResourceRequirementsArgs(
            requests={"cpu": helper.cpu_request, "memory": helper.memory_request},
            limits={"memory": helper.memory_limit},
        ),
        security_context=container_security(),
        volume_mounts=[*always, *(shared if helper.share_mounts else [])],
    )


def tolerations_of(profile: RecoveryProfile) -> list[TolerationArgs]:
    """The profile's tolerations. Explicit: the API server's defaults would reach only pods made after they changed."""
    return [
        TolerationArgs(
            key=str(each["key"]),
            operator=str(each["operator"]),
            effect=str(each["effect"]),
            toleration_seconds=int(each["tolerationSeconds"]),
        )
        for each in pod_tolerations(profile)
    ]


def pod_security(user: int) -> PodSecurityContextArgs:
    """Not root, and the runtime's seccomp filter."""
    return PodSecurityContextArgs(
        run_as_non_root=True,
        run_as_user=user,
        run_as_group=user,
        seccomp_profile=SeccompProfileArgs(type="RuntimeDefault"),
    )


def container_security() -> SecurityContextArgs:
    """No way up, no capabilities, a root file system that cannot be written."""
    return SecurityContextArgs(
        allow_privilege_escalation=False,
        read_only_root_filesystem=True,
        capabilities=CapabilitiesArgs(drop=["ALL"]),
    )


def worker_affinity(*, with_share: bool, on_control_plane: bool = False) -> AffinityArgs | None:
    """Keep pods off control plane nodes, and those with data on nodes whose share is mounted.

    Required even where a taint already keeps pods away: spread constraints count every node that the affinity allows,
    and a control plane node that no pod may use would be a permanently empty domain.
    """
    rules = []
    if not on_control_plane:
        rules.append(NodeSelectorRequirementArgs(key="node-role.kubernetes.io/control-plane", operator="DoesNotExist"))
    if with_share:
        rules.append(NodeSelectorRequirementArgs(key=SHARED_STORAGE, operator="In", values=["mounted"]))
    if not rules:
        return None
    required = NodeSelectorArgs(node_selector_terms=[NodeSelectorTermArgs(match_expressions=rules)])
    return AffinityArgs(node_affinity=NodeAffinityArgs(required_during_scheduling_ignored_during_execution=required))


def _probe(args: AppArgs, *, period_seconds: int, failures: int, path: str | None = None) -> ProbeArgs:
    # Two seconds, not the default one: a busy survivor answers late just when it must not be taken out as well.
    return ProbeArgs(
        http_get=HTTPGetActionArgs(path=path or args.health_path, port="http"),
        period_seconds=period_seconds,
        timeout_seconds=2,
        failure_threshold=failures,
    )


def _pre_stop(seconds: int) -> LifecycleArgs | None:
    if not seconds:
        return None
    return LifecycleArgs(pre_stop=LifecycleHandlerArgs(sleep=SleepActionArgs(seconds=seconds)))


def _from_pod(name: str, path: str) -> EnvVarArgs:
    return EnvVarArgs(name=name, value_from=EnvVarSourceArgs(field_ref=ObjectFieldSelectorArgs(field_path=path)))
