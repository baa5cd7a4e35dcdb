"""Plain `ssh -F ssh_config w1` from the host: configuration, the lab's key, host keys pinned on first contact."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from lab.runtime import connect
from lab.runtime.errors import LabError
from lab.runtime.paths import LabPaths
from lab.runtime.plan import Node
from lab.runtime.state import Process

_PERSIST_SECONDS = 300
_FIRST_CONTACT_SECONDS = 60
_MASTER = re.compile(r"Master running \(pid=(\d+)\)")


def quoted(path: Path) -> str:
    """PATH as a value in ssh's configuration, where blanks split and percent signs are variables."""
    return '"' + str(path).replace("%", "%%") + '"'


def config(paths: LabPaths, nodes: Iterable[Node], python: Path) -> str:
    """The text of ssh_config for NODES.

    The proxy asks the supervisor through the state folder, so it stays right when the lab is started again. Connections
    are shared (ControlMaster); they end with their machine or their lab, and 15 s after a cut or a freeze.
    """
    proxy = shlex.join([str(python), "-I", "-S", str(paths.connector), str(paths.control_socket)]).replace("%", "%%")
    lines = ["# Written by `python -m lab up`, removed by `python -m lab down`."]
    for node in nodes:
        lines += [
            f"Host {node.name} {node.address}",
            f"    HostName {node.address}",
            f"    HostKeyAlias {node.name}",
            f"    ProxyCommand {proxy} {node.name} %p",
            f"    ControlPath {quoted(paths.control_masters / node.name)}",
        ]
    lines += [
        "Host *",
        "    User root",
        f"    IdentityFile {quoted(paths.ssh_key)}",
        "    IdentitiesOnly yes",
        "    IdentityAgent none",
        "    PreferredAuthentications publickey",
        "    BatchMode yes",
        f"    UserKnownHostsFile {quoted(paths.known_hosts)}",
        "    GlobalKnownHostsFile /dev/null",
        "    StrictHostKeyChecking yes",
        "    UpdateHostKeys no",
        "    CheckHostIP no",
        "    ProxyUseFdpass yes",
        "    ControlMaster auto",
        f"    ControlPersist {_PERSIST_SECONDS}",
        "    ServerAliveInterval 5",
        "    ServerAliveCountMax 3",
        "    ConnectTimeout 20",
        "    LogLevel ERROR",
    ]
    return "\n".join(lines) + "\n"


def interpreter() -> Path:
    """The Python below any virtual environment: it outlives the checkout's .venv and starts faster."""
    return Path(sys.executable).resolve()


def prepare(paths: LabPaths, nodes: Iterable[Node]) -> str:
    """Write key, connector and configuration; the line for root's authorized_keys.

    Raises:
        LabError: ssh-keygen failed.
    """
    if not paths.ssh_key.exists():
        comment = f"tandem-lab-{paths.name}"
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(paths.ssh_key)]
        made = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if made.returncode:
            raise LabError(f"ssh-keygen failed: {made.stderr.strip()}")
    shutil.copyfile(str(connect.__file__), paths.connector)
    paths.control_masters.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = paths.ssh_config.with_suffix(".new")
    temporary.write_text(config(paths, nodes, interpreter()))
    temporary.replace(paths.ssh_config)
    paths.known_hosts.touch(mode=0o600)
    return paths.ssh_key.with_suffix(".pub").read_text().strip()


def pinned(paths: LabPaths, name: str) -> bool:
    """Whether NAME's host key is known."""
    try:
        lines = paths.known_hosts.read_text().splitlines()
    except FileNotFoundError:
        return False
    return any(line.split(" ", 1)[0] == name for line in lines)


def forget(paths: LabPaths, name: str) -> None:
    """Drop NAME's host key and shared connection: the next first contact takes what is there then."""
    ear = paths.control_masters / name
    if ear.exists():
        _master(paths, ear, "exit")
    if not pinned(paths, name):
        return
    kept = [line for line in paths.known_hosts.read_text().splitlines() if line.split(" ", 1)[0] != name]
    temporary = paths.known_hosts.with_suffix(".new")
    temporary.touch(mode=0o600)
    temporary.write_text("".join(f"{line}\n" for line in kept))
    temporary.replace(paths.known_hosts)


def first_contact(paths: LabPaths, name: str) -> None:
    """Log in, and pin the host key if this is the first time.

    The machine is told to sync before its key is taken for good: a key that only lay in the guest's memory would be
    another one after a power-off. The wire is the lab's own, so there is nobody to take the key from but the machine.

    Raises:
        LabError: no login; the text is ssh's own.
    """
    argv = ["ssh", "-F", str(paths.ssh_config)]
    if pinned(paths, name):
        _run([*argv, name, "true"], name)
        return
    with tempfile.TemporaryDirectory(dir=paths.folder) as folder:
        fresh = Path(folder) / "known_hosts"
        options = ["-o", "StrictHostKeyChecking=accept-new", "-o", f"UserKnownHostsFile={quoted(fresh)}"]
        _run([*argv, *options, name, "sync"], name)
        with paths.known_hosts.open("a") as file:
            file.write(fresh.read_text())


def _run(argv: list[str], name: str) -> None:
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=_FIRST_CONTACT_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{name}: ssh did not log in within {_FIRST_CONTACT_SECONDS} s") from error
    if done.returncode:
        raise LabError(f"{name}: ssh said: {done.stderr.strip()}")


def end_shared(paths: LabPaths) -> list[Process]:
    """Tell all shared connections to end, which is local and does not wait for a dead machine; their processes."""
    ending: list[Process] = []
    if not paths.control_masters.is_dir() or not paths.ssh_config.exists():
        return ending
    for ear in paths.control_masters.iterdir():
        master = _MASTER.search(_master(paths, ear, "check"))
        if master:
            with suppress(ProcessLookupError):
                ending.append(Process.of(int(master[1])))
            _master(paths, ear, "exit")
    return ending


def _master(paths: LabPaths, ear: Path, command: str) -> str:
    """What the shared connection listening at EAR says to COMMAND."""
    argv = [
        "ssh",
        "-F",
        str(paths.ssh_config),
        "-o",
        f"ControlPath={quoted(ear)}",
        "-o",
        "LogLevel=INFO",
        "-O",
        command,
        "none",
    ]
    with suppress(subprocess.TimeoutExpired):
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=5).stderr
    return ""
