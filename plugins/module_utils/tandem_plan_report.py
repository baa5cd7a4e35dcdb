"""What a change of the recovery settings would do, for people: the order, the predicted times before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plugins.module_utils.tandem_differences import coredns_patch_differences, pending_components, pending_kubelets
from plugins.module_utils.tandem_tuning import API_SERVER, CONTROLLER_MANAGER, both_ends
from tandem import recovery

_WORDS = {CONTROLLER_MANAGER: "kube-controller-manager", API_SERVER: "kube-apiserver"}
_LABEL = "node.kubernetes.io/exclude-disruption"


def report(
    cluster: Mapping[str, Any],
    settings: Mapping[str, Any],
    nodes: Mapping[str, Mapping[str, Any]],
    control_plane: list[str],
    coredns: Mapping[str, Any],
) -> list[str]:
    """The report, line by line.

    Args:
        cluster: the facts of `tandem_cluster`, with configz.
        settings: what is wanted.
        nodes: the facts of `tandem_node` of the cluster's nodes, by host.
        control_plane: the hosts of the control plane.
        coredns: the patch of CoreDNS's Deployment.
    """
    old, new = both_ends(cluster, settings)
    lines = [*_predictions(old, new), "", *_settings(old, new, _labels(cluster, settings, control_plane))]
    servers = {host: node for host, node in nodes.items() if host in control_plane}
    components = pending_components(cluster, servers, settings)
    order = [step.part for step in recovery.steps(old, new)]
    restarts = [
        f"  {_WORDS[part]} on {', '.join(control_plane)}" for part in order if part in _WORDS and part in components
    ]
    # CoreDNS comes after the control plane's components, in the same play.
    patched = [entry["key"].removeprefix("coredns ") for entry in coredns_patch_differences(cluster, coredns)]
    if patched:
        restarts.append(f"  CoreDNS, by a roll of its Deployment: {', '.join(patched)}")
    kubelets = pending_kubelets(cluster, nodes, settings)
    if kubelets:
        line = f"  kubelet on {', '.join(kubelets)}, one after the other, without a drain"
        restarts.insert(0 if order[0] == "kubelet" else len(restarts), line)
    lines += ["", "What restarts, in this order:", *(restarts or ["  nothing"])]
    findings = recovery.check(new)
    if findings:
        lines += ["", *(f"{finding.level}: {finding}" for finding in findings)]
    return lines


def _predictions(old: recovery.RecoveryProfile, new: recovery.RecoveryProfile) -> list[str]:
    before, after = recovery.predict(old), recovery.predict(new)
    lines = [f"{'seconds after a power loss':28}{'now':>18}{new.name:>18}"]
    for stage in recovery.STAGES:
        if stage in before:
            texts = [f"{window.low:.1f} .. {window.high:.1f}" for window in (before[stage], after[stage])]
            lines.append(f"{stage:28}{texts[0]:>18}{texts[1]:>18}")
    stalls = [recovery.tolerated_stall_seconds(profile) for profile in (old, new)]
    texts = ["any short one" if stall == float("inf") else f"up to {stall:.1f} s" for stall in stalls]
    return [*lines, f"{'API stall that is survived':28}{texts[0]:>18}{texts[1]:>18}"]


def _labels(cluster: Mapping[str, Any], settings: Mapping[str, Any], control_plane: list[str]) -> list[str]:
    """Control plane nodes whose label changes. It is on the nodes themselves and not in kubeadm's documents."""
    wanted = bool(settings["exclude_control_plane"])
    live = {host: _LABEL in cluster["nodes"][host]["labels"] for host in control_plane if host in cluster["nodes"]}
    words = {True: "present", False: "absent"}
    return [
        f"  {_LABEL} on {host}: {words[there]} -> {words[wanted]}" for host, there in live.items() if there != wanted
    ]


def _settings(old: recovery.RecoveryProfile, new: recovery.RecoveryProfile, labels: list[str]) -> list[str]:
    """The settings that change: those in kubeadm's documents by both profiles, and the labels."""
    lines = ["Settings that change:"]
    for entry in recovery.KNOBS:
        if entry.field == "exclude_control_plane_from_disruption":
            continue
        values = [getattr(profile, entry.field) for profile in (old, new)]
        if values[0] != values[1]:
            texts = ["default" if value is None else f"{value:g} {entry.unit}".strip() for value in values]
            lines.append(f"  {entry.setting}: {texts[0]} -> {texts[1]}")
    lines += labels
    return lines if len(lines) > 1 else ["No setting changes."]
