"""`tandem conform` passes the published example and names every flaw of a naive controller."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab.benches.peers import build_go_peer
from lab.build import artifacts
from tandem.controllers.auditor.reports import custom_resource_definition
from tandem.runtime.testing.localapi import Programs
from tests.api.pods import EXAMPLES, HERE, ROOT

pytestmark = [pytest.mark.api, pytest.mark.timeout(400)]
NAIVE_WORK = """
apiVersion: v1
kind: ConfigMap
metadata: {name: work, labels: {n: n}}
"""


def conform(programs: Programs, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "tandem", "conform", "--assets", str(programs.etcd.parent), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    print(done.stdout, done.stderr)
    return done


def test_the_example_conforms_and_the_attestation_says_what_was_shown(programs: Programs, tmp_path: Path) -> None:
    written = tmp_path / "attestation.json"
    done = conform(
        programs, "--work", str(EXAMPLES / "work.yaml"), "--output", str(written), "--env", "TANDEM_HEALTH_PORT=none",
        "--env", "TANDEM_LEASE_DURATION=6", "--env", "TANDEM_RENEW_DEADLINE=4", "--env", "TANDEM_RETRY_PERIOD=1",
        "--", sys.executable, str(EXAMPLES / "elected.py"),
    )  # fmt: skip
    assert done.returncode == 0
    statement = json.loads(written.read_text())
    checks = {check["check"]: check["outcome"] for check in statement["predicate"]["checks"]}
    assert checks == dict.fromkeys(("works", "idempotent", "shutdown", "second-signal", "lost-lead"), "passed")
    assert statement["predicate"]["annotation"].endswith("idempotent shutdown lost-lead")
    assert "elected.py" in {subject["name"] for subject in statement["subject"]}


def test_a_naive_controller_fails_every_check_but_the_first(programs: Programs, tmp_path: Path) -> None:
    work, written = tmp_path / "work.yaml", tmp_path / "attestation.json"
    work.write_text(NAIVE_WORK)
    done = conform(
        programs, "--work", str(work), "--grace", "4", "--output", str(written), "--",
        sys.executable, str(HERE / "naive_controller.py"),
    )  # fmt: skip
    assert done.returncode == 1
    checks = {check["check"]: check["outcome"] for check in json.loads(written.read_text())["predicate"]["checks"]}
    assert checks.pop("works") == "passed"
    assert checks == dict.fromkeys(("idempotent", "shutdown", "second-signal", "lost-lead"), "failed")


@pytest.fixture
def by_buildah(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """buildah alone on the path, with a storage that is gone with the test, and no container left at its end."""
    if not (shutil.which("buildah") and shutil.which("skopeo")):
        pytest.skip("an image is made, and run, by buildah; the lab's own is taken to it by skopeo")
    storage = tmp_path / "storage.conf"
    storage.write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{tmp_path / "images"}"\nrunroot = "{tmp_path / "run"}"\n'
    )
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(storage))
    monkeypatch.setenv("PATH", only_with(tmp_path / "bin", "buildah", "skopeo"))


def left() -> str:
    """Containers that were not removed."""
    return subprocess.run(["buildah", "containers", "--quiet"], check=True, stdout=subprocess.PIPE, text=True).stdout


@pytest.mark.long
@pytest.mark.timeout(1500)
@pytest.mark.usefixtures("by_buildah")
def test_an_image_is_run_by_buildah_and_named_by_its_digest(programs: Programs, tmp_path: Path) -> None:
    """A controller on controller-runtime, from an image without a shell, as a user that is not root."""
    build_go_peer("controller-runtime", static=tmp_path / "controller")
    containerfile = 'FROM scratch\nCOPY controller /controller\nUSER 65532:65532\nENTRYPOINT ["/controller"]\n'
    (tmp_path / "Containerfile").write_text(containerfile)
    build = ["buildah", "build", "--quiet", "--isolation", "chroot", "--tag", "localhost/tried:1", str(tmp_path)]
    subprocess.run(build, check=True)
    work, written = tmp_path / "work.yaml", tmp_path / "attestation.json"
    work.write_text(NAIVE_WORK.replace("metadata:", 'data: {v: "1"}\nmetadata:'))
    done = conform(
        programs, "--work", str(work), "--image", "localhost/tried:1", "--output", str(written), "--start", "180", "--",
        "-annotation", "bench/tried", "-label", "n=n", "-expected", "1000000",
    )  # fmt: skip
    assert done.returncode == 0
    statement = json.loads(written.read_text())
    checks = {check["check"]: check["outcome"] for check in statement["predicate"]["checks"]}
    assert checks.pop("lost-lead") == "skipped"
    assert checks == dict.fromkeys(("works", "idempotent", "shutdown", "second-signal"), "passed")
    (tried,) = statement["subject"]
    assert tried["name"] == "localhost/tried:1"
    assert re.fullmatch("[0-9a-f]{64}", tried["digest"]["sha256"])
    assert left() == ""


@pytest.mark.long
@pytest.mark.timeout(1500)
@pytest.mark.usefixtures("by_buildah")
def test_the_auditors_image_conforms_and_is_named_by_the_digest_that_a_registry_knows(
    programs: Programs, tmp_path: Path
) -> None:
    """The image that the lab's cluster runs, as the lab has built it, with the work that is published for it."""
    layout, name = artifacts.image("controllers"), "tandem-ha.io/controllers:tried"
    taken = ["skopeo", "--insecure-policy", "copy", "--quiet", f"oci:{layout}", f"containers-storage:{name}"]
    subprocess.run(taken, check=True)
    kind, written = tmp_path / "kind.json", tmp_path / "attestation.json"
    kind.write_text(json.dumps(custom_resource_definition()))
    done = conform(
        programs, "--image", name, "--setup", str(kind), "--work", str(ROOT / "docs/examples/auditor/work.yaml"),
        "--env", "TANDEM_HEALTH_PORT=none", "--start", "180", "--output", str(written),
    )  # fmt: skip
    assert done.returncode == 0
    statement = json.loads(written.read_text())
    assert statement["predicate"]["annotation"] == f"{name} idempotent shutdown lost-lead"
    assert {check["outcome"] for check in statement["predicate"]["checks"]} == {"passed"}
    (manifest,) = json.loads((layout / "index.json").read_text())["manifests"]
    assert statement["subject"] == [{"name": name, "digest": {"sha256": manifest["digest"].removeprefix("sha256:")}}]
    assert left() == ""


def only_with(folder: Path, *names: str) -> str:
    """A PATH on which, of the programs that run containers, there are only these."""
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to(str(shutil.which(name)))
    others = [
        part
        for part in os.environ["PATH"].split(os.pathsep)
        if not any((Path(part) / name).exists() for name in ("podman", "docker"))
    ]
    return os.pathsep.join([str(folder), *others])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--work", "nowhere.yaml", "--", "true"], "nowhere.yaml"),
        (["--", "true"], "--work FILE is needed"),
        (["--work", "x"], "nothing to try"),
    ],
)
def test_what_cannot_be_tried_is_said(programs: Programs, arguments: list[str], message: str) -> None:
    done = conform(programs, *arguments)
    assert done.returncode == 2
    assert message in done.stdout
