"""From a StatefulSet with data to a single writer and back, by the commands of docs/statefulset-migration.md."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.build import artifacts
from lab.demo import KUBECONFIG, NAMESPACE, kubectl, kubectl_json
from lab.story import ROOT, Story
from tests.conftest import wait_until
from tests.stack.test_stack import pods, ready, up

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(3600)]

PAGE = (ROOT / "docs/statefulset-migration.md").read_text()
IMAGE = "tandem-ha.io/demo:0.1.0"
RECORDS = 20
CLAIMS = ("data-db-0", "db-data", "db-new")


def section(heading: str) -> list[str]:
    """The shell blocks under a heading of the page, up to the next one."""
    after = PAGE.split(f"{heading}\n", 1)[1]
    text = re.split(r"^#+ ", after, maxsplit=1, flags=re.MULTILINE)[0]
    blocks = re.findall(r"^ *```\n(.*?)^ *```$", text, flags=re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(each) for each in blocks]


SHARED = section("## The data is on shared storage already")
HOLD = section("### With `hold`: the same volume under a new claim")
COPY = section("## The data is on a worker's own disk, or on Longhorn")
BACK = section("## Back")


def shell(*blocks: str) -> str:
    """Run blocks of the page in one shell, which ends with the first command that fails."""
    script = "\n".join([f"kubectl config set-context --current --namespace={NAMESPACE}", *blocks])
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as own:
        own.write(KUBECONFIG.read_text())
        own.flush()
        env = os.environ | {"PATH": f"{artifacts.tools()}{os.pathsep}{os.environ['PATH']}"}
        env |= {"KUBECONFIG": own.name, "IMAGE": IMAGE}
        done = subprocess.run(["bash", "-euxc", script], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def stateful_set() -> list[dict[str, Any]]:
    """A StatefulSet as a chart would make it: a claim of its own template, ReadWriteOnce, and a Service."""
    labels = {"app.kubernetes.io/name": "db"}
    metadata = {"name": "db", "namespace": NAMESPACE, "labels": labels}
    container = {
        "name": "db",
        "image": IMAGE,
        "env": [{"name": "DATA_DIR", "value": "/data"}, {"name": "APP", "value": "db"}],
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    claim = {
        "metadata": {"name": "data"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "tandem-shared",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    pod = {"containers": [container], "securityContext": {"runAsUser": 65532, "runAsGroup": 65532}}
    spec = {
        "replicas": 1,
        "serviceName": "db",
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
        "volumeClaimTemplates": [claim],
    }
    service = {"clusterIP": "None", "selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service},
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata, "spec": spec},
    ]


def apply(objects: list[dict[str, Any]]) -> None:
    text = yaml.safe_dump_all(objects)
    subprocess.run(kubectl("apply", "--filename=-"), input=text, text=True, check=True, stdout=subprocess.DEVNULL)


def serving(app: str) -> str:
    """The name of the app's only pod, once it is ready."""
    wait_until(lambda: [ready(pod) for pod in pods(app)] == [True], 240, f"{app} serves")
    return str(pods(app)[0]["metadata"]["name"])


ASK = """
import json, urllib.request
for number in range({count}):
    body = json.dumps({{"client": "{word}", "n": number}}).encode()
    with urllib.request.urlopen(urllib.request.Request("http://127.0.0.1:8080/append", body), timeout=20) as answer:
        assert answer.status == 200
"""
EMPTY = """
import pathlib, shutil
for path in pathlib.Path("/data").iterdir():
    shutil.rmtree(path) if path.is_dir() else path.unlink()
"""
READ = """
import json, pathlib
for file in sorted(pathlib.Path("/data").glob("records-*.jsonl")):
    print(file.read_text(), end="")
"""


def inside(pod: str, program: str) -> str:
    argv = kubectl("exec", pod, f"--namespace={NAMESPACE}", "--", "python3", "-c", program)
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def write(pod: str, word: str) -> None:
    """Records that are acknowledged once they are on the share's disk."""
    inside(pod, ASK.format(count=RECORDS, word=word))


def words(pod: str) -> list[str]:
    """The words of all records there, in order, each once; every word must have all of its records."""
    found = [json.loads(line) for line in inside(pod, READ).splitlines()]
    told = list(dict.fromkeys(str(each["client"]) for each in found))
    for word in told:
        assert [each["n"] for each in found if each["client"] == word] == list(range(RECORDS)), word
    return told


@pytest.fixture
def old(running_lab: Story, deployed: Path) -> Iterator[Story]:
    """A StatefulSet with data; no object of it, nor of what it became, in the end."""
    apply(stateful_set())
    try:
        write(serving("db"), "stateful")
        yield running_lab
    finally:
        up(running_lab, "migration-as-committed")
        here = f"--namespace={NAMESPACE}"
        for kinds in ("statefulset/db", "service/db", "pod/copy"):
            subprocess.run(kubectl("delete", kinds, here, "--ignore-not-found"), check=True)
        ours = [each["spec"].get("volumeName") for each in claims() if each["metadata"]["name"] in CLAIMS]
        volumes = [each for each in ours if each]
        subprocess.run(kubectl("delete", "pvc", *CLAIMS, here, "--ignore-not-found"), check=True)
        if volumes:
            subprocess.run(kubectl("delete", "pv", *volumes, "--ignore-not-found"), check=True)


def claims() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = kubectl_json("get", "pvc", f"--namespace={NAMESPACE}")["items"]
    return found


def app(name: str, **more: Any) -> list[str]:
    values = {"kind": "single-writer", "image": IMAGE, "env": {"APP": name}, **more}
    return ["--set", f"apps.{name}={yaml.safe_dump(values, default_flow_style=True, width=10**6).strip()}"]


REMOVE_SERVICE = "kubectl delete service db"


def test_the_page_is_what_is_run() -> None:
    assert REMOVE_SERVICE in PAGE
    assert [len(each) for each in (SHARED, HOLD, COPY, BACK)] == [2, 1, 3, 1]


def test_the_claim_stays_and_the_stateful_set_goes_and_back(old: Story) -> None:
    shell(*SHARED, REMOVE_SERVICE)
    up(old, "migration-replace", *app("db", existing_claim="data-db-0", when_unreachable="replace"))
    pod = serving("db")
    assert words(pod) == ["stateful"]
    write(pod, "deployment")
    shell(*BACK)
    up(old, "migration-back")
    apply(stateful_set())
    assert serving("db") == "db-0"
    assert words("db-0") == ["stateful", "deployment"], "all that was written since is there"


def test_the_volume_goes_to_a_claim_of_one_pod(old: Story) -> None:
    shell(*SHARED, REMOVE_SERVICE, *HOLD)
    exclusive = {"existing_claim": "db-data", "existing_claim_exclusive": True, "when_unreachable": "hold"}
    up(old, "migration-hold", *app("db", **exclusive))
    pod = serving("db")
    assert words(pod) == ["stateful"]
    (claim,) = [each for each in claims() if each["metadata"]["name"] == "db-data"]
    assert claim["status"]["accessModes"] == ["ReadWriteOncePod"]
    write(pod, "held")
    assert words(pod) == ["stateful", "held"]


def test_a_copy_to_a_new_claim(old: Story) -> None:
    """The old volume is on the share here too: the commands are the same wherever it is."""
    up(old, "migration-copy", *app("db-new"))
    serving("db-new")
    stop, copy, start = COPY
    # What the page says of an app that writes when it starts: this one takes an epoch.
    inside(serving("db-new"), EMPTY)
    shell(stop, copy, start)
    pod = serving("db-new")
    assert words(pod) == ["stateful"]
    write(pod, "copied")
    assert words(pod) == ["stateful", "copied"]
