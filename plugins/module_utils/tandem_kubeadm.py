"""kubeadm's documents with Tandem's settings merged in: named flags replaced, everything of the operator's kept.

Pure functions over parsed YAML; the filters in `plugins/filter/tandem.py` offer them to the roles.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

KUBEADM_API: Final = "kubeadm.k8s.io/v1beta4"

LIST_FLAGS: Final[Mapping[str, tuple[str, ...]]] = {
    "enable-admission-plugins": ("NodeRestriction",),
    "disable-admission-plugins": (),
}
"""Flags whose value is a list, with what kubeadm puts there by itself: an extraArgs entry *replaces* kubeadm's default
(ArgumentsToCommand, cmd/kubeadm/app/util/arguments.go), so writing one without it would drop NodeRestriction."""

REQUIRED_ADMISSION_PLUGINS: Final = ("NodeRestriction", "DefaultTolerationSeconds")

DEAD_FLAGS: Final[Mapping[str, str]] = {
    "pod-eviction-timeout": (
        "gone since Kubernetes 1.27; use default-not-ready-toleration-seconds and "
        "default-unreachable-toleration-seconds of kube-apiserver (a recovery profile sets both)"
    ),
}


class MergeError(ValueError):
    """A document that cannot be merged safely; the message says where, what, why, and what to do."""


def flags(component: Mapping[str, Any], where: str) -> dict[str, str]:
    """The `extraArgs` of one component as a dict.

    Raises:
        MergeError: the arguments are in v1beta3's form (a map), or one flag is given twice.
    """
    arguments = component.get("extraArgs") or []
    if isinstance(arguments, Mapping):
        raise MergeError(
            f"{where}.extraArgs is a map, the form of kubeadm v1beta3; rule: {KUBEADM_API} lists {{name, value}}; "
            "way out: `kubeadm config migrate`, or any `kubeadm upgrade apply` of 1.31 or later, rewrites the document"
        )
    found: dict[str, str] = {}
    for argument in arguments:
        name, value = str(argument["name"]), str(argument.get("value", ""))
        if name in found:
            raise MergeError(
                f"{where}.extraArgs has {name} twice ({found[name]!r} and {value!r}); rule: one entry a flag; "
                "way out: remove one of them from the kubeadm-config ConfigMap"
            )
        found[name] = value
    return found


def environment(component: Mapping[str, Any], where: str) -> dict[str, dict[str, Any]]:
    """The `extraEnvs` of one component by name, each entry whole (it may hold a `valueFrom`).

    Raises:
        MergeError: one name is given twice.
    """
    found: dict[str, dict[str, Any]] = {}
    for entry in component.get("extraEnvs") or []:
        if entry["name"] in found:
            raise MergeError(
                f"{where}.extraEnvs has {entry['name']} twice; rule: one entry a name; way out: remove one"
            )
        found[entry["name"]] = dict(entry)
    return found


def union(*values: str) -> str:
    """Comma-separated lists joined as one, each item once, in order of first appearance."""
    return ",".join(dict.fromkeys(item for value in values for item in value.split(",") if item))


def merge_component(
    component: Mapping[str, Any] | None,
    where: str,
    *,
    args: Mapping[str, str] | None = None,
    owned_args: Iterable[str] = (),
    env: Mapping[str, str] | None = None,
    owned_env: Iterable[str] = (),
) -> dict[str, Any]:
    """One component of a ClusterConfiguration with our flags and variables in it.

    Names we own and no longer want disappear; the operator's others keep their values and their order. A list-valued
    flag becomes the union of what was there, what we want and what kubeadm puts there by itself.
    """
    merged = copy.deepcopy(dict(component or {}))
    present = flags(merged, where)
    wanted = dict(args or {})
    result = {name: value for name, value in present.items() if name not in set(owned_args) - set(wanted)}
    for name, value in wanted.items():
        result[name] = union(result.get(name, ""), str(value)) if name in LIST_FLAGS else str(value)
    for name, default in LIST_FLAGS.items():
        if name in result and default:
            result[name] = union(*default, result[name])
    _set(merged, "extraArgs", [{"name": name, "value": value} for name, value in result.items()])

    entries = environment(merged, where)
    wanted_env = dict(env or {})
    kept = {name: entry for name, entry in entries.items() if name not in set(owned_env) - set(wanted_env)}
    kept.update({name: {"name": name, "value": str(value)} for name, value in wanted_env.items()})
    _set(merged, "extraEnvs", list(kept.values()))
    return merged


def check_cluster_configuration(document: Mapping[str, Any]) -> list[str]:
    """What forbids merging into this ClusterConfiguration, as sentences; empty when nothing does."""
    problems = []
    if document.get("apiVersion") != KUBEADM_API:
        problems.append(
            f"ConfigMap kube-system/kubeadm-config: apiVersion is {document.get('apiVersion')!r}; rule: only "
            f"{KUBEADM_API} is merged; way out: `kubeadm config migrate`, or `kubeadm upgrade apply` of 1.31 or later"
        )
        return problems
    for component in ("apiServer", "controllerManager", "scheduler"):
        where = f"kubeadm-config {component}"
        try:
            present = flags(document.get(component) or {}, where)
            environment(document.get(component) or {}, where)
        except MergeError as error:
            problems.append(str(error))
            continue
        problems += [
            f"{where}: flag {name}={present[name]!r}; rule: the flag must not be set; way out: {DEAD_FLAGS[name]}"
            for name in DEAD_FLAGS
            if name in present
        ]
    problems += _disabled_plugins(document)
    return problems


def merge_cluster_configuration(
    document: Mapping[str, Any],
    wanted: Mapping[str, Any],
    components: Sequence[str] = ("controllerManager", "apiServer"),
) -> dict[str, Any]:
    """A ClusterConfiguration with the settings of `wanted` (see `tandem_settings`) in the named components.

    Raises:
        MergeError: the document cannot be merged safely.
    """
    if problems := check_cluster_configuration(document):
        raise MergeError("; ".join(problems))
    merged = copy.deepcopy(dict(document))
    owned = wanted["owned"]
    if "apiServer" in components:
        merged["apiServer"] = merge_component(
            merged.get("apiServer"),
            "kubeadm-config apiServer",
            args=wanted["api_server_args"],
            owned_args=owned["api_server_args"],
        )
    if "controllerManager" in components:
        merged["controllerManager"] = merge_component(
            merged.get("controllerManager"),
            "kubeadm-config controllerManager",
            args=wanted["controller_manager_args"],
            owned_args=owned["controller_manager_args"],
            env=wanted["controller_manager_env"],
            owned_env=owned["controller_manager_env"],
        )
    # A component that was not there and needs nothing stays away: an untouched document must stay untouched.
    return {key: value for key, value in merged.items() if value or key in document}


def merge_kubelet_configuration(document: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """A KubeletConfiguration with our fields replaced by name; owned fields we do not want are removed.

    A field that holds the zero that kubeadm writes for "default" is left alone when we want no value either, so that
    going back to the defaults does not rewrite an untouched document.
    """
    fields, owned = wanted["kubelet_configuration"], wanted["owned"]["kubelet_configuration"]
    merged = copy.deepcopy(dict(document))
    for name in owned:
        if name in fields:
            merged[name] = fields[name]
        elif not is_zero(merged.get(name)):
            merged.pop(name, None)
    return merged


def is_zero(value: Any) -> bool:
    """Whether a configuration value means "use the default": absent, 0, or a zero duration."""
    return value in (None, 0, "0", "0s", "")


def _disabled_plugins(document: Mapping[str, Any]) -> list[str]:
    try:
        present = flags(document.get("apiServer") or {}, "kubeadm-config apiServer")
    except MergeError:
        return []
    disabled = present.get("disable-admission-plugins", "").split(",")
    return [
        f"kubeadm-config apiServer: disable-admission-plugins holds {plugin}; rule: {plugin} must stay on; "
        "way out: take it off that list"
        for plugin in REQUIRED_ADMISSION_PLUGINS
        if plugin in disabled
    ]


def _set(component: dict[str, Any], key: str, value: list[dict[str, Any]]) -> None:
    """Write a list, or drop the key when it is empty: kubeadm leaves empty lists out."""
    if value:
        component[key] = value
    else:
        component.pop(key, None)
