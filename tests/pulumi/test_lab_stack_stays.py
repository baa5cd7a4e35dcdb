"""The lab stack registers what it always did: `pulumi up` with a newer program changes nothing on a running lab.

A wanted change is recorded with `python -m tests.pulumi.test_lab_stack_stays`, and seen in the commit's diff.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pulumi

from infra import __main__ as program
from tests.pulumi.registered import register
from tests.pulumi.stack_files import raw_config

RECORD = Path(__file__).parent / "lab_stack.json"


def registered() -> list[dict[str, Any]]:
    """Every resource of the lab stack, with its inputs."""
    pulumi.runtime.set_all_config(raw_config("lab") | {"tandem:cluster_check": "skip"})
    found = register(program.main, "lab").resources
    plain = [{"type": each.type, "name": each.name, "inputs": each.inputs} for each in found]
    return sorted(json.loads(json.dumps(plain)), key=lambda each: (each["type"], each["name"]))


def test_the_lab_stack_is_as_recorded() -> None:
    assert registered() == json.loads(RECORD.read_text())


if __name__ == "__main__":
    RECORD.write_text(json.dumps(registered(), indent=1) + "\n")
