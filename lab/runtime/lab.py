"""The lab as an object: what the command line, the drill's driver and tests use."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from lab.runtime import control, faults, launch, ssh, teardown
from lab.runtime.errors import LabError, NotBuiltError, NotRunningError, UsageError
from lab.runtime.faults import Cut
from lab.runtime.lock import folder_lock
from lab.runtime.paths import LabPaths
from lab.runtime.plan import APT_PORT, GATEWAY, HOST, REGISTRY_PORT, Node, chosen, lab_name
from lab.runtime.plan import node as find_node
from lab.runtime.state import LabState

_GUEST_SECONDS = 60


class MachineStatus(BaseModel):
    """One machine as it is now.

    Attributes:
        state: `running`, `frozen` or `off`.
        pid: leader of its processes, as the host sees it; None when off.
        since: when it came into `running` or `off`, in seconds since the epoch.
        boots: how often it was switched on since `up`.
        last_exit: how its kernel ended last; -9 is a pulled plug, 0 a poweroff from inside.
        panic: what its kernel said when it ended by a panic; empty otherwise.
        address: IPv4 address.
        role: control_plane, worker or nfs_server.
        memory_mib: size of its memory in MiB.
        console: its console log.
    """

    model_config = ConfigDict(frozen=True)

    state: str
    pid: int | None
    since: float
    boots: int
    last_exit: int | None
    panic: str = ""
    address: str
    role: str
    memory_mib: int
    console: Path


class LabStatus(BaseModel):
    """The whole lab as it is now; the fields of `status --json`.

    Attributes:
        name: the lab's name.
        running: whether its supervisor lives. All that follows is empty or None when it does not.
        state_folder: where it keeps its files.
        supervisor: process id of PID 1 of the lab, as the host sees it.
        network_namespace: path that `nsenter --net=` takes.
        api_server: URL that leads to the API server, from the host and inside the lab's network.
        ssh_config: for `ssh -F`.
        apt: base URL of the package repository, in the lab's network.
        registry: address of the image registry, in the lab's network.
        machines: name -> machine.
        cuts: cables that are cut.
        degraded: machine -> what was asked for.
        services: name -> pid and restarts.
        rootless: made inside a user namespace.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    running: bool
    state_folder: Path
    supervisor: int | None = None
    network_namespace: str | None = None
    api_server: str | None = None
    ssh_config: Path | None = None
    apt: str | None = None
    registry: str | None = None
    machines: dict[str, MachineStatus] = {}
    cuts: list[dict[str, Any]] = []
    degraded: dict[str, dict[str, float]] = {}
    services: dict[str, dict[str, int | None]] = {}
    rootless: bool = False


class Lab:
    """The lab called `name` (default: TANDEM_LAB_NAME, else `default`). Holds no connection; safe to keep."""

    def __init__(self, name: str | None = None) -> None:
        self.name = lab_name(name)
        self.paths = LabPaths.of(self.name)

    # --- life

    def up(
        self,
        extra: Iterable[str] = (),
        only: Iterable[str] = (),
        report: launch.Report = lambda _node, _phase, _seconds: None,
        artifacts: launch.Bootable | None = None,
    ) -> launch.UpReport:
        """Start it, or what of it is missing. See lab.runtime.launch.up.

        Args:
            extra: machines beside the standard four.
            only: exactly these machines.
            report: told of progress.
            artifacts: what to boot; the built ones when None.
        """
        return launch.up(self.paths, chosen(extra, only), lambda: artifacts or _built(), report)

    def down(self) -> teardown.DownReport:
        """End it and remove its files. See lab.runtime.teardown.down."""
        return teardown.down(self.paths)

    def status(self) -> LabStatus:
        """What is so now; never raises for a lab that does not run."""
        try:
            state = self._state()
            inside = self._ask("status")
        except NotRunningError:
            return LabStatus(name=self.name, running=False, state_folder=self.paths.folder)
        return LabStatus(
            name=self.name,
            running=True,
            state_folder=self.paths.folder,
            supervisor=state.supervisor.pid,
            network_namespace=f"/proc/{state.supervisor.pid}/ns/net",
            api_server=f"https://127.0.0.1:{state.api_port}",
            ssh_config=self.paths.ssh_config,
            apt=f"http://{GATEWAY}:{APT_PORT}",
            registry=f"{GATEWAY}:{REGISTRY_PORT}",
            rootless=state.rootless,
            **inside,
        )

    # --- faults

    def power_off(self, node: str) -> float | None:
        """Pull NODE's plug. The time right after, in seconds since the epoch; None when it was off already."""
        at: float | None = self._ask("power_off", node=node)["at"]
        return at

    def power_on(self, node: str, wait: bool = True) -> bool:
        """Boot NODE from the disk it had, and WAIT for its SSH; False when it was on already.

        Raises:
            LabError: it does not come up; the text holds the tail of its console.
        """
        started: bool = self._ask("power_on", node=node)["started"]
        if wait:
            launch.wait_for_ssh(self.paths, find_node(node), lambda _phase: None)
        return started

    def replace(self, node: str, wait: bool = True) -> float | None:
        """An empty machine in NODE's place: its power goes, its disk with it, and a new one of that name boots.

        Address, hardware address, memory and cables stay; its SSH host key is another, and the lab's own record of the
        old one goes. Killed in the middle it is safe to repeat.

        Returns:
            The time right after the plug was pulled, in seconds since the epoch; None when it was off already.

        Raises:
            LabError: it does not come up; the text holds the tail of its console.
        """
        with folder_lock(self.paths):
            at = self.power_off(node)
            ssh.forget(self.paths, node)
            self.paths.disk(node).unlink(missing_ok=True)
            self.power_on(node, wait=False)
        if wait:
            launch.wait_for_ssh(self.paths, find_node(node), lambda _phase: None)
        return at

    def remove(self, node: str) -> float | None:
        """Take NODE out of the lab, with its disk and its cable; only a machine that `up` adds on request.

        Returns:
            The time right after the plug was pulled, in seconds since the epoch; None when it was off already.

        Raises:
            UsageError: one of the four that every lab has.
        """
        if not find_node(node).optional:
            raise UsageError(f"{node} belongs to every lab; `power-off` and `replace` are for it, `down` ends the lab")
        with folder_lock(self.paths):
            at: float | None = self._ask("remove", node=node)["at"]
            ssh.forget(self.paths, node)
            self.paths.disk(node).unlink(missing_ok=True)
            ssh.prepare(self.paths, [find_node(name) for name in self._machines()])
        return at

    def freeze(self, node: str) -> float:
        """Stop NODE as a hung kernel would be. The time right after, in seconds since the epoch."""
        at: float = self._ask("freeze", node=node)["at"]
        return at

    def thaw(self, node: str) -> float:
        """Let a frozen NODE go on. The time right after, in seconds since the epoch."""
        at: float = self._ask("thaw", node=node)["at"]
        return at

    def cut(self, node: str, peers: Sequence[str] | None = None, one_way: bool = False) -> float:
        """Cut NODE's cable: from everybody, or from PEERS only (machines, or `host`).

        Args:
            node: the machine.
            peers: from whom; None for everybody, the host included.
            one_way: lose only what NODE sends.

        Returns:
            The time right after, in seconds since the epoch.
        """
        find_node(node)
        known = self._machines()
        name = find_node(node, known).name
        others = [None] if peers is None else [p if p == HOST else find_node(p, known).name for p in peers]
        if name in others:
            raise LabError(f"{name} cannot be cut from itself")
        at: float = self._ask("cut", cuts=[vars(Cut(name, other, one_way)) for other in others])["at"]
        return at

    def heal(self, node: str | None = None) -> list[str]:
        """Join all cut cables again (or those of NODE) and take degradation away; lines that say what was healed.

        Raises:
            LabError: a degraded guest could not be reached; its cables are joined all the same.
        """
        name = None if node is None else find_node(node, self._machines()).name
        healed = [faults.describe(find_node(cut["node"]), Cut(**cut)) for cut in self._ask("heal", node=name)["healed"]]
        status = self._ask("status")
        for other in status["degraded"]:
            if name in (None, other) and status["machines"][other]["state"] == "running":
                self._in_guest(other, faults.heal_script())
                self._ask("degraded", node=other)
                healed.append(f"{other} degraded")
        return healed

    def degrade(self, node: str, loss_percent: float = 0.0, delay_ms: float = 0.0) -> None:
        """Make NODE's wire bad in both directions, inside the guest; replaces what was set before.

        Args:
            node: the machine.
            loss_percent: packets lost, 0 to 100, in each direction.
            delay_ms: milliseconds added, in each direction.

        The lab's own SSH to it is spared, so that `heal` works at any loss.
        """
        faults.check_degrade(loss_percent, delay_ms)
        find_node(node)
        name = find_node(node, self._machines()).name
        self._in_guest(name, faults.degrade_script(loss_percent, delay_ms))
        self._ask("degraded", node=name, effect={"loss_percent": loss_percent, "delay_ms": delay_ms})

    # --- ways in

    def ssh_argv(self, node: str, *command: str) -> list[str]:
        """A command line that runs COMMAND (or a login shell) on NODE as root.

        Raises:
            NotRunningError: the machine, or the lab, is off.
        """
        find_node(node)
        machines = self._ask("status")["machines"]
        if machines[find_node(node, machines).name]["state"] == "off":
            raise NotRunningError(f"{node} is off; `python -m lab power-on {node}` boots it")
        return ["ssh", "-F", str(self.paths.ssh_config), node, *command]

    def exec_argv(self, *command: str) -> list[str]:
        """A command line that runs COMMAND on the host, inside the lab's network."""
        state = self._state()
        argv = ["nsenter", "--target", str(state.supervisor.pid), "--net"]
        if state.rootless:
            argv += ["--user", "--preserve-credentials"]
        return [*argv, "--", *command]

    def address(self, node: str) -> str:
        """NODE's IPv4 address in the lab's network."""
        return find_node(node).address

    @property
    def ssh_config(self) -> Path:
        """For `ssh -F`; the same from one `up` to the next."""
        return self.paths.ssh_config

    @property
    def api_server(self) -> str:
        """URL that leads to the API server, from the host and inside the lab's network alike.

        Raises:
            NotRunningError: the lab does not run.
        """
        return f"https://127.0.0.1:{self._state().api_port}"

    def console(self, node: str) -> Path:
        """NODE's console log.

        Raises:
            NotRunningError: there is none.
        """
        path = self.paths.console(find_node(node).name)
        if not path.exists():
            raise NotRunningError(f"{node} has no console log in {path.parent}: it was never switched on")
        return path

    # --- inside

    def _state(self) -> LabState:
        state = LabState.read(self.paths.state)
        if state is None or not state.supervisor.alive():
            raise NotRunningError(f"the lab {self.name!r} is not running; `python -m lab up` starts it")
        return state

    def _machines(self) -> list[str]:
        return list(self._ask("status")["machines"])

    def _ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        if arguments.get("node") is not None:
            find_node(arguments["node"])  # a wrong name is told even if the lab does not run
        return control.ask(self.paths, {"op": op, **arguments})

    def _in_guest(self, node: str, script: str) -> None:
        argv = ["ssh", "-F", str(self.paths.ssh_config), node, "sh", "-s"]
        try:
            done = subprocess.run(
                argv, input=script, capture_output=True, text=True, check=False, timeout=_GUEST_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{node} did not answer within {_GUEST_SECONDS} s") from error
        if done.returncode:
            raise LabError(f"{node}: {done.stderr.strip() or 'ssh failed'}")


def machines(extra: Iterable[str] = (), only: Iterable[str] = ()) -> tuple[Node, ...]:
    """The machines that `up` would start."""
    return chosen(extra, only)


def _built() -> launch.Bootable:
    """The built artifacts.

    Raises:
        NotBuiltError: something is missing.
    """
    from lab.build import BuildError, artifacts  # noqa: PLC0415 - only `up` needs it

    try:
        return artifacts.require()
    except BuildError as error:
        raise NotBuiltError(str(error)) from error
