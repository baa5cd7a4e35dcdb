"""What a change of the recovery settings would do, for people: the order, the predicted times before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plugins.module_utils.tandem_differences import pending_components, pending_kubelets
from plugins.module_utils.tandem_tuning import API_SERVER, CONTROLLER_MANAGER, both_ends
from tandem import recovery

_WORDS = {CONTROLLER_MANAGER: "kube-controller-manager", API_SERVER: "kube-apiserver"}


def report(
    cluster: Mapping[str, Any],
    settings: Mapping[str, Any],
    nodes: Mapping[str, Mapping[str, Any]],
    control_plane: list[str],
) -> list[str]:
    """The report, line by line.

    Args:
        cluster: the facts of `tandem_cluster`, with configz.
        settings: what is wanted.
        nodes: the facts of `tandem_node` of the cluster's nodes, by host.
        control_plane: the hosts of the control plane.
    """
    old, new = both_ends(cluster, settings)
    lines = [*_predictions(old, new), "", *_settings(old, new)]
    servers = {host: node for host, node in nodes.items() if host in control_plane}
    components = pending_components(cluster, servers, settings)
    kubelets = pending_kubelets(cluster, nodes, settings)
    lines += ["", "What restarts, in this order:"]
    order = [step.part for step in recovery.steps(old, new)]
    for part in order:
        if part in _WORDS and part in components:
            lines.append(f"  {_WORDS[part]} on {', '.join(control_plane)}")
        elif part == "kubelet" and kubelets:
            lines.append(f"  kubelet on {', '.join(kubelets)}, one after the other, without a drain")
    if not components and not kubelets:
        lines.append("  nothing")
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


def _settings(old: recovery.RecoveryProfile, new: recovery.RecoveryProfile) -> list[str]:
    """The settings that change. The label of control plane nodes is not in kubeadm's documents and is left out."""
    lines = ["Settings that change:"]
    for entry in recovery.KNOBS:
        if entry.field == "exclude_control_plane_from_disruption":
            continue
        values = [getattr(profile, entry.field) for profile in (old, new)]
        if values[0] != values[1]:
            texts = ["default" if value is None else f"{value:g} {entry.unit}".strip() for value in values]
            lines.append(f"  {entry.setting}: {texts[0]} -> {texts[1]}")
    return lines if len(lines) > 1 else ["No setting changes."]
