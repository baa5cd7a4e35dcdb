"""Tuning that breaks, is killed, meets another run or a full disk: nothing unsafe stays, and the next run resumes."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.runtime import Lab
from plugins.module_utils import tandem_lock, tandem_tuning
from plugins.module_utils.tandem_kube import Kube
from tandem import recovery
from tests.testinfra.playbooks import ROOT, TIMEOUT_SECONDS, command, killed_after, killed_at, run, told
from tests.testinfra.test_tuning_killed import safe

SYSTEM = "/api/v1/namespaces/kube-system"
WATCHED = "/etc /var/lib/kubelet/config.yaml /var/lib/kubelet/kubeadm-flags.env /usr/local /opt /var/backups /root /srv"
SEEDS = range(int(os.environ.get("TANDEM_KILL_SEEDS", "10")))

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.disruptive, pytest.mark.timeout(4 * TIMEOUT_SECONDS)]


def documents(kube: Kube) -> tuple[str, str]:
    """Both documents of kubeadm, as they are in the cluster."""
    return (
        str(kube.get(f"{SYSTEM}/configmaps/kubeadm-config")["data"]["ClusterConfiguration"]),
        str(kube.get(f"{SYSTEM}/configmaps/kubelet-config")["data"]["kubelet"]),
    )


def live(kube: Kube) -> recovery.RecoveryProfile:
    """The profile that kubeadm's documents amount to."""
    cluster, kubelet = documents(kube)
    return tandem_tuning.live_profile(yaml.safe_load(cluster), yaml.safe_load(kubelet))


def files(machine: Callable[[str], Any], names: list[str]) -> dict[str, str]:
    """Path, change of content and modification time of every file that a run could have touched, by machine."""
    found = f"find {WATCHED} -xdev -type f -not -path '/root/.ansible/*'"
    script = f"{found} -printf '%p %T@ ' -exec sha256sum {{}} \\; 2>/dev/null | sort"
    return {name: str(machine(name).run(script).stdout) for name in names}


@pytest.fixture
def other(profile: str) -> str:
    """Another profile than the cluster's."""
    return "article" if profile != "article" else "balanced"


@pytest.fixture
def returned(profile: str) -> Iterator[None]:
    """The cluster has its profile again afterwards."""
    yield
    done = run("tune", profile)
    assert done.returncode == 0, told(done)[-3000:]


def test_a_check_run_tells_the_flags_and_leaves_nothing(
    kube: Kube, machine: Callable[[str], Any], nodes: list[str], profile: str, other: str
) -> None:
    before, on_disk = documents(kube), files(machine, nodes)
    done = run("tune", other, "--check", "--diff")
    assert done.returncode == 0, told(done)[-3000:]
    there, wanted = recovery.profile(profile), recovery.profile(other)
    changed = 0
    for arguments in (recovery.controller_manager_args, recovery.api_server_args):
        for flag, value in dict(arguments(wanted).items() - arguments(there).items()).items():
            assert f"+ - --{flag}={value}" in told(done), flag
            changed += 1
    for name, wish in recovery.kubelet_configuration(wanted).items():
        if recovery.kubelet_configuration(there).get(name) != wish:
            assert f"{name}: {wish}" in told(done), name
            changed += 1
    assert changed >= 2, f"{profile} and {other} hardly differ: nothing was tested"
    assert documents(kube) == before
    assert files(machine, nodes) == on_disk


def test_the_plan_tells_times_before_and_after(other: str, profile: str, kube: Kube) -> None:
    before = documents(kube)
    said = told(run("plan", other))
    for name in (profile, other):
        window = recovery.predict(recovery.profile(name))["serving"]
        assert f"{window.low:.1f} .. {window.high:.1f}" in said
    assert documents(kube) == before


def test_a_flag_that_the_api_server_does_not_know(
    kube: Kube, machine: Callable[[str], Any], control_plane: list[str], profile: str
) -> None:
    before = documents(kube)
    manifests = machine(control_plane[0]).run("sha256sum /etc/kubernetes/manifests/*").stdout
    # The wait is kubeadm's for a pod that does not come up; 90 s are enough for one that does.
    done = run(
        "tune", profile, tandem_api_server_args={"no-such-flag": "1"}, control_plane_ha_restart_timeout_seconds=90
    )
    assert done.returncode != 0
    assert "The old kubeadm-config is back and the old manifests run again" in told(done)
    assert documents(kube) == before
    assert machine(control_plane[0]).run("sha256sum /etc/kubernetes/manifests/*").stdout == manifests
    again = run("tune", profile)
    assert again.returncode == 0
    assert "changed=0" in told(again)


def test_a_full_disk_is_refused_before_anything_changes(
    kube: Kube, machine: Callable[[str], Any], nodes: list[str], other: str
) -> None:
    before, on_disk = documents(kube), files(machine, nodes)
    done = run("tune", other, tandem_backup_min_free_mib=9_999_999)
    assert done.returncode != 0
    assert "nothing has been changed; way out: free some space" in told(done)
    assert documents(kube) == before
    assert files(machine, nodes) == on_disk


def test_a_second_run_is_refused_while_the_first_lives(other: str, kube: Kube, returned: None) -> None:
    first = subprocess.Popen(
        command("tune", other), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        until = time.monotonic() + 120
        while not tandem_lock.holder(kube.find(f"{tandem_lock.PATH}/{tandem_lock.NAME}")):
            assert time.monotonic() < until, "the first run took no lock"
            time.sleep(0.5)
        second = run("tune", other)
        assert second.returncode != 0
        assert "another run changes this cluster" in told(second)
        assert f"process {first.pid}" in told(second)
    finally:
        output, _ = first.communicate(timeout=TIMEOUT_SECONDS)
    assert first.returncode == 0, output[-3000:]


@pytest.mark.parametrize("seed", SEEDS)
def test_killed_at_a_random_moment_and_resumed(
    seed: int, kube: Kube, kubeconfig_folder: Path, profile: str, other: str, returned: None
) -> None:
    moment = random.Random(seed).uniform(10, 120)
    killed_after(command("tune", other), moment)
    safe(kube, kubeconfig_folder / "admin.conf")
    done = run("tune", other)
    assert done.returncode == 0, told(done)[-3000:]
    again = run("tune", other)
    assert "changed=0" in told(again)
    assert live(kube).node_monitor_grace_period_seconds == recovery.profile(other).node_monitor_grace_period_seconds


def test_a_field_that_was_taken_out_goes_everywhere_after_a_kill(
    kube: Kube, control_plane: list[str], workers: list[str], profile: str
) -> None:
    """Its live value may be the default, and tells nothing: which kubelets have not taken it is known all the same."""

    def room() -> list[int]:
        paths = [f"/api/v1/nodes/{node}/proxy/configz" for node in (*control_plane, *workers)]
        return [int(kube.get(path)["kubeletconfig"]["maxPods"]) for path in paths]

    before = room()
    own = {"maxPods": 120, "crashLoopBackOff": {"maxContainerRestartPeriod": "30s"}}
    given = run("tune", profile, tandem_kubelet_configuration=own)
    assert given.returncode == 0, told(given)[-3000:]
    assert set(room()) == {120}
    gone = {"maxPods": None, "crashLoopBackOff": {"maxContainerRestartPeriod": None}}
    argv = command("tune", profile, tandem_kubelet_configuration=gone)
    assert killed_at(argv, "TASK [kubelet_ha : The node is as good as before]", 1, 5)
    assert sorted(set(room())) == sorted({*before, 120}), "one has taken it, and others have not"
    seen = run("verify", profile)
    assert seen.returncode != 0
    older = f"{workers[-1]}: kubelet: wanted 'with kubelet-config as it is', found 'older: "
    assert f"{older}crashLoopBackOff.maxContainerRestartPeriod, maxPods'" in told(seen)
    done = run("tune", profile)
    assert done.returncode == 0, told(done)[-3000:]
    assert room() == before
    assert run("verify", profile).returncode == 0
    assert "changed=0" in told(run("tune", profile))


def test_back_to_the_state_before_and_to_a_backup_by_name(kube: Kube, profile: str, other: str, returned: None) -> None:
    before = documents(kube)
    assert run("tune", other).returncode == 0
    between = documents(kube)
    assert between != before
    done = run("rollback", other)
    assert done.returncode == 0, told(done)[-3000:]
    assert [yaml.safe_load(text) for text in documents(kube)] == [yaml.safe_load(text) for text in before]
    record = kube.get("/api/v1/namespaces/tandem-system/configmaps/recovery-profile")["data"]
    assert record["profile"] == profile
    refused = run("rollback", other, tandem_backup="20200101T000000Z-00000000")
    assert refused.returncode != 0
    assert "there are:" in told(refused)


def test_a_worker_that_loses_power_while_its_kubelet_restarts(
    kube: Kube, machine: Callable[[str], Any], workers: list[str], profile: str, other: str, returned: None
) -> None:
    lab, victim = Lab("default"), workers[0]

    def kubelet() -> str:
        return str(machine(victim).run("pgrep -xo kubelet").stdout).strip()

    def ready() -> bool:
        conditions = kube.get(f"/api/v1/nodes/{victim}")["status"]["conditions"]
        return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)

    before, until = kubelet(), time.monotonic() + 900
    first = subprocess.Popen(
        command("tune", other), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        while kubelet() == before:
            assert first.poll() is None, f"the kubelet of {victim} was not restarted: {first.communicate()[0][-3000:]}"
            assert time.monotonic() < until
            time.sleep(0.3)
        lab.power_off(victim)
        output, _ = first.communicate(timeout=TIMEOUT_SECONDS)
    finally:
        lab.power_on(victim)
    assert first.returncode != 0, "the loss of its machine went by unnoticed"
    assert victim in output
    allowed = {
        f.rule for name in (profile, other) for f in recovery.check(recovery.profile(name)) if f.level == "error"
    }
    assert {f.rule for f in recovery.check(live(kube)) if f.level == "error"} <= allowed
    until = time.monotonic() + 300
    while not ready():
        assert time.monotonic() < until, f"{victim} is not Ready again"
        time.sleep(1)
    done = run("tune", other)
    assert done.returncode == 0, told(done)[-3000:]
    assert "changed=0" in told(run("tune", other))
    verified = run("verify", other)
    assert verified.returncode == 0, told(verified)[-3000:]
