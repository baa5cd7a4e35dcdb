"""The controller that is tried: a command, or a container image; any language, any library."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, Final, Protocol, TypeGuard

_MOUNTED: Final = PurePosixPath("/tandem-conform")
"""Where a container finds its kubeconfig."""


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
    """A container image, with this machine's network: run by podman, docker, or buildah, which needs no daemon.

    podman and docker give it a read-only root. With buildah (a chroot) the root is a copy that is thrown away, and the
    program is not process 1: a signal that it does not handle ends it, which in a pod it would not.

    Args:
        reference: the image.
        environment: variables of the container.
        arguments: in place of the image's own; of its entry point.

    Raises:
        SubjectError: none of the programs is here.
    """

    def __init__(self, reference: str, environment: Mapping[str, str], arguments: Sequence[str] = ()) -> None:
        engine = next(filter(_answers, map(shutil.which, ("podman", "docker", "buildah"))), None)
        if engine is None:
            raise SubjectError(
                f"image {reference}: neither podman nor docker (with its daemon) nor buildah is here; "
                "give the command instead"
            )
        self._engine = engine
        self._reference = reference
        self._environment = dict(environment)
        self._arguments = list(arguments)
        self._runs = 0
        # Kubeconfigs for the container, whose user is seldom ours. They are of an API server that lives for minutes.
        self._given = tempfile.TemporaryDirectory(prefix="tandem-conform-image-")
        Path(self._given.name).chmod(0o755)

    @property
    def name(self) -> str:
        """The reference."""
        return self._reference

    def digests(self) -> Mapping[str, str]:
        """The image's digest, by which a cluster can be told to run exactly this one."""
        if Path(self._engine).name == "buildah":
            digest: str = self._inspected()["FromImageDigest"]
        else:
            found = json.loads(_call(self._engine, "image", "inspect", self._reference))[0]
            digest = (found.get("RepoDigests") or [""])[0].partition("@")[2] or found["Id"]
        return {self._reference: digest.removeprefix("sha256:")}

    def start(self, kubeconfig: Path, log: Path) -> Run:
        """See `Subject`."""
        self._runs += 1
        container = f"tandem-conform-{os.getpid()}-{self._runs}"
        given = Path(self._given.name) / "kubeconfig"
        given.write_text(json.dumps(self_contained(json.loads(kubeconfig.read_text(encoding="utf-8")))))
        given.chmod(0o644)
        options = ["--network=host", f"--volume={given.parent}:{_MOUNTED}:ro"]
        for name, value in {**_environment(_MOUNTED / given.name), **self._environment}.items():
            options.append(f"--env={name}={value}")
        if Path(self._engine).name == "buildah":
            config = self._inspected()["OCIv1"]["config"]
            argv = [*(config.get("Entrypoint") or ()), *(self._arguments or config.get("Cmd") or ())]
            _call(self._engine, "from", "--name", container, self._reference)
            return _Chroot(self._engine, container, ["--isolation=chroot", *options, container, "--", *argv], log)
        options += ["--rm", "--name", container, "--read-only", "--tmpfs=/tmp"]
        return _Container(self._engine, container, [*options, self._reference, *self._arguments], log)

    def _inspected(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(_call(self._engine, "inspect", "--type", "image", self._reference))
        return found


def _answers(engine: str | None) -> TypeGuard[str]:
    """Whether it is here and can work: docker's client is often there without its daemon."""
    return engine is not None and subprocess.run([engine, "version"], capture_output=True, check=False).returncode == 0


def self_contained(kubeconfig: Mapping[str, Any]) -> dict[str, Any]:
    """A kubeconfig with the content of the files that it names, in place of their names."""
    made: dict[str, Any] = copy.deepcopy(dict(kubeconfig))
    for section in [entry["cluster"] for entry in made["clusters"]] + [entry["user"] for entry in made["users"]]:
        for name in ("certificate-authority", "client-certificate", "client-key"):
            if name in section:
                section[f"{name}-data"] = base64.b64encode(Path(section.pop(name)).read_bytes()).decode()
    return made


def _call(engine: str, *arguments: str) -> str:
    done = subprocess.run([engine, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SubjectError(f"{engine} {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def _environment(kubeconfig: PurePath) -> dict[str, str]:
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

    def __init__(self, engine: str, container: str, arguments: Sequence[str], log: Path) -> None:
        with log.open("ab") as output:
            super().__init__(subprocess.Popen([engine, "run", *arguments], stdout=output, stderr=output))
        self._engine = engine
        self._container = container

    def signal(self, number: signal.Signals) -> None:
        argv = [self._engine, "kill", f"--signal={number.name}", self._container]
        subprocess.run(argv, capture_output=True, check=False)

    def end(self) -> None:
        subprocess.run([self._engine, "rm", "--force", self._container], capture_output=True, check=False)
        super().end()


class _Chroot(_Container):
    """buildah's: the program is a process of this machine, a child of the one that entered the chroot."""

    def signal(self, number: signal.Signals) -> None:
        deadline = time.monotonic() + 10  # it may not have entered yet
        while (program := self._program()) is None and self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if program is not None:
            with suppress(ProcessLookupError):
                os.kill(program, number)

    def end(self) -> None:
        program = self._program()
        if program is not None:
            with suppress(ProcessLookupError):
                os.kill(program, signal.SIGKILL)
            self.wait(10)  # buildah then unmounts what it has mounted
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        subprocess.run([self._engine, "rm", self._container], capture_output=True, check=False)

    def _program(self) -> int | None:
        waiting = [(self._process.pid, False)]
        while waiting:
            parent, inside = waiting.pop()
            for child in _children(parent):
                if inside:
                    return child
                waiting.append((child, _command(child).startswith(b"buildah-chroot-exec")))
        return None


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found.extend(map(int, task.read_text().split()))
    return found


def _command(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
