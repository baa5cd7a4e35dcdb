"""Machines that go off and on come back as Ready nodes by themselves, in any order. Long: it waits for ten minutes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from lab.demo import kubectl_json
from lab.runtime import Lab
from tests.conftest import wait_until

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(1800)]

WORKERS_ALONE_SECONDS = 600


def ready_nodes() -> set[str]:
    """Names of the nodes whose Ready condition is True."""
    return {
        node["metadata"]["name"]
        for node in kubectl_json("get", "nodes")["items"]
        for condition in node["status"]["conditions"]
        if condition["type"] == "Ready" and condition["status"] == "True"
    }


def test_a_reboot_brings_the_node_back(deployed: Path) -> None:
    lab = Lab()
    lab.power_off("w1")
    wait_until(lambda: ready_nodes() == {"cp1", "w2"}, 120, "w1 is lost")
    lab.power_on("w1")
    print(f"w1 Ready {wait_until(lambda: ready_nodes() == {'cp1', 'w1', 'w2'}, 120, 'w1 is Ready'):.0f} s after SSH")


def test_workers_that_boot_long_before_the_nfs_server_are_ready_and_mount_it_later(deployed: Path) -> None:
    lab = Lab()
    for name in ("w1", "w2", "nfs1"):
        lab.power_off(name)
    for name in ("w1", "w2"):
        lab.power_on(name)
    wait_until(lambda: ready_nodes() == {"cp1", "w1", "w2"}, 240, "workers are Ready without the share")
    time.sleep(WORKERS_ALONE_SECONDS)
    assert ready_nodes() == {"cp1", "w1", "w2"}
    lab.power_on("nfs1")

    def writers_run() -> bool:
        pods = kubectl_json("get", "pods", "--namespace=tandem-demo", "--selector=tandem-ha.io/workload=single-writer")[
            "items"
        ]
        ready = [
            pod
            for pod in pods
            for condition in pod["status"].get("conditions", [])
            if condition["type"] == "Ready" and condition["status"] == "True"
        ]
        return len(ready) == 2

    print(f"writers serve {wait_until(writers_run, 300, 'the single writers run again'):.0f} s after nfs1's SSH")
