"""Which labels a LabelSelector of the API selects. Modules and filters share it; `tandem.checklist` has its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether a selector selects these labels. None selects nothing, an empty one everything (policy/v1)."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_holds(each, labels) for each in selector.get("matchExpressions") or [])


def _holds(requirement: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether one requirement holds; an operator that is not known holds, so that a budget is rather kept."""
    key, operator, values = requirement["key"], requirement["operator"], requirement.get("values") or []
    if operator == "In":
        return labels.get(key) in values
    if operator == "NotIn":
        return labels.get(key) not in values
    if operator == "DoesNotExist":
        return key not in labels
    return key in labels or operator != "Exists"
