"""The state that a release left: what the program of today would do to a production stack of then.

`fixtures/release-0.1.0` holds a stack's settings and its exported state, deployed on a real API server by that
release's program. A preview of the same settings with today's program must replace and delete nothing that holds data.
After a release, `python -m tests.pulumi.test_release_state VERSION` records another one; the older ones stay.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from lab.pulumi.workspace import Workspace
from tests.pulumi.command import Pulumi, offline_workspace, runner
from tests.pulumi.on_api import Stack, local_api, unawaited, workspace_on
from tests.pulumi.stack_files import raw_config

FIXTURES = Path(__file__).parent / "fixtures"
RELEASES = sorted(FIXTURES.glob("release-*"))
HOLDS_DATA = frozenset({"PersistentVolumeClaim", "PersistentVolume", "Namespace", "StorageClass"})
HARMLESS = frozenset({"same", "create", "update", "read", "refresh", "import"})
IMAGE = "tandem-ha.io/demo:0.1.0"


def endangered(steps: Iterable[Mapping[str, Any]]) -> set[tuple[str, str]]:
    """Operation and URN of each step that takes away, or makes anew, what holds data."""
    return {
        (step["op"], step["urn"])
        for step in steps
        if step["op"] not in HARMLESS and step["urn"].split("::")[-2].rpartition(":")[2] in HOLDS_DATA
    }


class Then:
    """A stack as a release left it, in a workspace of its own, without its cluster."""

    def __init__(self, release: Path, workspace: Workspace, pulumi: Pulumi) -> None:
        self.settings: dict[str, Any] = json.loads((release / "settings.json").read_text())
        self.workspace, self._pulumi = workspace, pulumi
        workspace.write_stack_file("prod", self.settings)
        workspace.create_stack("prod")
        state = str(release / "state.json")
        self.resources = json.loads((release / "state.json").read_text())["deployment"]["resources"]
        pulumi("stack", "import", "--stack", "prod", "--file", state, cwd=workspace.backend)

    def preview(self, **changes: Any) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """The planned steps but for those that change nothing, and how many there are of each kind."""
        planned = json.loads(self._preview("--json", changes=changes, code=0).stdout)
        return planned["steps"], planned["changeSummary"]

    def refusal(self, **changes: Any) -> str:
        """What is said of a preview that must fail."""
        done = self._preview(changes=changes, code=255)
        return done.stdout + done.stderr

    def _preview(self, *options: str, changes: dict[str, Any], code: int) -> subprocess.CompletedProcess[str]:
        file = self.workspace.write_stack_file("prod", {**self.settings, **changes})
        return self._pulumi("preview", *options, "--stack", "prod", "--config-file", str(file), code=code)


@pytest.fixture(scope="module", params=RELEASES, ids=lambda each: each.name)
def then(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Then:
    workspace = offline_workspace(tmp_path_factory.mktemp("pulumi"))
    return Then(request.param, workspace, runner(workspace, seconds=300))


def test_there_is_a_release() -> None:
    assert RELEASES


def test_nothing_that_holds_data_is_replaced_or_deleted(then: Then) -> None:
    claims = {each["urn"].rpartition("::")[2] for each in then.resources if each["type"].endswith("VolumeClaim")}
    assert claims == {"ledger", "journal", "control"}
    steps, summary = then.preview()
    assert endangered(steps) == set()
    kept = summary.get("same", 0) + summary.get("update", 0)
    assert kept >= len(claims) + 1, f"the preview found little of what is there: {summary}"


def test_the_judge_sees_a_claim_that_would_be_replaced(then: Then) -> None:
    """Another class cannot be written into a claim: without protection, the preview plans a new one."""
    apps = then.settings["apps"]
    changed = {**apps, "ledger": {**apps["ledger"], "storage_class": "archive"}}
    steps, _ = then.preview(apps=changed, protect=False)
    assert {urn.rpartition("::")[2] for _, urn in endangered(steps)} == {"ledger"}


def test_a_claim_that_would_go_with_its_app_is_refused(then: Then) -> None:
    """It is protected in the state, whatever the settings say now: nobody registers it any more."""
    apps = {name: app for name, app in then.settings["apps"].items() if name != "journal"}
    said = then.refusal(apps=apps, protect=False)
    assert "PersistentVolumeClaim::journal" in said
    assert "cannot be deleted" in said


def record(version: str) -> None:
    """Deploy the stack prod, with one app more of each kind that holds data, and keep its settings and its state."""
    apps = unawaited("prod")
    apps["journal"] = {**apps["ledger"], "when_unreachable": "replace"}
    patch = unawaited("lab")["control"]["patch"]
    apps["control"] = {"kind": "stateful", "image": IMAGE, "reason": "kept as it was deployed", "patch": patch}
    committed = {key.partition(":")[2]: value for key, value in raw_config("prod").items() if key.startswith("tandem:")}
    settings = {key: _value(value) for key, value in committed.items()}
    settings |= {"cluster_check": "skip", "apps": apps, "storage_classes": {"archive": {}}}
    with local_api() as api, tempfile.TemporaryDirectory() as folder:
        stack = Stack(workspace_on(api, Path(folder)), api, "prod", settings)
        stack.run("up", "--yes", "--skip-preview")
        state = stack.export()
    # No secret is in it; the passphrase that would have protected one goes with the workspace.
    state["deployment"].pop("secrets_providers", None)
    for resource in state["deployment"]["resources"]:
        # What is of the machine that recorded it, and what nobody compares.
        for key in ("sourcePosition", "stackTrace"):
            resource.pop(key, None)
        resource.get("outputs", {}).get("metadata", {}).pop("managedFields", None)
    target = FIXTURES / f"release-{version}"
    target.mkdir(parents=True, exist_ok=True)
    for name, content in (("settings", settings), ("state", state)):
        (target / f"{name}.json").write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def _value(text: str) -> Any:
    return json.loads(text) if text[:1] in "[{" or text in ("true", "false") else text


if __name__ == "__main__":
    record(sys.argv[1])
