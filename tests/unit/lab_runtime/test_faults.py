from __future__ import annotations

import subprocess

import pytest

from lab.runtime.errors import UsageError
from lab.runtime.faults import Cut, check_degrade, degrade_script, heal_script, ruleset


def drops(cuts: list[Cut]) -> list[str]:
    return [text.strip().split(" counter")[0] for text in ruleset(cuts).splitlines() if " drop " in text]


def test_no_cut_is_an_empty_table() -> None:
    assert drops([]) == []
    first, second, third, *_ = ruleset([]).splitlines()
    assert (first, second) == ("add table bridge tandem_lab", "delete table bridge tandem_lab")
    assert third == "table bridge tandem_lab {"


def test_a_cut_from_everybody_is_both_ways_at_the_machines_own_port() -> None:
    assert drops([Cut("w1")]) == ['iifname "tap-w1"', 'oifname "tap-w1"']
    assert drops([Cut("w1", one_way=True)]) == ['iifname "tap-w1"']


def test_a_cut_from_a_peer_names_that_pair_of_ports_only() -> None:
    assert drops([Cut("w1", "cp1")]) == ['iifname "tap-w1" oifname "tap-cp1"', 'iifname "tap-cp1" oifname "tap-w1"']
    assert drops([Cut("w1", "cp1", one_way=True)]) == ['iifname "tap-w1" oifname "tap-cp1"']


def test_the_host_is_a_peer_too() -> None:
    text = ruleset([Cut("w1", "host")])
    assert drops([Cut("w1", "host")]) == ['iifname "tap-w1"', 'oifname "tap-w1"']
    assert text.index("chain input") < text.index('iifname "tap-w1"') < text.index("chain output")
    assert text.index("chain output") < text.index('oifname "tap-w1"') < text.index("chain postrouting")


def test_the_same_cut_twice_is_one_rule() -> None:
    assert drops([Cut("w1", "cp1"), Cut("w1", "cp1")]) == drops([Cut("w1", "cp1")])


@pytest.mark.parametrize(("loss", "delay"), [(-1, 0), (101, 0), (0, -1), (0, 60_001), (0, 0)])
def test_values_that_mean_nothing_are_refused(loss: float, delay: float) -> None:
    with pytest.raises(UsageError):
        check_degrade(loss, delay)


def test_degrading_starts_from_a_healed_wire_and_spares_the_labs_ssh() -> None:
    script = degrade_script(20, 50)
    assert script.startswith(heal_script())
    assert script.count("netem limit 10000 delay 50ms loss 20%") == 2
    assert "match ip dst 10.77.0.1/32 match ip sport 22 0xffff flowid 1:1" in script
    assert "match ip src 10.77.0.1/32 match ip dport 22 0xffff action pass" in script


@pytest.mark.parametrize("script", [heal_script(), degrade_script(100, 0), degrade_script(0, 12.5)])
def test_the_scripts_are_shell(script: str) -> None:
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)
