"""The share's units on a worker, as the role writes them for a path that preflight takes."""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, trust_as_template

from plugins.module_utils.tandem_variables import variable_findings

ROLE = Path(__file__).resolve().parents[3] / "roles" / "nfs_mount"


@pytest.fixture(scope="module", autouse=True)
def _lookups() -> None:
    """Without this a template's lookups are not found."""
    init_plugin_loader([])


def trusted(value: Any) -> Any:
    return trust_as_template(value) if isinstance(value, str) else value


def rendered(point: str) -> dict[str, str]:
    """The role's files by their paths."""
    variables: dict[str, Any] = {"tandem_share_path": point, "tandem_nfs_address": "10.0.0.20"}
    for name in ("defaults", "vars"):
        content = yaml.safe_load((ROLE / name / "main.yml").read_text(encoding="utf-8"))
        variables.update({key: trusted(value) for key, value in content.items()})
    loader = DataLoader()
    loader.set_basedir(str(ROLE))
    variables |= {"inventory_hostname": "w1", "role_path": str(ROLE), "ansible_search_path": [str(ROLE)]}
    task = yaml.safe_load((ROLE / "tasks/mount.yml").read_text(encoding="utf-8"))[0]
    files = Templar(loader, variables).template(trusted(task["tandem_files"]["files"]))
    return {item["path"]: item["content"] for item in files}


def escaped(point: str) -> str:
    """What `systemd-escape --path` gives."""
    return re.sub(r"[^A-Za-z0-9:_./]", lambda found: f"\\x{ord(found[0]):02x}", point.strip("/")).replace("/", "-")


@pytest.mark.parametrize("point", ["/srv/tandem", "/srv/tandem-data", "/mnt/a-b/c_d-e.f"])
def test_the_retry_service_starts_the_unit_that_mounts(point: str) -> None:
    assert variable_findings({"tandem_share_path": point}) == []
    files = rendered(point)
    unit = f"{escaped(point)}.mount"
    assert f"Where={point}\n" in files[f"/etc/systemd/system/{unit}"]
    command = re.search(r"^ExecStart=.* start (\S+)$", files["/etc/systemd/system/tandem-share.service"], re.MULTILINE)
    assert command is not None
    # systemd undoes C's escapes in a command, and keeps them in a list of units.
    assert codecs.decode(command[1], "unicode_escape") == unit
    assert f"After={unit} " in files["/etc/systemd/system/kubelet.service.d/40-tandem-share.conf"]
