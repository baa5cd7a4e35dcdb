"""The stacks' settings: the committed ones load, and each mistake is told with file, key, value, rule and way out."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from infra.components import NodeAgentArgs, ShardedAuditorArgs, SingleWriterAppArgs, SpreadAppArgs, StatefulAppArgs
from infra.errors import SettingsError
from infra.settings import parse_settings
from tandem.recovery import bound_seconds, profile
from tests.pulumi.stack_files import ROOT, STACKS, raw_config


def with_app(**values: Any) -> dict[str, str]:
    return {"tandem:apps": json.dumps({"web": {"kind": "spread", "image": "app:1", **values}})}


REFUSED: list[tuple[dict[str, str], str, str, str]] = [
    ({"tandem:profle": "article"}, 'profle = "article"', "no such key", "profile"),
    ({"tandem:profile": "quick"}, 'profile = "quick"', "no such recovery profile", "balanced"),
    (
        {"tandem:recovery_target_seconds": "20"},
        "recovery_target_seconds = 20.0",
        f"after {bound_seconds(profile('balanced')):.1f} s",
        "raise",
    ),
    (
        {"tandem:recovery_target_seconds": "60", "tandem:profile": "stock"},
        "recovery_target_seconds = 60.0",
        "the target is 60 s",
        "choose balanced",
    ),
    ({"tandem:recovery_target_seconds": "soon"}, 'recovery_target_seconds = "soon"', "valid number", "correct"),
    ({"tandem:recovery_target_seconds": "-1"}, 'recovery_target_seconds = "-1"', "greater than 0", "correct"),
    ({"tandem:cluster_check": "no"}, 'cluster_check = "no"', "'enforce' or 'skip'", "correct"),
    ({"tandem:keep_data": "perhaps"}, 'keep_data = "perhaps"', "valid boolean", "correct"),
    ({"tandem:namespace": "kube-system"}, 'namespace = "kube-system"', "belongs to the cluster", "of the stack's own"),
    ({"tandem:apps": "[1]"}, "apps = [1]", "valid dictionary", "correct"),
    ({"tandem:apps": "{"}, 'apps = "{"', "valid dictionary", "correct"),
    (with_app(kind="elected"), 'apps.web.kind = "elected"', "no such kind", "single-writer"),
    (with_app(replicas=1), "apps.web.replicas = 1", "whole failover", "replicas: 2"),
    (with_app(replicas="two"), 'apps.web.replicas = "two"', "valid integer", "correct"),
    (with_app(replica=2), "apps.web.replica = 2", "no such key for kind spread", "replicas"),
    (with_app(when_unreachable="hold"), 'apps.web.when_unreachable = "hold"', "no such key", "on_node_loss"),
    (with_app(namespace="other"), 'apps.web.namespace = "other"', "no such key", "replicas"),
    (with_app(env={"A": 1}), "apps.web.env.A = 1", "valid string", "correct"),
    (with_app(on_node_loss="panic"), 'apps.web.on_node_loss = "panic"', "'wait' or 'crowd'", "correct"),
    (with_app(image=None), "apps.web.image = null", "valid string", "correct"),
    ({"tandem:apps": '{"web": {"kind": "spread"}}'}, "apps.web.image = null", "required", "add it"),
    ({"tandem:apps": '{"Web": {"kind": "spread"}}'}, 'apps.Web.name = "Web"', "lower case", "my-app"),
    (
        {"tandem:apps": json.dumps({n: {"kind": "spread", "image": "a:1", "node_port": 30080} for n in ("a", "b")})},
        "apps.b.node_port = 30080",
        "app a has this port",
        "choose another",
    ),
]


@pytest.mark.parametrize(("change", "where", "rule", "way_out"), REFUSED)
def test_refused(change: dict[str, str], where: str, rule: str, way_out: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_settings(raw_config("prod") | change, "prod")
    first, second, third = str(caught.value).splitlines()
    assert first == f"stacks/Pulumi.prod.yaml: tandem:{where}"
    assert second.startswith("  rule: ")
    assert rule in second
    assert third.startswith("  way out: ")
    assert way_out in third


@pytest.mark.parametrize("key", ["tandem:namespace", "tandem:profile", "tandem:apps"])
def test_required_keys(key: str) -> None:
    raw = raw_config("prod")
    del raw[key]
    with pytest.raises(SettingsError, match=f"{key} = null\n  rule: the key is required"):
        parse_settings(raw, "prod")


@pytest.mark.parametrize("stack", STACKS)
def test_committed_stacks_load(stack: str) -> None:
    settings = parse_settings(raw_config(stack), stack)
    assert settings.cluster_check == "enforce"
    if settings.recovery_target_seconds is not None:
        assert bound_seconds(settings.profile) <= settings.recovery_target_seconds


@pytest.mark.parametrize("stack", ["staging", "prod"])
def test_stacks_with_a_promise_keep_data(stack: str) -> None:
    settings = parse_settings(raw_config(stack), stack)
    assert settings.keep_data
    assert settings.recovery_target_seconds is not None


def test_every_app_has_the_stacks_profile_and_namespace() -> None:
    settings = parse_settings(raw_config("lab") | {"tandem:profile": "article"}, "lab")
    assert {args.profile for args in settings.apps.values()} == {profile("article")}
    assert {args.namespace for args in settings.apps.values()} == {"tandem-demo"}


def test_the_lab_has_one_of_each() -> None:
    apps = parse_settings(raw_config("lab"), "lab").apps
    web, hold, replace = apps["web"], apps["ledger-hold"], apps["ledger-replace"]
    assert isinstance(web, SpreadAppArgs)
    assert isinstance(hold, SingleWriterAppArgs)
    assert isinstance(replace, SingleWriterAppArgs)
    assert isinstance(apps["control"], StatefulAppArgs)
    assert isinstance(apps["agent"], NodeAgentArgs)
    assert (hold.when_unreachable, replace.when_unreachable) == ("hold", "replace")
    assert {name: args.node_port for name, args in apps.items()} == {
        "web": 30080,
        "ledger-hold": 30081,
        "ledger-replace": 30082,
        "control": 30083,
        "agent": None,
        "auditor": None,
    }
    assert isinstance(apps["auditor"], ShardedAuditorArgs)
    assert [list(each.namespaces) for each in apps["auditor"].shards] == [["team-a"], ["team-b", "team-c"]]
    assert hold.storage_class == "tandem-shared-delete"


def test_keys_of_others_are_left_alone() -> None:
    assert parse_settings(raw_config("dev") | {"kubernetes:context": "x"}, "dev").stack == "dev"


def test_no_secrets_and_no_backend_in_the_project() -> None:
    for file in [ROOT / "Pulumi.yaml", *(ROOT / "stacks").iterdir()]:
        text = file.read_text()
        for word in ("backend", "secure:", "encryptionsalt", "passphrase"):
            assert word not in text, f"{file.name} has {word}"


def test_importing_does_nothing() -> None:
    """No file, no network, no Pulumi engine is touched by an import of any module of the program."""
    code = """
import sys
# What our modules import may do as it likes; it comes first.
import aiohttp, kubernetes_asyncio.client, kubernetes_asyncio.config, pulumi, pulumi_kubernetes, pydantic
import pulumi_kubernetes.apps.v1, pulumi_kubernetes.policy.v1, pulumi_kubernetes.storage.v1

def watch(event, arguments):
    writes = event == "open" and set(str(arguments[1])) & set("wax+") and "__pycache__" not in str(arguments[0])
    if writes or event in ("subprocess.Popen", "socket.connect"):
        raise SystemExit(f"{event} {arguments}")

sys.addaudithook(watch)
import infra.__main__, infra.components.image_prepull
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_one_replica_is_for_dev() -> None:
    one = json.dumps({"web": {"kind": "spread", "image": "example.org/app:1", "replicas": 1}})
    alone = parse_settings(raw_config("dev") | {"tandem:apps": one}, "dev").apps["web"]
    assert alone.behaviour == "replace"
    for other in ("staging", "prod", "lab", "berlin"):
        with pytest.raises(SettingsError, match=r"tandem:apps\.web\.replicas = 1"):
            parse_settings(raw_config("staging") | {"tandem:apps": one}, other)
