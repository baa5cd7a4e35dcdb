"""What recovery profile a running cluster amounts to, whoever set it up, from what its API shows. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tandem._recovery.duration import seconds
from tandem._recovery.knobs import KNOBS, MINORS, Minor, UnknownMinorError, minor_of
from tandem._recovery.profiles import STOCK, RecoveryProfile

_DURATION_FLAGS: Final[Mapping[str, str]] = {
    "node-monitor-period": "node_monitor_period_seconds",
    "node-monitor-grace-period": "node_monitor_grace_period_seconds",
    "leader-elect-lease-duration": "kcm_leader_elect_lease_duration_seconds",
    "leader-elect-renew-deadline": "kcm_leader_elect_renew_deadline_seconds",
    "leader-elect-retry-period": "kcm_leader_elect_retry_period_seconds",
}
_NUMBER_FLAGS: Final[Mapping[str, str]] = {
    "node-eviction-rate": "node_eviction_rate_per_second",
    "kube-api-qps": "kcm_kube_api_qps",
}
_INTEGER_FLAGS: Final[Mapping[str, str]] = {
    "kube-api-burst": "kcm_kube_api_burst",
    "default-unreachable-toleration-seconds": "unreachable_toleration_seconds",
    "default-not-ready-toleration-seconds": "not_ready_toleration_seconds",
}
_VARIABLES: Final[Mapping[str, str]] = {
    "HTTP2_READ_IDLE_TIMEOUT_SECONDS": "http2_read_idle_timeout_seconds",
    "HTTP2_PING_TIMEOUT_SECONDS": "http2_ping_timeout_seconds",
}


@dataclass(frozen=True)
class Sighting:
    """What one place says: a program's arguments, its environment or its configuration document.

    Args:
        where: the place, for people.
        arguments: flags, name without dashes to value.
        environment: variables, name to value.
        configuration: fields of KubeletConfiguration.
    """

    where: str
    arguments: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    configuration: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LiveProfile:
    """The profile that a cluster amounts to.

    Args:
        profile: its numbers; what nothing sets is the release's default.
        sources: field to the place that set it. A field that is missing here is at its default.
        remarks: what could not be seen or is not the same everywhere, as sentences.
    """

    profile: RecoveryProfile
    sources: Mapping[str, str]
    remarks: tuple[str, ...]


def flag_values(command: Sequence[str]) -> dict[str, str]:
    """Flags of a command line, name without dashes to value; a bare flag is `true`, the last of a repeated one wins."""
    values = {}
    for word in command:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            values[name] = value if equals else "true"
    return values


def live_profile(sightings: Sequence[Sighting], *, version: str = "", excluded: bool = False) -> LiveProfile:
    """The profile that the sightings amount to; a later one wins, and a difference is remarked.

    Args:
        sightings: what each place says, the least trustworthy first (kubeadm's documents before running programs).
        version: the API server's, for the defaults; the newest known release when empty or unknown.
        excluded: whether every control plane node carries the label that excludes it from disruption counts.
    """
    remarks: list[str] = []
    minor: Minor = MINORS[-1]
    try:
        minor = minor_of(version) if version else minor
    except UnknownMinorError as error:
        remarks.append(f"{error}; those of {minor} are assumed")
    found: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for sighting in sightings:
        for name, value in _fields(sighting, remarks).items():
            if name in found and found[name] != value:
                remarks.append(f"{name}: {sources[name]} says {found[name]:g}, {sighting.where} {value:g}")
            found[name], sources[name] = value, sighting.where
    if "node_status_update_frequency_seconds" in found and "node_status_report_frequency_seconds" not in found:
        # kubelet's own rule (pkg/kubelet/apis/config/v1beta1/defaults.go): the report follows an update that was set.
        found["node_status_report_frequency_seconds"] = found["node_status_update_frequency_seconds"]
        sources["node_status_report_frequency_seconds"] = sources["node_status_update_frequency_seconds"]
    optional = {entry.field for entry in KNOBS if getattr(STOCK, entry.field) is None}
    defaults = {entry.field: entry.defaults[minor] for entry in KNOBS if entry.field not in optional}
    profile = replace(STOCK, name="live", **{**defaults, **found, "exclude_control_plane_from_disruption": excluded})
    return LiveProfile(profile, sources, tuple(dict.fromkeys(remarks)))


def _fields(sighting: Sighting, remarks: list[str]) -> dict[str, Any]:
    """The profile's fields that one place sets; what cannot be read is remarked and left out."""
    found: dict[str, Any] = {}

    def take(name: str, value: Any, kind: type[int] | type[float] | Any) -> None:
        try:
            found[name] = kind(value)
        except (TypeError, ValueError):
            remarks.append(f"{sighting.where}: {name} is {value!r}, which cannot be understood")

    for names, kind in ((_DURATION_FLAGS, seconds), (_NUMBER_FLAGS, float), (_INTEGER_FLAGS, int)):
        for flag, name in names.items():
            if flag in sighting.arguments:
                take(name, sighting.arguments[flag], kind)
    if "disable-admission-plugins" in sighting.arguments:
        disabled = sighting.arguments["disable-admission-plugins"].split(",")
        found["default_toleration_admission"] = "DefaultTolerationSeconds" not in disabled
    for variable, name in _VARIABLES.items():
        if variable in sighting.environment:
            take(name, sighting.environment[variable], int)
    configuration = sighting.configuration
    for key, name, kind in (
        ("nodeStatusUpdateFrequency", "node_status_update_frequency_seconds", seconds),
        ("nodeStatusReportFrequency", "node_status_report_frequency_seconds", seconds),
        ("nodeLeaseDurationSeconds", "node_lease_duration_seconds", int),
    ):
        value = configuration.get(key)
        # kubeadm writes a zero for "use the default".
        if value not in (None, 0, "0", "0s", ""):
            take(name, value, kind)
    return found
