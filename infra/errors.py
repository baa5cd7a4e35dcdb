"""The two ways in which a stack is refused, each saying what is wrong with which value and what to do about it."""

from __future__ import annotations

import pulumi


class ArgsError(ValueError):
    """An argument of a component breaks a rule.

    Args:
        field: the argument's name.
        value: what it was given.
        rule: what must hold, and why.
        way_out: what to write instead.
    """

    def __init__(self, field: str, value: object, rule: str, way_out: str) -> None:
        super().__init__(f"{field} = {value!r}: {rule}. Way out: {way_out}")
        self.field = field
        self.value = value
        self.rule = rule
        self.way_out = way_out


class SettingsError(pulumi.RunError):
    """A stack's settings are refused; Pulumi prints the message and no traceback. Nothing was registered."""
