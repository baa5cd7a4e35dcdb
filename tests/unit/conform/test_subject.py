"""What a container is given, and which program runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tandem.conform.subject import Image, SubjectError, self_contained


def test_a_kubeconfig_for_a_container_names_no_file(tmp_path: Path) -> None:
    for name in ("ca", "me", "key"):
        (tmp_path / name).write_text(f"content of {name}")
    config = {
        "clusters": [{"name": "c", "cluster": {"server": "https://a", "certificate-authority": str(tmp_path / "ca")}}],
        "users": [
            {"name": "u", "user": {"client-certificate": str(tmp_path / "me"), "client-key": str(tmp_path / "key")}}
        ],
    }
    before = json.dumps(config)
    made = self_contained(config)
    assert json.dumps(config) == before
    assert str(tmp_path) not in yaml.safe_dump(made)
    assert made["clusters"][0]["cluster"] == {
        "server": "https://a",
        "certificate-authority-data": "Y29udGVudCBvZiBjYQ==",
    }
    assert set(made["users"][0]["user"]) == {"client-certificate-data", "client-key-data"}


@pytest.mark.parametrize(
    ("statuses", "chosen"),
    [
        ({}, None),
        ({"docker": 1}, None),  # its client without its daemon
        ({"docker": 1, "buildah": 0}, "buildah"),
        ({"docker": 0, "buildah": 0}, "docker"),
        ({"docker": 0, "buildah": 0, "podman": 0}, "podman"),
    ],
)
def test_the_first_of_podman_docker_and_buildah_that_works_runs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statuses: dict[str, int], chosen: str | None
) -> None:
    for engine, status in statuses.items():
        program = tmp_path / engine
        refusal = 'echo "$0 $*: no such image" >&2; exit 125'
        program.write_text(f'#!/bin/sh\n[ "$1" = version ] && exit {status}\n{refusal}\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    expected = f"{chosen} .*inspect.*no such image" if chosen else r"neither podman nor docker .* nor buildah"
    with pytest.raises(SubjectError, match=expected):
        Image("it", {}).digests()
