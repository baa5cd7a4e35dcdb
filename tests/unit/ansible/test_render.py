"""What a check run shows: manifests as kubeadm renders them, kubelet's file with changed fields; nothing is left."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from plugins.filter import tandem as filters
from plugins.module_utils import tandem_tuning
from plugins.modules import tandem_render as render

ADDRESSED = f"metadata:\n  annotations:\n    {render.ADDRESS}: 10.77.0.10:6443\n"
CLUSTER = "kind: ClusterConfiguration\napiVersion: kubeadm.k8s.io/v1beta4\n"


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    """A folder of static pods as kubeadm leaves it."""
    folder = tmp_path / "manifests"
    folder.mkdir()
    (folder / "kube-apiserver.yaml").write_text(ADDRESSED)
    return folder


def kubeadm(tmp_path: Path, body: str) -> str:
    """A stand-in for kubeadm: a shell script."""
    path = tmp_path / "kubeadm"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_rendered_out_of_sight_and_gone(tmp_path: Path, manifests: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "run"
    scratch.mkdir()
    monkeypatch.setattr(render, "SCRATCH", str(scratch))
    program = kubeadm(
        tmp_path,
        'for n in apiserver controller-manager scheduler; do cp "$7" "$KUBEADM_INIT_DRYRUN_DIR/kube-$n.yaml"; done; '
        f'echo "$@" > {tmp_path}/called',
    )
    patches = tmp_path / "patches"
    patches.mkdir()
    found = render.render(CLUSTER, "cp1", manifests, patches, program)
    init, cluster = yaml.safe_load_all(found["kube-apiserver.yaml"])
    assert init["localAPIEndpoint"] == {"advertiseAddress": "10.77.0.10", "bindPort": 6443}
    assert init["nodeRegistration"]["name"] == "cp1"
    assert init["patches"] == {"directory": str(patches)}
    assert cluster["kind"] == "ClusterConfiguration"
    assert "--dry-run" in (tmp_path / "called").read_text()
    assert list(scratch.iterdir()) == []


def test_what_kubeadm_says_is_told_and_nothing_is_left(
    tmp_path: Path, manifests: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "run"
    scratch.mkdir()
    monkeypatch.setattr(render, "SCRATCH", str(scratch))
    program = kubeadm(tmp_path, "echo 'strict decoding error: unknown field' >&2; exit 3")
    with pytest.raises(render.RenderError, match="strict decoding error"):
        render.render(CLUSTER, "cp1", manifests, tmp_path / "none", program)
    assert list(scratch.iterdir()) == []


def test_a_manifest_that_kubeadm_did_not_write() -> None:
    with pytest.raises(render.RenderError, match="kubeadm did not write it"):
        render.endpoint("kind: Pod\n")


KUBELET = (
    "apiVersion: kubelet.config.k8s.io/v1beta1\nauthentication:\n  anonymous:\n    enabled: false\n"
    "clusterDNS:\n- 10.96.0.10\nnodeStatusReportFrequency: 0s\nresolvConf: /run/systemd/resolve/resolv.conf\n"
)


def test_kubelets_file_keeps_what_is_its_own() -> None:
    document = "nodeStatusReportFrequency: 0s\nclusterDNS:\n- 10.96.0.10\n"
    changes = filters.kubelet_changes(document, tandem_tuning.settings("balanced"))
    shown = render.kubelet_text(KUBELET, changes)
    wanted = {
        **yaml.safe_load(KUBELET),
        "nodeStatusReportFrequency": "5m0s",
        "nodeStatusUpdateFrequency": "10s",
        "nodeLeaseDurationSeconds": 8,
    }
    assert yaml.safe_load(shown) == wanted
    keys = [line.partition(":")[0] for line in shown.splitlines() if line[0].isalpha()]
    assert keys == sorted(keys)


def test_fields_go_and_nothing_changes_without_changes() -> None:
    assert render.kubelet_text(KUBELET, {}) == KUBELET
    assert "clusterDNS" not in render.kubelet_text(KUBELET, {"clusterDNS": ""})
    document = "nodeLeaseDurationSeconds: 8\n"
    assert filters.kubelet_changes(document, tandem_tuning.settings("stock")) == {"nodeLeaseDurationSeconds": ""}
    assert filters.kubelet_changes("a: 1\n", tandem_tuning.settings("stock")) == {}


def test_equal_texts_are_no_difference() -> None:
    assert render.difference(Path("a"), "x", "x") is None
    shown = render.difference(Path("a"), "x", "y")
    assert shown is not None
    assert (shown["before"], shown["after"], shown["after_header"]) == ("x", "y", "a")


@pytest.mark.skipif(shutil.which("kubeadm") is None, reason="needs kubeadm on PATH")
def test_the_real_kubeadm_renders_what_it_is_given(manifests: Path, tmp_path: Path) -> None:
    cluster = filters.merged_cluster(
        CLUSTER + "kubernetesVersion: v1.36.3\nnetworking: {serviceSubnet: 10.96.0.0/16}\n",
        tandem_tuning.settings("balanced", {"profiling": False}),
    )
    found = render.render(cluster, "cp1", manifests, tmp_path / "none", str(shutil.which("kubeadm")))
    assert "--node-monitor-grace-period=27s" in found["kube-controller-manager.yaml"]
    assert "HTTP2_PING_TIMEOUT_SECONDS" in found["kube-controller-manager.yaml"]
    assert "--default-unreachable-toleration-seconds=5" in found["kube-apiserver.yaml"]
    assert "--profiling=false" in found["kube-apiserver.yaml"]
    assert "--advertise-address=10.77.0.10" in found["kube-apiserver.yaml"]
    assert "enable-admission-plugins=NodeRestriction" in found["kube-apiserver.yaml"]
