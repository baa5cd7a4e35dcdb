"""Steps of a long job: run each as its own command, time it, and say what happened.

`make demo`, `make bench` and the tests drive the project through the very commands that a user types. This module
runs one such command, keeps its output in a log, and reports how long it took.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TAIL_LINES = 30


class StepFailedError(RuntimeError):
    """A step ended with a non-zero exit status; the message says which, where its log is, and its last lines."""


@dataclass(frozen=True)
class Step:
    """One finished step: its name, the command line, and how long it took in seconds."""

    name: str
    command: str
    seconds: float


@dataclass
class Story:
    """Runs steps in order and remembers them.

    Attributes:
        logs: the folder that takes one log a step.
        quiet: keep the output in the log alone; otherwise it is shown as well.
    """

    logs: Path
    quiet: bool = False
    steps: list[Step] = field(default_factory=list)

    def run(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        accept: Sequence[int] = (0,),
    ) -> str:
        """Run one command from the project's root and return its output (stdout and stderr, in order).

        Args:
            name: a short name; also the log's file name.
            argv: the command.
            env: variables added to the environment.
            accept: exit statuses that count as success.

        Raises:
            StepFailedError: the command ended with another status.
        """
        self.logs.mkdir(parents=True, exist_ok=True)
        log_path = self.logs / f"{len(self.steps) + 1:02d}-{name}.log"
        command = shlex.join(argv)
        if not self.quiet:
            print(f"\n==> {name}: {command}", flush=True)  # noqa: T201
        started = time.monotonic()
        with log_path.open("w+", encoding="utf-8") as log:
            process = subprocess.Popen(
                list(argv),
                cwd=ROOT,
                env=project_environment(env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
            assert process.stdout is not None  # noqa: S101  # a pipe was asked for
            try:
                for line in process.stdout:
                    log.write(line)
                    log.flush()
                    if not self.quiet:
                        sys.stdout.write(line)
                        sys.stdout.flush()
            except BaseException:
                # Interrupted (Ctrl-C, a test's time-out): the step must not go on behind our back.
                process.terminate()
                process.wait()
                raise
            status = process.wait()
            seconds = time.monotonic() - started
            log.seek(0)
            output = log.read()
        if status not in accept:
            tail = "\n".join(output.splitlines()[-TAIL_LINES:])
            raise StepFailedError(
                f"{name} failed with exit status {status} after {seconds:.0f} s: {command}\n"
                f"Its whole output is in {log_path}; the last lines are:\n{tail}"
            )
        self.steps.append(Step(name, command, round(seconds, 1)))
        if not self.quiet:
            print(f"    {name}: {seconds:.1f} s", flush=True)  # noqa: T201
        return output

    def save(self, path: Path) -> None:
        """Write the steps and their times as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([step.__dict__ for step in self.steps], indent=2) + "\n", encoding="utf-8")


def project_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a step: the interpreter's own bin folder first on PATH, so that its tools are found."""
    env = dict(os.environ)
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', '')}"
    env["PYTHONUNBUFFERED"] = "1"
    env.update(extra or {})
    return env


def python_module(module: str, *args: str) -> list[str]:
    """The command that runs a module of this project with the current interpreter."""
    return [sys.executable, "-m", module, *args]
