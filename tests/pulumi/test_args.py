"""Arguments that a component refuses, each with the rule and a way out."""

from __future__ import annotations

from typing import Any

import pytest

from infra.components import (
    AppArgs,
    NodeAgentArgs,
    SingleWriterAppArgs,
    SpreadAppArgs,
    StatefulAppArgs,
    WorkspaceArgs,
)
from infra.components._names import check_name
from infra.components._override import merge
from infra.components.image_prepull import ImagePrepullArgs
from infra.errors import ArgsError
from tests.pulumi.registered import PROFILE

COMMON: dict[str, Any] = {"namespace": "shop", "profile": PROFILE, "image": "app:1"}

REFUSED: list[tuple[type[AppArgs], dict[str, Any], str, str]] = [
    (SpreadAppArgs, {"replicas": 1}, "replicas", "single-writer"),
    (SpreadAppArgs, {"max_surge": 0}, "max_surge", "max_surge: 1"),
    (SpreadAppArgs, {"max_surge": -1}, "max_surge", "max_surge: 1"),
    (SpreadAppArgs, {"max_unavailable": 2}, "max_unavailable", "0 or 1"),
    (SpreadAppArgs, {"pre_stop_seconds": -1}, "pre_stop_seconds", "from 0"),
    (SpreadAppArgs, {"pre_stop_seconds": 10}, "termination_grace_seconds", "termination_grace_seconds: 35"),
    (SpreadAppArgs, {"drain_seconds": 30}, "termination_grace_seconds", "termination_grace_seconds: 50"),
    (SingleWriterAppArgs, {"drain_seconds": 16}, "termination_grace_seconds", "termination_grace_seconds: 31"),
    (SingleWriterAppArgs, {"storage_size": "1G"}, "storage_size", "1Gi"),
    (SingleWriterAppArgs, {"storage_class": ""}, "storage_class", "tandem-shared"),
    (SpreadAppArgs, {"image": "app"}, "image", "app:1.2.3"),
    (SpreadAppArgs, {"image": "host:5000/app"}, "image", "host:5000/app:1.2.3"),
    (SpreadAppArgs, {"image": "app:latest"}, "image", "app:1.2.3"),
    (SpreadAppArgs, {"run_as_user": 0}, "run_as_user", "from 1"),
    (SpreadAppArgs, {"port": 70000}, "port", "65535"),
    (SpreadAppArgs, {"node_port": 80}, "node_port", "in the range"),
    (SpreadAppArgs, {"health_path": "healthz"}, "health_path", "/healthz"),
    (SpreadAppArgs, {"memory_limit": "128 MB"}, "memory_limit", "64Mi"),
    (SpreadAppArgs, {"deploy_timeout_seconds": 5}, "deploy_timeout_seconds", "from 30"),
    (SpreadAppArgs, {"pod_spec_overrides": {"tolerationz": []}}, "pod_spec_overrides", "as Kubernetes does"),
    (NodeAgentArgs, {"node_port": 30080}, "node_port", "exposed: true"),
    (StatefulAppArgs, {"reason": "because"}, "reason", "single-writer"),
]


@pytest.mark.parametrize(("args", "values", "field", "way_out"), REFUSED)
def test_refused(args: type[AppArgs], values: dict[str, Any], field: str, way_out: str) -> None:
    with pytest.raises(ArgsError) as caught:
        args(**COMMON | values)
    assert caught.value.field == field
    assert way_out in caught.value.way_out


@pytest.mark.parametrize(
    "image", ["app:1", "host:5000/team/app:1.2.3", "app@sha256:" + "0" * 64, "app:latest@sha256:" + "0" * 64]
)
def test_pinned_images_pass(image: str) -> None:
    assert SpreadAppArgs(**COMMON | {"image": image}).image == image


def test_prepull_refuses_a_moving_image() -> None:
    with pytest.raises(ArgsError, match="image"):
        ImagePrepullArgs(namespace="shop", image="app:latest")


@pytest.mark.parametrize("namespace", ["kube-system", "default", "Shop", "a_b", ""])
def test_workspace_refuses_namespace(namespace: str) -> None:
    with pytest.raises(ArgsError, match="namespace"):
        WorkspaceArgs(namespace=namespace)


@pytest.mark.parametrize("name", ["", "1st", "-a", "a-", "A", "a.b", "x" * 64])
def test_names_that_no_service_may_have(name: str) -> None:
    with pytest.raises(ArgsError, match="name"):
        check_name(name)


@pytest.mark.parametrize(
    ("base", "over", "merged"),
    [
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, {"a": {"b": 3, "c": 2}}),
        ({"a": 1, "b": 2}, {"a": None}, {"b": 2}),
        ([1, 2], [3], [3]),
        ([{"name": "x", "v": 1}], [{"name": "x", "v": 2}], [{"name": "x", "v": 2}]),
        ([{"name": "x"}], [{"name": "y"}], [{"name": "x"}, {"name": "y"}]),
        ([{"key": "x"}], [{"key": "y"}], [{"key": "y"}]),
    ],
)
def test_merge(base: Any, over: Any, merged: Any) -> None:
    assert merge(base, over) == merged
