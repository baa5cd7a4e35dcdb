"""What an app may have beside its container: registered as asked for, refused where it cannot work."""

from __future__ import annotations

import json
from typing import Any

import pytest

from infra.components import (
    AppArgs,
    ElectedControllerArgs,
    NodeAgentArgs,
    PriorityClasses,
    PriorityClassesArgs,
)
from infra.errors import ArgsError, SettingsError
from infra.settings import parse_settings
from tandem import checklist
from tests.pulumi.registered import PROFILE, Registered, register
from tests.pulumi.stack_files import raw_config
from tests.pulumi.test_components import APPS, COMMON, made, main_object

HELPER = {"name": "proxy", "image": "proxy:1"}
SERVED = ["spread-wait", "single-hold", "stateful"]


def from_stack(**values: Any) -> AppArgs:
    """The arguments as a stack file makes them, nested ones included."""
    given = {"kind": "spread", "image": COMMON["image"], **values}
    raw = {"tandem:namespace": "shop", "tandem:profile": PROFILE.name, "tandem:apps": json.dumps({"app": given})}
    return parse_settings(raw, "staging").apps["app"]


def spread(**values: Any) -> Registered:
    more = {name: getattr(from_stack(**values), name) for name in values}
    return made("spread-wait", **more)


@pytest.mark.parametrize("name", APPS)
def test_priority_class_and_pull_secrets(name: str) -> None:
    pod = main_object(made(name, priority_class="core", image_pull_secrets=["registry"])).pod
    assert pod["priorityClassName"] == "core"
    assert pod["imagePullSecrets"] == [{"name": "registry"}]


def test_priority_classes_never_become_the_default_of_the_cluster() -> None:
    args = {"core": {"value": 100}, "rest": {"value": -5, "preempts": False}}
    raw = raw_config("dev") | {"tandem:priority_classes": json.dumps(args)}
    settings = parse_settings(raw, "dev")
    registered = register(lambda: PriorityClasses("priorities", settings.priority_classes))
    found = {each.name: each.inputs for each in registered.of("PriorityClass")}
    assert {name: (each["value"], each["preemptionPolicy"]) for name, each in found.items()} == {
        "core": (100, "PreemptLowerPriority"),
        "rest": (-5, "Never"),
    }
    assert not any(each["globalDefault"] for each in found.values())


def test_a_class_that_the_stack_does_not_make_is_refused_with_those_it_makes() -> None:
    raw = raw_config("prod") | {
        "tandem:apps": json.dumps({"web": {"kind": "spread", "image": "a:1", "priority_class": "cor"}})
    }
    with pytest.raises(SettingsError, match=r"apps\.web\.priority_class[\s\S]*one of core"):
        parse_settings(raw, "prod")
    raw["tandem:apps"] = raw["tandem:apps"].replace('"cor"', '"system-cluster-critical"')
    assert parse_settings(raw, "prod").apps["web"].priority_class == "system-cluster-critical"


@pytest.mark.parametrize(("name", "value"), [("system-core", 1), ("Core", 1), ("core", 2_000_000_000)])
def test_classes_that_kubernetes_would_refuse(name: str, value: int) -> None:
    raw = raw_config("dev") | {"tandem:priority_classes": json.dumps({name: {"value": value}})}
    with pytest.raises(SettingsError, match=r"Kubernetes' own|lower case"):
        parse_settings(raw, "dev")


def test_an_autoscaler_owns_the_number_of_replicas() -> None:
    registered = spread(autoscaling={"max_replicas": 6, "memory_percent": 80})
    deployment = registered.one("Deployment")
    assert "replicas" not in deployment.spec
    assert deployment.inputs["metadata"]["annotations"]["tandem-ha.io/autoscaled"] == "2-6"
    scaler = registered.one("HorizontalPodAutoscaler").spec
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 6)
    assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "app"}
    assert [
        (each["resource"]["name"], each["resource"]["target"]["averageUtilization"]) for each in scaler["metrics"]
    ] == [
        ("cpu", 70),
        ("memory", 80),
    ]
    objects = [each.inputs for each in registered.resources if each.type.startswith("kubernetes:")]
    found = checklist.judge(objects, environment="prod", profile=PROFILE)
    assert {each.rule for each in found} == {"priority-class"}
    assert not made("spread-wait").of("HorizontalPodAutoscaler")


@pytest.mark.parametrize("name", SERVED)
def test_several_ports(name: str) -> None:
    args = from_stack(
        ports=[{"name": "grpc", "port": 9000, "service_port": 90}, {"name": "dns", "port": 53, "protocol": "UDP"}]
    )
    registered = made(name, ports=args.ports)
    ports = registered.one("Service").spec["ports"]
    assert [(each["name"], each["port"], each["targetPort"], each["protocol"]) for each in ports] == [
        ("http", 80, "http", "TCP"),
        ("grpc", 90, "grpc", "TCP"),
        ("dns", 53, "dns", "UDP"),
    ]
    assert [each["containerPort"] for each in main_object(registered).container["ports"]] == [8080, 9000, 53]


def test_a_node_port_of_any_port_makes_the_service_one() -> None:
    registered = spread(ports=[{"name": "grpc", "port": 9000, "node_port": 30090}])
    assert registered.one("Service").spec["type"] == "NodePort"
    raw = raw_config("lab")
    apps = json.loads(raw["tandem:apps"])
    apps["web"]["ports"] = [{"name": "grpc", "port": 9000, "node_port": 30081}]
    with pytest.raises(SettingsError, match="app web has this port"):
        parse_settings(raw | {"tandem:apps": json.dumps(apps)}, "lab")


def test_sidecars_outlive_the_app_and_init_containers_come_after_them() -> None:
    registered = spread(
        sidecars=[HELPER], init_containers=[{"name": "migrate", "image": "app:1", "command": ["/migrate"]}]
    )
    proxy, migrate = main_object(registered).pod["initContainers"]
    assert (proxy["name"], proxy["restartPolicy"]) == ("proxy", "Always")
    assert (migrate["name"], migrate["command"]) == ("migrate", ["/migrate"])
    assert "restartPolicy" not in migrate
    for each in (proxy, migrate):
        assert set(each["resources"]["requests"]) == {"cpu", "memory"}
        assert each["securityContext"]["readOnlyRootFilesystem"] is True


def test_a_helper_sees_the_data_only_when_it_is_told_to() -> None:
    shared = from_stack(sidecars=[HELPER, {**HELPER, "name": "copy", "share_mounts": True}], files={"/etc/a": "1"})
    pod = main_object(made("single-hold", sidecars=shared.sidecars, files=shared.files)).pod
    paths = [{each["mountPath"] for each in helper["volumeMounts"]} for helper in pod["initContainers"]]
    assert paths == [{"/tmp"}, {"/tmp", "/data", "/etc/a"}]


def test_a_change_of_a_file_is_a_new_object_and_a_new_template() -> None:
    first, second = (spread(files={"/etc/app/app.yaml": text, "/etc/x": "x"}) for text in ("a: 1", "a: 2"))
    names = [each.one("ConfigMap").inputs["metadata"]["name"] for each in (first, second)]
    assert names[0] != names[1]
    for registered, name in zip((first, second), names, strict=True):
        config = registered.one("ConfigMap").inputs
        assert config["immutable"] is True
        deployment = main_object(registered)
        assert {"name": "files", "configMap": {"name": name}} in deployment.pod["volumes"]
        mounts = [each for each in deployment.container["volumeMounts"] if each["name"] == "files"]
        assert {each["mountPath"]: config["data"][each["subPath"]] for each in mounts}["/etc/x"] == "x"


def test_secrets_are_in_a_secret_and_nowhere_else() -> None:
    registered = spread(secret_env={"PASSWORD": "open-sesame"}, secret_files={"/etc/key": "open-barley"})
    secret = registered.one("Secret")
    deployment = main_object(registered)
    (variable,) = [each for each in deployment.container["env"] if each["name"] == "PASSWORD"]
    assert variable["valueFrom"]["secretKeyRef"] == {"name": secret.inputs["metadata"]["name"], "key": "PASSWORD"}
    assert "open-" in json.dumps(secret.inputs)
    assert "open-" not in json.dumps([each.inputs for each in registered.resources if each is not secret])
    changed = spread(secret_env={"PASSWORD": "open-rye"}, secret_files={"/etc/key": "open-barley"})
    assert changed.one("Secret").inputs["metadata"]["name"] != secret.inputs["metadata"]["name"]


def test_an_error_does_not_print_a_secret() -> None:
    for given in ({"secret_env": {"PASSWORD": 12345678}}, {"secret_env": ["12345678"]}, {"secret_file": "12345678"}):
        with pytest.raises(SettingsError) as caught:
            from_stack(**given)
        assert "12345678" not in str(caught.value)


def test_mounts_of_others_objects() -> None:
    registered = spread(
        mounts=[
            {"path": "/etc/tls", "secret": "web-tls"},
            {"path": "/etc/conf", "config_map": "web"},
            {"path": "/var/cache", "empty_size": "32Mi"},
        ]
    )
    volumes = {each["name"]: each for each in main_object(registered).pod["volumes"]}
    assert volumes["mount-0"]["secret"] == {"secretName": "web-tls"}
    assert volumes["mount-1"]["configMap"] == {"name": "web"}
    assert volumes["mount-2"]["emptyDir"] == {"sizeLimit": "32Mi"}
    mounts = {each["mountPath"]: each.get("readOnly") for each in main_object(registered).container["volumeMounts"]}
    assert (mounts["/etc/tls"], mounts["/var/cache"]) == (True, None)
    assert not registered.of("Secret")


def test_ingress() -> None:
    registered = spread(ingress={"host": "shop.example.org", "class_name": "nginx", "tls_secret": "shop-tls"})
    ingress = registered.one("Ingress")
    assert ingress.spec["tls"] == [{"hosts": ["shop.example.org"], "secretName": "shop-tls"}]
    (rule,) = ingress.spec["rules"]
    (path,) = rule["http"]["paths"]
    assert path["backend"]["service"] == {"name": "app", "port": {"name": "http"}}


def test_patch_reaches_every_object_by_kind() -> None:
    patch = {
        "Service": {"spec": {"type": "LoadBalancer", "ports": [{"name": "http", "port": 8080}]}},
        "PodDisruptionBudget": {"metadata": {"annotations": {"owner": "us"}}, "spec": {"maxUnavailable": None}},
        "Deployment": {"spec": {"minReadySeconds": 5, "template": {"metadata": {"labels": {"team": "shop"}}}}},
    }
    registered = spread(patch=patch, pod_spec_overrides={"hostname": "h"})
    service = registered.one("Service")
    assert service.spec["type"] == "LoadBalancer"
    assert service.spec["ports"] == [{"name": "http", "port": 8080, "targetPort": "http", "protocol": "TCP"}]
    assert service.spec["trafficDistribution"] == "PreferSameNode"
    budget = registered.one("PodDisruptionBudget")
    assert budget.inputs["metadata"]["annotations"] == {"owner": "us"}
    assert budget.inputs["metadata"]["name"] == "app"
    assert "maxUnavailable" not in budget.spec
    deployment = registered.one("Deployment")
    assert deployment.spec["minReadySeconds"] == 5
    assert deployment.spec["template"]["metadata"]["labels"]["app.kubernetes.io/name"] == "app"
    assert deployment.spec["template"]["metadata"]["labels"]["team"] == "shop"
    assert deployment.pod["hostname"] == "h"
    assert deployment.container["image"] == COMMON["image"]


def test_patch_reaches_helpers_of_an_app_too() -> None:
    registered = made("single-hold", patch={"DaemonSet": {"spec": {"revisionHistoryLimit": 7}}})
    assert registered.one("DaemonSet", "app-prepull").spec["revisionHistoryLimit"] == 7


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"autoscaling": {"maximum": 9}}, "autoscaling.maximum", "spelling"),
    ({"ports": [{"name": "a", "port": 1, "target": 2}]}, "ports.0.target", "spelling"),
    ({"autoscaling": {"min_replicas": 1}}, "autoscaling.min_replicas", "min_replicas: 2"),
    ({"autoscaling": {"max_replicas": 2}}, "autoscaling.max_replicas", "above"),
    ({"autoscaling": {"cpu_percent": 0}}, "autoscaling.cpu_percent", "from 1"),
    ({"autoscaling": {}, "replicas": 3}, "replicas", "leave replicas out"),
    ({"ports": [{"name": "http", "port": 1}]}, "ports.name", "grpc"),
    ({"ports": [{"name": "a", "port": 8080}]}, "ports", "change one"),
    ({"ports": [{"name": "a", "port": 80}]}, "ports", "change one"),
    ({"ports": [{"name": "a", "port": 81, "node_port": 81}]}, "ports.node_port", "in the range"),
    ({"sidecars": [HELPER], "init_containers": [HELPER]}, "sidecars", "change one"),
    ({"sidecars": [{**HELPER, "name": "app"}]}, "helper.name", "another name"),
    ({"sidecars": [{**HELPER, "image": "proxy"}]}, "helper.image", "proxy:1.2.3"),
    ({"sidecars": [{**HELPER, "memory_limit": "1 GB"}]}, "helper.memory_limit", "64Mi"),
    ({"files": {"etc/app": ""}}, "files", "/etc"),
    ({"files": {"/etc/../app": ""}}, "files", "/etc"),
    ({"files": {"/a": ""}, "secret_files": {"/a": ""}}, "files", "change one"),
    ({"files": {"/a/b": "", "/a_b": ""}}, "files", "change one"),
    ({"env": {"A": "1"}, "secret_env": {"A": "2"}}, "secret_env", "change one"),
    ({"mounts": [{"path": "/a"}]}, "mounts", "one of"),
    ({"mounts": [{"path": "/a", "secret": "s", "config_map": "c"}]}, "mounts", "one of"),
    ({"ingress": {"host": "Shop"}}, "ingress.host", "example.org"),
    ({"patch": {"StatefulSet": {}}}, "patch", "Deployment"),
    ({"patch": {"Service": {"metadata": {"name": "x"}}}}, "patch", "leave it out"),
]


@pytest.mark.parametrize(("values", "field", "way_out"), REFUSED)
def test_refused(values: dict[str, Any], field: str, way_out: str) -> None:
    with pytest.raises(SettingsError) as caught:
        from_stack(**values)
    assert f"apps.app.{field} = " in str(caught.value)
    assert way_out in str(caught.value).partition("way out: ")[2]


@pytest.mark.parametrize("args", [NodeAgentArgs, ElectedControllerArgs])
def test_what_has_no_service_is_not_exposed(args: type[AppArgs]) -> None:
    given = from_stack(ports=[{"name": "grpc", "port": 1, "node_port": 30001}], ingress={"host": "a"})
    for name in ("ports", "ingress"):
        with pytest.raises(ArgsError, match="there is no Service"):
            args(**COMMON, **{name: getattr(given, name)})


def test_no_class_is_made_unless_asked_for() -> None:
    assert PriorityClassesArgs(classes={}).classes == parse_settings(raw_config("dev"), "dev").priority_classes.classes
