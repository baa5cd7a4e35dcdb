"""kubeadm's documents with Tandem's settings merged in: named flags replaced, everything of the operator's kept.

Pure functions over parsed YAML; the filters in `plugins/filter/tandem.py` offer them to the roles.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from typing import Any, Final

import yaml

from tandem.recovery import seconds

KUBEADM_API: Final = "kubeadm.k8s.io/v1beta4"
OLD_KUBEADM_API: Final = "kubeadm.k8s.io/v1beta3"

COMPONENTS: Final = ("apiServer", "controllerManager", "scheduler")

LIST_FLAGS: Final[Mapping[str, tuple[str, ...]]] = {
    "enable-admission-plugins": ("NodeRestriction",),
    "disable-admission-plugins": (),
    "authorization-mode": ("Node", "RBAC"),
    "controllers": ("*", "bootstrapsigner", "tokencleaner"),
}
"""Flags whose value is a list, with what kubeadm puts there by itself: an extraArgs entry *replaces* kubeadm's default
(ArgumentsToCommand, cmd/kubeadm/app/util/arguments.go), so writing one without it would drop NodeRestriction, lock the
kubelets out (Node), or end the joining of nodes (bootstrapsigner, tokencleaner)."""

_KUBEADM_SETS: Final = """
    advertise-address allow-privileged authorization-mode client-ca-file enable-admission-plugins
    enable-bootstrap-token-auth etcd-cafile etcd-certfile etcd-keyfile etcd-servers kubelet-client-certificate
    kubelet-client-key kubelet-preferred-address-types proxy-client-cert-file proxy-client-key-file
    requestheader-allowed-names requestheader-client-ca-file requestheader-extra-headers-prefix
    requestheader-group-headers requestheader-username-headers secure-port service-account-issuer
    service-account-key-file service-account-signing-key-file service-cluster-ip-range tls-cert-file
    tls-private-key-file
    allocate-node-cidrs authentication-kubeconfig authorization-kubeconfig bind-address cluster-cidr cluster-name
    cluster-signing-cert-file cluster-signing-key-file controllers kubeconfig leader-elect root-ca-file
    service-account-private-key-file use-service-account-credentials
"""
KUBEADM_SETS: Final = frozenset(_KUBEADM_SETS.split())
"""Flags that kubeadm writes by itself (getAPIServerCommand and getControllerManagerCommand,
cmd/kubeadm/app/phases/controlplane/manifests.go): taken out of extraArgs, they come back with kubeadm's value."""

REQUIRED_ADMISSION_PLUGINS: Final = ("NodeRestriction", "DefaultTolerationSeconds")

SHUTDOWN_FIELDS: Final = ("shutdownGracePeriod", "shutdownGracePeriodCriticalPods")
SHUTDOWN_BY_PRIORITY: Final = "shutdownGracePeriodByPodPriority"
"""Graceful shutdown of a node: kubelet takes the two fields or the list, and does not start with both
(ValidateKubeletConfiguration, pkg/kubelet/apis/config/validation/validation.go)."""

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
        MergeError: one flag is given twice.
    """
    arguments = component.get("extraArgs") or []
    if isinstance(arguments, Mapping):
        return {str(name): str(value) for name, value in arguments.items()}  # v1beta3
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


def converted(document: Mapping[str, Any]) -> dict[str, Any]:
    """A ClusterConfiguration of v1beta3 as `kubeadm config migrate` writes it in v1beta4; a v1beta4 one as it is.

    Maps of arguments become lists, sorted by name; the API server's `timeoutForControlPlane` goes (each node's own
    configuration has it now); the algorithm and the validity of certificates, which v1beta3 could not say,
    become kubeadm's defaults (apis/kubeadm/v1beta3/conversion.go of v1.36.3).
    """
    result = copy.deepcopy(dict(document))
    if result.get("apiVersion") != OLD_KUBEADM_API:
        return result
    result["apiVersion"] = KUBEADM_API
    sections = [result.get(component) for component in COMPONENTS] + [(result.get("etcd") or {}).get("local")]
    for section in sections:
        if isinstance(section, dict) and isinstance(section.get("extraArgs"), Mapping):
            arguments = sorted(section["extraArgs"].items())
            section["extraArgs"] = [{"name": name, "value": str(value)} for name, value in arguments]
    if isinstance(result.get("apiServer"), dict):
        result["apiServer"].pop("timeoutForControlPlane", None)
    external = (result.get("etcd") or {}).get("external")
    if isinstance(external, dict):
        external["httpEndpoints"] = external.get("endpoints")
    result.setdefault("encryptionAlgorithm", "RSA-2048")
    result.setdefault("certificateValidityPeriod", "8760h0m0s")
    result.setdefault("caCertificateValidityPeriod", "87600h0m0s")
    result.setdefault("proxy", {})
    return result


def merged_list(present: str, wanted: str = "", default: Sequence[str] = ()) -> str:
    """Comma-separated lists joined as one, each item once.

    What is there keeps its order (modes of authorization are asked in turn), what is wanted follows, and what kubeadm
    puts there by itself stands in front where it is missing. An item with a dash (`-ttl`: a controller that is off)
    takes the place of the one without, and the other way round; kubeadm's own never overrules either.
    """
    asked = [item for item in wanted.split(",") if item]
    kept = [item for item in present.split(",") if item and _opposite(item) not in asked]
    own = list(dict.fromkeys([*kept, *asked]))
    return ",".join([*(item for item in default if item not in own and _opposite(item) not in own), *own])


def _opposite(item: str) -> str:
    return item[1:] if item.startswith("-") else f"-{item}"


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
        result[name] = merged_list(result.get(name, ""), str(value)) if name in LIST_FLAGS else str(value)
    for name, default in LIST_FLAGS.items():
        if name in result and default:
            result[name] = merged_list(result[name], default=default)
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
    if document.get("apiVersion") not in (KUBEADM_API, OLD_KUBEADM_API):
        problems.append(
            f"ConfigMap kube-system/kubeadm-config: apiVersion is {document.get('apiVersion')!r}; rule: {KUBEADM_API}, "
            f"or {OLD_KUBEADM_API}, which is converted; way out: `kubeadm upgrade apply` of 1.31 or later rewrites it"
        )
        return problems
    for component in COMPONENTS:
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

    With `documents` in `wanted` (a backup that is to be restored), the components become the backup's, whole; what is
    not a component's, the version for one, stays. A document of v1beta3 is converted.

    Raises:
        MergeError: the document cannot be merged safely.
    """
    if problems := check_cluster_configuration(document):
        raise MergeError("; ".join(problems))
    base = converted(document)
    merged = copy.deepcopy(base)
    owned = wanted["owned"]
    if "documents" in wanted:
        kept = converted(yaml.safe_load(wanted["documents"]["kubeadm_config"]) or {})
        restored = {component: copy.deepcopy(kept.get(component) or {}) for component in components}
        return {key: value for key, value in {**merged, **restored}.items() if value or key in base}
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
    return {key: value for key, value in merged.items() if value or key in base}


def merge_kubelet_configuration(document: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """A KubeletConfiguration with our fields replaced by name; owned fields we do not want are removed.

    A field that holds a structure is merged, key by key: the others of its keys stay, and null takes one out.

    A field that holds the zero that kubeadm writes for "default" is left alone when we want no value either, so that
    going back to the defaults does not rewrite an untouched document.
    """
    if "documents" in wanted:
        restored: dict[str, Any] = yaml.safe_load(wanted["documents"]["kubelet_config"]) or {}
        return restored
    fields, owned = kubelet_fields(document, wanted), wanted["owned"]["kubelet_configuration"]
    merged = copy.deepcopy(dict(document))
    for name in dict.fromkeys([*owned, *fields]):
        if name in fields:
            merged[name] = _merged_value(merged.get(name), fields[name])
        elif not is_zero(merged.get(name)):
            merged.pop(name, None)
    return merged


def kubelet_fields(document: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a KubeletConfiguration is to have, with `kubelet_defaults` where it says nothing of the kind."""
    fields = dict(wanted["kubelet_configuration"])
    defaults = wanted.get("kubelet_defaults") or {}
    theirs = {
        name: document[name]
        for name in (*SHUTDOWN_FIELDS, SHUTDOWN_BY_PRIORITY)
        if document.get(name) and not is_zero(document[name]) and name not in wanted["owned"]["kubelet_configuration"]
    }
    return {**defaults, **fields} if not theirs or theirs == defaults else fields


def check_kubelet_configuration(document: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Why kubelet would not start with the settings in this KubeletConfiguration, as sentences."""
    merged = merge_kubelet_configuration(document, wanted)
    both = [name for name in SHUTDOWN_FIELDS if not is_zero(merged.get(name))]
    if not (both and merged.get(SHUTDOWN_BY_PRIORITY)):
        return []
    told = (
        f"ConfigMap kube-system/kubelet-config: {SHUTDOWN_BY_PRIORITY} beside {' and '.join(both)}; rule: kubelet "
        "starts with one kind of graceful shutdown; way out: take tandem_shutdown_seconds and "
        f"tandem_shutdown_critical_seconds out, or set {SHUTDOWN_BY_PRIORITY}: null in tandem_kubelet_configuration"
    )
    return [told]


def shutdown_seconds(document: Mapping[str, Any]) -> int:
    """How long a KubeletConfiguration lets a node's shutdown wait for its pods, in whole seconds, rounded up."""
    steps = document.get(SHUTDOWN_BY_PRIORITY)
    if steps:
        return sum(int(step.get("shutdownGracePeriodSeconds") or 0) for step in steps)
    grace = document.get(SHUTDOWN_FIELDS[0])
    return 0 if is_zero(grace) else ceil(seconds(grace))


def _merged_value(present: Any, wanted: Any) -> Any:
    if not isinstance(wanted, Mapping):
        return wanted
    merged = dict(present) if isinstance(present, Mapping) else {}
    for key, value in wanted.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged_value(merged.get(key), value)
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
