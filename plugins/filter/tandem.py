"""Filters of Tandem's roles: profiles as settings, kubeadm's documents merged, findings and differences."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import yaml
from ansible.errors import AnsibleFilterError

# The pure functions live beside this folder and use the package `tandem`; both are found from the project's root.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from plugins.module_utils import (
    tandem_certificates,
    tandem_differences,
    tandem_findings,
    tandem_kubeadm,
    tandem_plan_report,
    tandem_replacing,
    tandem_restores,
    tandem_stale,
    tandem_tuning,
    tandem_upgrades,
)

NO_AUTHORITY: Final = "/run/tandem-no-authority"
"""A folder that does not exist."""


def _plain(value: Any) -> Any:
    """A value without Ansible's own (tagged) classes, which YAML cannot write."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    for kind in (str, bool, int, float):
        if isinstance(value, kind):
            return kind(value)
    return value


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with plain data in, and its own errors told as filter errors."""

    def filter_function(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*map(_plain, args), **{key: _plain(value) for key, value in kwargs.items()})
        except ValueError as error:
            raise AnsibleFilterError(str(error)) from error

    filter_function.__doc__ = function.__doc__
    return filter_function


def merged_cluster(text: str, settings: dict[str, Any], components: list[str] | None = None) -> str:
    """The kubeadm-config document with our settings in it, as YAML; the same text when nothing changes."""
    document = yaml.safe_load(text)
    merged = tandem_kubeadm.merge_cluster_configuration(
        document, settings, components or [tandem_tuning.CONTROLLER_MANAGER, tandem_tuning.API_SERVER]
    )
    return text if merged == document else yaml.safe_dump(merged, sort_keys=True)


def merged_kubelet(text: str, settings: dict[str, Any]) -> str:
    """The kubelet-config document with our settings in it, as YAML; the same text when nothing changes."""
    document = yaml.safe_load(text)
    merged = tandem_kubeadm.merge_kubelet_configuration(document, settings)
    return text if merged == document else yaml.safe_dump(merged, sort_keys=True)


def init_documents(base: list[dict[str, Any]], settings: dict[str, Any]) -> str:
    """The documents for `kubeadm init` with the profile's settings in them, so that tuning finds nothing to do."""
    merged = []
    for document in base:
        kind = document["kind"]
        if kind == "ClusterConfiguration":
            merged.append(tandem_kubeadm.merge_cluster_configuration(document, settings))
        elif kind == "KubeletConfiguration":
            merged.append(tandem_kubeadm.merge_kubelet_configuration(document, settings))
        else:
            merged.append(document)
    return yaml.safe_dump_all(merged, sort_keys=True)


def tuning_plan(cluster: dict[str, Any], wanted: dict[str, Any] | str) -> list[str]:
    """In which order the live cluster takes settings, or those of a profile by its name."""
    settings = tandem_tuning.settings(wanted) if isinstance(wanted, str) else wanted
    return tandem_tuning.plan(*tandem_tuning.both_ends(cluster, settings))


def pods_of_claims(pods: list[dict[str, Any]], claims: list[dict[str, str]]) -> list[str]:
    """Names of pods that have not ended and mount one of the claims ({namespace, name})."""
    wanted = {(claim["namespace"], claim["name"]) for claim in claims}
    return [
        f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        for pod in pods
        if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")
        and any(
            (pod["metadata"]["namespace"], volume.get("persistentVolumeClaim", {}).get("claimName")) in wanted
            for volume in pod["spec"].get("volumes") or []
        )
    ]


def kubelet_findings(text: str, settings: dict[str, Any]) -> list[str]:
    """Why kubelet would not start with the settings in the kubelet-config document, as sentences."""
    return tandem_kubeadm.check_kubelet_configuration(yaml.safe_load(text) or {}, settings)


def shutdown_seconds(text: str, settings: dict[str, Any]) -> int:
    """How long a node's shutdown waits for its pods with the settings in the kubelet-config document (or in none)."""
    document = tandem_kubeadm.merge_kubelet_configuration(yaml.safe_load(text) or {}, settings)
    return tandem_kubeadm.shutdown_seconds(document)


def kubelet_documents(cluster: dict[str, Any], settings: dict[str, Any] | None = None) -> str:
    """The cluster's two documents for kubelet's file, as they are, or with our settings in them."""
    kubelet = yaml.safe_load(cluster["kubelet_config"])
    if settings is not None:
        kubelet = tandem_kubeadm.merge_kubelet_configuration(kubelet, settings)
    # On a worker kubeadm would miss the keys of the authority that it finds there, so it is shown none. What it would
    # take for kubelet's own setting from that folder is said here.
    kubeadm = tandem_kubeadm.converted(yaml.safe_load(cluster["kubeadm_config"]))
    authority = {"clientCAFile": f"{kubeadm.get('certificatesDir') or '/etc/kubernetes/pki'}/ca.crt"}
    authentication = kubelet.get("authentication") or {}
    x509 = authority | (authentication.get("x509") or {})
    kubelet = kubelet | {"authentication": authentication | {"x509": x509}}
    return yaml.safe_dump_all([kubeadm | {"certificatesDir": NO_AUTHORITY}, kubelet])


def kubelet_losses(shown: dict[str, str], settings: dict[str, Any]) -> list[str]:
    """Values of kubelet's file that kubeadm would not write again, as sentences (see `tandem_render`)."""
    before, after, written = (yaml.safe_load(shown[name]) or {} for name in ("before", "after", "written"))
    return tandem_differences.kubelet_losses(before, after, written, settings)


def kubeadm_findings(text: str) -> list[str]:
    """What forbids merging into the kubeadm-config document, as sentences."""
    return tandem_kubeadm.check_cluster_configuration(yaml.safe_load(text) or {})


def kubeconfig_for(text: str, server: str, cluster: str) -> str:
    """An admin.conf for the control node: another way to the API server, its certificate checked for the old name."""
    document = yaml.safe_load(text)
    for entry in document["clusters"]:
        entry["name"] = cluster
        entry["cluster"]["tls-server-name"] = urlsplit(entry["cluster"]["server"]).hostname
        entry["cluster"]["server"] = server
    for entry in document["users"]:
        entry["name"] = f"{cluster}-admin"
    document["contexts"] = [{"name": cluster, "context": {"cluster": cluster, "user": f"{cluster}-admin"}}]
    document["current-context"] = cluster
    return yaml.safe_dump(document, sort_keys=True)


def token_kubeconfig(text: str, token: str, user: str) -> str:
    """A kubeconfig's cluster with a service account's token (base64, as a Secret holds it) instead of its user."""
    document = yaml.safe_load(text)
    name = document["clusters"][0]["name"]
    document["users"] = [{"name": user, "user": {"token": base64.b64decode(token).decode()}}]
    document["contexts"] = [{"name": name, "context": {"cluster": name, "user": user}}]
    document["current-context"] = name
    return yaml.safe_dump(document, sort_keys=True)


def join_arguments(command: str) -> dict[str, str]:
    """Endpoint, token and CA hash from `kubeadm token create --print-join-command`."""
    words = command.split()
    return {
        "endpoint": words[words.index("join") + 1],
        "token": words[words.index("--token") + 1],
        "ca_hash": words[words.index("--discovery-token-ca-cert-hash") + 1],
    }


def control_node_path(value: str) -> str:
    """A path on the control node, absolute; empty stays empty.

    Relative ones count from the folder in which the command was given, `~` is its user's home. Left to Ansible, a
    delegated task would look in the playbook's folder, and a lookup in several others.
    """
    return str(Path(value).expanduser().resolve()) if value else ""


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """All filters by name."""
        named: dict[str, Callable[..., Any]] = {
            "tandem_path": control_node_path,
            "tandem_settings": tandem_tuning.settings,
            "tandem_backup_settings": tandem_tuning.backup_settings,
            "tandem_backup_about": tandem_tuning.backup_about,
            "tandem_rollback_choice": tandem_tuning.rollback_choice,
            "tandem_plan_report": tandem_plan_report.report,
            "tandem_plan": tuning_plan,
            "tandem_merged_cluster": merged_cluster,
            "tandem_merged_kubelet": merged_kubelet,
            "tandem_pods_of_claims": pods_of_claims,
            "tandem_kubelet_findings": kubelet_findings,
            "tandem_shutdown_wait": shutdown_seconds,
            "tandem_kubelet_documents": kubelet_documents,
            "tandem_kubelet_losses": kubelet_losses,
            "tandem_backup_refusal": tandem_tuning.refuse_version,
            "tandem_init_documents": init_documents,
            "tandem_kubeadm_findings": kubeadm_findings,
            "tandem_inventory_findings": tandem_findings.inventory_findings,
            "tandem_profile_warnings": tandem_findings.profile_warnings,
            "tandem_machines_findings": tandem_findings.machines_findings,
            "tandem_site_differences": tandem_differences.site_differences,
            "tandem_kubelet_node_differences": tandem_differences.kubelet_node_differences,
            "tandem_cluster_differences": tandem_differences.cluster_differences,
            "tandem_component_differences": lambda node, host, component, wanted: (
                tandem_differences.component_differences(host, node, component, wanted)
            ),
            "tandem_pending_components": tandem_differences.pending_components,
            "tandem_pending_kubelets": tandem_differences.pending_kubelets,
            "tandem_coredns_patch_differences": tandem_differences.coredns_patch_differences,
            "tandem_coredns_differences": tandem_differences.coredns_differences,
            "tandem_document_differences": tandem_differences.document_differences,
            "tandem_sentences": tandem_differences.sentences,
            "tandem_serving": lambda item: f"{item['key']} ({item['value']['pod']}, {item['value']['seconds']} s)",
            "tandem_host_key": tandem_replacing.host_key,
            "tandem_stale_pods": tandem_stale.stale_pods,
            "tandem_stale_sentences": tandem_stale.stale_sentences,
            "tandem_certificate_failures": tandem_certificates.failures,
            "tandem_certificate_warnings": tandem_certificates.warnings,
            "tandem_certificates_due": tandem_certificates.due,
            "tandem_certificates_plan": tandem_certificates.plan_sentences,
            "tandem_kubeconfig": kubeconfig_for,
            "tandem_token_kubeconfig": token_kubeconfig,
            "tandem_join_arguments": join_arguments,
            "tandem_restore_findings": tandem_restores.restore_findings,
            "tandem_restore_bump": tandem_restores.revision_bump,
            "tandem_restore_stage": tandem_restores.restore_stage,
            "tandem_upgrade_findings": tandem_upgrades.upgrade_findings,
            "tandem_upgrade_pending": tandem_upgrades.pending,
            "tandem_upgrade_machines": tandem_upgrades.machines,
            "tandem_upgrade_offered": tandem_upgrades.offered,
        }
        return {name: _guarded(function) for name, function in named.items()}
