"""A client outside, through the shared address and the gateway behind it, to an app of the stack.

The client is nfs1, which is no worker; it asks twenty times a second, each time on a new connection.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.demo import kubectl, kubectl_json
from lab.runtime import Lab
from tests.conftest import wait_until
from tests.testinfra.test_virtual_ip import ADDRESS, ASK, CLIENT, Address, Connect, in_background

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.disruptive, pytest.mark.timeout(1800)]

PATIENCE_SECONDS = 3.0
"""How long the client waits for an answer, as an ordinary one would."""

BOUND_SECONDS = 31.5
"""The drill's: when a lost worker's endpoints are out, with `article`, at the latest (docs/profiles.md)."""


@pytest.fixture(scope="module")
def address(machine: Connect, workers: list[str], deployed: Path) -> Iterator[Address]:
    try:
        in_background(machine(CLIENT), "tandem-test-client", "/usr/bin/python3", "-c", client())
        found = Address(machine, workers)
        wait_until(lambda: served(found), 120, "the app is reached through the address")
        yield found
    finally:
        machine(CLIENT).run("systemctl stop tandem-test-client")


def client() -> str:
    return ASK % (ADDRESS, 80, PATIENCE_SECONDS, "web.lab")


def served(address: Address) -> bool:
    """Every request of the last two seconds was answered."""
    last = address.answers(time.time() - 2)
    return len(last) > 5 and all(name != "-" for _, name in last)


def gateways_ready() -> bool:
    status = kubectl_json("get", "daemonset", "gateway", "--namespace=tandem-gateway")["status"]
    return bool(status.get("numberReady") == status["desiredNumberScheduled"] == status.get("updatedNumberScheduled"))


def test_a_roll_of_the_gateway_fails_no_request(address: Address) -> None:
    began = time.time()
    roll = kubectl("rollout", "restart", "daemonset/gateway", "--namespace=tandem-gateway")
    subprocess.run(roll, check=True, stdout=subprocess.DEVNULL)
    time.sleep(2)
    took = wait_until(gateways_ready, 300, "both gateways are new")
    time.sleep(2)
    asked = address.answers(began)
    failed = [at - began for at, name in asked if name == "-"]
    print(f"{len(asked)} requests during a roll of {took:.0f} s, {len(failed)} failed: {failed}")
    assert failed == []


def test_a_worker_that_loses_power_is_away_for_seconds(address: Address) -> None:
    wait_until(lambda: served(address), 60, "the app is reached")
    lab, victim, began = Lab(), address.holder(), time.time()
    lab.power_off(victim)
    try:
        time.sleep(BOUND_SECONDS + 10)
        asked = address.answers(began - 1)
    finally:
        lab.power_on(victim)
    failed = [at - began for at, name in asked if name == "-"]
    gap = address.longest_gap(began - 1)
    print(f"{victim} held the address and lost power: {gap:.2f} s without an answer, {len(failed)} failed: {failed}")
    assert gap < BOUND_SECONDS
    wait_until(gateways_ready, 300, "both gateways are back")
    wait_until(lambda: served(address), 60, "the app is reached")
