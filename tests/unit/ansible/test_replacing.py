"""What forbids an empty machine to take a worker's place, and which host key is its own."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest

from plugins.module_utils import tandem_replacing as replacing

EMPTY = {"boot_id": "boot-2", "joined": False}
ITSELF = {"boot_id": "boot-1", "joined": True}
RELEASED = {"phase": "refused", "boot_ids": ["boot-1"], "addresses": ["10.77.0.11"], "epoch": 1, "since": ""}


def node(ready: str = "Unknown", boot: str = "boot-1") -> dict[str, Any]:
    return {
        "metadata": {"name": "w1"},
        "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": ready}], "nodeInfo": {"bootID": boot}},
    }


def refusals(
    machine: dict[str, Any] | None = None,
    there: dict[str, Any] | None = None,
    entry: dict[str, Any] | None = None,
    *,
    name: str = "w1",
    gone: bool = False,
) -> list[str]:
    return replacing.replacement_refusals(name, there, machine or EMPTY, ["w1", "w2"], entry, gone=gone)


def test_an_empty_machine_takes_the_place_of_one_that_is_gone_for_good() -> None:
    assert refusals(there=node(), gone=True) == []
    assert refusals(there=node("False"), gone=True) == []
    assert refusals(there=node(), entry=RELEASED, gone=True) == []
    assert refusals() == [], "a new worker, or one that an earlier run removed already"


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("one of: w1, w2", {"name": "w9"}),
        ("one of: w1, w2", {"name": ""}),
        ("answers over SSH", {"machine": {"boot_id": "", "joined": False}, "there": node(), "gone": True}),
        ("another machine of this name", {"there": node("True", "boot-9"), "gone": True}),
        ("-e tandem_old_machine_gone=true", {"there": node()}),
        ("-e tandem_old_machine_gone=true", {"entry": RELEASED}),
        ("playbooks/reset.yml", {"machine": ITSELF}),
        ("wait until it is Ready", {"machine": ITSELF, "there": node("Unknown", "boot-0"), "gone": True}),
        ("playbooks/readmit-node.yml", {"machine": ITSELF, "there": node("True"), "entry": RELEASED, "gone": True}),
    ],
)
def test_what_forbids_it(words: str, arguments: dict[str, Any]) -> None:
    [sentence] = refusals(**arguments)
    assert words in sentence
    assert "rule: " in sentence
    assert "way out: " in sentence


def test_the_node_itself_is_left_alone() -> None:
    assert refusals(ITSELF, node("True")) == []
    assert refusals(ITSELF, node("True"), gone=True) == [], "said of a node that lives, it does no harm"
    assert "nothing to replace" in replacing.told("w1", node("True"), ITSELF, [])


def test_the_plan_names_the_pods() -> None:
    pods = [
        {
            "metadata": {
                "namespace": "shop",
                "name": name,
                "uid": name,
                "ownerReferences": [{"controller": True, "kind": kind, "name": "x", "uid": "u"}],
            },
            "spec": {"nodeName": where},
        }
        for name, kind, where in (
            ("ledger-1", "ReplicaSet", "w1"),
            ("agent-1", "DaemonSet", "w1"),
            ("ledger-2", "ReplicaSet", "w2"),
        )
    ]
    found = replacing.bound(pods, "w1")
    assert [pod["uid"] for pod in found] == ["ledger-1", "agent-1"]
    told = replacing.told("w1", node(), EMPTY, found)
    assert "(pods: shop/ledger-1)" in told
    assert replacing.told("w1", None, EMPTY, []) == "w1 is no node yet; it joins"


def test_the_host_key_with_the_fingerprint() -> None:
    blobs = {kind: base64.b64encode(kind.encode() * 5).decode() for kind in ("ssh-rsa", "ssh-ed25519")}
    scan = "# w1:22 SSH-2.0-OpenSSH\n" + "".join(f"w1 {kind} {blob}\n" for kind, blob in blobs.items()) + "w1 odd !\n"
    digest = hashlib.sha256(base64.b64decode(blobs["ssh-ed25519"])).digest()
    fingerprint = "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
    assert replacing.host_key(scan, fingerprint) == f"ssh-ed25519 {blobs['ssh-ed25519']}"
    with pytest.raises(ValueError, match=r"offers SHA256:.* \(ssh-rsa\), SHA256:.*way out: .*console"):
        replacing.host_key(scan, "SHA256:" + "x" * 43)
    with pytest.raises(ValueError, match="it offers none"):
        replacing.host_key("", fingerprint)
