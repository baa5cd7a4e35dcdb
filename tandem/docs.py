"""Pages of the documentation that are made from the code, so that they cannot say anything else."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Final

from tandem import checklist, labels, recovery
from tandem.recovery import PROFILES, STAGES, Behaviour, Knob, RecoveryProfile

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
        *_table(["setting", *(f"`{p.name}`" for p in profiles)], (_setting(k, profiles) for k in recovery.KNOBS)),
        *_table_rows([_derived(profiles), _price(profiles)]),
        "",
        "A dash leaves the program's default. The API server's default tolerations reach new pods only, so the",
        "workloads carry the profile's own. **R** is the longest heartbeat, the shorter of the Lease's renewal and the",
        "status report: with a look and a report every 5 s, kubelet may let 10.4 s pass between two reports, for it",
        "puts one off by up to half the report frequency after a change and at its start. **P** is the monitor period,",
        "**G** the grace period. The last row is a profile's price: a stall of the API that is longer can mark every",
        "live node lost at once, and all Services go empty.",
        "",
        "### What each setting does, and its default",
        "",
        *_table(["setting", "of", "default 1.34 / 1.35 / 1.36", "range", "does", "source"], map(_knob, recovery.KNOBS)),
        "",
        "## Predicted windows",
        "",
        "Seconds after a worker's power loss, as `tandem predict` prints them; `tandem predict --from-cluster` reads a",
        "running cluster's own settings. Ready=Unknown falls into [G - R, G + 2P]: the last heartbeat is up to R",
        "old, a tick of the monitor sees it up to P late, and the first tick after the grace acts up to P late. What",
        "is added for the API, the container's start and kube-proxy was measured in the lab, whose machines are slow.",
        "",
        *_table(["stage", "reckoned as", "why"], _formulas()),
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


def checklist_page() -> str:
    """The page on the availability checklist: every rule with its levels, and the labels and annotations it reads."""
    environments = checklist.ENVIRONMENTS
    rules = checklist.RULES
    shown = [
        [
            f"`{rule.id}`",
            _cell(rule.title),
            _cell(rule.why),
            f"`{_cell(rule.fix)}`" if ":" in rule.fix else _cell(rule.fix),
            *(rule.levels[environment] for environment in environments),
            "yes" if rule.cel else "-",
        ]
        for rule in rules
    ]
    lines = [
        "# The availability checklist",
        "",
        f"{len(rules)} rules for two workers, one table (`tandem/checklist.py`). The components build nothing that",
        "breaks them; `tandem audit` and the auditor controller report what does. An object with the label",
        f"`{labels.WORKLOAD}` (`{'`, `'.join(labels.WORKLOAD_KINDS)}`) says what it is and is judged at the level of",
        "its environment. Of others the kind is guessed: such a finding is marked `inferred` and is a warning at most.",
        f"`{labels.EXEMPT_PREFIX}RULE: reason` (three words or more) lets an object through one rule; the finding",
        "stays listed, with its reason. *CEL*: one object alone shows it, so an admission policy can refuse it too;",
        "judge and expression are held to the same manifests.",
        "",
        *_table(
            ["rule", "what must hold", "why it hurts on two workers", "what mends it", *environments, "CEL"], shown
        ),
        "",
        "## What an object says about itself",
        "",
        *_table(["label or annotation", "meaning"], _STATED),
    ]
    return "\n".join(lines) + "\n"


_STATED: Final = (
    (f"label `{labels.WORKLOAD}`", "what it is: `spread`, `single-writer`, `node-agent` or `controller`"),
    (f"`{labels.LEASE}`", "a controller that is elected: its Lease, several with commas"),
    (f"`{labels.LEASE_SECONDS}`", "lease duration, renew deadline and retry period, as `15/10/2`"),
    (f"`{labels.DRAIN_SECONDS}`", "what it needs between SIGTERM and its exit"),
    (f"`{labels.SHARD_OF}`, `{labels.SCOPE}`", "a shard: of which controller; `namespaces=a,b` or `labels=K=V`"),
    (f"`{labels.FIELD_MANAGER}`", "the field manager of its writes"),
    (f"`{labels.CONFORMANCE}`", "the image that was run, then what was shown: `IMAGE idempotent shutdown lost-lead`"),
    (f"`{labels.WHEN_UNREACHABLE}`", "a single writer: `hold` or `replace`"),
    (f"`{labels.REBALANCED_BY}`", "who brings crowded replicas apart after a node's return"),
    (f"`{labels.AUTOSCALED}`", "the bounds of its autoscaler, as `2-6`; `spec.replicas` is then left out"),
    (f"`{labels.STATEFUL_SET_REASON}`", "why it must be a StatefulSet"),
    (f"label `{labels.SHARED_STORAGE}` on a StorageClass", "its volumes are reached from both workers"),
)  # fmt: skip


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _setting(knob: Knob, profiles: Sequence[RecoveryProfile]) -> list[str]:
    letter = {"node_monitor_period_seconds": "**P** ", "node_monitor_grace_period_seconds": "**G** "}
    return [
        f"{letter.get(knob.field, '')}`{knob.setting}`",
        *(_value(getattr(profile, knob.field), knob.unit) for profile in profiles),
    ]


def _value(value: object, unit: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else f"{value:g} {unit}".strip()


def _derived(profiles: Sequence[RecoveryProfile]) -> list[str]:
    return [
        "**R** longest heartbeat, from the first three",
        *(f"{profile.longest_heartbeat_seconds:g} s" for profile in profiles),
    ]


def _price(profiles: Sequence[RecoveryProfile]) -> list[str]:
    stalls = [recovery.tolerated_stall_seconds(profile) for profile in profiles]
    return [
        "**API stall that is survived**",
        *("any" if stall == float("inf") else f"{stall:.1f} s" for stall in stalls),
    ]


def _knob(knob: Knob) -> list[str]:
    defaults = [_value(knob.defaults[minor], knob.unit) for minor in recovery.MINORS]
    allowed = "-" if isinstance(knob.defaults[recovery.MINORS[0]], bool) else f"{knob.low:g} to {knob.high:g}"
    default = defaults[0] if len(set(defaults)) == 1 else " / ".join(defaults)
    return [f"`{knob.setting}`", ", ".join(knob.program), default, allowed, knob.meaning, knob.source]


def _formulas() -> Iterable[list[str]]:
    return ([f"`{stage}`", formula.text, formula.source] for stage, formula in recovery.FORMULAS.items())


def _table_rows(rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in rows]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return lines + _table_rows(rows)


def main() -> None:
    """Print the page."""
    sys.stdout.write(profiles_page())


if __name__ == "__main__":
    main()
