"""Our playbooks as an operator types them, for tests on machines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS: Final = 1500


def command(name: str, profile: str, *arguments: str, **variables: Any) -> list[str]:
    """One of our playbooks for a profile."""
    given = json.dumps({"tandem_profile": profile, **variables})
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    return [program, f"playbooks/{name}.yml", "--extra-vars", given, *arguments]


def run(name: str, profile: str, *arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1"}
    return subprocess.run(
        command(name, profile, *arguments, **variables),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


def told(done: subprocess.CompletedProcess[str]) -> str:
    """What it said, in one line."""
    return " ".join((done.stdout + done.stderr).split())


def outcome(name: str, profile: str, *arguments: str, **variables: Any) -> tuple[int, str]:
    """Run it to its end: its exit status, and what it said in one line."""
    done = run(name, profile, *arguments, **variables)
    return done.returncode, told(done)
