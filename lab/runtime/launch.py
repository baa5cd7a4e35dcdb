"""The start of a lab: checks, one supervisor, machines side by side, and SSH on each of them."""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import lab
from lab.runtime import control, ssh
from lab.runtime.errors import LabError, NotRunningError
from lab.runtime.lock import folder_lock, loopback_listener, machine_lock
from lab.runtime.paths import LabPaths
from lab.runtime.plan import NODES, SSH_PORT, Node, forward_ports
from lab.runtime.state import LabState, Spec
from lab.runtime.uml import check_path

#: Called with machine, phase (`booting`, `ssh`, `ready`, `failed`) and seconds since the start.
Report = Callable[[str, str, float], None]

_TOOLS = {
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "mount": "mount",
    "ip": "iproute2",
    "nft": "nftables",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "docker-registry": "docker-registry",
}
_SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_READY_SECONDS = 20.0
_SSH_SECONDS = 90.0
_POLL_SECONDS = 0.1
_TAIL_LINES = 15


class Bootable(Protocol):
    """What `up` needs of the built artifacts."""

    @property
    def kernel(self) -> Path:
        """The User Mode Linux binary."""

    @property
    def base_image(self) -> Path:
        """The root image."""

    @property
    def apt_root(self) -> Path | None:
        """The static tree of the apt repository."""

    @property
    def registry_root(self) -> Path | None:
        """The image registry's storage."""


@dataclass
class UpReport:
    """What `up` did.

    Attributes:
        already: the supervisor ran before.
        started: machines that were off.
        seconds: from the call to the last login.
        ready: machine -> seconds from the call to its login.
        failed: machine -> why, with the tail of its console.
    """

    already: bool = False
    started: list[str] = field(default_factory=list)
    seconds: float = 0.0
    ready: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def preflight() -> None:
    """Refuse a host that cannot run the lab, naming everything that is missing at once.

    Raises:
        LabError: see the text.
    """
    problems: list[str] = []
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        problems.append(f"the lab runs on x86-64 Linux; this is {platform.system()} on {platform.machine()}")
    missing = sorted({package for tool, package in _TOOLS.items() if shutil.which(tool, path=_SEARCH) is None})
    if missing:
        problems.append(f"Debian packages are missing: `apt-get install {' '.join(missing)}`")
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        problems.append("/dev/net/tun cannot be opened: run as root, or as a user who may read and write it")
    if problems:
        raise LabError("; ".join(problems))


def check_memory(nodes: Iterable[Node], meminfo: str) -> None:
    """Refuse a host that has too little memory free for NODES.

    Guests take memory as they first touch it: an idle four-machine cluster was measured to use 3.5 GiB of its 7.5, so
    half of the nominal size is the least that makes sense.

    Args:
        nodes: machines to be started.
        meminfo: text of /proc/meminfo.

    Raises:
        LabError: less than half is free.
    """
    nominal = sum(node.memory_mib for node in nodes)
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", meminfo, re.MULTILINE)
    available = int(found[1]) // 1024 if found else nominal
    if available < nominal // 2:
        raise LabError(
            f"the machines have {nominal} MiB of memory together and need about half of it at once; "
            f"this host has {available} MiB available"
        )


def up(paths: LabPaths, nodes: Sequence[Node], artifacts: Callable[[], Bootable], report: Report) -> UpReport:
    """Have the lab running with (at least) NODES on and SSH open; harmless when all of that is so.

    Args:
        paths: whose.
        nodes: machines wanted.
        artifacts: gives the built artifacts, or raises NotBuiltError; not called when the lab runs.
        report: told of progress, from several threads.

    Raises:
        LabError: and its kinds; a machine without SSH is in the report instead.
    """
    began = time.monotonic()
    result = UpReport()
    preflight()
    with folder_lock(paths) as lock:
        state = _read_state(paths)
        if state is not None and state.supervisor.alive():
            result.already = True
        else:
            check_memory(nodes, Path("/proc/meminfo").read_text())
            _start_supervisor(paths, nodes, artifacts(), state, lock)
    try:
        known = list(control.ask(paths, {"op": "status"})["machines"])
        ssh.prepare(paths, [n for n in NODES.values() if n.name in known or n in nodes])
        result.started = control.ask(paths, {"op": "ensure", "nodes": [node.name for node in nodes]})["started"]
        frozen = [n for n, m in control.ask(paths, {"op": "status"})["machines"].items() if m["state"] == "frozen"]
    except NotRunningError as error:
        names = ", ".join(node.name for node in nodes)
        raise LabError(f"{names} did not stay up: {error}\n{_tail(paths.supervisor_log)}") from error

    def wait(node: Node) -> None:
        if node.name in frozen:
            result.failed[node.name] = f"{node.name} is frozen; `python -m lab thaw {node.name}` continues it"
            return
        try:
            wait_for_ssh(paths, node, lambda phase: report(node.name, phase, time.monotonic() - began))
            result.ready[node.name] = time.monotonic() - began
        except LabError as error:
            result.failed[node.name] = str(error)
            report(node.name, "failed", time.monotonic() - began)

    with ThreadPoolExecutor(max_workers=len(nodes)) as pool:
        list(pool.map(wait, nodes))
    result.seconds = time.monotonic() - began
    return result


def _read_state(paths: LabPaths) -> LabState | None:
    try:
        return LabState.read(paths.state)
    except LabError:
        return None


def _start_supervisor(
    paths: LabPaths, nodes: Iterable[Node], artifacts: Bootable, stale: LabState | None, folder_lock_fd: int
) -> None:
    """One new supervisor; disks that an unclean end left are booted again, as after a loss of power."""
    if stale is not None and stale.base_image != artifacts.base_image and any(paths.disks.glob("*.cow")):
        raise LabError(
            f"the disks of the lab {paths.name!r} were made from another root image ({stale.base_image.parent.name}); "
            "`python -m lab down` discards them"
        )
    check_path(paths.disks)
    with machine_lock(paths) as machine, loopback_listener(forward_ports(paths.name)) as api:
        for folder in (paths.folder, paths.disks, paths.consoles):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        ssh.end_shared(paths)
        spec = Spec(
            name=paths.name,
            instance=uuid.uuid4().hex,
            folder=paths.folder,
            kernel=artifacts.kernel,
            base_image=artifacts.base_image,
            authorized_key=ssh.prepare(paths, nodes),
            apt_root=artifacts.apt_root,
            registry_root=artifacts.registry_root,
            api_port=api.getsockname()[1],
            python=ssh.interpreter(),
            rootless=os.geteuid() != 0,
        )
        paths.spec.write_text(spec.model_dump_json(indent=2) + "\n")
        _launch(paths, spec, folder_lock_fd, machine, api)


def _launch(paths: LabPaths, spec: Spec, folder_lock_fd: int, machine: socket.socket, api: socket.socket) -> None:
    reading, writing = os.pipe()
    handed = {
        "--lock-fd": machine.fileno(),
        "--folder-lock-fd": folder_lock_fd,
        "--api-fd": api.fileno(),
        "--ready-fd": writing,
    }
    # --kill-child: should `unshare` itself die, PID 1 dies with it, and everything with PID 1.
    argv = ["unshare", "--fork", "--kill-child", "--pid", "--net", "--mount", "--uts"]
    if spec.rootless:
        argv += ["--user", "--map-root-user"]
    argv += [sys.executable, "-P", "-m", "lab.runtime.supervisor", str(paths.spec)]
    for option, descriptor in handed.items():
        argv += [option, str(descriptor)]
    checkout = str(Path(lab.__file__).resolve().parent.parent)
    environment = {
        "PATH": _SEARCH,
        "HOME": str(paths.folder),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [checkout, os.environ.get("PYTHONPATH")])),
    }
    with paths.supervisor_log.open("ab") as log:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=paths.folder,
            env=environment,
            pass_fds=tuple(handed.values()),
            start_new_session=True,
        )
    os.close(writing)
    threading.Thread(target=process.wait, daemon=True).start()  # no zombie, should this program outlive the lab
    with os.fdopen(reading, "rb") as pipe:
        said = _read_line(pipe.fileno(), _READY_SECONDS)
    if said != "ready":
        process.kill()
        tail = said or _tail(paths.supervisor_log)
        raise LabError(f"the lab's supervisor did not start: {tail}")


def _read_line(descriptor: int, timeout_seconds: float) -> str:
    """What arrives on DESCRIPTOR until its end, a newline or the time is up."""
    text = b""
    os.set_blocking(descriptor, False)
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline and not text.endswith(b"\n"):
        try:
            chunk = os.read(descriptor, 4096)
        except BlockingIOError:
            time.sleep(0.01)
            continue
        if not chunk:
            break
        text += chunk
    return text.decode(errors="replace").strip()


def _tail(path: Path, lines: int = _TAIL_LINES) -> str:
    with suppress(OSError):
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    return "(no log)"


def wait_for_ssh(
    paths: LabPaths, node: Node, report: Callable[[str], None], timeout_seconds: float = _SSH_SECONDS
) -> None:
    """Wait until NODE lets root log in.

    Raises:
        LabError: it ended, or did not in TIMEOUT_SECONDS; the text holds the tail of its console.
    """
    deadline = time.monotonic() + timeout_seconds
    report("booting")
    while True:
        try:
            if _banner(paths, node):
                break
        except NotRunningError as error:
            raise LabError(_with_console(paths, node, f"{node.name} did not stay up: {error}")) from error
        except LabError:
            pass
        if time.monotonic() > deadline:
            raise LabError(_with_console(paths, node, f"{node.name} offers no SSH after {timeout_seconds:g} s"))
        time.sleep(_POLL_SECONDS)
    report("ssh")
    while True:
        try:
            ssh.first_contact(paths, node.name)
        except LabError as error:
            if time.monotonic() > deadline or "Host key verification failed" in str(error):
                raise LabError(_with_console(paths, node, str(error))) from error
            time.sleep(_POLL_SECONDS)
        else:
            break
    report("ready")


def _banner(paths: LabPaths, node: Node) -> bool:
    """Whether an SSH server answers on NODE."""
    request = {"op": "connect", "node": node.name, "port": SSH_PORT, "timeout": 2.0}
    return control.ask(paths, request, timeout_seconds=5.0).get("connected") is True


def _with_console(paths: LabPaths, node: Node, text: str) -> str:
    console = paths.console(node.name)
    return f"{text}\nthe end of its console ({console}):\n{_tail(console)}"
