"""What holds data: claims of others, further classes, and protection against every kind of deletion."""

from __future__ import annotations

import json
from typing import Any

import pulumi
import pytest

from infra import __main__ as program
from infra.components import SharedStorage, SingleWriterAppArgs
from infra.components._claim import protection
from infra.components.data_guard import CLAIMS, GUARD
from infra.errors import ArgsError, SettingsError
from infra.settings import parse_settings
from tandem import checklist
from tests.pulumi.registered import PROFILE, register
from tests.pulumi.stack_files import raw_config
from tests.pulumi.test_components import COMMON, made, main_object


def test_a_claim_of_others_is_mounted_and_not_made() -> None:
    registered = made("single-replace", existing_claim="data-db-0")
    assert not registered.of("PersistentVolumeClaim")
    volumes = main_object(registered).pod["volumes"]
    assert {"name": "data", "persistentVolumeClaim": {"claimName": "data-db-0"}} in volumes


def test_hold_wants_a_word_on_the_claim_s_access_mode() -> None:
    with pytest.raises(ArgsError, match="one pod may use"):
        SingleWriterAppArgs(**COMMON, existing_claim="data-db-0")
    registered = made("single-hold", existing_claim="data-db-0", existing_claim_exclusive=True)
    objects: list[Any] = [each.inputs for each in registered.resources if each.type.startswith("kubernetes:")]
    claim: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data-db-0", "namespace": "shop"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "tandem-shared"},
    }
    found = checklist.judge([*objects, claim], environment="prod", profile=PROFILE)
    assert "single-writer-claim" in {each.rule for each in found}, "the audit sees what the argument claimed"
    with pytest.raises(ArgsError, match="lower case"):
        SingleWriterAppArgs(**COMMON, existing_claim="Data", existing_claim_exclusive=True)


def test_further_classes_lie_on_the_shared_file_system() -> None:
    classes = {"scratch": {"keep_data": False, "description": "may be lost"}, "archive": {}}
    raw = raw_config("prod") | {"tandem:storage_classes": json.dumps(classes)}
    settings = parse_settings(raw, "prod")
    registered = register(lambda: SharedStorage("storage", settings.storage))
    found = {each.name: each.inputs for each in registered.of("StorageClass")}
    assert {name: each["reclaimPolicy"] for name, each in found.items()} == {"scratch": "Delete", "archive": "Retain"}
    for each in found.values():
        assert each["provisioner"] == "rancher.io/local-path"
        assert each["volumeBindingMode"] == "Immediate"
        assert "tandem-ha.io/shared-storage" in each["metadata"]["labels"]


@pytest.mark.parametrize("name", ["tandem-shared", "tandem-shared-delete", "Scratch"])
def test_classes_that_a_stack_cannot_make(name: str) -> None:
    with pytest.raises(SettingsError, match="storage_classes"):
        parse_settings(raw_config("prod") | {"tandem:storage_classes": json.dumps({name: {}})}, "prod")


def test_prod_protects_what_holds_data_and_the_others_do_not() -> None:
    protected = {stack: parse_settings(raw_config(stack), stack).protect for stack in ("dev", "lab", "staging", "prod")}
    assert protected == {"dev": False, "lab": False, "staging": False, "prod": True}
    settings = parse_settings(raw_config("prod"), "prod")
    ledger = settings.apps["ledger"]
    assert isinstance(ledger, SingleWriterAppArgs)
    assert ledger.protect
    assert settings.workspace("shop").protect
    options = protection(protect=True)
    assert (options.protect, options.retain_on_delete) == (True, True)
    assert protection(protect=False).protect is None


def guards(stack: str, **changes: Any) -> list[dict[str, Any]]:
    raw = raw_config(stack) | {"tandem:cluster_check": "skip"}
    pulumi.runtime.set_all_config(raw | {f"tandem:{key}": json.dumps(value) for key, value in changes.items()})
    try:
        registered = register(program.main, stack)
    finally:
        pulumi.runtime.set_all_config({})
    return [each.inputs for each in registered.of("ConfigMap") if each.name == GUARD]


def test_a_guard_stands_before_the_claims_that_a_protected_stack_makes() -> None:
    image = {"image": "app:1"}
    others = {"kind": "single-writer", "existing_claim": "data-db-0", "existing_claim_exclusive": True}
    apps = {
        "web": {"kind": "spread"} | image,
        "ledger": {"kind": "single-writer"} | image,
        "db": {"kind": "stateful", "reason": "it must be one"} | image,
        "moved": others | image,
    }
    (guard,) = guards("prod", apps=apps)
    assert guard["metadata"]["annotations"][CLAIMS] == "db,ledger", "not the claim that somebody else keeps"
    assert "data" not in guard, "a ConfigMap whose data changes is replaced, and a protected one cannot be"
    assert not guards("prod", apps={"web": apps["web"]})
    assert guards("staging"), "it only lists there: taking a protection back must not delete what is protected"
    assert not guards("dev"), "whose data goes with it"


def test_protection_of_what_deletes_its_data_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"tandem:protect[\s\S]*keep_data: true"):
        parse_settings(raw_config("prod") | {"tandem:keep_data": "false"}, "prod")
    raw = raw_config("prod")
    apps = json.loads(raw["tandem:apps"])
    apps["ledger"]["protect"] = False
    with pytest.raises(SettingsError, match="no such key"):
        parse_settings(raw | {"tandem:apps": json.dumps(apps)}, "prod")
