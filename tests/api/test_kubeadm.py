"""What a real kubeadm renders: the flags that it is given, and a kubelet's file by which no node loses anything."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from lab.build import BuildError, artifacts
from plugins.filter import tandem as filters
from plugins.module_utils import tandem_tuning
from plugins.modules import tandem_render as render
from tests.unit.ansible.test_render import ADDRESSED, CLUSTER, DOCUMENTS, SOCKET


@pytest.fixture
def kubeadm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(render, "SCRATCH", str(tmp_path))
    try:
        return str(artifacts.tools() / "kubeadm")
    except BuildError as error:
        pytest.fail(f"{error}")


def test_the_real_kubeadm_renders_what_it_is_given(kubeadm: str, tmp_path: Path) -> None:
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    (manifests / "kube-apiserver.yaml").write_text(ADDRESSED)
    cluster = filters.merged_cluster(
        CLUSTER + "kubernetesVersion: v1.36.3\nnetworking: {serviceSubnet: 10.96.0.0/16}\n",
        tandem_tuning.settings("balanced", {"profiling": False}),
    )
    found = render.render(cluster, "cp1", manifests, tmp_path / "none", kubeadm)
    assert "--node-monitor-grace-period=27s" in found["kube-controller-manager.yaml"]
    assert "HTTP2_PING_TIMEOUT_SECONDS" in found["kube-controller-manager.yaml"]
    assert "--default-unreachable-toleration-seconds=5" in found["kube-apiserver.yaml"]
    assert "--profiling=false" in found["kube-apiserver.yaml"]
    assert "--advertise-address=10.77.0.10" in found["kube-apiserver.yaml"]
    assert "enable-admission-plugins=NodeRestriction" in found["kube-apiserver.yaml"]


def test_the_real_kubeadm_renders_kubelets_file_and_a_node_loses_nothing_by_it(kubeadm: str, tmp_path: Path) -> None:
    patches = tmp_path / "patches"
    patches.mkdir()
    (patches / "kubeletconfiguration+merge.yaml").write_text("maxPods: 200\n")
    settings = tandem_tuning.settings("balanced")
    now = filters.kubelet_documents(DOCUMENTS)
    there = render.render_kubelet(now, SOCKET, "w1", patches, kubeadm)
    assert yaml.safe_load(there)["containerRuntimeEndpoint"] == "unix:///run/own.sock"
    again = render.render_kubelet(now, there, "w1", patches, kubeadm)
    assert filters.kubelet_losses({"before": there, "after": again, "written": ""}, settings) == []
    tuned = render.render_kubelet(filters.kubelet_documents(DOCUMENTS, settings), there, "w1", patches, kubeadm)
    assert yaml.safe_load(tuned)["maxPods"] == 200
    assert yaml.safe_load(tuned)["nodeLeaseDurationSeconds"] == 8
    without = render.render_kubelet(now, there, "w1", tmp_path / "none", kubeadm)
    assert filters.kubelet_losses({"before": there, "after": without, "written": ""}, settings) == ["maxPods: 200"]


def test_a_worker_has_the_authoritys_certificate_and_not_its_key(kubeadm: str, tmp_path: Path) -> None:
    authority = tmp_path / "pki"
    authority.mkdir()
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=kubernetes"]
    files = ["-keyout", str(tmp_path / "elsewhere.key"), "-out", str(authority / "ca.crt")]
    subprocess.run([*argv, *files], check=True, capture_output=True)
    cluster = DOCUMENTS | {"kubeadm_config": DOCUMENTS["kubeadm_config"] + f"certificatesDir: {authority}\n"}
    with pytest.raises(render.RenderError, match="invalid or incomplete external CA"):
        render.render_kubelet("\n---\n".join(cluster.values()), SOCKET, "w1", tmp_path / "none", kubeadm)
    text = render.render_kubelet(filters.kubelet_documents(cluster), SOCKET, "w1", tmp_path / "none", kubeadm)
    assert yaml.safe_load(text)["authentication"]["x509"]["clientCAFile"] == f"{authority}/ca.crt"
