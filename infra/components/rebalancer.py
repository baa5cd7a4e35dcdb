"""What brings crowded replicas apart after a worker's return: `tandem rebalance` as a CronJob."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_kubernetes.batch.v1 import CronJob, CronJobSpecArgs, JobSpecArgs, JobTemplateSpecArgs
from pulumi_kubernetes.core.v1 import (
    ContainerArgs,
    PodSpecArgs,
    PodTemplateSpecArgs,
    ResourceRequirementsArgs,
    ServiceAccount,
)
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs
from pulumi_kubernetes.rbac.v1 import (
    ClusterRole,
    ClusterRoleBinding,
    PolicyRuleArgs,
    Role,
    RoleBinding,
    RoleRefArgs,
    SubjectArgs,
)

from infra.components._controller import RBAC_GROUP
from infra.components._names import check_image, check_name, labels_of
from infra.components._parts import Part, check_range
from infra.components._pod import container_security, pod_security, tolerations_of, worker_affinity
from infra.errors import ArgsError
from tandem.recovery import RecoveryProfile

NAME: Final = "rebalance"

BY: Final = f"CronJob {NAME}"
"""What a crowding app says of who brings its replicas apart."""

RUN_SECONDS: Final = 1800
"""After so long a run ends, wherever it is; the next one looks anew."""

_CRON_FIELD: Final = r"(\*|[0-9A-Za-z]+(-[0-9A-Za-z]+)?)(/[0-9]+)?"
_CRON: Final = re.compile(rf"({_CRON_FIELD}(,{_CRON_FIELD})*\s+){{4}}{_CRON_FIELD}(,{_CRON_FIELD})*")


@dataclass(frozen=True, kw_only=True)
class RebalanceArgs(Part):
    """A CronJob that brings replicas apart which crowd on one worker after the other one's return.

    Args:
        image: of Tandem's controllers.
        schedule: when it looks, in cron's five fields. A run that finds nothing costs three lists.
        settled_seconds: how long every worker must have been Ready before a pod is moved.
        suspend: it is there and does not run.
    """

    image: str
    schedule: str = "*/10 * * * *"
    settled_seconds: int = 60
    suspend: bool = False

    def __post_init__(self) -> None:
        """Check the rules; raises `ArgsError` for the first one broken."""
        check_image(self.image, "rebalance.image")
        check_range("rebalance.settled_seconds", self.settled_seconds, 0, 3600, "seconds Ready before pods come")
        if not _CRON.fullmatch(self.schedule.strip()):
            raise ArgsError("rebalance.schedule", self.schedule, "must be cron's five fields", "*/10 * * * *")


class Rebalancer(pulumi.ComponentResource):
    """The CronJob, its account, and the right to evict pods of one namespace; budgets decide which go.

    Args:
        args: its arguments.
        namespace: whose apps it looks at, and where it runs.
        profile: the cluster's recovery profile.
        opts: after the namespace.
    """

    def __init__(
        self,
        args: RebalanceArgs,
        *,
        namespace: str,
        profile: RecoveryProfile,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        check_name(namespace, "namespace")
        super().__init__("tandem:components:Rebalancer", NAME, None, opts)
        self._namespace, self._labels = namespace, labels_of(NAME, None)
        self._child = pulumi.ResourceOptions(parent=self)
        account = ServiceAccount(
            NAME, metadata=self._metadata(), automount_service_account_token=False, opts=self._child
        )
        rights = self._rights()
        self.cron_job = CronJob(
            NAME,
            metadata=self._metadata(),
            spec=CronJobSpecArgs(
                schedule=args.schedule.strip(),
                suspend=args.suspend,
                # Two at once would each move a pod; a start that was missed is of no use later.
                concurrency_policy="Forbid",
                starting_deadline_seconds=60,
                successful_jobs_history_limit=1,
                failed_jobs_history_limit=3,
                job_template=JobTemplateSpecArgs(
                    metadata=ObjectMetaArgs(labels=self._labels),
                    spec=JobSpecArgs(
                        # The next run is the repetition.
                        backoff_limit=0,
                        active_deadline_seconds=RUN_SECONDS,
                        template=PodTemplateSpecArgs(
                            metadata=ObjectMetaArgs(labels=self._labels), spec=_pod(args, namespace, profile)
                        ),
                    ),
                ),
            ),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[account, *rights]),
        )
        self.register_outputs({"cron_job": self.cron_job.metadata.name})

    def _metadata(self, name: str = NAME, *, cluster: bool = False) -> ObjectMetaArgs:
        return ObjectMetaArgs(name=name, namespace=None if cluster else self._namespace, labels=self._labels)

    def _rights(self) -> list[pulumi.Resource]:
        """To look at its namespace and at the nodes, and to evict; not to delete."""
        account = [SubjectArgs(kind="ServiceAccount", name=NAME, namespace=self._namespace)]
        look = ["get", "list"]
        role = Role(
            NAME,
            metadata=self._metadata(),
            rules=[
                PolicyRuleArgs(api_groups=["apps"], resources=["deployments"], verbs=look),
                PolicyRuleArgs(api_groups=[""], resources=["pods"], verbs=look),
                PolicyRuleArgs(api_groups=[""], resources=["pods/eviction"], verbs=["create"]),
            ],
            opts=self._child,
        )
        full_name = f"{self._namespace}:{NAME}"
        everywhere = ClusterRole(
            NAME,
            metadata=self._metadata(full_name, cluster=True),
            rules=[PolicyRuleArgs(api_groups=[""], resources=["nodes"], verbs=["list"])],
            opts=self._child,
        )
        return [
            role,
            everywhere,
            RoleBinding(
                NAME,
                metadata=self._metadata(),
                role_ref=RoleRefArgs(api_group=RBAC_GROUP, kind="Role", name=NAME),
                subjects=account,
                opts=self._child,
            ),
            ClusterRoleBinding(
                NAME,
                metadata=self._metadata(full_name, cluster=True),
                role_ref=RoleRefArgs(api_group=RBAC_GROUP, kind="ClusterRole", name=full_name),
                subjects=account,
                opts=self._child,
            ),
        ]


def _pod(args: RebalanceArgs, namespace: str, profile: RecoveryProfile) -> PodSpecArgs:
    command = ["python3", "-P", "-m", "tandem.rebalance", "--namespace", namespace]
    return PodSpecArgs(
        restart_policy="Never",
        service_account_name=NAME,
        automount_service_account_token=True,
        enable_service_links=False,
        affinity=worker_affinity(with_share=False),
        tolerations=tolerations_of(profile),
        security_context=pod_security(65532),
        containers=[
            ContainerArgs(
                name=NAME,
                image=args.image,
                image_pull_policy="IfNotPresent",
                command=[*command, "--settled", str(args.settled_seconds)],
                resources=ResourceRequirementsArgs(
                    requests={"cpu": "10m", "memory": "64Mi"}, limits={"memory": "128Mi"}
                ),
                security_context=container_security(),
            )
        ],
    )
