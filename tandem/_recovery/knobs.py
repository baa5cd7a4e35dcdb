"""Every setting that governs how a lost node is noticed and its pods are replaced: unit, defaults, range, source.

Paths of sources are those of kubernetes/kubernetes at v1.36.3; the defaults of 1.34 and 1.35 were read from v1.34.1 and
v1.35.0 in the same files. `staging` stands for `staging/src/k8s.io`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

Minor = Literal["1.34", "1.35", "1.36"]
MINORS: Final[tuple[Minor, ...]] = ("1.34", "1.35", "1.36")
"""Kubernetes releases whose defaults are known here."""

Value = float | int | bool
Program = Literal["kubelet", "kube-controller-manager", "kube-apiserver", "control plane nodes"]


class UnknownMinorError(ValueError):
    """Raised for a Kubernetes release whose defaults are not known here; the message lists those that are."""


@dataclass(frozen=True, kw_only=True)
class Knob:
    """One setting.

    Args:
        field: the field of `RecoveryProfile` that holds it.
        program: whose setting it is; two programs for the HTTP/2 variables, which both read.
        setting: its name there: a flag, a field of KubeletConfiguration, an environment variable or a label.
        unit: `s`, `1/s`, or empty for a count or a switch.
        defaults: what the program uses when nothing is set, by Kubernetes release.
        low, high: values outside are refused: the program refuses them too, or they have no meaning.
        meaning: what it does.
        source: where the default and the meaning stand.
    """

    field: str
    program: tuple[Program, ...]
    setting: str
    unit: Literal["s", "1/s", ""]
    defaults: Mapping[Minor, Value]
    low: float
    high: float
    meaning: str
    source: str


def _same(value: Value) -> Mapping[Minor, Value]:
    """One default in all releases."""
    return MappingProxyType(dict.fromkeys(MINORS, value))


_KUBELET: Final[tuple[Program, ...]] = ("kubelet",)
_MANAGER: Final[tuple[Program, ...]] = ("kube-controller-manager",)
_SERVER: Final[tuple[Program, ...]] = ("kube-apiserver",)

KNOBS: Final[tuple[Knob, ...]] = (
    Knob(
        field="node_status_update_frequency_seconds",
        program=_KUBELET,
        setting="nodeStatusUpdateFrequency",
        unit="s",
        defaults=_same(10),
        low=0.1,
        high=3600,
        meaning="how often kubelet looks at its status; a change is written at once, and no later than this",
        source="pkg/kubelet/apis/config/v1beta1/defaults.go",
    ),
    Knob(
        field="node_status_report_frequency_seconds",
        program=_KUBELET,
        setting="nodeStatusReportFrequency",
        unit="s",
        defaults=_same(300),
        low=0.1,
        high=3600,
        meaning="how often an unchanged status is written; left out, it follows an update frequency that is set",
        source="pkg/kubelet/apis/config/v1beta1/defaults.go",
    ),
    Knob(
        field="node_lease_duration_seconds",
        program=_KUBELET,
        setting="nodeLeaseDurationSeconds",
        unit="s",
        defaults=_same(40),
        low=1,
        high=3600,
        meaning="the node's Lease, renewed every quarter of it plus up to 4 %: the cheap heartbeat",
        source=(
            "pkg/kubelet/apis/config/v1beta1/defaults.go; nodeLeaseRenewIntervalFraction in pkg/kubelet/kubelet.go; "
            "staging/component-helpers/apimachinery/lease/controller.go"
        ),
    ),
    Knob(
        field="node_monitor_period_seconds",
        program=_MANAGER,
        setting="--node-monitor-period",
        unit="s",
        defaults=_same(5),
        low=0.1,
        high=300,
        meaning="pause between two looks at all nodes; it begins when a look has ended (wait.UntilWithContext)",
        source="staging/cloud-provider/config/v1alpha1/defaults.go; pkg/controller/nodelifecycle, Run",
    ),
    Knob(
        field="node_monitor_grace_period_seconds",
        program=_MANAGER,
        setting="--node-monitor-grace-period",
        unit="s",
        defaults=_same(50),
        low=0.5,
        high=3600,
        meaning="silence after which a node is Unknown, its pods leave their Services and it is tainted (40 s to 1.31)",
        source="pkg/controller/nodelifecycle/config/v1alpha1/defaults.go; kubernetes/kubernetes#126287",
    ),
    Knob(
        field="node_eviction_rate_per_second",
        program=_MANAGER,
        setting="--node-eviction-rate",
        unit="1/s",
        defaults=_same(0.1),
        low=0.001,
        high=10,
        meaning="NoExecute taints a second, with a burst of one: a second loss soon after waits up to the reciprocal",
        source="cmd/kube-controller-manager/app/options/nodelifecyclecontroller.go; pkg/controller/nodelifecycle",
    ),
    Knob(
        field="kcm_kube_api_qps",
        program=_MANAGER,
        setting="--kube-api-qps",
        unit="1/s",
        defaults=_same(20),
        low=1,
        high=1000,
        meaning="requests a second to the API; each pod of a lost node takes one to leave its Services, one to go",
        source="pkg/controller/apis/config/v1alpha1/defaults.go",
    ),
    Knob(
        field="kcm_kube_api_burst",
        program=_MANAGER,
        setting="--kube-api-burst",
        unit="",
        defaults=_same(30),
        low=1,
        high=2000,
        meaning="requests that may go at once before the rate above counts",
        source="pkg/controller/apis/config/v1alpha1/defaults.go",
    ),
    Knob(
        field="kcm_leader_elect_lease_duration_seconds",
        program=_MANAGER,
        setting="--leader-elect-lease-duration",
        unit="s",
        defaults=_same(15),
        low=1,
        high=600,
        meaning="how long a controller-manager that starts waits for a predecessor that did not release",
        source="staging/component-base/config/v1alpha1/defaults.go; staging/client-go/tools/leaderelection",
    ),
    Knob(
        field="kcm_leader_elect_renew_deadline_seconds",
        program=_MANAGER,
        setting="--leader-elect-renew-deadline",
        unit="s",
        defaults=_same(10),
        low=0.5,
        high=600,
        meaning="a controller-manager that cannot renew for so long exits; the next gives every node a fresh grace",
        source="staging/component-base/config/v1alpha1/defaults.go; staging/client-go/tools/leaderelection",
    ),
    Knob(
        field="kcm_leader_elect_retry_period_seconds",
        program=_MANAGER,
        setting="--leader-elect-retry-period",
        unit="s",
        defaults=_same(2),
        low=0.1,
        high=300,
        meaning="pause between two attempts to renew or to take the leader's Lease",
        source="staging/component-base/config/v1alpha1/defaults.go; staging/client-go/tools/leaderelection",
    ),
    Knob(
        field="unreachable_toleration_seconds",
        program=_SERVER,
        setting="--default-unreachable-toleration-seconds",
        unit="s",
        defaults=_same(300),
        low=0,
        high=86400,
        meaning="how long a new pod stays bound to a node of which nothing is heard; a bare integer",
        source="plugin/pkg/admission/defaulttolerationseconds/admission.go",
    ),
    Knob(
        field="not_ready_toleration_seconds",
        program=_SERVER,
        setting="--default-not-ready-toleration-seconds",
        unit="s",
        defaults=_same(300),
        low=0,
        high=86400,
        meaning="the same for a node that says itself that it is not ready, as one does whose kubelet restarts",
        source="plugin/pkg/admission/defaulttolerationseconds/admission.go",
    ),
    Knob(
        field="default_toleration_admission",
        program=_SERVER,
        setting="--disable-admission-plugins without DefaultTolerationSeconds",
        unit="",
        defaults=_same(True),
        low=1,
        high=1,
        meaning="the plug-in that gives pods the two tolerations above; without it they are evicted at once",
        source="pkg/kubeapiserver/options/plugins.go (on by default)",
    ),
    Knob(
        field="http2_read_idle_timeout_seconds",
        program=("kubelet", "kube-controller-manager"),
        setting="HTTP2_READ_IDLE_TIMEOUT_SECONDS",
        unit="s",
        defaults=_same(30),
        low=1,
        high=3600,
        meaning="silence on a connection to the API after which it is pinged (0 would switch the check off)",
        source="staging/apimachinery/pkg/util/net/http.go",
    ),
    Knob(
        field="http2_ping_timeout_seconds",
        program=("kubelet", "kube-controller-manager"),
        setting="HTTP2_PING_TIMEOUT_SECONDS",
        unit="s",
        defaults=_same(15),
        low=1,
        high=3600,
        meaning="how long the answer to that ping may take before the connection is given up",
        source="staging/apimachinery/pkg/util/net/http.go",
    ),
    Knob(
        field="exclude_control_plane_from_disruption",
        program=("control plane nodes",),
        setting="node.kubernetes.io/exclude-disruption",
        unit="",
        defaults=_same(False),
        low=0,
        high=1,
        meaning="label: the loss of both workers then counts as full disruption, which stops evictions",
        source="labelNodeDisruptionExclusion in pkg/controller/nodelifecycle/node_lifecycle_controller.go",
    ),
)
"""All of them, in the order in which a lost node meets them."""


def knob(field: str) -> Knob:
    """The setting that a field of `RecoveryProfile` holds.

    Raises:
        KeyError: no such setting.
    """
    for entry in KNOBS:
        if entry.field == field:
            return entry
    raise KeyError(field)


def minor_of(version: str) -> Minor:
    """The release that a version such as `v1.36.3` belongs to.

    Raises:
        UnknownMinorError: its defaults are not known here.
    """
    wanted = ".".join(version.removeprefix("v").split(".")[:2])
    for minor in MINORS:
        if minor == wanted:
            return minor
    raise UnknownMinorError(f"the defaults of Kubernetes {version!r} are not known; known: {', '.join(MINORS)}")


def default(field: str, minor: Minor = MINORS[-1]) -> Value:
    """What the program uses in a release when nothing is set.

    Raises:
        KeyError: no such setting.
    """
    return knob(field).defaults[minor]
