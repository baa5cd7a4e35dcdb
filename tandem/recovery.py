"""How fast a cluster notices a lost node and acts: one set of numbers, its check, and what it predicts.

The numbers are spread over four programs (kubelet, kube-controller-manager, kube-apiserver, the workloads). This
module holds them once: the roles take flags from it, the stack takes tolerations, the audit compares a live cluster
with it and the drill prints its prediction beside the measurement.

The model follows kube-controller-manager's node lifecycle controller (pkg/controller/nodelifecycle in kubernetes
v1.36.3) and was corrected where the lab disagreed. With R the longest heartbeat interval, P the monitor period, G the
grace:

- the last heartbeat before the fault is 0..R old; a monitor tick sees it 0..P late and stamps it with the tick's time;
- the first tick more than G after that stamp writes Ready=Unknown, 0..P later: [G - R, G + 2P] after the fault;
- endpoints and the NoExecute taint follow at once. (Releases that judge the condition read *before* the write
  taint one P later; v1.36.3 judges the one just written. The lab measured 0.5 s.)
"""

from __future__ import annotations

from tandem._recovery.check import (
    KUBELET_MAX_BACKOFF_SECONDS,
    api_stall_seconds,
    check,
    check_target,
    kcm_survives_seconds,
    stale_view_seconds,
    tolerated_stall_seconds,
)
from tandem._recovery.duration import duration, seconds
from tandem._recovery.knobs import KNOBS, MINORS, Knob, Minor, UnknownMinorError, default, knob, minor_of
from tandem._recovery.live import LiveProfile, Sighting, flag_values, live_profile
from tandem._recovery.model import (
    BEHAVIOURS,
    FORMULAS,
    STAGES,
    Behaviour,
    Formula,
    Pace,
    Stage,
    Window,
    bound_seconds,
    predict,
    write_queue_seconds,
)
from tandem._recovery.profiles import (
    ARTICLE,
    BALANCED,
    DEFAULT_PROFILE,
    FAST,
    PROFILES,
    STOCK,
    RecoveryProfile,
    UnknownProfileError,
    from_dict,
    profile,
    to_dict,
)
from tandem._recovery.settings import (
    api_server_args,
    controller_manager_args,
    controller_manager_env,
    kubelet_configuration,
    kubelet_env,
    managed_names,
    pod_tolerations,
)
from tandem._recovery.steps import PART_FIELDS, NoSafeOrderError, Part, Step, steps
from tandem.findings import Finding

__all__ = [
    "ARTICLE",
    "BALANCED",
    "BEHAVIOURS",
    "DEFAULT_PROFILE",
    "FAST",
    "FORMULAS",
    "KNOBS",
    "KUBELET_MAX_BACKOFF_SECONDS",
    "MINORS",
    "PART_FIELDS",
    "PROFILES",
    "STAGES",
    "STOCK",
    "Behaviour",
    "Finding",
    "Formula",
    "Knob",
    "LiveProfile",
    "Minor",
    "NoSafeOrderError",
    "Pace",
    "Part",
    "RecoveryProfile",
    "Sighting",
    "Stage",
    "Step",
    "UnknownMinorError",
    "UnknownProfileError",
    "Window",
    "api_server_args",
    "api_stall_seconds",
    "bound_seconds",
    "check",
    "check_target",
    "controller_manager_args",
    "controller_manager_env",
    "default",
    "duration",
    "flag_values",
    "from_dict",
    "kcm_survives_seconds",
    "knob",
    "kubelet_configuration",
    "kubelet_env",
    "live_profile",
    "managed_names",
    "minor_of",
    "pod_tolerations",
    "predict",
    "profile",
    "seconds",
    "stale_view_seconds",
    "steps",
    "to_dict",
    "tolerated_stall_seconds",
    "write_queue_seconds",
]
