"""The controller that is tried: a command, or a container image; any language, any library."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol


class SubjectError(Exception):
    """It cannot be started; says why."""


class Run(Protocol):
    """One run of a subject."""

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""

    def wait(self, seconds: float) -> int | None:
        """Its exit status, or None when it still runs after so long."""

    def end(self) -> None:
        """Make sure that it is gone."""


class Subject(Protocol):
    """What can be started again and again."""

    @property
    def name(self) -> str:
        """For people."""

    def digests(self) -> Mapping[str, str]:
        """What exactly is tried: names and sha256 digests."""

    def start(self, kubeconfig: Path, log: Path) -> Run:
        """Start it with the kubeconfig in its environment.

        Raises:
            SubjectError: it cannot be started.
        """


class Command:
    """A command of this machine.

    Args:
        argv: the command.
        environment: variables on top of ours.
    """

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        self._argv = list(argv)
        self._environment = dict(environment)

    @property
    def name(self) -> str:
        """The command line."""
        return " ".join(self._argv)

    def digests(self) -> Mapping[str, str]:
        """Of every file that the command line names, the program first."""
        found = {}
        for part in (shutil.which(self._argv[0]) or self._argv[0], *self._argv[1:]):
            if (path := Path(part)).is_file():
                found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    def start(self, kubeconfig: Path, log: Path) -> Run:
        """See `Subject`."""
        environment = {**os.environ, **_environment(kubeconfig), **self._environment}
        with log.open("ab") as output:
            try:
                return _Process(subprocess.Popen(self._argv, env=environment, stdout=output, stderr=output))
            except OSError as error:
                raise SubjectError(f"{self.name}: {error}") from error


class Image:
    """A container image, run by podman or docker with this machine's network.

    Args:
        reference: the image.
        environment: variables of the container.
        arguments: of its entry point.

    Raises:
        SubjectError: neither program is here, or there is no such image.
    """

    def __init__(self, reference: str, environment: Mapping[str, str], arguments: Sequence[str] = ()) -> None:
        engine = shutil.which("podman") or shutil.which("docker")
        if engine is None:
            raise SubjectError(f"image {reference}: neither podman nor docker is here; give the command instead")
        self._engine = engine
        self._reference = reference
        self._environment = dict(environment)
        self._arguments = list(arguments)
        self._runs = 0

    @property
    def name(self) -> str:
        """The reference."""
        return self._reference

    def digests(self) -> Mapping[str, str]:
        """The image's digest, by which a cluster can be told to run exactly this one."""
        found = json.loads(self._call("image", "inspect", self._reference))[0]
        digest: str = (found.get("RepoDigests") or [""])[0].partition("@")[2] or found["Id"]
        return {self._reference: digest.removeprefix("sha256:")}

    def start(self, kubeconfig: Path, log: Path) -> Run:
        """See `Subject`."""
        self._runs += 1
        container = f"tandem-conform-{os.getpid()}-{self._runs}"
        # The kubeconfig names files beside it; all of them at the place where they are, and nothing of it writable.
        argv = [self._engine, "run", "--rm", "--name", container, "--network=host", "--read-only", "--tmpfs=/tmp",
                f"--volume={kubeconfig.parent}:{kubeconfig.parent}:ro"]  # fmt: skip
        for name, value in {**_environment(kubeconfig), **self._environment}.items():
            argv.append(f"--env={name}={value}")
        with log.open("ab") as output:
            process = subprocess.Popen([*argv, self._reference, *self._arguments], stdout=output, stderr=output)
        return _Container(self._engine, container, process)

    def _call(self, *arguments: str) -> str:
        done = subprocess.run([self._engine, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SubjectError(f"{self._engine} {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout


def _environment(kubeconfig: Path) -> dict[str, str]:
    return {"KUBECONFIG": str(kubeconfig), "POD_NAME": "conform", "POD_NAMESPACE": "default"}


class _Process:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def wait(self, seconds: float) -> int | None:
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


class _Container(_Process):
    """A container: signals go by way of its engine, for the engine's client does not pass on every one."""

    def __init__(self, engine: str, container: str, process: subprocess.Popen[bytes]) -> None:
        super().__init__(process)
        self._engine = engine
        self._container = container

    def signal(self, number: signal.Signals) -> None:
        argv = [self._engine, "kill", f"--signal={number.name}", self._container]
        subprocess.run(argv, capture_output=True, check=False)

    def end(self) -> None:
        subprocess.run([self._engine, "rm", "--force", self._container], capture_output=True, check=False)
        super().end()
