from __future__ import annotations

import subprocess
from pathlib import Path

from lab.runtime import plan, ssh
from lab.runtime.paths import LabPaths


def settings(paths: LabPaths, host: str) -> dict[str, str]:
    """What ssh itself makes of the configuration."""
    text = subprocess.run(
        ["ssh", "-G", "-F", str(paths.ssh_config), host], capture_output=True, text=True, check=True
    ).stdout
    return dict(line.split(" ", 1) for line in text.splitlines() if " " in line)


def test_ssh_understands_its_configuration(tmp_path: Path) -> None:
    paths = LabPaths(tmp_path, "x")
    paths.folder.mkdir()
    key = ssh.prepare(paths, plan.chosen())
    assert key.startswith("ssh-ed25519 ")
    assert key.endswith(" tandem-lab-x")
    for host in ("w1", "10.77.0.11"):
        found = settings(paths, host)
        assert found["hostname"] == "10.77.0.11"
        assert found["hostkeyalias"] == "w1"
        assert found["user"] == "root"
        assert found["stricthostkeychecking"] == "true"
        assert found["proxyusefdpass"] == "yes"
        assert found["controlpath"] == str(paths.control_masters / "w1")
        assert found["proxycommand"].endswith(f"{paths.connector} {paths.control_socket} w1 %p")


def test_the_key_stays_and_may_be_read_by_its_owner_only(tmp_path: Path) -> None:
    paths = LabPaths(tmp_path, "x")
    paths.folder.mkdir()
    assert ssh.prepare(paths, plan.chosen()) == ssh.prepare(paths, plan.chosen())
    assert paths.ssh_key.stat().st_mode & 0o777 == 0o600
    assert paths.control_masters.stat().st_mode & 0o777 == 0o700


def test_odd_characters_in_the_state_folders_path(tmp_path: Path) -> None:
    paths = LabPaths(tmp_path / "100% odd", "x")
    paths.folder.mkdir(parents=True)
    ssh.prepare(paths, plan.chosen())
    assert settings(paths, "w1")["userknownhostsfile"].strip('"').replace("%%", "%") == str(paths.known_hosts)


def test_shared_connections_keep_within_a_sockets_path(tmp_path: Path) -> None:
    deep = LabPaths(tmp_path / ("d" * 120), "x")
    for paths in (LabPaths(Path("/s"), "default"), deep):
        assert all(len(str(paths.control_masters / name)) + 17 <= 107 for name in plan.NODES)
    assert deep.control_masters != LabPaths(tmp_path / ("d" * 120), "y").control_masters


def test_a_pin_is_a_line_of_that_machine(tmp_path: Path) -> None:
    paths = LabPaths(tmp_path, "x")
    paths.folder.mkdir()
    assert not ssh.pinned(paths, "w1")
    paths.known_hosts.write_text("w11 ssh-ed25519 AAAA\n")
    assert not ssh.pinned(paths, "w1")
    paths.known_hosts.write_text("w1 ssh-ed25519 AAAA\n")
    assert ssh.pinned(paths, "w1")


def test_a_forgotten_machine_is_no_longer_pinned_and_the_others_are(tmp_path: Path) -> None:
    paths = LabPaths(tmp_path, "x")
    paths.folder.mkdir()
    ssh.prepare(paths, plan.chosen())
    paths.known_hosts.write_text("w1 ssh-ed25519 AAAA\nw11 ssh-ed25519 BBBB\nw1 ssh-rsa CCCC\n")
    ssh.forget(paths, "w1")
    assert paths.known_hosts.read_text() == "w11 ssh-ed25519 BBBB\n"
    assert paths.known_hosts.stat().st_mode & 0o777 == 0o600
    ssh.forget(paths, "w1")
    assert ssh.pinned(paths, "w11")
