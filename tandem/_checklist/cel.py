"""The variables of the checklist's CEL expressions, and how an expression becomes an admission policy's validation.

The names are those of a ValidatingAdmissionPolicy's `spec.variables`: each is evaluated only when an expression asks
for it. They mirror `tandem._checklist.objects` and `facts`, with the API server's defaults spelt out, so that they
mean the same for an object that was not defaulted yet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from string import Template
from types import MappingProxyType
from typing import Final

from tandem import labels as names
from tandem._checklist.model import Rule
from tandem._checklist.objects import HOSTNAME, LATEST_IMAGE, PINNED_IMAGE, THREE_WORDS
from tandem.recovery import RecoveryProfile


def quoted(text: str) -> str:
    """A string as a CEL literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def selects(selector: str) -> str:
    """Whether the LabelSelector in the optional field `selector` selects the workload's own pods."""
    mine = "variables.podLabels"
    return (
        f"(has({selector}) && "
        f"{selector}.?matchLabels.orValue({{}}).all(k, k in {mine} && {mine}[k] == {selector}.matchLabels[k]) && "
        f"{selector}.?matchExpressions.orValue([]).all(e, "
        f"e.operator == 'In' ? (e.key in {mine} && {mine}[e.key] in e.values) : "
        f"e.operator == 'NotIn' ? !(e.key in {mine} && {mine}[e.key] in e.values) : "
        f"(e.key in {mine}) == (e.operator == 'Exists')))"
    )


def _annotation(key: str) -> str:
    return f"variables.annotations[?{quoted(key)}].orValue('')"


def _share(value: str, *, up: bool) -> str:
    number = f"int(string({value}).replace('%', ''))"
    rounded = f"({number} * variables.count + {99 if up else 0}) / 100"
    return f"(string({value}).endsWith('%') ? {rounded} : {number})"


_ROLLING: Final = "object.spec.?strategy.?rollingUpdate"
_AUTOSCALED: Final = _annotation(names.AUTOSCALED)
_DRAIN: Final = _annotation(names.DRAIN_SECONDS)

VARIABLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "annotations": "object.metadata.?annotations.orValue({})",
        "workload": f"object.metadata.?labels[?{quoted(names.WORKLOAD)}].orValue('')",
        "pod": "object.spec.template.spec",
        "podLabels": "object.spec.template.?metadata.?labels.orValue({})",
        "containers": "variables.pod.containers",
        "count": "int(object.spec.?replicas.orValue(1))",
        "replicas": (f"{_AUTOSCALED}.matches('^[0-9]+(-|$)') ? int({_AUTOSCALED}.split('-')[0]) : variables.count"),
        "elected": f"{quoted(names.LEASE)} in variables.annotations",
        "recreate": "object.spec.?strategy.?type.orValue('RollingUpdate') == 'Recreate'",
        "spare": "variables.replicas >= 2 && variables.workload in ['spread', 'controller']",
        "grace": "int(variables.pod.?terminationGracePeriodSeconds.orValue(30))",
        "drain": f"{_DRAIN}.matches('^[0-9]+$') ? int({_DRAIN}) : 0",
        "hard": (
            "variables.pod.?topologySpreadConstraints.orValue([]).filter(c, "
            f"c.topologyKey == '{HOSTNAME}' && c.whenUnsatisfiable == 'DoNotSchedule' && c.maxSkew == 1 && "
            f"{selects('c.labelSelector')})"
        ),
        "apart": (
            "variables.pod.?affinity.?podAntiAffinity.?requiredDuringSchedulingIgnoredDuringExecution.orValue([])"
            f".filter(t, t.topologyKey == '{HOSTNAME}' && {selects('t.labelSelector')})"
        ),
        "nodeTerms": (
            "variables.pod.?affinity.?nodeAffinity.?requiredDuringSchedulingIgnoredDuringExecution.?nodeSelectorTerms"
            ".orValue([])"
        ),
        "hostPorts": (
            "variables.containers.exists(c, c.?ports.orValue([]).exists(p, "
            "variables.pod.?hostNetwork.orValue(false) || int(p.?hostPort.orValue(0)) > 0))"
        ),
        "away": _share(f"{_ROLLING}.?maxUnavailable.orValue('25%')", up=False),
        "surge": _share(f"{_ROLLING}.?maxSurge.orValue('25%')", up=True),
        "unavailable": "variables.away == 0 && variables.surge == 0 ? 1 : variables.away",
        "tolerations": ("variables.pod.?tolerations.orValue([]).filter(t, t.?effect.orValue('') in ['', 'NoExecute'])"),
    }
)

PINNED: Final = f"{{image}}.matches({quoted(PINNED_IMAGE)}) && !{{image}}.matches({quoted(LATEST_IMAGE)})"


def variables_of(expression: str) -> dict[str, str]:
    """The variables that an expression uses, and those that they use, in an order in which each knows its own."""
    found: dict[str, str] = {}
    for name in dict.fromkeys(re.findall(r"variables\.(\w+)", expression)):
        found |= variables_of(VARIABLES[name]) | {name: VARIABLES[name]}
    return found


def validation(rule: Rule, profile: RecoveryProfile | None = None) -> str:
    """The rule's expression with its exemption, true for an object that may pass.

    Raises:
        ValueError: the rule has no expression, or needs a profile and none is given.
    """
    if rule.cel is None:
        raise ValueError(f"rule {rule.id} needs more than one object: it has no CEL expression")
    numbers = {}
    if profile is not None:
        numbers["NOT_READY_SECONDS"] = str(profile.not_ready_toleration_seconds)
        numbers["UNREACHABLE_SECONDS"] = str(profile.unreachable_toleration_seconds)
    try:
        # Only our two names: an expression's own `$` (the end in a pattern) stays.
        text = _Numbers(rule.cel).substitute(numbers)
    except KeyError as missing:
        raise ValueError(f"rule {rule.id} needs a recovery profile for {missing}") from None
    exempt = f"{_annotation(names.EXEMPT_PREFIX + rule.id)}.matches({quoted(THREE_WORDS)})"
    return f"{exempt} || ({text})"


class _Numbers(Template):
    pattern = (
        r"\$(?:(?P<named>NOT_READY_SECONDS|UNREACHABLE_SECONDS)|(?P<escaped>(?!))|(?P<braced>(?!))|(?P<invalid>(?!)))"  # type: ignore[assignment]
    )
