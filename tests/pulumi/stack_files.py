"""Stack files as Pulumi hands them to a program: full key to text, lists and mappings as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
STACKS = tuple(sorted(file.stem.removeprefix("Pulumi.") for file in (ROOT / "stacks").glob("Pulumi.*.yaml")))


def raw_config(stack: str) -> dict[str, str]:
    """The configuration of a committed stack file."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "stacks" / f"Pulumi.{stack}.yaml").read_text())["config"]
    return {key: as_text(value) for key, value in config.items()}


def apps_of(stack: str) -> dict[str, Any]:
    """The apps of a committed stack file, by name."""
    apps: dict[str, Any] = json.loads(raw_config(stack)["tandem:apps"])
    return apps


def as_text(value: Any) -> str:
    """A value as Pulumi's configuration map holds it."""
    if isinstance(value, dict | list | bool):
        return json.dumps(value)
    return str(value)
