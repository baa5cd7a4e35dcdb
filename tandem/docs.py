"""Pages of the documentation that are made from the code, so that they cannot say anything else."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Final

from tandem import recovery
from tandem.recovery import PROFILES, STAGES, Behaviour, RecoveryProfile

_SETTINGS: Final = (
    ("node_status_update_frequency_seconds", "kubelet looks at its status every", "s"),
    ("node_status_report_frequency_seconds", "kubelet reports an unchanged status every", "s"),
    ("node_lease_duration_seconds", "node lease (renewed at a quarter)", "s"),
    ("heartbeat_seconds", "**R**: heartbeat, the shorter of the two above", "s"),
    ("node_monitor_period_seconds", "**P**: controller-manager's monitor period", "s"),
    ("node_monitor_grace_period_seconds", "**G**: grace period", "s"),
    ("unreachable_toleration_seconds", "toleration `unreachable`", "s"),
    ("not_ready_toleration_seconds", "toleration `not-ready`", "s"),
    ("http2_read_idle_timeout_seconds", "HTTP/2 read-idle time-out", "s"),
    ("http2_ping_timeout_seconds", "HTTP/2 ping time-out", "s"),
    ("kcm_leader_elect_lease_duration_seconds", "controller-manager's leader lease", "s"),
    ("kcm_leader_elect_renew_deadline_seconds", "controller-manager's renew deadline", "s"),
    ("kcm_leader_elect_retry_period_seconds", "controller-manager's retry period", "s"),
    ("exclude_control_plane_from_disruption", "control plane excluded from disruption counts", ""),
)

_BEHAVIOURS: Final[tuple[tuple[Behaviour, str], ...]] = (
    ("replace", "one replica, its successor starts on the survivor"),
    ("hold", "one writer, its successor waits until somebody lets the old pod go"),
    ("spread-wait", "replicas on every worker; `serving` is the end of failed requests"),
    ("stateful", "StatefulSet: no successor while the old pod object exists"),
)


def profiles_page() -> str:
    """The page on recovery profiles: settings, predicted windows, findings with their ways out."""
    profiles = list(PROFILES.values())
    lines = [
        "# Recovery profiles",
        "",
        "How fast a cluster notices a lost worker and acts is one set of numbers spread over kubelet,",
        "kube-controller-manager, kube-apiserver and the workloads. A profile holds them once. This page is generated",
        f"from `tandem/recovery.py`; the default is `{recovery.DEFAULT_PROFILE}`.",
        "",
        "## Settings",
        "",
        *_table(["setting", *(f"`{p.name}`" for p in profiles)], (_setting(p, profiles) for p in _SETTINGS)),
        "",
        "A dash leaves the program's default. The API server's default tolerations reach new pods only, so the",
        "workloads carry the profile's own.",
        "",
        "## Predicted windows",
        "",
        "Seconds after a worker's power loss. Ready=Unknown falls into [G - R, G + 2P]: the last heartbeat is up to R",
        "old, a tick of the monitor sees it up to P late, and the first tick after the grace acts up to P late. What",
        "is added for the API, the container's start and kube-proxy was measured in the lab, whose machines are slow.",
    ]
    for behaviour, text in _BEHAVIOURS:
        windows = [recovery.predict(p, behaviour) for p in profiles]
        rows = [
            [f"`{stage}`", *(f"{w[stage].low:.1f} to {w[stage].high:.1f}" for w in windows)]
            for stage in STAGES
            if stage in windows[0]
        ]
        lines += ["", f"### `{behaviour}`: {text}", "", *_table(["stage", *(f"`{p.name}`" for p in profiles)], rows)]
    lines += ["", "## What speaks against a profile", ""]
    for profile in profiles:
        found = recovery.check(profile)
        lines.append(f"- `{profile.name}`: nothing." if not found else f"- `{profile.name}`:")
        lines += [f"  - **{f.level}** `{f.rule}`: {f.message}. Way out: {f.fix}." for f in found]
    return "\n".join(lines) + "\n"


def _setting(row: tuple[str, str, str], profiles: Sequence[RecoveryProfile]) -> list[str]:
    name, text, unit = row
    values = []
    for profile in profiles:
        value = getattr(profile, name)
        if isinstance(value, bool):
            values.append("yes" if value else "no")
        else:
            values.append("-" if value is None else f"{value:g} {unit}".strip())
    return [text, *values]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def main() -> None:
    """Print the page."""
    sys.stdout.write(profiles_page())


if __name__ == "__main__":
    main()
