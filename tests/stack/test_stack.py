"""The lab stack on the lab's cluster: what is deployed is Ready and spread, and a second `up` changes nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lab.demo import NAMESPACE, kubectl_json
from lab.story import Story, python_module
from tests.conftest import PROFILE, wait_until

NAME = "app.kubernetes.io/name"
SHARDS = ("auditor-a", "auditor-b")
TEAMS = {"team-a", "team-b", "team-c"}

pytestmark = pytest.mark.lab


def pods(app: str) -> list[dict[str, Any]]:
    """The app's pods that are not on their way out."""
    found = kubectl_json("get", "pods", f"--namespace={NAMESPACE}", f"--selector={NAME}={app}")["items"]
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def ready(pod: dict[str, Any]) -> bool:
    return any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", []))


def per_node(found: list[dict[str, Any]]) -> dict[str, int]:
    """How many there are on each node; those that wait for one are counted under no name."""
    return dict(Counter(pod["spec"].get("nodeName", "") for pod in found))


def names(kind: str) -> set[str]:
    return {each["metadata"]["name"] for each in kubectl_json("get", kind)["items"]}


def rolled_out(app: str) -> bool:
    """Whether all replicas of the app's Deployment are of its newest template and available, and none is left over."""
    deployment = kubectl_json("get", "deployment", app, f"--namespace={NAMESPACE}")
    status, replicas = deployment["status"], deployment["spec"]["replicas"]
    if status.get("observedGeneration") != deployment["metadata"]["generation"]:
        return False
    return [status.get(key) for key in ("replicas", "updatedReplicas", "availableReplicas")] == [replicas] * 3


def up(story: Story, name: str, *options: str) -> str:
    return story.run(name, python_module("lab.pulumi", "up", "--profile", PROFILE, *options))


def test_every_app_is_ready(deployed: Path) -> None:
    apps = {"web": 2, "ledger-hold": 1, "ledger-replace": 1, "control": 1, "agent": 2} | dict.fromkeys(SHARDS, 2)
    for app, count in apps.items():
        found = pods(app)
        assert len(found) == count, app
        assert all(ready(pod) for pod in found), app


def test_web_and_agent_and_shards_and_the_writers_image_are_on_both_workers(deployed: Path) -> None:
    for app in ("web", "agent", *SHARDS, "ledger-hold-prepull"):
        assert per_node(pods(app)) == {"w1": 1, "w2": 1}, app


def holder(lease: str) -> str:
    spec = kubectl_json("get", "lease", lease, f"--namespace={NAMESPACE}").get("spec") or {}
    return str(spec.get("holderIdentity") or "")


def test_one_candidate_of_each_shard_leads(deployed: Path) -> None:
    wait_until(lambda: all(map(holder, SHARDS)), 60, f"somebody leads each of {', '.join(SHARDS)}")
    for shard in SHARDS:
        pod = holder(shard).rpartition("_")[0]
        assert pod in {each["metadata"]["name"] for each in pods(shard)}, holder(shard)


def test_claims_say_who_may_write(deployed: Path) -> None:
    claims = kubectl_json("get", "pvc", f"--namespace={NAMESPACE}")["items"]
    assert {each["metadata"]["name"]: (each["status"]["phase"], each["spec"]["accessModes"]) for each in claims} == {
        "ledger-hold": ("Bound", ["ReadWriteOncePod"]),
        "ledger-replace": ("Bound", ["ReadWriteMany"]),
        "control": ("Bound", ["ReadWriteMany"]),
    }


def test_a_second_up_changes_nothing(running_lab: Story, deployed: Path) -> None:
    output = up(running_lab, "pulumi-up-again", "--", "--expect-no-changes")
    resources = output[output.rindex("Resources:") :]
    assert "unchanged" in resources
    for verb in ("created", "updated", "deleted", "replaced"):
        assert verb not in resources, f"the second `pulumi up` {verb} something:\n{resources}"


def test_a_stack_of_another_profile_is_refused(running_lab: Story, deployed: Path) -> None:
    command = python_module("lab.pulumi", "up", "--profile", "stock")
    said = running_lab.run("pulumi-up-other-profile", command, accept=(255,))
    assert f"the cluster was tuned with profile {PROFILE}" in said
    assert "playbooks/tune.yml -e tandem_profile=stock" in said


@pytest.mark.long
@pytest.mark.parametrize("mode", ["wait", "crowd"])
@pytest.mark.parametrize("replicas", [2, 3, 4])
def test_image_update(replicas: int, mode: str, running_lab: Story, deployed: Path) -> None:
    """An update to another image finishes on two workers, and leaves the replicas spread."""
    shape = ["--set", f"apps.web.replicas={replicas}", "--set", f"apps.web.on_node_loss={mode}"]
    up(running_lab, f"web-{replicas}-{mode}", *shape)
    (tagged,) = {pod["spec"]["containers"][0]["image"] for pod in pods("web")}
    digest = pods("web")[0]["status"]["containerStatuses"][0]["imageID"]
    assert digest != tagged
    up(running_lab, f"web-{replicas}-{mode}-image", *shape, "--set", f"apps.web.image={digest}")
    # Back to a template that had its ReplicaSet before, `up` may end before the rollout does (docs/limits.md).
    wait_until(lambda: rolled_out("web"), 120, "the update's rollout")
    found = pods("web")
    assert {pod["spec"]["containers"][0]["image"] for pod in found} == {digest}
    assert all(ready(pod) for pod in found)
    counts = per_node(found)
    assert sum(counts.values()) == replicas
    assert set(counts) == {"w1", "w2"}
    assert max(counts.values()) - min(counts.values()) <= 1
    up(running_lab, "web-as-committed")


@pytest.mark.long
def test_destroy_leaves_nothing_and_up_brings_all_back(running_lab: Story, deployed: Path) -> None:
    running_lab.run("pulumi-destroy", python_module("lab.pulumi", "destroy"))
    assert not {NAMESPACE, *TEAMS} & names("namespaces")
    classes = names("storageclasses")
    assert "tandem-shared" in classes, "the site's own class is not the stack's to remove"
    assert "tandem-shared-delete" not in classes
    up(running_lab, "pulumi-up-after-destroy")
    test_every_app_is_ready(deployed)
