"""Controllers as processes on a real API server: handover, crash, freeze, signals, shards, by its audit log."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from tandem.runtime import KubeClient, RunSettings, Scope, Shard, Shutdown, connect_client, serve
from tandem.runtime._election.store import ApiLeaseStore
from tandem.runtime.controller import Context, Controller, Done, Result, Watch
from tandem.runtime.errors import Conflict
from tandem.runtime.process import Cluster
from tandem.runtime.resources import CONFIG_MAPS, Key, Object
from tandem.runtime.testing.localapi import LocalApi
from tests.api.pods import EXAMPLES, HERE, ROOT, Pod, eventually, free_lease, free_leases, holder

pytestmark = [pytest.mark.api, pytest.mark.timeout(300)]
SLOW = HERE / "slow_controller.py"
CORE = "/api/v1/namespaces/default/configmaps"
Start = Callable[..., Pod]


@pytest.fixture
def start(api: LocalApi, tmp_path: Path) -> Iterator[Start]:
    """Starts controllers; ends those that are left."""
    pods: list[Pod] = []

    def starter(name: str, script: Path = SLOW, **settings: str) -> Pod:
        pods.append(Pod(api, name, script, tmp_path, **settings))
        return pods[-1]

    yield starter
    for pod in pods:
        pod.end()


def ask(api: LocalApi, controller: str, count: int, question: str = "1") -> None:
    """Objects for the slow controller; again with another question changes them."""
    for number in range(count):
        body = {"metadata": {"name": f"{controller}-{number}", "labels": {"controller": controller}},
                "data": {"asked": question}}  # fmt: skip
        try:
            api.request("POST", CORE, body)
        except OSError:
            path = f"{CORE}/{controller}-{number}"
            api.request("PATCH", path, {"data": {"asked": question}}, content="application/merge-patch+json")


def answered(api: LocalApi, controller: str, question: str = "1") -> list[str]:
    """Who answered each."""
    items = api.request("GET", f"{CORE}?labelSelector=controller%3D{controller}")["items"]
    return [item["data"]["by"] for item in items if item["data"].get("answered") == question]


def at(event: dict[str, Any], stage: str = "stageTimestamp") -> str:
    stamp: str = event[stage]
    return stamp


def test_sigterm_finishes_what_is_in_flight_releases_and_the_follower_goes_on_with_a_warm_cache(
    api: LocalApi, name: str, start: Start
) -> None:
    free_lease(api, name)
    first = start(f"{name}-a", CONTROLLER=name, SLOW_SECONDS="2", CONCURRENCY="2")
    eventually(lambda: holder(api, name).startswith(first.name), "the first leads")
    second = start(f"{name}-b", CONTROLLER=name, SLOW_SECONDS="0.1")
    eventually(lambda: second.said("following"), "the second follows")
    ask(api, name, 6)
    eventually(lambda: first.said("began"), "work is in flight")
    lists = [e for e in api.audit() if e["user"]["username"] == second.name and e["verb"] == "list"]
    asked = time.monotonic()
    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    print(f"ended after {time.monotonic() - asked:.2f} s")
    assert not holder(api, name).startswith(first.name)
    eventually(lambda: len(answered(api, name)) == 6, "the second does the rest", 30)
    print(f"all done {time.monotonic() - asked:.2f} s after the signal")
    by = answered(api, name)
    assert by.count(first.name) == 2  # what was in flight, and nothing more
    assert by.count(second.name) == 4
    assert at(first.writes()[-1]) < at(second.writes()[0], "requestReceivedTimestamp")
    again = [e for e in api.audit() if e["user"]["username"] == second.name and e["verb"] == "list"]
    assert again == lists


def test_after_kill_9_the_follower_leads_when_the_lease_is_over(api: LocalApi, name: str, start: Start) -> None:
    free_lease(api, name)
    first = start(f"{name}-a", CONTROLLER=name, SLOW_SECONDS="1")
    eventually(lambda: holder(api, name).startswith(first.name), "the first leads")
    second = start(f"{name}-b", CONTROLLER=name, SLOW_SECONDS="0.1", FAIL_TIMES="3")
    eventually(lambda: second.said("following"), "the second follows")
    ask(api, name, 40)
    eventually(lambda: len(answered(api, name)) > 4, "the first works")
    first.signal(signal.SIGKILL)
    took = eventually(lambda: holder(api, name).startswith(second.name), "the second leads", 40)
    print(f"took over {took:.1f} s after the kill")
    assert took > 12.5  # the lease less what had passed of it
    eventually(lambda: len(answered(api, name)) == 40, "the second does the rest", 30)
    assert at(first.writes()[-1]) < at(second.writes()[0], "requestReceivedTimestamp")


def test_a_process_that_was_frozen_beyond_its_lease_never_writes_again(api: LocalApi, name: str, start: Start) -> None:
    free_lease(api, name)
    first = start(f"{name}-a", CONTROLLER=name, SLOW_SECONDS="1")
    eventually(lambda: holder(api, name).startswith(first.name), "the first leads")
    second = start(f"{name}-b", CONTROLLER=name, SLOW_SECONDS="1")
    eventually(lambda: second.said("following"), "the second follows")
    ask(api, name, 60)
    eventually(lambda: len(answered(api, name)) > 4, "the first works")
    first.signal(signal.SIGSTOP)
    before = len(first.writes())
    eventually(lambda: len(second.writes()) > 4, "the second works", 60)
    first.signal(signal.SIGCONT)
    assert first.wait(10) != 0
    eventually(lambda: len(answered(api, name)) == 60, "the second does the rest", 60)
    assert len(first.writes()) - before <= 4  # requests that were on the wire when it was frozen
    assert at(first.writes()[-1]) < at(second.writes()[0], "requestReceivedTimestamp")


def test_a_second_signal_ends_at_once(api: LocalApi, name: str, start: Start) -> None:
    free_lease(api, name)
    pod = start(name, CONTROLLER=name, SLOW_SECONDS="60")
    ask(api, name, 1)
    eventually(lambda: pod.said("began"), "work is in flight")
    pod.signal(signal.SIGTERM)
    eventually(lambda: pod.said("draining"), "it drains")
    began = time.monotonic()
    pod.signal(signal.SIGTERM)
    assert pod.wait() == -signal.SIGTERM
    assert time.monotonic() - began < 20, "the work in flight would have taken a minute"
    assert pod.writes() == []


def test_a_stolen_lease_ends_the_process_without_another_write(api: LocalApi, name: str, start: Start) -> None:
    free_lease(api, name)
    pod = start(name, CONTROLLER=name, SLOW_SECONDS="1", CONCURRENCY="1")
    ask(api, name, 20)
    eventually(lambda: len(pod.writes()) > 1, "it works")
    path = f"/apis/coordination.k8s.io/v1/namespaces/default/leases/{name}"
    api.request("PATCH", path, {"spec": {"holderIdentity": "thief"}}, content="application/merge-patch+json")
    stolen = time.time()
    assert pod.wait() == 1
    assert time.time() - stolen < 15
    late = [w for w in pod.writes() if w["requestReceivedTimestamp"] > stamp(stolen + 0.5)]
    assert late == []
    assert holder(api, name) == "thief"


def stamp(moment: float) -> str:
    """As the audit log writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + f".{int(moment % 1 * 1e6):06}Z"


def test_no_way_to_the_api_server_is_said_and_has_its_own_status(api: LocalApi, name: str, start: Start) -> None:
    pod = start(name, CONTROLLER=name, KUBECONFIG="/nonexistent")
    assert pod.wait() == 2
    assert pod.said("no way to the API server")


def test_the_examples_run_elected_and_sharded(api: LocalApi, start: Start) -> None:
    wanted = {"example.com/checksum": "wanted"}
    body = {"metadata": {"name": "plain", "labels": wanted}, "data": {"x": "1"}}
    for namespace in ("red-apps", "red-tools", "blue-apps", "green-apps"):
        api.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        api.request("POST", f"/api/v1/namespaces/{namespace}/configmaps", body)

    def checksum(namespace: str) -> str:
        found = api.request("GET", f"/api/v1/namespaces/{namespace}/configmaps/plain")
        text: str = found["metadata"].get("annotations", {}).get("example.com/checksum", "")
        return text

    free_leases(api, ["checksum", "checksum-red", "checksum-blue"])
    one = start("sharded-1", EXAMPLES / "sharded.py")
    two = start("sharded-2", EXAMPLES / "sharded.py")
    eventually(lambda: all(map(checksum, ("red-apps", "red-tools", "blue-apps"))), "both shards are led")
    assert checksum("green-apps") == ""
    one.signal(signal.SIGKILL)
    two_leads = ("checksum-red", "checksum-blue")
    took = eventually(
        lambda: all(holder(api, lease).startswith("sharded-2") for lease in two_leads), "one leads both shards", 40
    )
    print(f"both shards with one process {took:.1f} s after the other's death")
    for namespace in ("red-apps", "blue-apps"):
        before = checksum(namespace)
        path = f"/api/v1/namespaces/{namespace}/configmaps/plain"
        api.request("PATCH", path, {"data": {"x": "2"}}, content="application/merge-patch+json")
        eventually(lambda b=before, n=namespace: checksum(n) != b, "a change is seen")  # type: ignore[misc]
    two.signal(signal.SIGTERM)
    assert two.wait() == 0
    elected = start("elected-1", EXAMPLES / "elected.py")
    eventually(lambda: checksum("green-apps"), "the elected one has everything in its scope")
    elected.signal(signal.SIGTERM)
    assert elected.wait() == 0


def typed(page: str, folder: Path) -> Path:
    """The first program of a page of the documentation, as a reader would save it."""
    program = (ROOT / "docs" / page).read_text().partition("```python\n")[2].partition("```\n")[0]
    script = folder / f"{page}.py"
    script.write_text(program)
    return script


def test_a_pages_controller_runs_as_typed(api: LocalApi, name: str, start: Start, tmp_path: Path) -> None:
    free_lease(api, "seer")
    api.request("POST", CORE, {"metadata": {"name": name, "labels": {"example.com/see": ""}}})

    def annotations() -> dict[str, str]:
        found: dict[str, str] = api.request("GET", f"{CORE}/{name}")["metadata"].get("annotations", {})
        return found

    pod = start(f"{name}-typed", typed("controllers.md", tmp_path))
    eventually(lambda: annotations() == {"example.com/seen": "yes"}, "it has seen the object")
    pod.signal(signal.SIGTERM)
    assert pod.wait() == 0
    assert len(pod.writes()) == 1


def test_a_pages_election_runs_as_typed(api: LocalApi, name: str, start: Start, tmp_path: Path) -> None:
    api.request("POST", "/api/v1/namespaces", {"metadata": {"name": "tandem-system"}})
    lease = {"metadata": {"name": "auditor"}, "spec": {"holderIdentity": ""}}
    api.request("POST", "/apis/coordination.k8s.io/v1/namespaces/tandem-system/leases", lease)
    leader = start(f"{name}-1", typed("election.md", tmp_path))
    eventually(lambda: "leading in epoch" in leader.log.read_text(), "it leads")
    follower = start(f"{name}-2", typed("election.md", tmp_path))
    time.sleep(3)
    follower.signal(signal.SIGTERM)
    leader.signal(signal.SIGTERM)
    assert (follower.wait(), leader.wait()) == (0, 0)
    assert "leading" not in follower.log.read_text()


async def test_the_server_refuses_an_apply_that_was_decided_on_an_older_version(api: LocalApi, name: str) -> None:
    async with connect_client(str(api.kubeconfig())) as client:
        body: Object = {"metadata": {"name": name, "namespace": "default"}, "data": {"x": "1"}}
        stale = await client.create(CONFIG_MAPS, body, seconds=10)
        fresh = await client.replace(CONFIG_MAPS, {**stale, "data": {"x": "2"}}, seconds=10)
        metadata = {key: stale["metadata"][key] for key in ("name", "namespace", "resourceVersion")}
        fields = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"x": "3"}}
        with pytest.raises(Conflict):
            await client.apply(CONFIG_MAPS, fields, field_manager="m", seconds=10)
        metadata["resourceVersion"] = fresh["metadata"]["resourceVersion"]
        stored = await client.apply(CONFIG_MAPS, fields, field_manager="m", seconds=10)
        assert stored["data"] == {"x": "3"}


class RecordingClient(KubeClient):
    """Notes the namespace of every object that a list or watch delivers."""

    delivered: set[str]

    async def list(self, *args: Any, **kwargs: Any) -> Object:
        page = await super().list(*args, **kwargs)
        self.delivered |= {item["metadata"]["namespace"] for item in page["items"]}
        return page

    async def watch(self, *args: Any, **kwargs: Any) -> AsyncGenerator[Object, None]:
        async with aclosing(super().watch(*args, **kwargs)) as events:
            async for event in events:
                if event["type"] != "BOOKMARK":
                    self.delivered.add(event["object"]["metadata"]["namespace"])
                yield event


async def test_a_shards_watches_deliver_no_foreign_object(api: LocalApi, name: str) -> None:
    namespaces = [f"{name}-{number}" for number in range(3)]
    for namespace in namespaces:
        await asyncio.to_thread(api.request, "POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    seen: set[Key] = set()

    async def reconcile(key: Key, _: Context) -> Result:
        seen.add(key)
        return Done()

    async with (
        connect_client(str(api.kubeconfig())) as plain,
        connect_client(str(api.kubeconfig())) as election,
        Shutdown(signals=()) as shutdown,
    ):
        recording = RecordingClient(plain._connection)
        recording.delivered = set()
        shards = tuple(Shard(str(number), Scope((namespaces[number],))) for number in range(2))
        settings = RunSettings(
            shards=shards, candidate_for=("0",), lease_namespace="default", lease_name=name, health_port=None
        )
        controller = Controller(name, reconcile, [Watch(CONFIG_MAPS)])
        ways = Cluster(recording, lambda space, lease: ApiLeaseStore(election, space, lease))
        await asyncio.to_thread(free_lease, api, f"{name}-0")
        process = asyncio.create_task(serve(controller, settings, ways, shutdown=shutdown, guard=None))
        for round_ in range(5):
            for namespace in namespaces:
                body: Object = {"metadata": {"name": f"c{round_}", "namespace": namespace}}
                await plain.create(CONFIG_MAPS, body, seconds=10)
            await asyncio.sleep(0.2)
        async with asyncio.timeout(30):
            while len(seen) < 5:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        shutdown.request("test")
        assert await process == 0
    assert recording.delivered == {namespaces[0]}
    assert {key.namespace for key in seen} == {namespaces[0]}
