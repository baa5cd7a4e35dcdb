"""`pulumi preview --policy-pack infra/policy`: refuses what the checklist forbids, at the levels of the stack."""

from __future__ import annotations

import os

from pulumi_policy import EnforcementLevel, PolicyPack

from infra.policy.rules import policies_of

if __name__ == "__main__":
    # The CLI names the stack; without one (a pack that is published) the strictest levels apply.
    PolicyPack(
        "tandem",
        policies=policies_of(os.environ.get("PULUMI_STACK", "prod")),
        enforcement_level=EnforcementLevel.MANDATORY,
    )
