"""The filters that turn one text into another."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import yaml
from ansible.errors import AnsibleFilterError

from plugins.filter import tandem as filters
from plugins.module_utils import tandem_tuning

ADMIN = yaml.safe_dump(
    {
        "clusters": [
            {
                "name": "kubernetes",
                "cluster": {"server": "https://api.internal:6443", "certificate-authority-data": "Q0E="},
            }
        ],
        "users": [{"name": "kubernetes-admin", "user": {"client-key-data": "S0VZ"}}],
        "contexts": [],
        "current-context": "",
    }
)


def test_the_control_nodes_kubeconfig_takes_another_way_and_checks_the_same_name() -> None:
    document = yaml.safe_load(filters.kubeconfig_for(ADMIN, "https://127.0.0.1:16443", "lab"))
    cluster = document["clusters"][0]["cluster"]
    assert cluster["server"] == "https://127.0.0.1:16443"
    assert cluster["tls-server-name"] == "api.internal"
    assert cluster["certificate-authority-data"] == "Q0E="
    assert document["contexts"] == [{"name": "lab", "context": {"cluster": "lab", "user": "lab-admin"}}]


def test_a_tokens_kubeconfig_holds_no_administrators_key() -> None:
    text = filters.token_kubeconfig(ADMIN, base64.b64encode(b"token").decode(), "reader")
    assert "S0VZ" not in text
    assert yaml.safe_load(text)["users"] == [{"name": "reader", "user": {"token": "token"}}]


def test_the_join_command_is_taken_apart() -> None:
    command = "kubeadm join api.internal:6443 --token a.b --discovery-token-ca-cert-hash sha256:c "
    assert filters.join_arguments(command) == {"endpoint": "api.internal:6443", "token": "a.b", "ca_hash": "sha256:c"}


def test_an_untouched_document_keeps_its_text() -> None:
    text = "kind: ClusterConfiguration\napiVersion: kubeadm.k8s.io/v1beta4   # as it was\n"
    stock = tandem_tuning.settings("stock")
    assert filters.merged_cluster(text, stock) == text


def test_our_errors_are_filter_errors() -> None:
    with pytest.raises(AnsibleFilterError, match="unknown recovery profile"):
        filters.FilterModule().filters()["tandem_settings"]("quick")


def test_paths_count_from_where_the_command_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    path = filters.FilterModule().filters()["tandem_path"]
    given = ("", "backup.crt", "../kept", "~/backup.key", "/srv/backups/example")
    wanted = ["", f"{tmp_path}/backup.crt", f"{tmp_path.parent}/kept", "/home/somebody/backup.key", given[-1]]
    assert [path(each) for each in given] == wanted
