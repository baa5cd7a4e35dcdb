"""What the role `node_runtime` would write on systems of each family, by a check run on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
APT = ("/etc/apt/sources.list.d/tandem-kubernetes.sources", "/etc/apt/keyrings/tandem-kubernetes.asc")
DNF = ("/etc/yum.repos.d/tandem-kubernetes.repo", "/etc/pki/rpm-gpg/tandem-kubernetes.asc")
KEYS = ("/etc/apt/keyrings/tandem-{}.asc", "/etc/pki/rpm-gpg/tandem-{}.asc")
PLAY = [
    {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [{"ansible.builtin.import_role": {"name": "node_runtime"}}],
    }
]


def rehearsal(tmp_path: Path, facts: dict[str, Any]) -> str:
    """What the role tells in check mode with differences, white space made even, on a machine with these facts."""
    keys = {key.format(name): True for key in KEYS for name in ("kubernetes", "containerd")}
    facts["files"] = dict.fromkeys((*APT, *DNF, "/etc/needrestart/conf.d"), False) | keys
    facts |= {"joined": False, "packages": {}}
    facts["units"] |= {"containerd.service": {"active": "", "enabled": "", "loaded": ""}}
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    machine = {**local, "tandem_address": "10.0.0.10", "preflight_answer": {"node": facts}}
    inventory = {"control_plane": {"hosts": {"cp": machine}}}
    (tmp_path / "hosts.json").write_text(json.dumps(inventory))
    (tmp_path / "play.json").write_text(json.dumps(PLAY))
    program = Path(sys.executable).with_name("ansible-playbook")
    argv = [str(program), "--check", "--diff", "--inventory", str(tmp_path / "hosts.json"), str(tmp_path / "play.json")]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    return " ".join(done.stdout.split())


def test_debian_and_its_kin_get_sources_of_apt(tmp_path: Path, node: Callable[..., dict[str, Any]]) -> None:
    facts = node()
    facts["os"]["codename"] = "trixie"
    told = rehearsal(tmp_path, facts)
    assert "URIs: https://download.docker.com/linux/debian" in told
    assert "Suites: trixie" in told
    assert "52tandem-unattended-upgrades" in told
    assert "/etc/yum.repos.d" not in told


@pytest.mark.parametrize(("name", "flavour"), [("rhel", "rhel"), ("rocky", "centos")])
def test_the_rhel_family_gets_repositories_of_dnf(
    tmp_path: Path, node: Callable[..., dict[str, Any]], name: str, flavour: str
) -> None:
    told = rehearsal(tmp_path, node(os={"id": name, "family": "redhat", "codename": "", "version_id": "9.6"}))
    assert f"baseurl=https://download.docker.com/linux/{flavour}/$releasever/$basearch/stable" in told
    assert "gpgkey=file:///etc/pki/rpm-gpg/tandem-kubernetes.asc" in told
    assert "image_pull_with_sync_fs = true" in told
    assert "would be installed from repositories that are not set up yet" in told
    assert "/etc/apt" not in told
