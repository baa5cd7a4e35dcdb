"""From a recovery profile to the settings of each program, and in which order a live cluster may take them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import yaml

from plugins.module_utils.tandem_kubeadm import (
    SHUTDOWN_BY_PRIORITY,
    SHUTDOWN_FIELDS,
    converted,
    environment,
    flags,
    is_zero,
    merge_cluster_configuration,
    merge_kubelet_configuration,
)
from plugins.module_utils.tandem_variables import SHUTDOWN_CRITICAL_SECONDS, SHUTDOWN_SECONDS
from tandem import recovery
from tandem.recovery import seconds

__all__ = [
    "API_SERVER",
    "CONTROLLER_MANAGER",
    "KUBELET",
    "backup_about",
    "backup_settings",
    "both_ends",
    "live_profile",
    "plan",
    "profile_name",
    "refuse_version",
    "rollback_choice",
    "seconds",
    "settings",
]

KUBELET: Final = "kubelet"
CONTROLLER_MANAGER: Final = "controllerManager"
API_SERVER: Final = "apiServer"


def settings(
    profile_name: str,
    api_server_args: Mapping[str, Any] | None = None,
    controller_manager_args: Mapping[str, Any] | None = None,
    kubelet_configuration: Mapping[str, Any] | None = None,
    shutdown: Sequence[Any] | None = None,
) -> dict[str, Any]:
    """What each program gets under a profile, as plain data for templates and filters.

    Args:
        profile_name: the recovery profile.
        api_server_args: the operator's own flags of the API server, name to value; null takes a flag out. The profile's
            flags win (preflight refuses both).
        controller_manager_args: the same for the controller-manager.
        kubelet_configuration: the operator's own fields of KubeletConfiguration, name to value; null takes one out.
        shutdown: seconds that a node's shutdown waits for pods, and those of them for critical pods; empty text where
            the inventory is silent. None leaves that subject alone.

    Raises:
        UnknownProfileError: no such profile.
    """
    chosen = recovery.profile(profile_name)
    own_server, unset_server = _own(api_server_args)
    own_manager, unset_manager = _own(controller_manager_args)
    owned = {part: list(names) for part, names in recovery.managed_names().items()}
    owned["api_server_args"] += unset_server
    owned["controller_manager_args"] += unset_manager
    own_kubelet, kubelet_defaults = _with_shutdown(dict(kubelet_configuration or {}), shutdown)
    owned["kubelet_configuration"] += own_kubelet
    return {
        "profile": chosen.name,
        "record": recovery.to_dict(chosen),
        "api_server_args": own_server | recovery.api_server_args(chosen),
        "controller_manager_args": own_manager | recovery.controller_manager_args(chosen),
        "controller_manager_env": recovery.controller_manager_env(chosen),
        "kubelet_configuration": {name: value for name, value in own_kubelet.items() if value is not None}
        | recovery.kubelet_configuration(chosen),
        "kubelet_defaults": kubelet_defaults,
        "kubelet_env": recovery.kubelet_env(chosen),
        "pod_tolerations": recovery.pod_tolerations(chosen),
        "exclude_control_plane": chosen.exclude_control_plane_from_disruption,
        "owned": owned,
    }


def _with_shutdown(own: dict[str, Any], shutdown: Sequence[Any] | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The operator's own kubelet fields with those of the graceful shutdown that was asked for, and its defaults.

    Defaults are for a cluster that says nothing of the kind: what an operator has set there, in the inventory or in
    the cluster, is not overruled by what nobody asked for.
    """
    if shutdown is None:
        return own, {}
    given = [str(value).strip() for value in shutdown]
    grace, critical = (
        int(text or default) for text, default in zip(given, (SHUTDOWN_SECONDS, SHUTDOWN_CRITICAL_SECONDS), strict=True)
    )
    values = [recovery.duration(grace), recovery.duration(critical)] if grace else [None, None]
    fields = dict(zip(SHUTDOWN_FIELDS, values, strict=True))
    if any(given):
        return {**fields, **own}, {}
    if own.get(SHUTDOWN_BY_PRIORITY):
        return {**dict.fromkeys(SHUTDOWN_FIELDS), **own}, {}
    return own, {} if any(name in own for name in SHUTDOWN_FIELDS) else fields


def _own(args: Mapping[str, Any] | None) -> tuple[dict[str, str], list[str]]:
    """The operator's flags that are to be there, as text, and those that are to go."""
    given = dict(args or {})
    return {name: _text(value) for name, value in given.items() if value is not None}, [
        name for name, value in given.items() if value is None
    ]


def _text(value: Any) -> str:
    """A flag's value as a program reads it: YAML's booleans in lower case."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def backup_settings(backup: Mapping[str, Any]) -> dict[str, Any]:
    """What each program gets when a backup (module `tandem_backup`) is restored, in the form of `settings`.

    The components' sections of the backup's kubeadm-config and its whole kubelet-config are taken as they are, the
    operator's own flags included.

    Raises:
        ValueError: the backup lacks a document.
    """
    texts = {name: str(backup["documents"].get(name) or "") for name in ("kubeadm_config", "kubelet_config")}
    if missing := [name for name, text in texts.items() if not text]:
        raise ValueError(f"backup {backup['name']} holds no {' and no '.join(missing)}")
    cluster = converted(yaml.safe_load(texts["kubeadm_config"]))
    kubelet = yaml.safe_load(texts["kubelet_config"])
    live = live_profile(cluster, kubelet)
    recorded = json.loads(backup.get("record", {}).get("recovery.json", "null"))
    manager = cluster.get(CONTROLLER_MANAGER) or {}
    variables = environment(manager, "backup controllerManager")
    owned = {part: list(names) for part, names in recovery.managed_names().items()}
    return {
        "backup": str(backup["name"]),
        "profile": str(backup.get("record", {}).get("profile") or profile_name(live)),
        "record": recorded or recovery.to_dict(live),
        "api_server_args": flags(cluster.get(API_SERVER) or {}, "backup apiServer"),
        "controller_manager_args": flags(manager, "backup controllerManager"),
        "controller_manager_env": {name: str(entry["value"]) for name, entry in variables.items() if "value" in entry},
        "kubelet_configuration": {
            name: kubelet[name] for name in owned["kubelet_configuration"] if not is_zero(kubelet.get(name))
        },
        "kubelet_env": dict(backup.get("kubelet_env") or {}),
        "pod_tolerations": recovery.pod_tolerations(live),
        "exclude_control_plane": bool(backup.get("exclude_control_plane")),
        "owned": owned,
        "documents": texts,
    }


def both_ends(
    cluster: Mapping[str, Any], wanted: Mapping[str, Any]
) -> tuple[recovery.RecoveryProfile, recovery.RecoveryProfile]:
    """The profiles that a cluster amounts to now, and with the settings in it.

    Args:
        cluster: the facts of `tandem_cluster`.
        wanted: what `settings` or `backup_settings` gave.

    Raises:
        MergeError: kubeadm's documents cannot be merged safely.
    """
    now, kubelet = yaml.safe_load(cluster["kubeadm_config"]) or {}, yaml.safe_load(cluster["kubelet_config"]) or {}
    then = merge_cluster_configuration(now, wanted), merge_kubelet_configuration(kubelet, wanted)
    return live_profile(now, kubelet), replace(live_profile(*then), name=str(wanted["profile"]))


def backup_about(
    cluster: Mapping[str, Any], nodes: Mapping[str, Mapping[str, Any]], name: str, going_to: str = ""
) -> dict[str, Any]:
    """What a backup has to know beside kubeadm's documents, to be restored and to be chosen.

    `whole` says whether the state was a finished one: its documents are those of the profile that was recorded. It is
    None for a cluster that was never recorded: then the first backup is whole and later ones are a half-done first
    tuning.

    Args:
        cluster: the facts of `tandem_cluster`.
        nodes: the facts of `tandem_node` of the cluster's nodes, by host.
        name: of the cluster.
        going_to: the backup that a rollback is about to restore; empty when something else is about to change.
    """
    environments = [node["processes"].get("kubelet", {}).get("environ", {}) for node in nodes.values()]
    variables: dict[str, str] = {}
    for environ in environments:
        variables |= {key: environ[key] for key in recovery.managed_names()["kubelet_env"] if key in environ}
    control_plane = [node["labels"] for node in cluster["nodes"].values() if node["control_plane"]]
    return {
        "cluster": name,
        "versions": {
            "kubernetes": cluster["version"],
            "kubelets": {host: node["kubelet_version"] for host, node in cluster["nodes"].items()},
        },
        "record": dict(cluster.get("record") or {}),
        "whole": is_whole(cluster),
        "going_to": going_to,
        "kubelet_env": variables,
        "exclude_control_plane": all("node.kubernetes.io/exclude-disruption" in labels for labels in control_plane),
    }


def is_whole(cluster: Mapping[str, Any]) -> bool | None:
    """Whether kubeadm's documents are those of the recorded profile; None without a record."""
    text = (cluster.get("record") or {}).get("recovery.json")
    if not text:
        return None
    try:
        recorded = recovery.from_dict(json.loads(text))
        documents = [yaml.safe_load(cluster[name]) or {} for name in ("kubeadm_config", "kubelet_config")]
        live = live_profile(*documents)
    except ValueError:
        return False
    writers = (
        recovery.api_server_args,
        recovery.controller_manager_args,
        recovery.controller_manager_env,
        recovery.kubelet_configuration,
    )
    return all(writer(live) == writer(recorded) for writer in writers)


def rollback_choice(backups: Sequence[Mapping[str, Any]], cluster: Mapping[str, Any], wanted: str = "") -> str:
    """Which backup to go back to: the named one, else the newest finished state that is not the present one.

    A rollback that was begun (`going_to` of the newest backup) and is not on record as finished goes on: the newest
    finished state is the one that it was leaving.

    Raises:
        ValueError: there is none; the message names those that there are.
    """
    names = [str(backup["name"]) for backup in backups]
    if wanted:
        if wanted not in names:
            raise ValueError(f"no backup {wanted!r}; there are: {', '.join(names) or 'none'}")
        return wanted
    now = {
        f"documents/{name}.yaml": hashlib.sha256(str(cluster[name]).encode()).hexdigest()
        for name in ("kubeadm_config", "kubelet_config")
    }
    same = [all(backup["files"].get(name) == mark for name, mark in now.items()) for backup in backups]
    begun = str(backups[0].get("going_to") or "") if backups else ""
    untouched = begun and same[0] and backups[0].get("whole")
    if begun in names and not untouched and (cluster.get("record") or {}).get("backup") != begun:
        return begun
    for backup, is_present in zip(backups, same, strict=True):
        if backup.get("whole") and not is_present:
            return str(backup["name"])
    raise ValueError(
        "there is no backup of a finished state other than the present one; rule: only what this project changed "
        f"can be rolled back; way out: name one of {', '.join(names) or 'none'} with -e tandem_backup=NAME"
    )


def refuse_version(backup: Mapping[str, Any], cluster: Mapping[str, Any]) -> list[str]:
    """Why a backup of another Kubernetes release must not be restored, as sentences; empty when it may be."""
    was, now = str(backup.get("versions", {}).get("kubernetes", "")), str(cluster.get("version", ""))
    if was.split(".")[:2] == now.split(".")[:2]:
        return []
    told = (
        f"backup {backup['name']} is of Kubernetes {was}, the cluster runs {now}; rule: flags come and go with "
        "releases; way out: choose a profile with -e tandem_profile=NAME and playbooks/tune.yml"
    )
    return [told]


def profile_name(live: recovery.RecoveryProfile) -> str:
    """The named profile with the same numbers, or `live`. The label of control plane nodes is not in the documents."""
    for known in recovery.PROFILES.values():
        label = known.exclude_control_plane_from_disruption
        if replace(live, name=known.name, exclude_control_plane_from_disruption=label) == known:
            return known.name
    return live.name


def live_profile(cluster: Mapping[str, Any], kubelet: Mapping[str, Any]) -> recovery.RecoveryProfile:
    """The profile that kubeadm's two documents amount to, whoever wrote them; what they leave out is the default."""
    seen = [recovery.Sighting("kubelet-config", configuration=kubelet)]
    for component in (CONTROLLER_MANAGER, API_SERVER):
        where = f"kubeadm-config {component}"
        section = cluster.get(component) or {}
        variables = {name: str(entry.get("value", "")) for name, entry in environment(section, where).items()}
        seen.append(recovery.Sighting(where, flags(section, where), variables))
    return recovery.live_profile(seen, version=str(cluster.get("kubernetesVersion", ""))).profile


def plan(current: recovery.RecoveryProfile, wanted: recovery.RecoveryProfile) -> list[str]:
    """The order in which kubelet, controller-manager and API server take the new values (`tandem.recovery.steps`).

    Raises:
        NoSafeOrderError: neither order is safe all the way.
    """
    return [str(step.part) for step in recovery.steps(current, wanted)]
