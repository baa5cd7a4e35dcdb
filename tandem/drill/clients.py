"""Starts `tandem.drill.client` where clients belong: on a machine through the driver, or in a pod on the survivor."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from tandem import labels
from tandem.drill import client
from tandem.drill.api import NETWORK_ERRORS, Api, ApiError, Object
from tandem.drill.samples import Sample, from_line

SOURCE: Final = Path(client.__file__).read_text(encoding="utf-8")
KINDS: Final = ("new", "kept", "kept-wait")
CLOCK_ROUNDS: Final = 7
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 15.0


class ClientError(RuntimeError):
    """A client could not be started or spoke nonsense; the message says where and what it said."""


def command(
    targets: Sequence[dict[str, Any]], *, rate: float, kept_rate: float, timeout: float, seconds: float, stdin: bool
) -> list[str]:
    """The program and its configuration as arguments of python3."""
    settings = {
        "targets": targets,
        "rate": rate,
        "kept_rate": kept_rate,
        "timeout": timeout,
        "kinds": KINDS,
        "seconds": seconds,
        "stdin": stdin,
    }
    return ["python3", "-c", SOURCE, json.dumps(settings)]


class Remote:
    """Clients as a program on a machine, steered through its standard input.

    Args:
        where: for messages, e.g. the node's name.
        argv: the command to run here, as a driver made it.
        receive: called with each sample, in this machine's time.
    """

    def __init__(self, where: str, argv: Sequence[str], receive: Callable[[Sample], None]) -> None:
        self.where, self.argv, self.receive = where, argv, receive
        self.offset = self.uncertainty = 0.0
        self._clock: asyncio.Future[float] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._backlog: list[dict[str, Any]] | None = []

    async def start(self) -> None:
        """Start the program and learn how far its clock is ahead of ours.

        Raises:
            ClientError: it did not answer within a minute.
        """
        pipe = asyncio.subprocess.PIPE
        # Its own session: a Ctrl-C at the terminal is for the drill, which ends its clients in order.
        self._process = await asyncio.create_subprocess_exec(
            *self.argv, stdin=pipe, stdout=pipe, stderr=pipe, limit=2**20, start_new_session=True
        )
        self._reader = asyncio.create_task(self._read(self._process))
        try:
            async with asyncio.timeout(START_SECONDS):
                rounds = [await self._ask_clock() for _ in range(CLOCK_ROUNDS)]
        except (TimeoutError, ConnectionError) as error:
            said = await self._last_words()
            raise ClientError(f"the clients on {self.where} did not start: {said or repr(error)}") from error
        trip, self.offset = min(rounds)
        self.uncertainty = trip / 2
        backlog, self._backlog = self._backlog or [], None
        for line in backlog:
            self._take(line)

    async def stop(self) -> None:
        """End the program by closing its input, then by force."""
        process, self._process = self._process, None
        if process is None or process.stdin is None or self._reader is None:
            return
        process.stdin.close()
        # Its last results come after that; `wait` leaves the reader alone when time is up.
        done, _ = await asyncio.wait({self._reader}, timeout=STOP_SECONDS)
        if not done:
            with suppress(ProcessLookupError):
                process.kill()
            await self._reader
        await process.wait()

    async def _ask_clock(self) -> tuple[float, float]:
        process = self._process
        if process is None or process.stdin is None or (self._reader and self._reader.done()):
            raise ConnectionError("the program ended")
        self._clock = asyncio.get_running_loop().create_future()
        sent = time.time()
        try:
            process.stdin.write(b"clock\n")
            await process.stdin.drain()
        except ConnectionError:
            self._clock.cancel()
            raise
        theirs = await self._clock
        received = time.time()
        return received - sent, theirs - (sent + received) / 2

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None:
            return
        async for line in process.stdout:
            with suppress(ValueError):
                data = json.loads(line)
                if "clock" in data:
                    if self._clock is not None and not self._clock.done():
                        self._clock.set_result(data["clock"])
                elif self._backlog is not None:
                    self._backlog.append(data)
                else:
                    self._take(data)
        if self._clock is not None and not self._clock.done():
            self._clock.set_exception(ConnectionError("the program ended"))

    def _take(self, data: dict[str, Any]) -> None:
        if "a" in data:
            self.receive(from_line(data, self.offset))

    async def _last_words(self) -> str:
        process = self._process
        if process is None or process.stderr is None:
            return ""
        with suppress(ProcessLookupError):
            process.kill()
        return (await process.stderr.read()).decode(errors="replace").strip()[-500:]


class ProbePod:
    """Clients in a pod on a survivor, their output read back as its log.

    Args:
        api: the connection.
        namespace: where the pod is made.
        node: the survivor, set as the pod's node: no scheduler is asked.
        image: an image with python3, present there.
        argv: the program.
        receive: called with each sample, in this machine's time.
    """

    def __init__(
        self, api: Api, namespace: str, node: str, image: str, argv: Sequence[str], receive: Callable[[Sample], None]
    ) -> None:
        self.api, self.receive, self.node = api, receive, node
        self.offset = 0.0
        self.name = f"tandem-probe-{int(time.time())}"
        self.collection = f"/api/v1/namespaces/{namespace}/pods"
        self.manifest = manifest(self.name, node, image, argv)
        self._follower: asyncio.Task[None] | None = None

    async def start(self, offset: float) -> None:
        """Create the pod and follow its log once it runs; `offset` is the node's clock, as others learned it.

        Raises:
            ClientError: it did not run within a minute.
            ApiError: the API server refused it.
        """
        self.offset = offset
        await self.api.request("POST", self.collection, body=self.manifest)
        deadline = time.monotonic() + START_SECONDS
        while True:
            pod = await self.api.get(f"{self.collection}/{self.name}")
            phase = pod.get("status", {}).get("phase")
            if phase == "Running":
                break
            if phase in {"Failed", "Succeeded"} or time.monotonic() > deadline:
                states = pod.get("status", {}).get("containerStatuses") or [{}]
                raise ClientError(f"probe pod {self.name} on {self.node} is {phase}: {states[0].get('state')}")
            await asyncio.sleep(0.5)
        self._follower = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Delete the pod and read its log to the end."""
        with suppress(ApiError, *NETWORK_ERRORS):
            await self.api.request("DELETE", f"{self.collection}/{self.name}")
        if self._follower is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await self._follower
            self._follower = None

    async def _follow(self) -> None:
        taken = 0
        while True:
            seen = 0
            try:
                async for line in self.api.lines(f"{self.collection}/{self.name}/log", follow="true"):
                    seen += 1
                    if seen <= taken:  # a log that broke off is read anew from its beginning
                        continue
                    taken = seen
                    with suppress(ValueError):
                        data = json.loads(line)
                        if "a" in data:
                            self.receive(from_line(data, self.offset))
                        if "end" in data:
                            return
            except ApiError as error:
                if error.status == 404:
                    return
            except NETWORK_ERRORS:
                pass
            await asyncio.sleep(0.5)


def manifest(name: str, node: str, image: str, argv: Sequence[str]) -> Object:
    """The probe pod: pinned to its node, unprivileged, outside every Service."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {labels.PROBE: "drill"}},
        "spec": {
            "nodeName": node,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 5,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "tolerations": [{"operator": "Exists"}],
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "probe",
                    "image": image,
                    "command": list(argv),
                    "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
        },
    }
