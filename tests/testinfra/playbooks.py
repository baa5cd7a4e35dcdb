"""Our playbooks as an operator types them, for tests on machines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
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
        stdin=subprocess.DEVNULL,
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


def _ended_well(argv: list[str], status: int, said: str) -> None:
    """See that a command that ended before it was killed did its work: a refused one would prove nothing."""
    assert status == 0, f"{' '.join(argv)} ended with {status} before it was killed: {said[-3000:]}"


def killed_after(argv: list[str], seconds: float, environment: Mapping[str, str] | None = None) -> bool:
    """Run a command and kill it when it takes longer than that; whether it was.

    Its output goes to a file of its own: ansible-playbook refuses a stream that another program has left non-blocking,
    as an ssh does that is cut off.
    """
    with (
        tempfile.TemporaryFile("w+") as output,
        subprocess.Popen(
            argv, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return True
        output.seek(0)
        _ended_well(argv, status, output.read())
        return False


def killed_at(
    argv: list[str], marker: str, count: int, seconds: float, environment: dict[str, str] | None = None
) -> bool:
    """Run a command and kill it some seconds after it has said something for the so-manieth time; whether it was.

    However slow the machine is, it is killed in the midst of the same task.
    """
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", **(environment or {})}
    with subprocess.Popen(
        argv,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            count -= marker in line
            if count == 0:
                break
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return True
        _ended_well(argv, status, said)
        return False
