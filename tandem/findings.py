"""What every judge of the project says: one type, so that a reader and a program meet one shape everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong (`error`, to be refused) or risky (`warning`), by the rule's name, with a way out."""

    level: Severity
    rule: str
    message: str
    fix: str

    def __str__(self) -> str:
        """The finding as one line for a terminal or a log."""
        return f"{self.rule}: {self.message}. Way out: {self.fix}"
