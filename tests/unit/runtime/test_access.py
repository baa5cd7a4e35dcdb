"""Kubeconfigs as people have them: certificates inline or beside, several files, and helpers left to the library."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tandem.runtime._access import from_kubeconfig

PEM = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"


def write(path: Path, cluster: dict[str, Any], user: dict[str, Any], name: str = "it", **more: Any) -> Path:
    config = {
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        **more,
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(config))
    return path


async def test_certificates_inline_and_in_files_that_are_meant_from_where_the_kubeconfig_is(tmp_path: Path) -> None:
    (tmp_path / "pki").mkdir()
    (tmp_path / "pki" / "me.pem").write_bytes(PEM + b"\n")
    (tmp_path / "pki" / "key.pem").write_bytes(b"key")
    cluster = {
        "server": "https://a:6443/",
        "certificate-authority-data": base64.b64encode(PEM).decode(),
        "certificate-authority": "not-read",
        "tls-server-name": "api",
        "proxy-url": "http://proxy:1",
    }
    path = write(tmp_path / "config", cluster, {"client-certificate": "pki/me.pem", "client-key": "pki/key.pem"})
    access, refresh = await from_kubeconfig(str(path))
    assert (access.server, access.server_name, access.proxy) == ("https://a:6443", "api", "http://proxy:1")
    assert (access.authority, access.certificate, access.key) == (PEM, PEM, b"key")
    assert (access.verify, access.authorization, refresh) == (True, "", None)


async def test_of_several_files_the_first_wins_and_each_file_name_is_meant_from_its_own(tmp_path: Path) -> None:
    first = write(tmp_path / "one" / "config", {"server": "https://one"}, {"token": "t1"}, name="one")
    second = write(tmp_path / "two" / "config", {"server": "https://two"}, {"tokenFile": "token"}, name="two")
    (tmp_path / "two" / "token").write_text("t2\n")
    missing = tmp_path / "missing"
    access, refresh = await from_kubeconfig(os.pathsep.join(map(str, (missing, first, second))))
    assert (access.server, access.authorization, refresh) == ("https://one", "Bearer t1", None)
    access, refresh = await from_kubeconfig(os.pathsep.join(map(str, (second, first))))
    assert (access.server, access.authorization) == ("https://two", "Bearer t2")
    (tmp_path / "two" / "token").write_text("t3")
    assert refresh
    await refresh()
    assert access.authorization == "Bearer t3"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"current-context": ""}, "no current context"),
        ({"current-context": "other"}, "no context other"),
        ({"clusters": []}, "no cluster it"),
        ({"clusters": [{"name": "it", "cluster": {}}]}, "no server"),
        ({"users": [{"name": "it", "user": {"tokenFile": "empty"}}]}, "empty is empty"),
    ],
)
async def test_what_is_missing_is_named(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    (tmp_path / "empty").touch()
    path = write(tmp_path / "config", {"server": "https://a"}, {}, **change)
    with pytest.raises(ValueError, match=complaint):
        await from_kubeconfig(str(path))


async def test_an_exec_plugin_is_asked_and_asked_again_when_its_token_has_expired(tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"
    plugin.write_text(
        f"#!/bin/sh\necho x >> {tmp_path}/asked\n"
        'echo \'{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",'
        ' "status": {"token": "from-plugin", "expirationTimestamp": "2020-01-01T00:00:00Z"}}\'\n'
    )
    plugin.chmod(0o755)
    helper = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin), "interactiveMode": "Never"}
    path = write(tmp_path / "config", {"server": "https://a"}, {"exec": helper})
    access, refresh = await from_kubeconfig(str(path))
    assert (access.server, access.authorization) == ("https://a", "Bearer from-plugin")
    assert refresh
    await refresh()
    assert (tmp_path / "asked").read_text() == "x\nx\n"


def test_the_generated_models_are_not_loaded_without_a_helper(tmp_path: Path) -> None:
    path = write(tmp_path / "config", {"server": "https://a"}, {"token": "t"})
    program = (
        "import asyncio, sys, tandem.runtime\n"
        "from tandem.runtime.client import connect_client\n"
        "async def main():\n"
        f"    async with connect_client({str(path)!r}):\n"
        "        print('kubernetes_asyncio' in sys.modules)\n"
        "asyncio.run(main())\n"
    )
    answer = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert answer == "False\n"
