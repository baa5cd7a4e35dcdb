"""The control socket: one JSON line asks, one JSON line answers.

An answer is the result as an object, or `{"error": text, "kind": class name}`. `connect` alone goes on after its
answer: the stream then carries the bytes of a TCP connection to a machine.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lab.runtime.errors import KINDS, LabError, NotRunningError, UsageError
from lab.runtime.faults import Cut
from lab.runtime.paths import LabPaths
from lab.runtime.relay import open_first

if TYPE_CHECKING:
    from lab.runtime.supervisor import Supervisor

_CONNECT_SECONDS = 10.0
Request = dict[str, Any]
Reply = dict[str, Any]


class Handler:
    """Answers one client at a time per connection; given to asyncio.start_unix_server."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._lab = supervisor
        self._verbs: dict[str, Callable[[Request], Awaitable[Reply]]] = {
            "status": self._status,
            "ensure": self._ensure,
            "power_on": self._power_on,
            "power_off": self._power_off,
            "remove": self._remove,
            "freeze": self._freeze,
            "thaw": self._thaw,
            "cut": self._cut,
            "heal": self._heal,
            "degraded": self._degraded,
        }

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        with suppress(ConnectionError):
            try:
                request: Request = json.loads(await reader.readline())
                if request["op"] == "connect":
                    await self._connect(request, reader, writer)
                    return
                reply = await self._verbs[request["op"]](request)
            except LabError as error:
                reply = {"error": str(error), "kind": type(error).__name__}
            except (KeyError, TypeError, ValueError) as error:
                reply = {"error": f"malformed request: {error!r}", "kind": UsageError.__name__}
            except OSError as error:
                reply = {"error": str(error), "kind": LabError.__name__}
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
        writer.close()

    async def _connect(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        machine = self._lab.machine(request["node"])
        if machine.state == "off":
            raise NotRunningError(f"{machine.node.name} is off; `python -m lab power-on {machine.node.name}` boots it")
        target = (machine.node.address, int(request["port"]))
        stream = await open_first([target], float(request.get("timeout", _CONNECT_SECONDS)))
        writer.write(b'{"connected": true}\n')
        await self._lab.carry(machine.node.name, (reader, writer), stream)

    async def _status(self, _: Request) -> Reply:
        return self._lab.status()

    async def _ensure(self, request: Request) -> Reply:
        return {"started": await self._lab.ensure(request["nodes"])}

    async def _power_on(self, request: Request) -> Reply:
        _, started = await self._lab.power_on(request["node"])
        return {"started": started}

    async def _power_off(self, request: Request) -> Reply:
        return {"at": await self._lab.machine(request["node"]).power_off()}

    async def _remove(self, request: Request) -> Reply:
        return {"at": await self._lab.remove(request["node"])}

    async def _freeze(self, request: Request) -> Reply:
        return {"at": await self._lab.machine(request["node"]).freeze()}

    async def _thaw(self, request: Request) -> Reply:
        return {"at": await self._lab.machine(request["node"]).thaw()}

    async def _cut(self, request: Request) -> Reply:
        at = await self._lab.cut([Cut(**cut) for cut in request["cuts"]])
        return {"at": at}

    async def _heal(self, request: Request) -> Reply:
        gone = await self._lab.heal(request.get("node"))
        return {"healed": [vars(cut) for cut in gone]}

    async def _degraded(self, request: Request) -> Reply:
        """Remember (or forget) what was done inside a guest."""
        name = self._lab.machine(request["node"]).node.name
        if request.get("effect"):
            self._lab.degraded[name] = dict(request["effect"])
        else:
            self._lab.degraded.pop(name, None)
        return {}


def ask(paths: LabPaths, request: Request, timeout_seconds: float = 30.0) -> Reply:
    """One question to the lab's supervisor, from the host.

    Raises:
        NotRunningError: nobody listens.
        LabError: the supervisor's own, of its kind; or it ended in between.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.settimeout(timeout_seconds)
        try:
            folder = os.open(paths.folder, os.O_PATH)
            try:
                stream.connect(f"/proc/self/fd/{folder}/{paths.control_socket.name}")
            finally:
                os.close(folder)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as error:
            raise NotRunningError(f"the lab {paths.name!r} is not running; `python -m lab up` starts it") from error
        except PermissionError as error:
            raise LabError(f"{paths.control_socket} belongs to another user: be the one who started the lab") from error
        try:
            stream.sendall(json.dumps(request).encode() + b"\n")
            with stream.makefile("rb") as answers:
                line = answers.readline()
        except TimeoutError as error:
            raise LabError(f"the lab's supervisor did not answer {request['op']} in {timeout_seconds:g} s") from error
        except ConnectionError:
            line = b""
    if not line:
        raise NotRunningError(f"the lab {paths.name!r} ended during {request['op']}; see {paths.supervisor_log}")
    reply: Reply = json.loads(line)
    if "error" in reply:
        raise KINDS.get(reply.get("kind", ""), LabError)(reply["error"])
    return reply
