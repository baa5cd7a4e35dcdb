"""Several control plane nodes: all of them vote, and a tuning always leaves an API server that serves.

Needs an inventory with at least two (in the lab: `python -m lab up --with cp2`, then site.yml).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from plugins.module_utils.tandem_kube import Kube
from tandem import recovery
from tests.testinfra.playbooks import run, told

Connect = Callable[[str], Any]
MEMBERS = (
    "curl --silent --cacert /etc/kubernetes/pki/etcd/ca.crt --cert /etc/kubernetes/pki/etcd/healthcheck-client.crt "
    "--key /etc/kubernetes/pki/etcd/healthcheck-client.key --data '{}' https://127.0.0.1:2379/v3/cluster/member/list"
)
WATCH = "/run/tandem-test-watch"
UNIT = "tandem-test-watch.service"
ANSWER_SECONDS = 10

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.disruptive, pytest.mark.timeout(3600)]


@pytest.fixture(autouse=True)
def _several(control_plane: list[str]) -> None:
    if len(control_plane) < 2:
        pytest.skip("one control plane node: python -m lab up --with cp2, then site.yml")


def test_all_members_of_etcd_vote(machine: Connect, control_plane: list[str]) -> None:
    for name in control_plane:
        members = json.loads(machine(name).check_output(MEMBERS))["members"]
        assert {member["name"] for member in members} == set(control_plane)
        assert not any(member.get("isLearner") for member in members)


def test_every_node_runs_the_profiles_flags_and_counts_as_the_profile_says(
    kube: Kube, machine: Connect, control_plane: list[str], profile: str
) -> None:
    done = run("verify", profile)
    assert done.returncode == 0, told(done)[-3000:]
    wanted = recovery.controller_manager_args(recovery.profile(profile))
    for name in control_plane:
        pod = kube.get(f"/api/v1/namespaces/kube-system/pods/kube-controller-manager-{name}")
        command = pod["spec"]["containers"][0]["command"]
        assert [flag for flag, value in wanted.items() if f"--{flag}={value}" not in command] == [], name


@pytest.fixture
def watch(machine: Connect, workers: list[str], addresses: list[str]) -> Iterator[Callable[[], list[str]]]:
    """A worker asks the API servers, one after the other, all the time; gives the lines in which none answered well.

    A server that is away refuses at once. One that is only slow, on a busy host, is waited for; so is etcd, which a
    tuning does not restart, and whose slowness all servers tell at once.
    """
    asks = "; ".join(
        f"curl --silent --insecure --max-time {ANSWER_SECONDS} --output /dev/null --write-out '%{{http_code}} ' "
        f"'https://{address}:6443/readyz?exclude=etcd&exclude=etcd-readiness'"
        for address in addresses
    )
    host = machine(workers[0])
    loop = f'while true; do echo "$(date +%T) $({asks})" >> {WATCH}; sleep 0.5; done'
    host.run(f"systemctl stop {UNIT}")  # a killed test run's
    host.check_output("rm -f %s && systemd-run --unit=%s --collect sh -c %s", WATCH, UNIT, loop)
    yield lambda: [line for line in str(host.check_output(f"cat {WATCH}")).splitlines() if "200" not in line.split()]
    host.run(f"systemctl stop {UNIT}; rm -f {WATCH}")


@pytest.fixture
def addresses(inventory: dict[str, Any], control_plane: list[str]) -> list[str]:
    """Addresses of the control plane nodes."""
    return [str(inventory["_meta"]["hostvars"][name]["tandem_address"]) for name in control_plane]


def test_a_tuning_leaves_an_api_server_that_serves(
    watch: Callable[[], list[str]], machine: Connect, workers: list[str], profile: str
) -> None:
    other = "article" if profile != "article" else "balanced"
    try:
        done = run("tune", other)
        assert done.returncode == 0, told(done)[-3000:]
    finally:
        back = run("tune", profile)
    assert back.returncode == 0, told(back)[-3000:]
    asked = str(machine(workers[0]).check_output(f"cat {WATCH}")).splitlines()
    assert len(asked) > 30
    assert any("000" in line.split() for line in asked), "no API server was ever away: nothing was tested"
    assert watch() == [], "moments without any API server"
