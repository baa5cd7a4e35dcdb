"""What the components register, judged as rules over every object, and case by case."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from infra.components import (
    App,
    NodeAgent,
    NodeAgentArgs,
    SharedStorage,
    SharedStorageArgs,
    SingleWriterApp,
    SingleWriterAppArgs,
    SpreadApp,
    SpreadAppArgs,
    StatefulApp,
    StatefulAppArgs,
    Workspace,
    WorkspaceArgs,
)
from tests.pulumi.registered import PROFILE, Registered, Resource, register

COMMON: dict[str, Any] = {"namespace": "shop", "profile": PROFILE, "image": "registry.example/shop/app:1.2.3"}
APPS: dict[str, Callable[..., App]] = {
    "spread-wait": lambda **more: SpreadApp("app", SpreadAppArgs(**COMMON, **more)),
    "spread-crowd": lambda **more: SpreadApp("app", SpreadAppArgs(**COMMON, on_node_loss="crowd", **more)),
    "single-hold": lambda **more: SingleWriterApp("app", SingleWriterAppArgs(**COMMON, **more)),
    "single-replace": lambda **more: SingleWriterApp(
        "app", SingleWriterAppArgs(**COMMON, when_unreachable="replace", **more)
    ),
    "agent": lambda **more: NodeAgent("app", NodeAgentArgs(**COMMON, **more)),
    "stateful": lambda **more: StatefulApp("app", StatefulAppArgs(**COMMON, reason="needs a stable host name", **more)),
}
CONTROLLERS = ("Deployment", "DaemonSet", "StatefulSet")
TOLERATIONS = [
    {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
]


def made(name: str, **more: Any) -> Registered:
    return register(lambda: APPS[name](**more))


def main_object(registered: Registered) -> Resource:
    """The controller of the app's own pods."""
    (found,) = [each for kind in CONTROLLERS for each in registered.of(kind) if each.name == "app"]
    return found


def pods(registered: Registered) -> list[Resource]:
    return [each for kind in CONTROLLERS for each in registered.of(kind)]


def off_control_plane(resource: Resource) -> bool:
    required = resource.pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    rule = {"key": "node-role.kubernetes.io/control-plane", "operator": "DoesNotExist"}
    return all(rule in term["matchExpressions"] for term in required["nodeSelectorTerms"])


@pytest.mark.parametrize("name", APPS)
class TestEveryPod:
    """Rules that no component may break, for the app's pods and for helpers alike."""

    def test_stays_off_the_control_plane(self, name: str) -> None:
        assert all(off_control_plane(each) for each in pods(made(name)))

    def test_is_nobody_and_cannot_become_somebody(self, name: str) -> None:
        for each in pods(made(name)):
            assert each.pod["securityContext"]["runAsNonRoot"] is True
            assert each.pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert each.pod["automountServiceAccountToken"] is False
            for container in [*each.pod["containers"], *each.pod.get("initContainers", [])]:
                assert container["securityContext"] == {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                }

    def test_says_what_it_needs(self, name: str) -> None:
        for each in pods(made(name)):
            for container in [*each.pod["containers"], *each.pod.get("initContainers", [])]:
                assert set(container["resources"]["requests"]) == {"cpu", "memory"}
                assert "memory" in container["resources"]["limits"]

    def test_starts_while_the_registry_is_away(self, name: str) -> None:
        for each in pods(made(name)):
            for container in [*each.pod["containers"], *each.pod.get("initContainers", [])]:
                assert container["imagePullPolicy"] == "IfNotPresent"

    def test_is_found_by_its_selector(self, name: str) -> None:
        for each in pods(made(name)):
            labels = each.spec["template"]["metadata"]["labels"]
            assert each.spec["selector"]["matchLabels"].items() <= labels.items()

    def test_has_all_three_probes(self, name: str) -> None:
        container = main_object(made(name)).container
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"] == {"path": "/healthz", "port": "http"}

    def test_waiting_for_it_ends(self, name: str) -> None:
        resource = main_object(made(name, deploy_timeout_seconds=120))
        if resource.type.endswith(":Deployment"):
            assert resource.spec["progressDeadlineSeconds"] == 120

    def test_override_is_merged_over_it(self, name: str) -> None:
        override: dict[str, Any] = {
            "priorityClassName": "high",
            "affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
            "containers": [
                {"name": "app", "env": [{"name": "EXTRA", "value": "1"}]},
                {"name": "side", "image": "side:1"},
            ],
            "enableServiceLinks": None,
        }
        changed = main_object(made(name, pod_spec_overrides=override))
        assert changed.pod["priorityClassName"] == "high"
        assert off_control_plane(changed)
        assert "podAffinity" in changed.pod["affinity"]
        assert "enableServiceLinks" not in changed.pod
        app, side = changed.pod["containers"]
        assert {"name": "EXTRA", "value": "1"} in app["env"]
        assert app["image"] == COMMON["image"]
        assert app["readinessProbe"]["httpGet"]["port"] == "http"
        assert side == {"name": "side", "image": "side:1"}


@pytest.mark.parametrize(
    ("name", "tolerations", "workload"),
    [
        ("spread-wait", TOLERATIONS, "spread"),
        ("spread-crowd", TOLERATIONS, "spread"),
        ("single-hold", TOLERATIONS, "single-writer"),
        ("single-replace", TOLERATIONS, "single-writer"),
        ("stateful", TOLERATIONS, None),
        # The DaemonSet controller adds its own, without an end.
        ("agent", None, "node-agent"),
    ],
)
def test_tolerations_and_label(name: str, tolerations: list[dict[str, Any]] | None, workload: str | None) -> None:
    registered = made(name)
    resource = main_object(registered)
    assert resource.pod.get("tolerations") == tolerations
    assert resource.inputs["metadata"]["labels"].get("tandem-ha.io/workload") == workload
    assert resource.spec["template"]["metadata"]["labels"].get("tandem-ha.io/workload") == workload
    for service in registered.of("Service"):
        assert service.inputs["metadata"]["labels"].get("tandem-ha.io/workload") == workload


@pytest.mark.parametrize("replicas", [2, 3, 4])
@pytest.mark.parametrize(("mode", "extra"), [("wait", {"minDomains": 2}), ("crowd", {"nodeTaintsPolicy": "Honor"})])
def test_spread_app(replicas: int, mode: str, extra: dict[str, Any]) -> None:
    registered = made(f"spread-{mode}", replicas=replicas)
    deployment = registered.one("Deployment")
    assert deployment.spec["replicas"] == replicas
    assert deployment.pod["topologySpreadConstraints"] == [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app.kubernetes.io/name": "app"}},
            "matchLabelKeys": ["pod-template-hash"],
            **extra,
        }
    ]
    assert deployment.spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert deployment.container["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}
    assert deployment.pod["terminationGracePeriodSeconds"] == 30
    assert registered.one("PodDisruptionBudget").spec == {
        "maxUnavailable": 1,
        "selector": {"matchLabels": {"app.kubernetes.io/name": "app"}},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    assert registered.one("Service").spec["trafficDistribution"] == "PreferSameNode"


@pytest.mark.parametrize(("mode", "access"), [("hold", "ReadWriteOncePod"), ("replace", "ReadWriteMany")])
def test_single_writer_app(mode: str, access: str) -> None:
    registered = made(f"single-{mode}", storage_size="5Gi")
    deployment, claim = registered.one("Deployment"), registered.one("PersistentVolumeClaim")
    assert deployment.spec["replicas"] == 1
    assert deployment.spec["strategy"] == {"type": "Recreate"}
    assert "lifecycle" not in deployment.container
    assert claim.spec == {
        "accessModes": [access],
        "storageClassName": "tandem-shared",
        "resources": {"requests": {"storage": "5Gi"}},
    }
    assert {"name": "data", "persistentVolumeClaim": {"claimName": "app"}} in deployment.pod["volumes"]
    assert {"name": "DATA_DIR", "value": "/data"} in deployment.container["env"]
    annotations = deployment.inputs["metadata"]["annotations"]
    assert annotations["tandem-ha.io/when-unreachable"] == mode
    assert ("tandem-ha.io/finding" in annotations) == (mode == "replace")
    assert not registered.of("PodDisruptionBudget"), "it would make a drain wait for ever"


def test_single_writer_goes_only_where_the_share_is() -> None:
    required = main_object(made("single-hold")).pod["affinity"]["nodeAffinity"]
    (term,) = required["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert {"key": "tandem-ha.io/shared-storage", "operator": "In", "values": ["mounted"]} in term["matchExpressions"]


def test_single_writer_keeps_its_image_on_every_worker() -> None:
    daemon_set = made("single-hold", run_as_user=1234).one("DaemonSet", "app-prepull")
    (pull,) = daemon_set.pod["initContainers"]
    assert pull["image"] == COMMON["image"]
    assert pull["command"] == ["true"]
    assert daemon_set.pod["securityContext"]["runAsUser"] == 1234
    assert "pause" in daemon_set.container["image"]


def test_node_agent_updates_one_node_at_a_time() -> None:
    registered = made("agent")
    assert registered.one("DaemonSet").spec["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": 1}
    assert not registered.of("Service")


def test_node_agent_on_the_control_plane() -> None:
    registered = made("agent", on_control_plane=True, exposed=True)
    pod = registered.one("DaemonSet").pod
    assert "affinity" not in pod
    assert pod["tolerations"] == [
        {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"}
    ]
    assert registered.one("Service").spec["trafficDistribution"] == "PreferSameNode"


def test_stateful_app_states_its_reason() -> None:
    stateful_set = made("stateful").one("StatefulSet")
    assert stateful_set.inputs["metadata"]["annotations"] == {
        "tandem-ha.io/stateful-set-reason": "needs a stable host name"
    }
    assert stateful_set.spec["replicas"] == 1


def test_service_with_a_node_port() -> None:
    spec = made("spread-wait", node_port=30080).one("Service").spec
    assert spec["type"] == "NodePort"
    assert spec["ports"] == [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP", "nodePort": 30080}]


@pytest.mark.parametrize(("keep", "classes"), [(True, []), (False, ["tandem-shared-delete"])])
def test_shared_storage(keep: bool, classes: list[str]) -> None:
    registered = register(lambda: SharedStorage("storage", SharedStorageArgs(keep_data=keep)))
    found = registered.of("StorageClass")
    assert [each.inputs["metadata"]["name"] for each in found] == classes
    for each in found:
        assert each.inputs["reclaimPolicy"] == "Delete"
        assert each.inputs["volumeBindingMode"] == "Immediate"


def test_workspace_enforces_a_pod_security_standard() -> None:
    namespace = register(lambda: Workspace("workspace", WorkspaceArgs(namespace="shop"))).one("Namespace")
    assert namespace.inputs["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "baseline"
