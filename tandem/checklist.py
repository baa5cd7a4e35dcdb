"""The availability checklist: one table of rules for two workers, judged over plain objects.

Everything that says whether a workload survives the loss of a worker takes it from here: the components build nothing
that breaks it, the policy pack and the admission policy refuse, `tandem audit` and the auditor controller report.

Pure: objects in, judgements out. An object with the label `tandem-ha.io/workload` says what it is and is judged at the
rule's level; of others the kind is guessed, and such a finding is marked `inferred` and is a warning at most.
The annotation `exempt.tandem-ha.io/RULE: reason` lets an object through a rule; the finding stays listed.

    for found in judge(objects, environment="prod", profile=recovery.profile("balanced")):
        print(found.subject, found)
"""

from __future__ import annotations

from tandem._checklist.cel import VARIABLES as CEL_VARIABLES
from tandem._checklist.cel import validation as cel_validation
from tandem._checklist.cel import variables_of as cel_variables
from tandem._checklist.engine import RULES, counted, judge, rule
from tandem._checklist.facts import Facts, facts_of
from tandem._checklist.model import (
    ENVIRONMENTS,
    Case,
    Environment,
    Judgement,
    Level,
    Rule,
    Subject,
    as_dict,
    environment_of,
)
from tandem._checklist.objects import Object
from tandem._checklist.world import World

__all__ = [
    "CEL_VARIABLES",
    "ENVIRONMENTS",
    "RULES",
    "Case",
    "Environment",
    "Facts",
    "Judgement",
    "Level",
    "Object",
    "Rule",
    "Subject",
    "World",
    "as_dict",
    "cel_validation",
    "cel_variables",
    "counted",
    "environment_of",
    "facts_of",
    "judge",
    "rule",
]
