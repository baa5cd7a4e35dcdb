"""Every node: packages held, container runtime as wanted, no foreign static pod, live flags of the profile."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.tandem_kube import Kube, KubeError
from tandem import recovery

Connect = Callable[[str], Any]


def test_packages_are_held_and_left_alone(machine: Connect, nodes: list[str]) -> None:
    for name in nodes:
        held = set(machine(name).check_output("apt-mark showhold").split())
        assert {"kubelet", "kubeadm", "kubectl", "containerd.io"} <= held, name
        setting = machine(name).check_output("apt-config dump Unattended-Upgrade::Package-Blacklist")
        assert '"^kubelet$"' in setting, name


def test_container_runtime_uses_the_same_cgroups_as_kubelet(machine: Connect, nodes: list[str]) -> None:
    for name in nodes:
        config = machine(name).file("/etc/containerd/config.toml").content_string
        assert "version = 3" in config
        assert "SystemdCgroup = true" in config
        assert 'disabled_plugins = ["cri"]' not in config
        assert machine(name).service("containerd").is_running


def test_only_kubeadm_writes_static_pods(machine: Connect, nodes: list[str], control_plane: list[str]) -> None:
    kubeadms = {"etcd.yaml", "kube-apiserver.yaml", "kube-controller-manager.yaml", "kube-scheduler.yaml"}
    for name in nodes:
        listing = set(machine(name).check_output("ls -A /etc/kubernetes/manifests || true").split())
        assert listing == (kubeadms if name in control_plane else set()), name


def test_the_profiles_flags_are_live(
    machine: Connect, control_plane: list[str], nodes: list[str], profile: str
) -> None:
    wanted = recovery.profile(profile)
    for name in control_plane:
        for program, flags in (
            ("kube-apiserver", recovery.api_server_args(wanted)),
            ("kube-controller-manager", recovery.controller_manager_args(wanted)),
        ):
            live = (
                machine(name).check_output("tr '\\0' '\\n' < /proc/$(pgrep -xo %s)/cmdline", program[:15]).splitlines()
            )
            for flag, value in flags.items():
                assert f"--{flag}={value}" in live, f"{name} {program}"
    for name in nodes:
        environment = machine(name).check_output("tr '\\0' '\\n' < /proc/$(pgrep -xo kubelet)/environ").splitlines()
        for variable, value in recovery.kubelet_env(wanted).items():
            assert f"{variable}={value}" in environment, name


def test_a_kubelet_may_not_touch_another_node(
    machine: Connect, workers: list[str], control_plane: list[str], kube: Kube
) -> None:
    """Asked with the kubelet's own certificate, and in dry run. kubectl would be refused earlier, when it reads."""
    tried = machine(workers[0]).run(
        "curl --silent --request PATCH --cacert /etc/kubernetes/pki/ca.crt "
        "--cert /var/lib/kubelet/pki/kubelet-client-current.pem --header 'Content-Type: application/merge-patch+json' "
        "--data %s %s/api/v1/nodes/%s?dryRun=All",
        '{"metadata":{"labels":{"tandem-ha.io/test":"yes"}}}',
        machine(workers[0]).check_output("sed -n 's/^ *server: //p' /etc/kubernetes/kubelet.conf"),
        control_plane[0],
    )
    assert "is not allowed to modify node" in tried.stdout


def test_machines_know_each_other_by_name(machine: Connect, nodes: list[str], control_plane: list[str]) -> None:
    for name in nodes:
        for other in [*nodes, "api.tandem.internal"]:
            assert machine(name).run("getent hosts %s", other).rc == 0


def test_kubeconfigs_are_private_and_the_second_one_only_reads(kubeconfig_folder: Path, kube: Kube) -> None:
    for name in ("admin.conf", "readonly.conf"):
        assert stat.S_IMODE((kubeconfig_folder / name).stat().st_mode) == 0o600
    reader = Kube(str(kubeconfig_folder / "readonly.conf"))
    assert len(reader.get("/api/v1/nodes")["items"]) == len(kube.get("/api/v1/nodes")["items"])
    for method, path, body in (
        ("GET", "/api/v1/secrets", None),
        ("POST", "/api/v1/namespaces", {"metadata": {"name": "tandem-test"}}),
        ("DELETE", "/api/v1/namespaces/tandem-system/configmaps/recovery-profile", None),
    ):
        with pytest.raises(KubeError) as refused:
            reader.request(method, path, body=body)
        assert refused.value.status == 403


def test_the_readonly_kubeconfig_holds_no_administrators_key(kubeconfig_folder: Path) -> None:
    assert "client-key" not in (kubeconfig_folder / "readonly.conf").read_text()
