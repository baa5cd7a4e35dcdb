"""The storage class's objects, as the role makes them for an API server of a given version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROLE = Path(__file__).resolve().parents[3] / "roles" / "local_path_storage"


def rendered(version: str) -> list[dict[str, Any]]:
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text(encoding="utf-8"))
    variables = {
        name: trust_as_template(value) if isinstance(value, str) else value for name, value in defaults.items()
    }
    answer = {"__local_path_storage_answer": {"cluster": {"version": version}}}
    templar = Templar(DataLoader(), {**variables, **answer})
    text = (ROLE / "templates/manifests.yml.j2").read_text(encoding="utf-8")
    return list(yaml.safe_load_all(templar.template(trust_as_template(text), convert_data=False)))


@pytest.mark.parametrize("version", ["v1.34.9", "v1.35.4"])
def test_what_an_older_api_server_does_not_serve_is_left_out(version: str) -> None:
    newest = rendered("v1.36.3")
    policies = [item for item in newest if item["kind"].startswith("MutatingAdmissionPolicy")]
    assert [item["kind"] for item in policies] == ["MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"]
    assert rendered(version) == [item for item in newest if item not in policies]


def test_a_later_version_has_all() -> None:
    assert rendered("v1.40.0-alpha.1") == rendered("v1.36.3")
