"""PID 1 of a lab: `python -m lab.runtime.supervisor SPEC --lock-fd N --folder-lock-fd N --api-fd N --ready-fd N`.

`up` starts it inside new PID, network, mount and UTS namespaces. Everything that a lab is (machines, bridge, guest
memory, services) is made in here, so the end of this process, however it comes, is the end of all of it: the kernel
kills what is left in the PID namespace, and then nothing holds the other namespaces.

Three descriptors are inherited: the machine-wide lock (an abstract socket on the host, answered with who we are), the
loopback listener of the API server's forward (accepted on the host, connected in here), and the pipe that tells `up`
that all is ready. A fourth, the lab's folder lock, is let go as soon as state.json is written.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import resource
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab.runtime import control, services
from lab.runtime.errors import LabError
from lab.runtime.faults import Cut, ruleset
from lab.runtime.machine import MEMORY_FOLDER, Machine, install_reboot
from lab.runtime.paths import LabPaths
from lab.runtime.plan import API_PORT, BRIDGE, GATEWAY, NODES, PREFIX_LENGTH, Node
from lab.runtime.plan import node as find_node
from lab.runtime.processes import Children, HostView
from lab.runtime.relay import Stream, forwarder, join
from lab.runtime.state import LabState, Process, Spec

#: Upper bound of all guests' memory files: "at most 12 GiB", and a little for UML's own.
_MEMORY_LIMIT_MIB = 13_312
_SETUP_SECONDS = 15.0


class Supervisor:
    """The lab's machines, cables and services, and what the control socket may ask of them."""

    def __init__(self, spec: Spec, view: HostView, own: Process, launcher: Process | None) -> None:
        self.spec = spec
        self.own = own
        self.launcher = launcher
        self.paths = LabPaths(spec.folder.parent, spec.folder.name)
        self.children = Children()
        self.machines: dict[str, Machine] = {}
        self.cuts: set[Cut] = set()
        self.degraded: dict[str, dict[str, float]] = {}
        self.lines: dict[str, set[asyncio.Task[None]]] = {}
        self.services = services.planned(spec, self.paths.supervisor_log)
        self._view = view
        self._network = asyncio.Lock()

    async def make_namespace(self) -> None:
        """Mounts, bridge and loopback; nothing of it can be seen from the host."""
        run = self.children.run
        await run("mount", "-t", "proc", "-o", "nosuid,nodev,noexec", "proc", "/proc")
        size = f"size={_MEMORY_LIMIT_MIB}M,mode=0700"
        await run("mount", "-t", "tmpfs", "-o", f"nosuid,nodev,{size}", "tandem-lab", MEMORY_FOLDER)
        socket.sethostname("tandem-lab")
        await run("ip", "link", "set", "lo", "up")
        await run("ip", "link", "add", BRIDGE, "type", "bridge")
        await run("ip", "link", "set", BRIDGE, "alias", f"tandem-lab {self.spec.instance}")
        await run("ip", "address", "add", f"{GATEWAY}/{PREFIX_LENGTH}", "dev", BRIDGE)
        await run("ip", "link", "set", BRIDGE, "up")

    async def ensure(self, names: list[str]) -> list[str]:
        """Have the machines NAMES in the lab and switched on; the names of those that were off."""
        nodes = [find_node(name) for name in names]
        async with self._network:
            for node in nodes:
                if node.name not in self.machines:
                    await self._plug_in(node)
                    self.machines[node.name] = Machine(node, self.spec, self.paths, self.children, self._hang_up)
        started = await asyncio.gather(*(self.power_on(node.name) for node in nodes if not self._frozen(node.name)))
        return [name for name, was_off in started if was_off]

    def _frozen(self, name: str) -> bool:
        return self.machines[name].state == "frozen"

    async def _plug_in(self, node: Node) -> None:
        """A port on the bridge for NODE. The guest only opens the tap; its UML process needs no right to make one."""
        run = self.children.run
        await run("ip", "tuntap", "add", "dev", node.tap, "mode", "tap")
        await run("ip", "link", "set", node.tap, "master", BRIDGE, "up")

    def machine(self, name: str) -> Machine:
        """The machine called NAME.

        Raises:
            UnknownNodeError: this lab has none.
        """
        return self.machines[find_node(name, self.machines).name]

    async def power_on(self, name: str) -> tuple[str, bool]:
        """Boot NAME; whether it was off."""
        started = await self.machine(name).power_on()
        if started:
            self.degraded.pop(name, None)
        return name, started

    async def remove(self, name: str) -> float | None:
        """Pull NAME's plug and its cable, and know of it no more; the time right after, None when it was off already.

        Raises:
            LabError: it does not end, or its cable cannot be taken away; repeating this is safe.
        """
        machine = self.machine(name)
        at = await machine.power_off()
        await self.heal(name)
        async with self._network:
            await self.children.run("ip", "link", "delete", "dev", machine.node.tap)
            self.machines.pop(name)
            self.degraded.pop(name, None)
        return at

    async def cut(self, cuts: list[Cut]) -> float:
        """Add CUTS to those in force; the time (seconds since the epoch) right after.

        Raises:
            LabError: nft refused; what was in force still is.
        """
        async with self._network:
            await self._apply(self.cuts | set(cuts))
            return time.time()

    async def heal(self, name: str | None) -> list[Cut]:
        """Take away all cuts, or those that concern NAME; the cuts taken away."""
        async with self._network:
            gone = {cut for cut in self.cuts if name is None or name in (cut.node, cut.peer)}
            if gone:
                await self._apply(self.cuts - gone)
            return sorted(gone, key=str)

    async def _apply(self, cuts: set[Cut]) -> None:
        await self.children.run("nft", "-f", "-", given=ruleset(list(cuts)))
        self.cuts = cuts

    async def carry(self, name: str, one: Stream, other: Stream) -> None:
        """Join two streams until they end, or the machine NAME does.

        A machine without power says no goodbye, but these are the lab's own ways in (SSH): a client that shares
        connections would else wait for a machine of the past.
        """
        line = asyncio.create_task(join(one, other))
        lines = self.lines.setdefault(name, set())
        lines.add(line)
        try:
            await asyncio.wait([line])
        finally:
            lines.discard(line)

    def _hang_up(self, name: str) -> None:
        for line in self.lines.get(name, ()):
            line.cancel()

    def api_servers(self) -> list[tuple[str, int]]:
        """Where the API server's forward leads: the control plane machines that are on, cp1 first."""
        nodes = [m.node for m in self.machines.values() if m.node.role == "control_plane" and m.state != "off"]
        return [(node.address, API_PORT) for node in sorted(nodes, key=lambda n: n.number)]

    def status(self) -> dict[str, Any]:
        """What `status --json` shows of the inside."""
        pids = self._view.pids()
        order = list(NODES)
        return {
            "machines": {
                name: {
                    "state": machine.state,
                    "pid": pids.get(machine.pid) if machine.pid else None,
                    "since": machine.since,
                    "boots": machine.boots,
                    "last_exit": machine.last_exit,
                    "panic": machine.panic,
                    "address": machine.node.address,
                    "role": machine.node.role,
                    "memory_mib": machine.node.memory_mib,
                    "console": str(self.paths.console(name)),
                }
                for name, machine in sorted(self.machines.items(), key=lambda item: order.index(item[0]))
            },
            "cuts": [vars(cut) for cut in sorted(self.cuts, key=str)],
            "degraded": self.degraded,
            "services": {
                s.name: {"pid": pids.get(s.pid) if s.pid else None, "restarts": s.restarts} for s in self.services
            },
        }


def _listen(path: Path) -> socket.socket:
    """A listening unix socket at PATH, mode 0600 from its first moment."""
    path.unlink(missing_ok=True)
    ear = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    folder = os.open(path.parent, os.O_PATH)
    before = os.umask(0o177)
    try:
        ear.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.umask(before)
        os.close(folder)
    ear.listen(128)
    return ear


async def _reap_for_ever(children: Children) -> None:
    while True:
        await asyncio.sleep(0.5)
        await children.reap_orphans()


async def serve(supervisor: Supervisor, lock: socket.socket, api: socket.socket, folder_lock: int, ready: int) -> None:
    """Run until killed."""
    spec = supervisor.spec
    async with asyncio.timeout(_SETUP_SECONDS):  # it holds the folder's lock: never for longer than this
        await supervisor.make_namespace()
        install_reboot(spec, supervisor.paths)
    forward = forwarder(supervisor.api_servers)
    await asyncio.start_server(forward, sock=api)
    await asyncio.start_server(forward, "127.0.0.1", spec.api_port)

    async def tell_who(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(json.dumps({"name": spec.name, "folder": str(spec.folder), "pid": supervisor.own.pid}).encode())
        writer.close()

    await asyncio.start_server(tell_who, sock=lock)
    ear = _listen(supervisor.paths.control_socket)
    await asyncio.start_unix_server(control.Handler(supervisor), sock=ear)
    record = LabState(
        name=spec.name,
        instance=spec.instance,
        supervisor=supervisor.own,
        launcher=supervisor.launcher,
        api_port=spec.api_port,
        rootless=spec.rootless,
        base_image=spec.base_image,
    )
    record.write(supervisor.paths.state)
    fcntl.flock(folder_lock, fcntl.LOCK_UN)  # for all who share the descriptor, `up` and unshare(1) among them
    os.close(folder_lock)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_reap_for_ever(supervisor.children))
        for service in supervisor.services:
            tasks.create_task(service.run(supervisor.children))
        with suppress(BrokenPipeError):  # `up` was killed meanwhile; the next one finds us
            os.write(ready, b"ready\n")
        os.close(ready)


def main(arguments: list[str]) -> int:
    """Set up from SPEC and serve."""
    parser = argparse.ArgumentParser(prog="lab.runtime.supervisor")
    parser.add_argument("spec", type=Path)
    for name in ("lock", "folder-lock", "api", "ready"):
        parser.add_argument(f"--{name}-fd", type=int, required=True)
    options = parser.parse_args(arguments)
    if os.getpid() != 1:
        sys.stderr.write("lab.runtime.supervisor is PID 1 of a lab; `python -m lab up` starts it\n")
        return 2
    descriptors: Mapping[str, int] = vars(options)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    own = Process.of("self")  # while /proc is still the host's
    launcher = own.parent()
    spec = Spec.model_validate_json(options.spec.read_text())
    lock = socket.socket(fileno=descriptors["lock_fd"])
    api = socket.socket(fileno=descriptors["api_fd"])
    ready = descriptors["ready_fd"]
    for inherited in (*(s.fileno() for s in (lock, api)), ready, descriptors["folder_lock_fd"]):
        os.set_inheritable(inherited, False)

    async def run() -> None:
        await serve(Supervisor(spec, HostView(), own, launcher), lock, api, descriptors["folder_lock_fd"], ready)

    try:
        asyncio.run(run())
    except (LabError, OSError) as error:
        os.write(ready, f"{error}\n".encode())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
