"""The availability checklist as admission policies: what one object alone shows, the API server refuses by itself.

`manifests` turns the table of `tandem.checklist` into ValidatingAdmissionPolicies and their bindings. A namespace takes
part when it carries the label `tandem-ha.io/admission`: with `warn` everything is let through with a warning and a note
in the audit log, with `deny` the rules of level `error` refuse and the rest warns. The cluster's own namespaces never
take part. Judged are objects with the label `tandem-ha.io/workload`, as everywhere in the checklist.

An update of an object that broke a rule before is let through unless it breaks the rule more (`Rule.measure`): else
nobody could mend one thing at a time, nor the cluster's own controllers write into such an object.

The scale subresource shows neither labels nor template. Its rule knows Deployments by name, from the ConfigMap
`tandem-admission` of their namespace; of one that is not listed there only the audit sees what scaling did.

Pure: table in, objects out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Literal

from tandem import labels as names
from tandem._checklist.cel import quoted
from tandem.checklist import RULES, Environment, Rule, cel_validation, cel_variables
from tandem.recovery import RecoveryProfile

Object = dict[str, Any]
Mode = Literal["warn", "deny"]
Bound = Literal["alone", "spare"]

MODES: Final[tuple[Mode, ...]] = ("warn", "deny")
API_VERSION: Final = "admissionregistration.k8s.io/v1"
EXEMPT_NAMESPACES: Final = ("kube-system", "kube-public", "kube-node-lease")
"""The cluster's own. A policy that kept the cluster's parts from coming back would make an outage longer."""

SERVED: Final[Mapping[str, tuple[str, str, str]]] = MappingProxyType(
    {
        "Deployment": ("apps", "v1", "deployments"),
        "StatefulSet": ("apps", "v1", "statefulsets"),
        "DaemonSet": ("apps", "v1", "daemonsets"),
        "PodDisruptionBudget": ("policy", "v1", "poddisruptionbudgets"),
        "HorizontalPodAutoscaler": ("autoscaling", "v2", "horizontalpodautoscalers"),
        "Service": ("", "v1", "services"),
    }
)
"""API group, version and plural of the kinds that rules with an expression judge."""

_SCALED: Final = "int(object.spec.?replicas.orValue(0))"
_BEFORE: Final = "int(oldObject.spec.?replicas.orValue(0))"
_SCALE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "replicas-need-election": f"variables.bound != 'alone' || {_SCALED} <= 1 || {_SCALED} <= {_BEFORE}",
        "replicas": f"variables.bound != 'spare' || {_SCALED} != 1 || {_BEFORE} == 1",
    }
)
"""What the scale subresource of a Deployment in the ConfigMap can break, by rule."""


def manifests(environment: Environment, profile: RecoveryProfile) -> tuple[Object, ...]:
    """All policies and bindings, to be applied once a cluster.

    Args:
        environment: whose levels apply: `error` refuses, `warning` warns, `off` is left out.
        profile: that the cluster was tuned with; the tolerations' rule carries its numbers.

    Returns:
        Policies, each followed by its bindings.
    """
    made: list[Object] = []
    # The answer to a refused request is that of the first rule broken: the gravest first.
    graver_first = sorted(RULES, key=lambda each: each.levels["dev"] != "error")
    for kind in SERVED:
        for level in ("error", "warning"):
            rules = [x for x in graver_first if x.cel and kind in x.kinds and x.levels[environment] == level]
            if rules:
                made += _with_bindings(_policy(kind, level, rules, profile), refuses=level == "error")
    for level in ("error", "warning"):
        rules = [each for each in RULES if each.id in _SCALE and each.levels[environment] == level]
        if rules:
            made += _with_bindings(_scale_policy(level, rules), refuses=level == "error", parameter=True)
    return tuple(made)


def protected(namespace: str, bounds: Mapping[str, Bound]) -> Object:
    """The ConfigMap by which the scale rule knows a namespace's Deployments.

    Args:
        namespace: of the Deployments.
        bounds: name to `alone` (one replica at most: nothing elects among more) or `spare` (two or more, or none).
    """
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": names.PROTECTED_CONFIG_MAP, "namespace": namespace},
        "data": dict(sorted(bounds.items())),
    }


def message(rule: Rule) -> str:
    """What a refusal says: the rule, why it is one on two workers, and the line that mends it."""
    return f"{rule.id}: {rule.title}. Why on two workers: {rule.why}. Way out: {rule.fix}"


def expression(rule: Rule, profile: RecoveryProfile) -> str:
    """The rule's expression for creations and updates: good, or not worse than it was.

    Raises:
        ValueError: the rule has no expression.
    """
    good = cel_validation(rule, profile)
    was_labelled = f"oldObject.metadata.?labels[?{quoted(names.WORKLOAD)}].hasValue()"
    not_worse = f" && ({rule.measure}) <= ({_of_old(rule.measure)})" if rule.measure else ""
    lenient = f"request.operation == 'UPDATE' && {was_labelled} && !({_of_old(good)}){not_worse}"
    return f"{good} || ({lenient})"


def _policy(kind: str, level: str, rules: Sequence[Rule], profile: RecoveryProfile) -> Object:
    used = cel_variables(" ".join(f"{cel_validation(each, profile)} {each.measure or ''}" for each in rules))
    variables = {**used, **{f"old_{key}": _of_old(value) for key, value in used.items()}}
    variables |= {_variable(each): expression(each, profile) for each in rules}
    variables["broken"] = " + ".join(f"(variables.{_variable(each)} ? [] : [{quoted(each.id)}])" for each in rules)
    group, version, plural = SERVED[kind]
    return _object(
        f"{kind.lower()}-{level}s",
        group,
        version,
        plural,
        operations=["CREATE", "UPDATE"],
        spec={
            "matchConditions": [
                {"name": "labelled", "expression": f"object.metadata.?labels[?{quoted(names.WORKLOAD)}].hasValue()"}
            ],
            "variables": [{"name": key, "expression": value} for key, value in variables.items()],
            "validations": [
                {
                    "expression": f"variables.{_variable(each)}",
                    "message": message(each),
                    "messageExpression": _with_the_others(each),
                    "reason": "Forbidden",
                }
                for each in rules
            ],
        },
    )


def _scale_policy(level: str, rules: Sequence[Rule]) -> Object:
    return _object(
        f"deployment-scale-{level}s",
        "apps",
        "v1",
        "deployments/scale",
        operations=["UPDATE"],
        spec={
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "variables": [
                {"name": "bound", "expression": "params.?data[?object.metadata.name].orValue('')"},
            ],
            "validations": [
                {"expression": _SCALE[each.id], "message": message(each), "reason": "Forbidden"} for each in rules
            ],
        },
    )


def _object(name: str, group: str, version: str, plural: str, *, operations: list[str], spec: Object) -> Object:
    judged = {"apiGroups": [group], "apiVersions": [version], "resources": [plural], "operations": operations}
    return {
        "apiVersion": API_VERSION,
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": f"{name}.{names.LABEL_PREFIX}"},
        "spec": {"failurePolicy": "Fail", "matchConstraints": {"resourceRules": [judged]}, **spec},
    }


def _with_bindings(policy: Object, *, refuses: bool, parameter: bool = False) -> Iterator[Object]:
    yield policy
    name: str = policy["metadata"]["name"]
    told = ["Warn", "Audit"]
    by_mode = {"warn": told, "deny": ["Deny"]} if refuses else {"told": told}
    for mode, actions in by_mode.items():
        wanted = list(MODES) if mode == "told" else [mode]
        spec: Object = {
            "policyName": name,
            "validationActions": actions,
            "matchResources": {
                "namespaceSelector": {
                    "matchExpressions": [
                        {"key": names.ADMISSION, "operator": "In", "values": wanted},
                        {
                            "key": "kubernetes.io/metadata.name",
                            "operator": "NotIn",
                            "values": list(EXEMPT_NAMESPACES),
                        },
                    ]
                }
            },
        }
        if parameter:
            # Of the namespace of the object that is judged; without one nothing is protected there.
            spec["paramRef"] = {"name": names.PROTECTED_CONFIG_MAP, "parameterNotFoundAction": "Allow"}
        yield {
            "apiVersion": API_VERSION,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": f"{mode}.{name}"},
            "spec": spec,
        }


def _with_the_others(rule: Rule) -> str:
    """The message, and, where it refuses, the other rules broken: the API server answers with the first one only."""
    refused = f"namespaceObject.metadata.labels[{quoted(names.ADMISSION)}] == 'deny'"
    others = f"variables.broken.filter(r, r != {quoted(rule.id)}).join(', ')"
    more = f"{refused} && variables.broken.size() > 1 ? '. Broken as well: ' + {others} : ''"
    return f"{quoted(message(rule))} + ({more})"


def _variable(rule: Rule) -> str:
    return "holds_" + rule.id.replace("-", "_")


def _of_old(text: str) -> str:
    """The same expression on the object as it was before the update."""
    renamed = re.sub(r"\bvariables\.(\w+)", r"variables.old_\1", text)
    return re.sub(r"\bobject\b", "oldObject", renamed)
