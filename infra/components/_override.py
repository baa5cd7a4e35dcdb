"""The escape hatches: fields of a PodSpec or of any object, as Kubernetes spells them, over what a component made."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, cast

import pulumi
from pulumi import _types
from pulumi_kubernetes.core.v1 import PodSpecArgs

from infra.errors import ArgsError


def check_overrides(overrides: Mapping[str, Any]) -> None:
    """Refuse a field that a PodSpec does not have: the API server would drop it in silence or refuse the whole object.

    Raises:
        ArgsError: naming the field.
    """
    known = set(_types.input_type_py_to_pulumi_names(PodSpecArgs).values())
    for name in overrides:
        if name not in known:
            way_out = "spell it as Kubernetes does, e.g. priorityClassName, hostNetwork, nodeSelector"
            raise ArgsError("pod_spec_overrides", name, "is not a field of a PodSpec", way_out)


def with_overrides(spec: PodSpecArgs, overrides: Mapping[str, Any]) -> PodSpecArgs:
    """The PodSpec with `overrides` merged in; `spec` itself when there are none."""
    if not overrides:
        return spec
    # The SDK takes a mapping of wire names wherever it takes an Args object; its type says so only for TypedDicts.
    return cast(PodSpecArgs, merge(to_wire(spec), overrides))


def check_patch(patch: Mapping[str, Mapping[str, Any]], kinds: Collection[str]) -> None:
    """Refuse a patch of an object that the component never makes, and one of what holds its objects together.

    Raises:
        ArgsError: naming the kind.
    """
    for kind, fields in patch.items():
        if kind not in kinds:
            raise ArgsError("patch", kind, "the component makes no such object", f"one of {', '.join(sorted(kinds))}")
        if held := {"name", "namespace"} & set(fields.get("metadata") or {}):
            rule = "names are how the objects of an app find each other"
            raise ArgsError("patch", f"{kind}.metadata.{min(held)}", rule, "leave it out")


def patching(patch: Mapping[str, Mapping[str, Any]]) -> pulumi.ResourceTransformation:
    """Merges `patch`, by kind, over every object of the resource that carries it and of those below."""

    def apply(args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult | None:
        package, _, kind = args.type_.rpartition(":")
        if kind not in patch or not package.startswith("kubernetes:"):
            return None
        props: dict[str, Any] = dict(args.props)
        for name, value in patch[kind].items():
            # Fields of the object itself go by their Python names here, all below by Kubernetes' own.
            key = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
            given = props.get(key)
            props[key] = value if given is None else merge(to_wire(given), value)
        return pulumi.ResourceTransformationResult(props, args.opts)

    return apply


def to_wire(value: Any) -> Any:
    """An Args object as plain data under Kubernetes' own field names; unset fields are left out."""
    if _types.is_input_type(type(value)):
        names = _types.input_type_py_to_pulumi_names(type(value))
        plain = _types.input_type_to_dict(value)
        return {names.get(key, key): to_wire(each) for key, each in plain.items() if each is not None}
    if isinstance(value, Mapping):
        return {key: to_wire(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [to_wire(each) for each in value]
    return value


def merge(base: Any, over: Any) -> Any:
    """`over` merged into `base`: mappings by key (None removes), lists of named things by name, all else replaced."""
    if isinstance(base, Mapping) and isinstance(over, Mapping):
        merged = {**base}
        for key, value in over.items():
            if value is None:
                merged.pop(key, None)
            else:
                merged[key] = merge(base[key], value) if key in base else value
        return merged
    if _named(base) and _named(over) and base:
        changes = {each["name"]: each for each in over}
        kept = [merge(each, changes.pop(each["name"], {})) for each in base]
        return kept + list(changes.values())
    return over


def _named(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, Mapping) and "name" in each for each in value)
