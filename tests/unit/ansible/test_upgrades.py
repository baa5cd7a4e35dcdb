"""What forbids an upgrade, and which nodes it has to visit."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from plugins.module_utils import tandem_upgrades as upgrades

HOSTS = ["cp1", "w1", "w2"]


def cluster(**kubelets: str) -> dict[str, Any]:
    versions = dict.fromkeys(HOSTS, "v1.35.4") | kubelets
    return {
        "reachable": True,
        "kubeadm_config": "kind: ClusterConfiguration\nkubernetesVersion: v1.35.4\n",
        "nodes": {name: {"kubelet_version": version, "ready": "True"} for name, version in versions.items()},
    }


def site(**changes: Any) -> dict[str, Any]:
    return {
        "target": "1.36.3",
        "hosts": HOSTS,
        "offered": ["1.36.3-1.1"],
        "etcd": {"cp1": ""},
        "families": dict.fromkeys(HOSTS, "debian"),
        **changes,
    }


def site_machines(version: str = "1.35.4-1.1", **begun: bool) -> dict[str, dict[str, Any]]:
    return {
        host: {
            "packages": dict.fromkeys(upgrades.PACKAGES, version),
            "begun": begun.get(host, False),
            "first": host == "cp1",
        }
        for host in HOSTS
    }


def test_a_patch_and_a_minor_version_up_are_fine() -> None:
    assert upgrades.upgrade_findings(cluster(), site()) == []
    assert upgrades.upgrade_findings(cluster(), site(target="1.35.9", offered=["1.35.9-1.1"])) == []
    assert upgrades.upgrade_findings(cluster(w2="v1.33.1"), site()) == []
    assert upgrades.upgrade_findings(cluster(cp1="v1.36.3"), site()) == [], "half of an upgrade to the same version"
    assert upgrades.upgrade_findings(cluster(), site(offered=None)) == [], "somebody else's repository is not asked"


@pytest.mark.parametrize(
    ("state", "given", "words"),
    [
        (
            cluster(),
            site(target="1.37.0", offered=["1.37.0-1.1"]),
            ["one minor version at a time", "newest 1.36 first"],
        ),
        (cluster(), site(target="1.35.1", offered=["1.35.1-1.1"]), ["v1.35.4", "does not go back"]),
        (cluster(w1="v1.32.9"), site(), ["node w1", "v1.32.9", "at most 3 minor versions"]),
        (cluster(w9="v1.36.4"), site(), ["node w9", "none newer"]),
        (cluster(), site(etcd={"cp1": "alarm:NOSPACE"}), ["node cp1", "alarm:NOSPACE"]),
        (cluster(), site(families={"w1": "redhat"}), ["node w1", "package manager is 'redhat'", "kubeadm's own guide"]),
        (cluster(), site(hosts=[*HOSTS, "w3"]), ["hosts is ['w3']", "site.yml"]),
        (cluster(), site(offered=["1.35.4-1.1", "1.36.1-1.1"]), ["offers kubeadm 1.36.3", "1.36.1-1.1"]),
        ({"reachable": False, "error": "refused", "nodes": {}}, site(), ["the API", "refused"]),
    ],
)
def test_what_forbids_it(state: dict[str, Any], given: dict[str, Any], words: list[str]) -> None:
    found = "\n".join(upgrades.upgrade_findings(state, given))
    assert found
    assert all(word in found for word in words), found


def test_a_node_that_is_not_ready_forbids_it() -> None:
    state = cluster()
    state["nodes"]["w2"]["ready"] = "Unknown"
    [found] = upgrades.upgrade_findings(state, site())
    assert "node w2: Ready is 'Unknown'" in found


def test_nodes_to_visit() -> None:
    assert upgrades.pending(cluster(), site_machines(), "1.36.3") == HOSTS
    done = cluster(cp1="v1.36.3", w1="v1.36.3", w2="v1.36.3")
    done["kubeadm_config"] = done["kubeadm_config"].replace("1.35.4", "1.36.3")
    at = site_machines("1.36.3-1.1")
    assert upgrades.pending(done, at, "1.36.3") == [], "a second run changes nothing"
    assert upgrades.pending(done, site_machines("1.36.3-1.1", w1=True), "1.36.3") == ["w1"], "killed there"
    package = copy.deepcopy(at)
    package["w2"]["packages"]["kubectl"] = "1.35.4-1.1"
    assert upgrades.pending(done, package, "1.36.3") == ["w2"]
    assert upgrades.pending(cluster(w1="v1.36.3", w2="v1.36.3", cp1="v1.36.3"), at, "1.36.3") == ["cp1"]
    assert upgrades.pending(done, at, "1.36.30") == HOSTS, "no prefix of another version"


def test_what_is_taken_of_a_machine() -> None:
    node = {"packages": {"kubeadm": {"version": "1.35.4-1.1", "held": True}}, "files": {"/m": True}}
    assert upgrades.machines({"cp1": node, "w1": node | {"files": {"/m": False}}}, "/m", "cp1") == {
        "cp1": {"packages": {"kubeadm": "1.35.4-1.1"}, "begun": True, "first": True},
        "w1": {"packages": {"kubeadm": "1.35.4-1.1"}, "begun": False, "first": False},
    }


def test_the_index_of_a_repository() -> None:
    index = "Package: kubelet\nVersion: 1.36.3-1.1\n\nPackage: kubeadm\nVersion: 1.35.4-1.1\nDepends: x\n\n"
    assert upgrades.offered(index) == ["1.35.4-1.1"]


@pytest.mark.parametrize("text", ["", "1.36", "latest"])
def test_what_is_no_version(text: str) -> None:
    with pytest.raises(ValueError, match="no version of Kubernetes"):
        upgrades.parsed(text)
