"""Every refusal of preflight names where, key, value, rule and way out; a healthy site gets none."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from plugins.module_utils import tandem_findings as checks
from plugins.module_utils import tandem_variables as variables

ROOT = Path(__file__).resolve().parents[3]

Node = Callable[..., dict[str, Any]]
NOW = 1_790_000_000.0

GROUPS = {"all": ["cp", "a", "b", "n"], "control_plane": ["cp"], "workers": ["a", "b"], "nfs_server": ["n"]}
ADDRESSES = {"cp": "10.0.0.10", "a": "10.0.0.11", "b": "10.0.0.12", "n": "10.0.0.20"}
SETTINGS: dict[str, Any] = {
    "profile": "balanced",
    "target_seconds": 0,
    "accept": [],
    "pod_subnet": "10.244.0.0/16",
    "service_subnet": "10.96.0.0/16",
    "pod_network": "bridge",
}


def test_a_good_inventory_has_no_finding() -> None:
    assert checks.inventory_findings(GROUPS, ADDRESSES, SETTINGS) == []


@pytest.mark.parametrize(
    ("groups", "addresses", "settings", "words"),
    [
        ({"control_plane": []}, {}, {}, ["group control_plane", "at least one host"]),
        ({"workers": []}, {}, {}, ["group workers", "at least one host"]),
        ({"workers": ["a"]}, {}, {}, ["group workers", "['a']", "at least 2 workers"]),
        ({"nfs_server": []}, {}, {}, ["group nfs_server"]),
        ({"nfs_server": ["n", "cp"]}, {}, {}, ["group nfs_server", "one host"]),
        ({"workers": ["a", "cp"]}, {}, {}, ["host cp", "control_plane and workers"]),
        ({}, {"b": "10.0.0.11"}, {}, ["host b", "10.0.0.11", "a has it too"]),
        ({}, {"b": ""}, {}, ["host b", "tandem_address", "IPv4"]),
        ({}, {"b": "fd00::1"}, {}, ["host b", "fd00::1", "IPv4 only"]),
    ],
)
def test_inventory_refusals(
    groups: dict[str, Any], addresses: dict[str, str], settings: dict[str, Any], words: list[str]
) -> None:
    findings = checks.inventory_findings({**GROUPS, **groups}, {**ADDRESSES, **addresses}, {**SETTINGS, **settings})
    assert len(findings) == 1
    for word in [*words, "; rule: ", "; way out: "]:
        assert word in findings[0]


TABLE: list[dict[str, Any]] = yaml.safe_load((ROOT / "tests/unit/ansible/fixtures/wrong-inputs.yml").read_text())
LAB_GROUPS = {"control_plane": ["cp1"], "workers": ["w1", "w2"], "nfs_server": ["nfs1"]}
LAB_ADDRESSES = {"cp1": "10.77.0.10", "w1": "10.77.0.11", "w2": "10.77.0.12", "nfs1": "10.77.0.20"}


def judged(entry: dict[str, Any]) -> list[str]:
    """What preflight says of one row of the table, on the lab's inventory."""
    variables = entry.get("variables", {})
    groups = {group: [*hosts, *entry.get("inventory", {}).get(group, {})] for group, hosts in LAB_GROUPS.items()}
    addresses: dict[str, str] = dict(LAB_ADDRESSES)
    for hosts in entry.get("inventory", {}).values():
        for host, own in hosts.items():
            addresses[host] = own.get("tandem_address", addresses.get(host, ""))
    settings = {
        **SETTINGS,
        "profile": variables.get("tandem_profile", "balanced"),
        "target_seconds": variables.get("recovery_target_seconds", 0),
        "accept": variables.get("tandem_accept_findings", []),
        "lost_worker": variables.get("tandem_accept_lost_worker", ""),
        "variables": variables,
    }
    for key in ("pod_subnet", "service_subnet", "pod_network"):
        settings[key] = variables.get(f"tandem_{key}", SETTINGS[key])
    return checks.inventory_findings(groups, addresses, settings)


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry["name"])
def test_each_row_of_the_table_is_refused_in_its_words(entry: dict[str, Any]) -> None:
    told = [finding for finding in judged(entry) if all(word in finding for word in entry["words"])]
    assert len(told) == 1, judged(entry)
    assert "; rule: " in told[0]
    assert "; way out: " in told[0]


def test_the_table_is_long_enough_and_its_base_is_good() -> None:
    assert len(TABLE) >= 25
    assert judged({}) == []


@pytest.mark.parametrize("inventory", ["lab", "example"])
def test_the_inventories_variables_are_fine(inventory: str) -> None:
    values = yaml.safe_load((ROOT / "inventories" / inventory / "group_vars" / "all.yml").read_text())
    assert variables.variable_findings(values) == []


@pytest.mark.parametrize(
    "values",
    [
        {"tandem_share_path": "/srv/share", "tandem_export_path": "/srv/share"},
        {"tandem_export_path": "/srv/nfs", "tandem_snapshots": False},
        {"tandem_nfs_lease_seconds": "60", "tandem_nfs_grace_seconds": "60"},
        {"tandem_nfs_lease_seconds": 10},
    ],
    ids=["one name on both sides", "no snapshots", "times as text", "shorter lease"],
)
def test_values_beside_one_another_that_are_fine(values: dict[str, Any]) -> None:
    assert variables.variable_findings(values) == []


def test_every_variable_that_a_role_reads_is_known_and_every_known_one_is_read() -> None:
    files = [*(ROOT / "roles").rglob("*.yml"), *(ROOT / "roles").rglob("*.j2"), *(ROOT / "playbooks").glob("*.yml")]
    files += [ROOT / "plugins/inventory/tandem_lab.py"]
    text = "\n".join(path.read_text() for path in files)
    modules = {
        path.stem for folder in ("modules", "action") for path in (ROOT / "plugins" / folder).glob("tandem_*.py")
    }
    filters = set(re.findall(r'"(tandem_\w+)":', (ROOT / "plugins/filter/tandem.py").read_text()))
    plugins = (modules | filters | {"tandem_lab", "tandem_nfs"}) - {"tandem_host_key", "tandem_reset"}  # variables too
    read = set(re.findall(r"\b(?:tandem|recovery)_[a-z_]+", text)) - plugins
    assert read | {"tandem_backup", "tandem_kubeconfig"} == set(variables.VARIABLES)


def test_the_rules_that_can_be_accepted_are_those_that_exist() -> None:
    source = (ROOT / "tandem/_recovery/check.py").read_text()
    found = set(re.findall(r'"error",\s*"([a-z0-9-]+)"', source)) - {"recovery-target", "warning"}
    assert found == set(variables.RULES)


def test_a_good_machine_has_no_finding(node: Node, rules: dict[str, Any]) -> None:
    rules = {**rules, "address": "10.0.0.11", "is_node": True}
    assert checks.node_findings("a", node(), rules, received_at=NOW + 1) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"os": {"id": "fedora", "version_id": "42", "name": "Fedora 42", "architecture": "x86_64"}},
            ["operating system", "Fedora 42", "debian 12"],
        ),
        ({"os": {"id": "debian", "version_id": "11", "name": "Debian 11", "architecture": "x86_64"}}, ["Debian 11"]),
        (
            {"os": {"id": "debian", "version_id": "13", "name": "Debian 13", "architecture": "aarch64"}},
            ["architecture", "aarch64"],
        ),
        ({"selinux": "enforcing"}, ["SELinux", "enforcing", "setenforce 0"]),
        ({"units": {"firewalld.service": {"active": "active"}}}, ["firewalld", "inactive", "tandem_nfs_firewall"]),
        ({"busy": ["kubeadm upgrade apply (pid 42)"]}, ["kubeadm upgrade apply (pid 42)", "earlier run", "its end"]),
        ({"swaps": ["/dev/sda2"]}, ["swap", "/dev/sda2", "swapoff"]),
        ({"now": NOW - 60}, ["clock", "behind", "chrony"]),
        ({"now": NOW + 60}, ["clock", "ahead", "chrony"]),
        (
            {"disks": {"/var/lib": {"free": 1024**3, "total": 1024**4}}},
            ["free space under /var/lib", "1.0 GiB", "5 GiB"],
        ),
        ({"foreign_manifests": ["kube-apiserver.yaml.bak"]}, ["/etc/kubernetes/manifests", "kube-apiserver.yaml.bak"]),
        (
            {"addresses": [{"interface": "eth0", "address": "10.0.0.99", "prefix": 24}]},
            ["tandem_address", "10.0.0.11", "10.0.0.99"],
        ),
        (
            {
                "processes": {
                    "kube-controller-manager": {"pid": 1, "args": {"pod-eviction-timeout": "30s"}, "environ": {}}
                }
            },
            ["pod-eviction-timeout", "30s", "default-unreachable-toleration-seconds"],
        ),
        ({"kernel": {"loads_modules": False, "present": {"br_netfilter": False}}}, ["kernel features", "br_netfilter"]),
    ],
)
def test_machine_refusals(node: Node, rules: dict[str, Any], changes: dict[str, Any], words: list[str]) -> None:
    rules = {**rules, "address": "10.0.0.11", "is_node": True}
    findings = checks.node_findings("a", node(**changes), rules, received_at=NOW + 1)
    assert len(findings) == 1
    for word in ["a: ", *words, "; rule: ", "; way out: "]:
        assert word in findings[0]


def test_a_slow_answer_is_not_a_wrong_clock(node: Node, rules: dict[str, Any]) -> None:
    rules = {**rules, "address": "10.0.0.11", "is_node": True}
    assert checks.node_findings("a", node(sent_at=NOW - 90), rules, received_at=NOW + 90) == []


def test_what_only_nodes_need_is_not_asked_of_the_nfs_server(node: Node, rules: dict[str, Any]) -> None:
    rules = {**rules, "address": "10.0.0.11", "is_node": False}
    assert checks.node_findings("n", node(swaps=["/dev/sda2"]), rules, received_at=NOW + 1) == []


def test_unreachable_machines_and_several_subnets_are_named(node: Node, rules: dict[str, Any]) -> None:
    now = time.time()
    far = node(now=now, sent_at=now, addresses=[{"interface": "eth0", "address": "10.0.1.12", "prefix": 24}])
    near = node(now=now, sent_at=now)
    addresses = {"a": "10.0.0.11", "b": "10.0.1.12", "n": "10.0.0.20"}
    answers: dict[str, dict[str, Any]] = {
        "a": {"node": near},
        "b": {"node": far},
        "n": {"unreachable": True, "msg": "no route"},
    }
    findings = checks.machines_findings(answers, addresses, ["a", "b"], rules)
    assert len(findings) == 2
    assert "['n']" in findings[0]
    assert "start it" in findings[0]
    assert "10.0.0.0/24 (a), 10.0.1.0/24 (b)" in findings[1]
    assert len(checks.machines_findings(answers, addresses, ["a", "b"], {**rules, "pod_network": "none"})) == 1


@pytest.mark.parametrize(
    ("silent", "lost", "allowed", "words"),
    [
        (["b"], "b", True, []),
        (
            ["b"],
            "",
            True,
            ["['b']", "start it; or, when it is powered off or released, -e tandem_accept_lost_worker=b"],
        ),
        (["b"], "", False, ["['b']", "way out: start it$"]),
        (["n"], "", True, ["['n']", "way out: start it$"]),
        (["a", "b"], "", True, ["['a', 'b']", "way out: start it$"]),
        (["a", "b"], "b", True, ["['a']", "way out: start it$"]),
        (["b"], "a", True, ["lost_worker is 'a'; rule: .* this one answers; way out: leave it out", "['b']"]),
    ],
)
def test_only_the_named_workers_silence_is_accepted(
    node: Node, rules: dict[str, Any], silent: list[str], lost: str, allowed: bool, words: list[str]
) -> None:
    now = time.time()
    addresses = {"a": "10.0.0.11", "b": "10.0.0.12", "n": "10.0.0.20"}
    answers: dict[str, dict[str, Any]] = {
        host: {"unreachable": True, "msg": "no route"}
        if host in silent
        else {"node": node(now=now, sent_at=now, addresses=[{"interface": "e", "address": address, "prefix": 24}])}
        for host, address in addresses.items()
    }
    rules |= {"lost_worker": lost, "lost_worker_allowed": allowed, "virtual_ip": "10.0.0.100"}
    findings = "\n".join(checks.machines_findings(answers, addresses, ["a", "b"], rules))
    assert all(re.search(word.replace("[", r"\["), findings, re.MULTILINE) for word in words), findings
    assert bool(findings) == bool(words)


@pytest.mark.parametrize(
    ("workers", "lost", "allowed", "words"),
    [
        (["a", "b"], "b", True, []),
        (["a", "b"], "c", True, ["tandem_accept_lost_worker is 'c'; rule: one of the workers, a, b"]),
        (["a", "b"], "cp", True, ["rule: one of the workers"]),
        (["a", "b"], "b", False, ["rule: for backup.yml, certs.yml and restore.yml alone", "replace-node.yml"]),
        (["a"], "a", True, ["rule: another worker is left", "stays in the inventory"]),
    ],
)
def test_the_worker_that_is_accepted_as_lost(workers: list[str], lost: str, allowed: bool, words: list[str]) -> None:
    settings = {**SETTINGS, "lost_worker": lost, "lost_worker_allowed": allowed}
    findings = "\n".join(checks.inventory_findings({**GROUPS, "workers": workers}, ADDRESSES, settings))
    assert all(word in findings for word in words), findings
    assert bool(findings) == bool(words)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("10.0.0.100", []),
        ("10.0.0.20", ["tandem_virtual_ip is '10.0.0.20'", "it is n's", "unused"]),
        ("10.0.1.100", ["a: tandem_virtual_ip", "10.0.0.0/24", "b: tandem_virtual_ip"]),
    ],
)
def test_the_shared_address_is_unused_and_near(
    node: Node, rules: dict[str, Any], wanted: str, words: list[str]
) -> None:
    now = time.time()
    addresses = {"a": "10.0.0.11", "b": "10.0.0.12", "n": "10.0.0.20"}
    answers = {
        host: {"node": node(now=now, sent_at=now, addresses=[{"interface": "eth0", "address": address, "prefix": 24}])}
        for host, address in addresses.items()
    }
    findings = "\n".join(checks.machines_findings(answers, addresses, ["a", "b"], {**rules, "virtual_ip": wanted}))
    assert all(word in findings for word in words)
    assert bool(findings) == bool(words)


def test_the_shares_folder_is_not_held_against_defaults_of_another_machine() -> None:
    assert variables.variable_findings({"tandem_share_path": "/srv/nfs"}) == []
    told = variables.variable_findings({"tandem_share_path": "/srv/nfs", "tandem_export_path": "/srv/nfs/tandem"})
    assert any("tandem_export_path" in each for each in told)
