"""Two locks: one per lab, for commands that start or end it, and one per machine, for the lab that runs on it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lab.runtime.errors import LabError, RefusedError
from lab.runtime.paths import LabPaths

_WAIT_SECONDS = 10.0
_IDENTITY_SECONDS = 3.0


@contextmanager
def folder_lock(paths: LabPaths, wait_seconds: float = _WAIT_SECONDS) -> Iterator[int]:
    """Hold the lab's lock; yields its descriptor (a supervisor inherits it until its record is written).

    Raises:
        RefusedError: another command holds it for longer than WAIT_SECONDS.
    """
    paths.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_seconds
    while True:
        handle = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # It is removed with the lab, while held: a lock on a removed file is nobody's.
            if paths.lock.exists() and os.fstat(handle).st_ino == paths.lock.stat().st_ino:
                break
        except BlockingIOError:
            pass
        except FileNotFoundError:
            pass
        os.close(handle)
        if time.monotonic() > deadline:
            raise RefusedError(f"another command starts or ends the lab {paths.name!r} right now; try again")
        time.sleep(0.05)
    try:
        yield handle
    finally:
        if not paths.folder.exists():
            with suppress(FileNotFoundError):
                paths.lock.unlink()
        os.close(handle)


def _address(name: str) -> str:
    """Abstract address of the machine-wide lock: it lives as long as a process holds it, and no longer."""
    if os.environ.get("TANDEM_LAB_ALLOW_SECOND") == "1":  # for work on the lab itself; unsupported
        return f"\0tandem-lab/{name}"
    return "\0tandem-lab"


def who_runs(name: str) -> dict[str, Any] | None:
    """What the running lab says of itself: name, folder, pid; None when none runs.

    A lab that is only just starting is waited for, up to 3 s; then its name is unknown.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.settimeout(_IDENTITY_SECONDS)
        try:
            stream.connect(_address(name))
            with stream.makefile("rb") as answer:
                text = answer.read()
        except ConnectionError:
            return None
        except TimeoutError:
            return {"name": "(unknown, still starting)", "folder": "", "pid": 0}
    with suppress(ValueError):
        identity: dict[str, Any] = json.loads(text)
        return identity
    return None


def machine_lock(paths: LabPaths) -> socket.socket:
    """Take the machine for this lab; the socket is the lock, and the supervisor inherits it.

    Raises:
        RefusedError: another lab runs; the text names it.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    deadline = time.monotonic() + _IDENTITY_SECONDS
    while True:
        try:
            sock.bind(_address(paths.name))
        except OSError:
            other = who_runs(paths.name)
            if other is None and time.monotonic() < deadline:
                time.sleep(0.05)  # the other one is just ending
                continue
            sock.close()
            raise RefusedError(_refusal(other, paths)) from None
        sock.listen(64)
        return sock


def _refusal(other: dict[str, Any] | None, paths: LabPaths) -> str:
    if other is None:
        return "another lab runs on this machine and does not say which; only one fits"
    folder = Path(other["folder"])
    if folder == paths.folder:
        return f"the lab {paths.name!r} is starting already; try again in a moment"
    way_out = f"`python -m lab --name {other['name']} down` ends it"
    if folder.parent != paths.root:
        way_out += f" (with TANDEM_LAB_STATE={folder.parent})"
    return f"the lab {other['name']!r} runs on this machine, and only one fits; {way_out}"


def loopback_listener(ports: list[int]) -> socket.socket:
    """A listener on the first free one of the host's loopback PORTS.

    Raises:
        LabError: none is free.
    """
    for port in ports:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            sock.close()
            continue
        sock.listen(128)
        return sock
    raise LabError(f"loopback port {ports[0]} is taken by another program, and the lab forwards the API server there")
