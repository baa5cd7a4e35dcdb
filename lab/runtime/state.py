"""What a lab leaves on disk about itself, and how to tell a live supervisor from a stale record.

A process id alone proves nothing: ids are used again, and after a reboot all of them are. The record therefore holds
the start time (in clock ticks since boot, /proc/PID/stat field 22) and the kernel's boot id as well.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from lab.runtime.errors import LabError

_PARENT_FIELD = 4 - 3
_START_TIME_FIELD = 22 - 3  # fields after the ')' that ends the command name; proc(5) counts from 1


class Process(BaseModel):
    """A process that is this one and no later bearer of its number."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pid: int
    start_time: int
    boot_id: str

    @classmethod
    def of(cls, pid: int | str = "self") -> Process:
        """The record of a process that runs now, as the /proc at hand sees it.

        Raises:
            ProcessLookupError: there is no such process.
        """
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError) as error:
            raise ProcessLookupError(f"no process {pid}") from error
        fields = stat.rpartition(")")[2].split()
        number = int(stat.split(" ", 1)[0])
        return cls(pid=number, start_time=int(fields[_START_TIME_FIELD]), boot_id=boot_id())

    def parent(self) -> Process | None:
        """Its parent, as the /proc at hand sees it; None when that is not to be seen."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
            return Process.of(int(fields[_PARENT_FIELD]))
        except (ProcessLookupError, FileNotFoundError):
            return None

    def alive(self) -> bool:
        """Whether exactly this process still runs (a zombie does not)."""
        try:
            now = Process.of(self.pid)
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (ProcessLookupError, FileNotFoundError):
            return False
        return now == self and state not in {"Z", "X"}

    def exists(self) -> bool:
        """Whether the kernel still holds this process, be it as a zombie.

        PID 1 of a namespace counts as a zombie while its last thread still ends the namespace's other processes, so
        only this tells when they are gone.
        """
        try:
            return Process.of(self.pid) == self
        except ProcessLookupError:
            return False

    def kill(self) -> bool:
        """SIGKILL to exactly this process; False when it is gone already.

        The pidfd is opened first and the identity checked after, so no later bearer of the number can be hit.
        """
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if not self.alive():
                return False
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        return True


def boot_id() -> str:
    """The kernel's id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class LabState(BaseModel):
    """Record of a running supervisor, written by it.

    Attributes:
        name: the lab's name.
        instance: unique per start; also the alias of the bridge, by which a network namespace is recognised.
        supervisor: PID 1 of the lab, as the host sees it.
        launcher: unshare(1), which made the namespaces and waits for the supervisor's end.
        api_port: loopback port of the API server's forward.
        rootless: made inside a user namespace.
        base_image: the root image below the machines' copy-on-write files.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    instance: str
    supervisor: Process
    launcher: Process | None = None
    api_port: int
    rootless: bool
    base_image: Path

    def write(self, path: Path) -> None:
        """Write atomically: a reader sees the old record or this one, never half of it."""
        temporary = path.with_suffix(".new")
        temporary.write_text(self.model_dump_json(indent=2) + "\n")
        temporary.replace(path)

    @classmethod
    def read(cls, path: Path) -> LabState | None:
        """The record at PATH; None when there is none.

        Raises:
            LabError: the file is damaged (nothing is guessed from it: no process is touched).
        """
        try:
            text = path.read_text()
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            problems = error.error_count()
            raise LabError(f"{path} is damaged ({problems} problems); `python -m lab down` clears it") from error


class Spec(BaseModel):
    """What a supervisor is asked to run: written by `up`, read by PID 1.

    Attributes:
        name: the lab's name.
        instance: unique per start.
        folder: the lab's state folder.
        kernel: the User Mode Linux binary.
        base_image: the root image, opened read-only.
        authorized_key: the line for root's authorized_keys.
        apt_root: tree for the HTTP server; None starts none.
        registry_root: docker-registry's storage; None starts none.
        api_port: loopback port of the API server's forward.
        python: interpreter for the supervisor's own helpers.
        rootless: made inside a user namespace.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    instance: str
    folder: Path
    kernel: Path
    base_image: Path
    authorized_key: str
    apt_root: Path | None
    registry_root: Path | None
    api_port: int
    python: Path
    rootless: bool
