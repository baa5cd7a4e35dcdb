"""The schema for editors: it is of today's settings, the stack files refer to it and fit it, and it finds mistakes."""

from __future__ import annotations

import json
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from infra.apps import KINDS
from infra.schema import descriptions, schema_page, stack_schema
from infra.settings import Settings, StackFile
from tests.pulumi.stack_files import ROOT, STACKS

FILE = ROOT / "docs" / "stack.schema.json"


def document(stack: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "stacks" / f"Pulumi.{stack}.yaml").read_text())
    return loaded


def test_the_committed_file_is_today_s() -> None:
    assert FILE.read_text() == schema_page(), "python -m lab.docs"


@pytest.mark.parametrize("stack", STACKS)
def test_stack_files_refer_to_it_and_fit_it(stack: str) -> None:
    lines = (ROOT / "stacks" / f"Pulumi.{stack}.yaml").read_text().splitlines()
    (reference,) = [line for line in lines if "$schema=" in line]
    assert (ROOT / "stacks" / reference.partition("$schema=")[2]).resolve() == FILE
    jsonschema.Draft202012Validator(stack_schema()).validate(document(stack))


def with_app(**values: Any) -> dict[str, Any]:
    changed = document("prod")
    changed["config"]["tandem:apps"]["web"] |= values
    return changed


def with_key(key: str, value: Any) -> dict[str, Any]:
    changed = document("prod")
    changed["config"][key] = value
    return changed


@pytest.mark.parametrize(
    "wrong",
    [
        with_key("tandem:profle", "balanced"),
        with_key("tandem:profile", "quick"),
        with_key("tandem:keep_data", "perhaps"),
        with_key("tandem:priority_classes", {"core": {"values": 1}}),
        with_app(kind="sprad"),
        with_app(replica=2),
        with_app(replicas="two"),
        with_app(namespace="other"),
        with_app(when_unreachable="hold"),
        with_app(on_node_loss="panic"),
        with_app(autoscaling={"maximum": 2}),
        with_app(ports=[{"name": "grpc"}]),
        with_app(secret_env={"PASSWORD": {"plain": "x"}}),
    ],
)
def test_mistakes_are_found(wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(stack_schema()).validate(wrong)


def test_encrypted_values_and_the_keys_of_others_fit() -> None:
    right = with_app(secret_env={"PASSWORD": {"secure": "v1:abc"}}) | {"encryptionsalt": "v1:abc"}
    right["config"]["kubernetes:context"] = "x"
    jsonschema.Draft202012Validator(stack_schema()).validate(right)


def test_every_key_is_described() -> None:
    schema = stack_schema()
    objects = {"config": schema["properties"]["config"], **schema["$defs"]}
    missing = [
        f"{name}.{key}"
        for name, each in objects.items()
        for key, value in each["properties"].items()
        if "description" not in value
    ]
    assert missing == []
    assert set(StackFile.model_fields) <= set(descriptions(Settings)) | {"apps"}
    assert set(KINDS) <= set(schema["$defs"])
    assert "a new ConfigMap and rolls the pods" in json.dumps(schema["$defs"]["spread"]["properties"]["files"])
