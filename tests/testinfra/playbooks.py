"""Our playbooks as an operator types them, for tests on machines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
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


def killed_after(argv: list[str], seconds: float, environment: Mapping[str, str] | None = None) -> bool:
    """Run a command and kill it when it takes longer than that; whether it was."""
    with subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return True
        return False


def killed_at(
    argv: list[str], marker: str, count: int, seconds: float, environment: dict[str, str] | None = None
) -> bool:
    """Run a command and kill it some seconds after it has said something for the so-manieth time; whether it was.

    However slow the machine is, it is killed in the midst of the same task.
    """
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", **(environment or {})}
    with subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            count -= marker in line
            if count == 0:
                break
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return True
        return False
