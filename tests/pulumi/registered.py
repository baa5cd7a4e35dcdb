"""Run components against Pulumi's mock monitor and look at what was registered, as it goes over the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pulumi.runtime import mocks, set_mocks
from pulumi.runtime.settings import SETTINGS
from pulumi.runtime.stack import wait_for_rpcs

from tandem.recovery import PROFILES, RecoveryProfile

PROFILE: RecoveryProfile = PROFILES["article"]
PATIENCE_SECONDS = 30


@dataclass(frozen=True)
class Resource:
    """One registered resource: its type token, logical name and inputs."""

    type: str
    name: str
    inputs: dict[str, Any]

    @property
    def spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = self.inputs["spec"]
        return spec

    @property
    def pod(self) -> dict[str, Any]:
        pod: dict[str, Any] = self.spec["template"]["spec"]
        return pod

    @property
    def container(self) -> dict[str, Any]:
        containers: list[dict[str, Any]] = self.pod["containers"]
        assert len(containers) == 1
        return containers[0]


@dataclass
class Registered(mocks.Mocks):
    """The mock monitor: keeps what is registered and answers with it."""

    resources: list[Resource] = field(default_factory=list)

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        self.resources.append(Resource(args.typ, args.name, args.inputs))
        outputs = dict(args.inputs)
        if args.typ.endswith(":Service"):
            outputs["spec"] = {**args.inputs["spec"], "clusterIP": "10.96.0.10"}
        return f"{args.name}-id", outputs

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]] | None]:
        return {}, None

    def of(self, kind: str) -> list[Resource]:
        """All of a kind, e.g. `Deployment`."""
        return [each for each in self.resources if each.type.endswith(f":{kind}")]

    def one(self, kind: str, name: str | None = None) -> Resource:
        """The only one of a kind (and name)."""
        found = [each for each in self.of(kind) if name is None or each.name == name]
        assert len(found) == 1, f"{len(found)} of {kind} {name or ''}: {[each.name for each in found]}"
        return found[0]


def register(program: Callable[[], object], stack: str = "lab") -> Registered:
    """What `program` registers."""
    registered = Registered()

    async def run() -> None:
        # What an earlier program left behind belongs to a loop that is gone, and would be waited for without end.
        SETTINGS.rpc_manager.clear()
        SETTINGS.outputs.clear()
        set_mocks(registered, project="tandem", stack=stack, preview=False)
        program()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await wait_for_rpcs()

    asyncio.run(run())
    return registered
