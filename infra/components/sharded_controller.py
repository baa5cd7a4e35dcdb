"""A controller in shards: each with a Deployment, a Lease and a scope of its own, and no object in two scopes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import pulumi

from infra.components._app import App
from infra.components._controller import RightsArgs
from infra.components._names import check_name
from infra.components._parts import Part
from infra.components.elected_controller import ElectedController, ElectedControllerArgs
from infra.errors import ArgsError
from tandem import labels
from tandem.runtime.scope import Scope, Shard, overlaps


@dataclass(frozen=True, kw_only=True)
class ShardArgs(Part):
    """One shard.

    Args:
        name: short; Deployment and Lease are called `<controller>-<name>`.
        namespaces: what it looks at: the objects in these. They must exist (`namespaces` of the stack makes them).
        label: or: the objects with this label anywhere, as `KEY=VALUE`. All shards of a controller use one key.
    """

    name: str
    namespaces: Sequence[str] = ()
    label: str = ""

    def __post_init__(self) -> None:
        """Check the rules; raises `ArgsError` for the first one broken."""
        check_name(self.name, "shards.name")
        if bool(self.namespaces) == bool(self.label):
            rule = "a shard has either namespaces or a label; without a scope it would act on everything"
            raise ArgsError("shards.namespaces", list(self.namespaces), rule, "namespaces: [team-a]")
        for each in self.namespaces:
            check_name(each, "shards.namespaces")
        key, _, value = self.label.partition("=")
        if self.label and not (key and value and "," not in value and not key.endswith("!")):
            raise ArgsError("shards.label", self.label, "must be one KEY=VALUE", "label: example.org/shard=a")
        try:
            _ = self.scope
        except ValueError as error:
            raise ArgsError("shards.namespaces", list(self.namespaces), str(error), "name each once") from None

    @property
    def scope(self) -> Scope:
        """As the runtime has it."""
        return Scope(tuple(self.namespaces), self.label)

    @property
    def parts(self) -> Sequence[str]:
        """What the shard has of the whole: its namespaces, or its label's value."""
        return self.namespaces or (self.label.partition("=")[2],)


@dataclass(frozen=True, kw_only=True)
class ShardedControllerArgs(ElectedControllerArgs):
    """The arguments of a `ShardedController`; those of an `ElectedController` hold for each shard.

    Args:
        shards: at least two, which share nothing.
        covers: what the shards together must have: namespaces, or values of the label. Empty claims nothing; else a
            part without a shard is refused, for nobody would act on it, and so is a shard's part that is not listed.
        scope_rights: what a shard of namespaces may do in each of its own, and in no other.
    """

    shards: Sequence[ShardArgs]
    covers: Sequence[str] = ()
    scope_rights: Sequence[RightsArgs] = ()

    def __post_init__(self) -> None:
        """Check the rules; raises `ArgsError` for the first one broken."""
        super().__post_init__()
        names = [each.name for each in self.shards]
        if len(names) < 2 or len(set(names)) < len(names):
            rule = "a sharded controller has two shards or more, each of its own name"
            raise ArgsError("shards", names, rule, "kind: elected-controller for a whole one")
        keys = {each.label.partition("=")[0] for each in self.shards}
        if len(keys) > 1:
            rule = "shards are told apart by namespaces or by the values of one label, all in the same way"
            raise ArgsError("shards", sorted(keys), rule, "the same key in every label, or namespaces in every shard")
        if problems := overlaps([Shard(each.name, each.scope) for each in self.shards]):
            rule = f"two leaders would act on one object: {'; '.join(problems)}"
            raise ArgsError("shards", names, rule, "give each namespace, or value, to one shard")
        if self.covers:
            self._check_complete()
        if self.scope_rights and keys != {""}:
            rule = "a label's objects may be in any namespace"
            raise ArgsError("scope_rights", len(self.scope_rights), rule, "cluster_rights")

    @property
    def pods_on_survivor(self) -> int:
        """Those of every shard."""
        return super().pods_on_survivor * len(self.shards)

    def _check_complete(self) -> None:
        served = {part for each in self.shards for part in each.parts}
        if missing := sorted(set(self.covers) - served):
            raise ArgsError("covers", missing, "no shard has it, so nobody acts on it", "add it to a shard")
        if extra := sorted(served - set(self.covers)):
            raise ArgsError("covers", extra, "a shard has it and the whole does not", "add it to covers")


class ShardedController(App):
    """An elected controller for each shard: the loss of one shard's leader stops that shard alone, for one lease."""

    kind: ClassVar[str] = "sharded"
    has_pods: ClassVar[bool] = False

    def __init__(self, name: str, args: ShardedControllerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, args, workload=labels.CONTROLLER, opts=opts)
        self.shards = {
            shard.name: ControllerShard(f"{name}-{shard.name}", args, shard, of=name, opts=self.child())
            for shard in args.shards
        }
        self.register_outputs({"leases": [each.name for each in self.shards.values()]})

    @property
    def scraped(self) -> list[str]:
        """The names under which the shards' pods are found."""
        return [each.name for each in self.shards.values()]

    def summary(self) -> dict[str, Any]:
        """The stack's output about the controller."""
        return super().summary() | {"leases": {shard: each.name for shard, each in self.shards.items()}}


class ControllerShard(ElectedController):
    """One shard. It is told its own scope only, so that a change of another shard does not restart it."""

    def __init__(
        self, name: str, args: ShardedControllerArgs, shard: ShardArgs, *, of: str, opts: pulumi.ResourceOptions
    ) -> None:
        self._shard, self._of, self._scope_rights = shard, of, args.scope_rights
        common = {each.name: getattr(args, each.name) for each in fields(ElectedControllerArgs)}
        super().__init__(name, ElectedControllerArgs(**common), opts)

    def _says(self) -> Mapping[str, str]:
        """Which part of which controller it is; all shards write as one field manager."""
        shard = self._shard
        scope = f"namespaces={','.join(shard.namespaces)}" if shard.namespaces else f"labels={shard.label}"
        return {labels.SHARD_OF: self._of, labels.SCOPE: scope, labels.FIELD_MANAGER: self._of}

    def _told(self) -> Mapping[str, str]:
        """Its scope, for a controller of `tandem.runtime`."""
        shard = self._shard
        if shard.namespaces:
            return {"TANDEM_NAMESPACES": ",".join(shard.namespaces)}
        return {"TANDEM_LABEL_SELECTOR": shard.label}

    def _rights_in(self) -> Mapping[str, Sequence[RightsArgs]]:
        """The controller's rights, in the namespaces of this shard."""
        return {each: self._scope_rights for each in self._shard.namespaces if self._scope_rights}
