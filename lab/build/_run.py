"""Running the programs of a build: output goes to a log, a failure shows the log's end, and nothing outlives us."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.build._errors import BuildError

_TAIL_LINES = 25
_DIE_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
"""A build that is itself killed must not leave a compiler running."""


class Runner:
    """Runs commands for one build and writes what they say to its log."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self.log = log

    def __call__(
        self,
        *argv: str | Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
        unset: Sequence[str] = (),
    ) -> None:
        """Run to the end.

        Args:
            argv: The program and its arguments.
            cwd: Where it runs.
            env: Variables added to our own environment.
            stdin: Text for its standard input.
            unset: Variables of ours that it must not see.

        Raises:
            BuildError: It could not be started or returned other than 0; carries the last lines of the log.
        """
        self._run(argv, cwd=cwd, env=env, stdin=stdin, unset=unset, capture=False)

    def output(
        self,
        *argv: str | Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        errors_too: bool = False,
    ) -> str:
        """Run to the end and return what it printed, with `errors_too` also on standard error; errors as for a call."""
        return self._run(argv, cwd=cwd, env=env, stdin=None, unset=(), capture=True, errors_too=errors_too)

    def note(self, text: str) -> None:
        """Write a line of our own to the log."""
        with self.log.open("a") as log:
            log.write(f"# {text}\n")

    def _run(
        self,
        argv: Sequence[str | Path],
        *,
        cwd: Path | None,
        env: Mapping[str, str] | None,
        stdin: str | None,
        unset: Sequence[str],
        capture: bool,
        errors_too: bool = False,
    ) -> str:
        words = [str(word) for word in argv]
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", **(env or {})}
        for name in unset:
            environment.pop(name, None)
        with self.log.open("a") as log:
            log.write(f"$ {shlex.join(words)}\n")
            log.flush()
            try:
                process = subprocess.Popen(
                    [*_DIE_WITH_US, *words],
                    cwd=cwd,
                    env=environment,
                    text=True,
                    start_new_session=True,
                    stderr=subprocess.STDOUT if errors_too else log,
                    stdout=subprocess.PIPE if capture else log,
                    stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                )
            except OSError as error:
                raise BuildError(f"{self.name}: cannot run {words[0]}: {error}") from error
            try:
                printed, _ = process.communicate(stdin)
            except BaseException:
                _end_group(process)
                raise
        if process.returncode != 0:
            raise BuildError(
                f"{self.name}: {shlex.join(words)[:200]} ended with {process.returncode}; "
                f"log: {self.log}\n{self._tail()}"
            )
        return printed or ""

    def _tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(f"    {line[:240]}" for line in lines[-_TAIL_LINES:])


def _end_group(process: subprocess.Popen[str]) -> None:
    """End the command and its children (it leads a session of its own), first politely."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, signal_number)
        except ProcessLookupError:
            return
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            continue
        return
