from __future__ import annotations

import ipaddress

import pytest

from lab.runtime import plan
from lab.runtime.errors import LabError, UnknownNodeError, UsageError
from lab.runtime.launch import check_memory


def test_every_machine_has_an_address_of_its_own_beside_the_gateway() -> None:
    network = ipaddress.ip_network(f"{plan.GATEWAY}/{plan.PREFIX_LENGTH}", strict=False)
    addresses = [node.address for node in plan.NODES.values()] + [plan.GATEWAY]
    assert len(set(addresses)) == len(addresses)
    assert all(ipaddress.ip_address(address) in network for address in addresses)
    assert len({node.mac for node in plan.NODES.values()}) == len(plan.NODES)


def test_taps_fit_the_kernels_limit_for_interface_names() -> None:
    assert all(len(node.tap) <= 15 for node in plan.NODES.values())


def test_macs_are_locally_administered_and_unicast() -> None:
    for node in plan.NODES.values():
        first = int(node.mac.split(":")[0], 16)
        assert first & 0b11 == 0b10


def test_the_standard_four_and_their_memory() -> None:
    nodes = plan.chosen()
    assert [node.name for node in nodes] == ["cp1", "w1", "w2", "nfs1"]
    assert sum(node.memory_mib for node in nodes) <= 12 * 1024


def test_with_adds_and_only_replaces() -> None:
    assert [n.name for n in plan.chosen(extra=["w3", "cp2"])] == ["cp1", "w1", "w2", "nfs1", "cp2", "w3"]
    assert [n.name for n in plan.chosen(only=["w2", "w1"])] == ["w1", "w2"]


def test_an_unknown_machine_is_refused_with_the_list_of_the_known() -> None:
    with pytest.raises(UnknownNodeError, match=r"'w9'.*cp1, w1, w2, nfs1, cp2, w3"):
        plan.node("w9")
    with pytest.raises(UnknownNodeError, match=r"cp2 is not part of this lab \(it has: cp1, w1\).*--with cp2"):
        plan.node("cp2", ["cp1", "w1"])


@pytest.mark.parametrize("name", ["", "Default", "a/b", "../x", "1st", "x" * 32, "a b"])
def test_a_name_that_makes_no_folder_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_LAB_NAME", name or "-")
    with pytest.raises(UsageError):
        plan.lab_name(name)


def test_the_name_comes_from_argument_environment_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TANDEM_LAB_NAME", raising=False)
    assert plan.lab_name() == "default"
    monkeypatch.setenv("TANDEM_LAB_NAME", "other")
    assert plan.lab_name() == "other"
    assert plan.lab_name("mine") == "mine"


def test_forward_ports_are_fixed_by_the_name() -> None:
    assert plan.forward_ports("default") == [16443]
    ports = plan.forward_ports("lifecycle")
    assert ports == plan.forward_ports("lifecycle")
    assert 16443 not in ports
    assert len(set(ports)) == len(ports) == 200


def test_a_host_with_too_little_memory_is_refused_with_the_figures() -> None:
    check_memory(plan.chosen(), "MemTotal: 9 kB\nMemAvailable:   4194304 kB\n")
    check_memory(plan.chosen(), "a kernel that tells nothing")
    with pytest.raises(LabError, match=r"7700 MiB.*3072 MiB available"):
        check_memory(plan.chosen(), "MemAvailable:   3145728 kB\n")
