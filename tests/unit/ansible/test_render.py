"""What a check run shows: manifests as kubeadm renders them, kubelet's file with changed fields; nothing is left."""

from __future__ import annotations

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


DOCUMENTS = {
    "kubeadm_config": CLUSTER + "kubernetesVersion: v1.36.3\nnetworking: {serviceSubnet: 10.96.0.0/16}\n",
    "kubelet_config": "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\ncgroupDriver: systemd\n",
}
SOCKET = "containerRuntimeEndpoint: unix:///run/own.sock\n"


@pytest.mark.parametrize(("current", "left"), [(SOCKET, SOCKET), ("", "")])
def test_kubelets_file_is_rendered_with_the_nodes_patches_and_its_own_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, current: str, left: str
) -> None:
    monkeypatch.setattr(render, "SCRATCH", str(tmp_path))
    program = kubeadm(
        tmp_path,
        f'echo "$@" > {tmp_path}/called; cp "$6" {tmp_path}/input; '
        'printf "containerRuntimeEndpoint: default\\nkind: K\\n" > "$KUBEADM_INIT_DRYRUN_DIR/config.yaml"',
    )
    (tmp_path / "patches").mkdir()
    documents = filters.kubelet_documents(DOCUMENTS, tandem_tuning.settings("balanced"))
    text = render.render_kubelet(documents, current, "w1", tmp_path / "patches", program)
    assert text == left + "kind: K\n"
    assert (tmp_path / "called").read_text().startswith("init phase kubelet-start --dry-run --config ")
    init, cluster, kubelet = yaml.safe_load_all((tmp_path / "input").read_text())
    assert init["patches"] == {"directory": str(tmp_path / "patches")}
    assert cluster["kind"] == "ClusterConfiguration"
    assert kubelet["nodeLeaseDurationSeconds"] == 8
    # With the authority's certificate and without its key, as workers have it, kubeadm renders nothing.
    assert not Path(cluster["certificatesDir"]).exists()
    assert kubelet["authentication"]["x509"]["clientCAFile"] == "/etc/kubernetes/pki/ca.crt"


RENDERED = "cgroupDriver: systemd\nmaxPods: 110\nsyncFrequency: 0s\nlogging: {verbosity: 0}\n"


@pytest.mark.parametrize(
    ("before", "written", "lost"),
    [
        (RENDERED, "", []),
        (RENDERED + "nodeLeaseDurationSeconds: 40\nshutdownGracePeriod: 45s\n", "", []),
        (RENDERED + "fileCheckFrequency: 0s\nallowedUnsafeSysctls: []\n", "", []),
        (RENDERED + "failSwapOn: false\n", "", ["failSwapOn: False"]),
        (RENDERED.replace("110", "200"), "", ["maxPods: 200 -> 110"]),
        (RENDERED.replace("110", "200"), RENDERED.replace("110", "200"), []),
        (RENDERED.replace("110", "200"), RENDERED.replace("110", "150"), ["maxPods: 200 -> 110"]),
        (RENDERED + "evictionHard: {memory.available: 1Gi}\n", RENDERED, ["evictionHard.memory.available: '1Gi'"]),
        (RENDERED + "podPidsLimit: 9\n", "", []),
    ],
    ids=[
        "nothing of its own",
        "ours",
        "what means the default",
        "off",
        "another value",
        "written by kubeadm",
        "edited since",
        "one of a structure",
        "of the inventory",
    ],
)
def test_what_a_node_alone_has_and_would_lose(before: str, written: str, lost: list[str]) -> None:
    settings = tandem_tuning.settings("balanced", {}, {}, {"podPidsLimit": 12})
    shown = {"before": before, "after": RENDERED, "written": written}
    assert filters.kubelet_losses(shown, settings) == lost


def test_a_rollback_brings_back_what_a_node_still_has() -> None:
    settings = tandem_tuning.settings("balanced") | {"documents": {"kubelet_config": "maxPods: 200\n"}}
    shown = {"before": RENDERED.replace("110", "200"), "after": RENDERED, "written": ""}
    assert filters.kubelet_losses(shown, settings) == []
    shown["before"] = RENDERED.replace("110", "150")
    assert filters.kubelet_losses(shown, settings) == ["maxPods: 150 -> 110"]


def test_equal_texts_are_no_difference() -> None:
    assert render.difference(Path("a"), "x", "x") is None
    shown = render.difference(Path("a"), "x", "y")
    assert shown is not None
    assert (shown["before"], shown["after"], shown["after_header"]) == ("x", "y", "a")
