from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab.runtime import Lab, NotRunningError, control, ssh


def test_the_disk_and_the_host_key_go_while_the_power_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_LAB_STATE", str(tmp_path))
    lab = Lab("x")
    lab.paths.disks.mkdir(parents=True)
    lab.paths.control_masters.mkdir(parents=True)
    for node in ("w1", "w2"):
        lab.paths.disk(node).write_text("what it had")
    lab.paths.known_hosts.write_text("w1 ssh-ed25519 AAAA\nw2 ssh-ed25519 BBBB\n")
    asked = []

    def ask(_: object, request: dict[str, Any], **__: Any) -> dict[str, Any]:
        asked.append((request["op"], request["node"], lab.paths.disk("w1").exists(), ssh.pinned(lab.paths, "w1")))
        return {"at": 1.0, "started": True}

    monkeypatch.setattr(control, "ask", ask)
    assert lab.replace("w1", wait=False) == 1.0
    assert asked == [("power_off", "w1", True, True), ("power_on", "w1", False, False)]
    assert lab.paths.disk("w2").exists()
    assert ssh.pinned(lab.paths, "w2")


def test_nothing_is_removed_when_the_plug_cannot_be_pulled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_LAB_STATE", str(tmp_path))
    lab = Lab("x")
    lab.paths.disks.mkdir(parents=True)
    lab.paths.disk("w1").write_text("what it had")
    with pytest.raises(NotRunningError):
        lab.replace("w1")
    assert lab.paths.disk("w1").exists()
