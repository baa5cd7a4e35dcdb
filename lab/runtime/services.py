"""What the host's end of the lab's network serves: the apt tree and the image registry. Both read only."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab.runtime import static_server
from lab.runtime.plan import APT_PORT, GATEWAY, REGISTRY_PORT
from lab.runtime.processes import Children
from lab.runtime.state import Spec

_RESTART_SECONDS = 1.0


def registry_config(storage: Path, instance: str) -> str:
    """Configuration of docker-registry: STORAGE, read only, on the lab's bridge. JSON is YAML too.

    It asks for a secret to sign uploads with, which there are none of: INSTANCE, a random name, keeps it quiet.
    """
    return json.dumps(
        {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(storage)},
                "maintenance": {"uploadpurging": {"enabled": False}, "readonly": {"enabled": True}},
            },
            "http": {"addr": f"{GATEWAY}:{REGISTRY_PORT}", "secret": instance},
        },
        indent=2,
    )


@dataclass
class Service:
    """A long-running helper, started again when it ends.

    Attributes:
        name: for messages and status.
        argv: its command.
        log: file for its output.
        restarts: how often it ended by itself.
    """

    name: str
    argv: Sequence[str]
    log: Path
    restarts: int = 0
    pid: int | None = field(default=None, init=False)

    async def run(self, children: Children) -> None:
        """Keep it running until cancelled."""
        while True:
            with self.log.open("ab") as log:
                process = await children.start(self.argv, output=log)
            self.pid = process.pid
            started = time.monotonic()
            code = await children.wait(process)
            self.pid = None
            self.restarts += 1
            with self.log.open("a") as log_text:
                lived = time.monotonic() - started
                log_text.write(f"{self.name} ended ({code}) after {lived:.1f} s; starting it again\n")
            await asyncio.sleep(_RESTART_SECONDS)


def planned(spec: Spec, log: Path) -> list[Service]:
    """The services that SPEC asks for; writes the registry's configuration into the state folder."""
    services: list[Service] = []
    if spec.apt_root is not None:
        argv = [str(spec.python), "-I", "-S", str(static_server.__file__), str(spec.apt_root), GATEWAY, str(APT_PORT)]
        services.append(Service("apt", argv, log))
    if spec.registry_root is not None:
        config = spec.folder / "registry.json"
        config.write_text(registry_config(spec.registry_root, spec.instance))
        services.append(Service("registry", ["docker-registry", "serve", str(config)], log))
    return services
