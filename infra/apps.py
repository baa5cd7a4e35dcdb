"""The kinds of apps that a stack's settings can name, and how they are deployed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import pulumi

from infra.components import (
    App,
    AppArgs,
    Auditor,
    AuditorArgs,
    ElectedController,
    ElectedControllerArgs,
    NodeAgent,
    NodeAgentArgs,
    SharedStorage,
    SingleWriterApp,
    SingleWriterAppArgs,
    SpreadApp,
    SpreadAppArgs,
    StatefulApp,
    StatefulAppArgs,
    Workspace,
)


@dataclass(frozen=True)
class Kind:
    """A kind of app: the arguments that its settings become, and the component that takes them."""

    args: type[AppArgs]
    component: Callable[..., App]


KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        SpreadApp.kind: Kind(SpreadAppArgs, SpreadApp),
        SingleWriterApp.kind: Kind(SingleWriterAppArgs, SingleWriterApp),
        NodeAgent.kind: Kind(NodeAgentArgs, NodeAgent),
        StatefulApp.kind: Kind(StatefulAppArgs, StatefulApp),
        ElectedController.kind: Kind(ElectedControllerArgs, ElectedController),
        Auditor.kind: Kind(AuditorArgs, Auditor),
    }
)


def deploy_apps(
    apps: Mapping[str, AppArgs],
    *,
    workspace: Workspace,
    storage: SharedStorage,
    opts: pulumi.ResourceOptions | None = None,
) -> dict[str, App]:
    """Deploy each app by the component that its arguments belong to, once namespace and StorageClass are there."""
    after = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[workspace, storage]))
    component_of = {kind.args: kind.component for kind in KINDS.values()}
    return {name: component_of[type(args)](name, args, opts=after) for name, args in apps.items()}
