"""The kinds of apps that a stack's settings can name, and how they are deployed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    ShardedAuditor,
    ShardedAuditorArgs,
    ShardedController,
    ShardedControllerArgs,
    SingleWriterApp,
    SingleWriterAppArgs,
    SoloController,
    SoloControllerArgs,
    SpreadApp,
    SpreadAppArgs,
    StatefulApp,
    StatefulAppArgs,
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
        ShardedController.kind: Kind(ShardedControllerArgs, ShardedController),
        SoloController.kind: Kind(SoloControllerArgs, SoloController),
        Auditor.kind: Kind(AuditorArgs, Auditor),
        ShardedAuditor.kind: Kind(ShardedAuditorArgs, ShardedAuditor),
    }
)


def deploy_apps(
    apps: Mapping[str, AppArgs],
    *,
    after: Sequence[pulumi.Resource],
    opts: pulumi.ResourceOptions | None = None,
) -> dict[str, App]:
    """Deploy each app by the component that its arguments belong to, once what all of them need is there."""
    opts = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=list(after)))
    component_of = {kind.args: kind.component for kind in KINDS.values()}
    return {name: component_of[type(args)](name, args, opts=opts) for name, args in apps.items()}
