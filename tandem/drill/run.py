"""One drill from its preconditions to the node's return. I/O is here and below; what it means is judged elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from tandem import labels, survivability
from tandem.drill import cluster, oracle
from tandem.drill.api import NETWORK_ERRORS, Api, ApiError
from tandem.drill.apps import App
from tandem.drill.clients import ClientError, ProbePod, Remote, command
from tandem.drill.driver import Driver, DriverError, TimedDriver
from tandem.drill.observe import Observation, condition
from tandem.drill.recording import NOISE_SHARE, Recording, Scenario
from tandem.drill.samples import Sample
from tandem.drill.timeline import QUIET_SECONDS, Scene, expected, lost_pods, stages
from tandem.findings import Finding
from tandem.recovery import RecoveryProfile, Stage, bound_seconds, to_dict

WARM_UP_SECONDS: Final = 4.0
"""Clients run this long before the fault; an app that answered nobody by then is not up."""

WARM_UP_LIMIT_SECONDS: Final = 90.0
PATIENCE_SECONDS: Final = 60.0
"""How long beyond the predicted bound a drill waits for the last stage before it gives up."""

UNPREDICTED_SECONDS: Final = 420.0
"""...and how long in all when no profile is known: beyond stock Kubernetes' six minutes."""

POLL_SECONDS: Final = 0.5

ROLLOUT_SECONDS: Final = 90.0
"""How long a drill waits for a rollout that is under way, such as one right after a new profile, before it judges."""


class PreconditionError(RuntimeError):
    """The drill was refused before anything was touched; `problems` say why."""

    def __init__(self, problems: Sequence[Finding]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class Progress(Protocol):
    """Where a drill tells how it goes."""

    def phase(self, text: str) -> None:
        """A new phase has begun."""

    def stage(self, app: str, stage: Stage, seconds: float) -> None:
        """An app reached a stage, seconds after the fault."""

    def tick(self, elapsed: float | None, sent: int, failed: int) -> None:
        """Some time has passed: seconds since the fault (None before it), requests sent and failed so far."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a drill is to do.

    Args:
        scenario: power loss or partition.
        node: the worker to lose, or @APP for the one that holds that app.
        namespace: where the apps are.
        profile: the profile to judge by; None takes the one recorded in the cluster.
        rate: requests a second of each client on new connections.
        kept_rate: the same on kept connections: whether one of those hangs, two requests a second show as well.
        timeout: seconds until a request on a new or a kept connection is given up.
        give_up_after: seconds after the fault at which the observation ends at the latest; None: the profile's bound
            and a minute.
        settle: seconds to go on watching after the last stage.
        leave_down: leave the node as the fault left it.
        return_within: seconds that the node and its apps have to be back after the repair.
        probe_image: the image of the clients' pod.
        accept: rules of preconditions that shall not stop the drill.
    """

    scenario: Scenario
    node: str
    namespace: str = "tandem-demo"
    profile: RecoveryProfile | None = None
    rate: float = 10.0
    kept_rate: float = 2.0
    timeout: float = 0.5
    give_up_after: float | None = None
    settle: float = 5.0
    leave_down: bool = False
    return_within: float = 300.0
    probe_image: str = "tandem-ha.io/demo:0.1.0"
    accept: frozenset[str] = frozenset()


class Drill:
    """One run.

    Args:
        api: the cluster.
        driver: the machines.
        options: what to do.
        progress: where to tell.
    """

    def __init__(self, api: Api, driver: Driver, options: Options, progress: Progress) -> None:
        self.api, self.driver, self.options, self.progress = api, driver, options, progress
        self.apps: list[App] = []
        self.samples: list[Sample] = []
        self.service_samples: dict[str, list[Sample]] = {}
        self.failed = 0
        self.warnings: list[str] = []
        self.vantages: tuple[str, ...] = ()
        self.node = options.node
        self.struck = False
        self._watch: asyncio.Task[None] | None = None

    async def run(self) -> Recording:
        """Do it.

        Raises:
            PreconditionError: refused, nothing was touched.
            DriverError, ClientError, ApiError: it broke off; what the drill had done to the machines was undone.
        """
        begun = time.time()
        self.progress.phase("checking whether the cluster can survive this")
        before = await self._settled()
        profile = self.options.profile or await cluster.applied_profile(self.api)
        self.node = resolve(self.options.node, before)
        self._check(before, profile)
        self.apps = list(before.apps)
        survivors = [name for name in survivability.workers(before) if name != self.node]
        control = [n["metadata"]["name"] for n in before.nodes if survivability.is_control_plane(n)]
        async with AsyncExitStack() as stack:
            watcher = await stack.enter_async_context(self._watching())
            since = {app.name: (await self._journal(app, survivors[0], -1)).last for app in self._writers()}
            remotes = await self._start_clients(stack, control[0], survivors[0], list(survivability.workers(before)))
            await self._warm_up()
            fault, took = await self._strike(stack, control)
            scene = Scene(self.node, fault, float("inf"), self.vantages)
            gave_up = await self._observe(watcher, scene, profile)
            scene = Scene(self.node, fault, time.time(), self.vantages)
            returned = None if self.options.leave_down else await self._restore(watcher)
            for remote in remotes:
                await remote.stop()
            self.progress.phase("reading the writers' journal from the share")
            writers = {}
            for app in self._writers():
                journal = await self._journal(app, survivors[0], since[app.name])
                writers[app.name] = oracle.judge(journal, [s for s in self.samples if s.app == app.name])
            return Recording(
                scenario=self.options.scenario,
                profile=to_dict(profile) if profile else None,
                scene=scene,
                apps=self.apps,
                observations=watcher.observations,
                samples=sorted(self.samples, key=lambda s: s.at),
                writers=writers,
                begun=begun,
                fault_call_seconds=round(took, 3),
                returned_seconds=returned,
                gave_up=gave_up,
                capped=gave_up and self.options.give_up_after is not None,
                left_down=self.options.leave_down,
                clock_uncertainty_seconds=round(max(getattr(r, "uncertainty", 0.0) for r in remotes), 4),
                watch_breaks=watcher.breaks,
                warnings=tuple(self.warnings),
            )

    async def _settled(self) -> survivability.Snapshot:
        """The cluster, once no rollout is under way any more; after a while as it is."""
        deadline, told = time.monotonic() + ROLLOUT_SECONDS, False
        while True:
            before = await cluster.snapshot(self.api, self.options.namespace)
            changing = rolling(before)
            if not changing or time.monotonic() >= deadline:
                return before
            if not told:
                self.progress.phase(f"waiting until {', '.join(changing)} are rolled out")
                told = True
            await asyncio.sleep(2 * POLL_SECONDS)

    def _check(self, before: survivability.Snapshot, profile: RecoveryProfile | None) -> None:
        problems = list(survivability.judge(before, self.node, profile))
        if not before.apps:
            problems.append(
                Finding(
                    "error",
                    "no-apps",
                    f"namespace {self.options.namespace} has no workload labelled {labels.WORKLOAD}",
                    "deploy the apps, or name their namespace with --namespace",
                )
            )
        errors = [p for p in problems if p.level == "error" and p.rule not in self.options.accept]
        if errors:
            raise PreconditionError(errors)
        self.warnings += [str(p) for p in problems]

    def _writers(self) -> list[App]:
        return [app for app in self.apps if app.writer and app.volume]

    @asynccontextmanager
    async def _watching(self) -> AsyncIterator[cluster.Watcher]:
        watcher, started = cluster.Watcher(self.api, self.options.namespace), asyncio.Event()
        self._watch = task = asyncio.create_task(watcher.run(started))
        try:
            async with asyncio.timeout(30):
                await started.wait()
            yield watcher
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _start_clients(
        self, stack: AsyncExitStack, control: str, survivor: str, workers: Iterable[str]
    ) -> list[Remote | ProbePod]:
        self.progress.phase("starting clients on the control plane, in a pod and outside the cluster")
        options = self.options
        asked = [app for app in self.apps if app.cluster_ip and app.port]

        def by_service(vantage: str) -> list[dict[str, Any]]:
            return [
                {"app": a.name, "vantage": vantage, "host": a.cluster_ip, "port": a.port, "write": a.writer}
                for a in asked
            ]

        by_node = [
            {
                "app": a.name,
                "vantage": f"outside-{w}",
                "host": self.driver.address(w),
                "port": a.node_port,
                "write": a.writer,
            }
            for w in workers
            for a in asked
            if a.node_port
        ]
        seconds = 3600.0
        kwargs: dict[str, Any] = {
            "rate": options.rate,
            "kept_rate": options.kept_rate,
            "timeout": options.timeout,
            "seconds": seconds,
        }
        on_control = self.driver.command_on(control, command(by_service(control), stdin=True, **kwargs))
        outside = self.driver.command_outside(command(by_node, stdin=True, **kwargs))
        clock = self.driver.command_on(survivor, command([], stdin=True, **kwargs))
        remotes = [
            Remote(control, on_control, self._receive),
            Remote("the outside", outside, self._receive),
            Remote(survivor, clock, self._receive),
        ]
        self.vantages = (control, "pod")
        for remote in remotes:
            stack.push_async_callback(remote.stop)
        await asyncio.gather(*(remote.start() for remote in remotes))
        argv = command(by_service("pod"), stdin=False, **kwargs)
        pod = ProbePod(self.api, options.namespace, survivor, options.probe_image, argv, self._receive)
        stack.push_async_callback(pod.stop)
        await pod.start(remotes[2].offset)
        return [*remotes, pod]

    def _receive(self, sample: Sample) -> None:
        self.samples.append(sample)
        self.failed += sample.error is not None
        if sample.client.endswith("/new") and not sample.client.startswith("outside-"):
            self.service_samples.setdefault(sample.app, []).append(sample)

    async def _warm_up(self) -> None:
        """Wait until every app has answered at every vantage point, and for a while nearly without a failure.

        Machines that stay busy do not stop a drill: its report says how much failed before the fault.
        """
        self.progress.phase("waiting until every app answers every client")
        await asyncio.sleep(WARM_UP_SECONDS)
        deadline = time.monotonic() + WARM_UP_LIMIT_SECONDS
        while silent := self._silent():
            if time.monotonic() > deadline:
                message = f"no answer before the fault: {', '.join(silent[:8])}"
                problem = Finding("error", "not-serving", message, "repair the app or the path first")
                if "not-serving" in self.options.accept:
                    self.warnings.append(str(problem))
                    return
                raise PreconditionError([problem])
            await asyncio.sleep(POLL_SECONDS)
        while self._noise() > NOISE_SHARE and time.monotonic() < deadline:  # noqa: ASYNC110 - a share, no event
            await asyncio.sleep(POLL_SECONDS)

    def _noise(self) -> float:
        """The share of failures among the requests that ended within the last moments."""
        recent = time.time() - WARM_UP_SECONDS
        last = [sample for sample in self.samples if sample.end > recent]
        return sum(sample.error is not None for sample in last) / max(1, len(last))

    def _silent(self) -> list[str]:
        recent = time.time() - 3
        answered = {(s.app, s.client.split("/")[0]) for s in self.samples if s.error is None and s.end > recent}
        wanted = {(app.name, vantage) for app in self.apps if app.cluster_ip for vantage in self.vantages}
        return sorted(f"{app} from {vantage}" for app, vantage in wanted - answered)

    async def _strike(self, stack: AsyncExitStack, control: Sequence[str]) -> tuple[float, float]:
        node = self.node
        self.samples, self.failed = [s for s in self.samples if s.end > time.time() - 5], 0
        if not self.options.leave_down:
            stack.push_async_callback(self._repair)
        if self.options.scenario == "power-loss":
            self.progress.phase(f"taking the power of {node} away")
        else:
            self.progress.phase(f"cutting {node} off from {', '.join(control)}")
        self.struck = True
        fault, begun = time.time(), time.monotonic()
        if self.options.scenario == "power-loss":
            await asyncio.to_thread(self.driver.power_off, node)
        else:
            await asyncio.to_thread(self.driver.cut, node, control)
        if isinstance(self.driver, TimedDriver) and self.driver.struck_at is not None:
            return self.driver.struck_at, 0.0
        return fault, time.monotonic() - begun

    async def _observe(self, watcher: cluster.Watcher, scene: Scene, profile: RecoveryProfile | None) -> bool:
        """Watch until every expected stage was seen and a little longer; True when it gave up before."""
        limit = self.options.give_up_after
        if limit is None:
            limit = bound_seconds(profile) + PATIENCE_SECONDS if profile else UNPREDICTED_SECONDS
        self.progress.phase(f"watching, for {limit:.0f} s at most")
        told: set[tuple[str, Stage]] = set()
        affected = {app.name: bool(lost_pods(app, watcher.observations, scene)) for app in self.apps}
        while True:
            await asyncio.sleep(POLL_SECONDS)
            if self._watch is not None and self._watch.done():
                raise ClientError("the watch of the API died") from self._watch.exception()
            now = time.time()
            current = Scene(scene.node, scene.fault, now, scene.service_vantages)
            missing = 0
            for app in self.apps:
                found = stages(app, watcher.observations, self.service_samples.get(app.name, []), current)
                for stage, seconds in found.items():
                    if seconds is not None and (app.name, stage) not in told:
                        told.add((app.name, stage))
                        self.progress.stage(app.name, stage, seconds)
                if affected[app.name]:
                    missing += sum(found[stage] is None for stage in expected(app))
            self.progress.tick(now - scene.fault, len(self.samples), self.failed)
            if not missing and any(affected.values()):
                await self._sleep(scene, max(self.options.settle, 0.0))
                return False
            if now - scene.fault > limit:
                return bool(missing)

    async def _sleep(self, scene: Scene, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(left, POLL_SECONDS))
            self.progress.tick(time.time() - scene.fault, len(self.samples), self.failed)

    async def _repair(self) -> None:
        """Undo the fault, once, whatever happens."""
        if not self.struck:
            return
        self.struck = False
        if self.options.scenario == "power-loss":
            await asyncio.to_thread(self.driver.power_on, self.node)
        else:
            await asyncio.to_thread(self.driver.heal)

    async def _restore(self, watcher: cluster.Watcher) -> float | None:
        """Undo the fault and wait for node and apps; seconds it took, None when they were not back in time."""
        self.progress.phase(f"bringing {self.node} back")
        begun, wall = time.monotonic(), time.time()
        await self._repair()
        while time.monotonic() - begun < self.options.return_within:
            await asyncio.sleep(POLL_SECONDS)
            self.progress.tick(None, len(self.samples), self.failed)
            if not away(self.apps, self.node, watcher.observations, wall):
                taken = round(time.monotonic() - begun, 1)
                await asyncio.sleep(3)  # whatever the returned node still does to the share belongs to this drill
                return taken
        missing = ", ".join(away(self.apps, self.node, watcher.observations, wall))
        self.warnings.append(f"not back {self.options.return_within:g} s after the repair: {missing}")
        return None

    async def _journal(self, app: App, node: str, since: int) -> oracle.Journal:
        argv = self.driver.command_on(node, ["python3", "-c", oracle.READER, str(app.volume), str(since)])
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(120):
                out, err = await process.communicate()
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            raise ClientError(
                f"reading {app.volume} on {node} took longer than two minutes: is the share there?"
            ) from None
        if process.returncode != 0:
            raise ClientError(f"reading {app.volume} on {node} failed: {err.decode(errors='replace').strip()[-500:]}")
        return oracle.parse(out.decode())


def resolve(node: str, before: survivability.Snapshot) -> str:
    """The node meant by a name or by `@APP`; an app that runs nowhere gives its own name, which no node has."""
    if not node.startswith("@"):
        return node
    apps = [app for app in before.apps if app.name == node[1:]]
    for pod in before.pods:
        meta = pod["metadata"]
        mine = any(meta["namespace"] == app.namespace and app.owns(meta.get("labels") or {}) for app in apps)
        if mine and "deletionTimestamp" not in meta and pod["spec"].get("nodeName"):
            return str(pod["spec"]["nodeName"])
    return node


def rolling(before: survivability.Snapshot) -> list[str]:
    """Apps that are being changed on workers that can all take pods: pods missing, starting or on their way out."""
    workers = survivability.workers(before)
    if not all(survivability.usable(node) for node in workers.values()):
        return []  # what waits for a node is no rollout, and no wait ends it
    changing = []
    for app in before.apps:
        mine = [
            pod
            for pod in before.pods
            if pod["metadata"]["namespace"] == app.namespace and app.owns(pod["metadata"].get("labels") or {})
        ]
        leaving = [pod for pod in mine if "deletionTimestamp" in pod["metadata"]]
        staying = [pod for pod in mine if pod not in leaving]
        starting = [pod for pod in staying if condition(pod, "Ready") != "True"]
        if len(staying) < app.replicas or starting or leaving:
            changing.append(app.name)
    return changing


def away(apps: Iterable[App], node: str, observations: Sequence[Observation], since: float) -> list[str]:
    """What has not returned: the node, or apps whose pods are not all there, Ready and alone, by what was seen last.

    Args:
        apps: the apps.
        node: the repaired node.
        observations: everything seen.
        since: the repair: an older sign of the node's readiness does not count.
    """
    pods: dict[str, Observation] = {}
    back = False
    for seen in observations:
        if seen.kind == "node" and seen.name == node:
            untainted = not any(taint.endswith(":NoExecute") for taint in seen.facts["taints"])
            back = not seen.gone and seen.at > since and seen.facts["ready"] == "True" and untainted
        if seen.kind == "pod":
            pods.pop(seen.uid, None)
            if not seen.gone:
                pods[seen.uid] = seen
    missing = [] if back else [f"node {node}"]
    for app in apps:
        mine = [p for p in pods.values() if app.owns(p.facts["labels"])]
        ready = [p for p in mine if p.facts["ready"] and not p.facts["deleting"]]
        on_node = any(p.facts["node"] == node for p in ready)
        whole = on_node if app.kind == "DaemonSet" else len(ready) >= app.replicas
        if not whole or any(p.facts["deleting"] for p in mine):
            missing.append(app.name)
    return missing


ERRORS: Final = (DriverError, ClientError, ApiError, *NETWORK_ERRORS)
"""What can break a drill off besides a refusal."""

__all__ = ["ERRORS", "QUIET_SECONDS", "Drill", "Options", "PreconditionError", "Progress", "away", "rolling"]
