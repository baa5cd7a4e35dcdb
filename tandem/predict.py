"""`tandem predict`: what a profile, or a running cluster, promises after a worker's power loss."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from tandem import recovery
from tandem.drill.api import NETWORK_ERRORS, Api, ApiError, Object, connect
from tandem.recovery import LiveProfile, RecoveryProfile, Sighting

EXIT_BROKEN: Final = 2
"""Exit status when the cluster could not be read; 1 says that a profile has an error or misses the target."""

_SYSTEM: Final = "/api/v1/namespaces/kube-system"
_CONTROL_PLANE: Final = "node-role.kubernetes.io/control-plane"
_EXCLUDED: Final = "node.kubernetes.io/exclude-disruption"

Behaviours = Annotated[str, typer.Option(help="replace, hold, spread-wait, spread-crowd, stateful or node-agent.")]


async def cluster_profile(api: Api) -> LiveProfile:
    """The profile that a running cluster amounts to, read from its API alone.

    Flags and variables come from the control plane's static pods, kubelets' numbers from their live configuration
    (configz) where these credentials may ask for it, else from kubeadm's documents. A kubelet's environment is
    not shown by any API, so the controller-manager's HTTP/2 time-outs stand for both, and a remark says so.

    Raises:
        ApiError, OSError, aiohttp.ClientError: the API refused or could not be reached.
    """
    nodes = await api.items("/api/v1/nodes")
    version = str((await api.get("/version")).get("gitVersion", ""))
    seen = await _documents(api)
    remarks = ["the HTTP/2 time-outs of kubelets are not shown by the API; the controller-manager's are taken"]
    configz, refused = await _configz(api, nodes)
    seen += configz
    if refused:
        remarks.append(f"kubelets' live configuration was not shown ({refused}); kubelet-config is taken")
    pods = await api.items(f"{_SYSTEM}/pods", labelSelector="tier=control-plane")
    programs = [_static_pod(pod) for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["name"]))]
    if not any(sighting.arguments for sighting in programs):
        remarks.append("no static pod of the control plane is visible; what kubeadm-config says of its flags is taken")
    control_plane = [node["metadata"].get("labels", {}) for node in nodes]
    control_plane = [labels for labels in control_plane if _CONTROL_PLANE in labels]
    excluded = bool(control_plane) and all(_EXCLUDED in labels for labels in control_plane)
    live = recovery.live_profile([*seen, *programs], version=version, excluded=excluded)
    return LiveProfile(live.profile, live.sources, (*live.remarks, *remarks))


async def _documents(api: Api) -> list[Sighting]:
    """What kubeadm's two documents say; nothing where the cluster was not made by kubeadm."""
    import yaml  # noqa: PLC0415  (half of the start-up time of a command that mostly prints numbers)

    texts = {}
    for name, key in (("kubeadm-config", "ClusterConfiguration"), ("kubelet-config", "kubelet")):
        found = await api.find(f"{_SYSTEM}/configmaps/{name}")
        texts[name] = yaml.safe_load((found or {}).get("data", {}).get(key, "")) or {}
    seen = [
        _section(texts["kubeadm-config"].get(component) or {}, f"ConfigMap kubeadm-config, {component}")
        for component in ("apiServer", "controllerManager")
    ]
    return [*seen, Sighting("ConfigMap kubelet-config", configuration=texts["kubelet-config"])]


def _section(section: Object, where: str) -> Sighting:
    """Flags and plain variables of one component of a ClusterConfiguration (lists of v1beta4, maps of v1beta3)."""
    given = section.get("extraArgs") or {}
    pairs = given.items() if isinstance(given, dict) else ((entry["name"], entry.get("value", "")) for entry in given)
    variables = {e["name"]: str(e["value"]) for e in section.get("extraEnvs") or [] if "value" in e}
    return Sighting(where, {str(name): str(value) for name, value in pairs}, variables)


async def _configz(api: Api, nodes: list[Object]) -> tuple[list[Sighting], str]:
    """Live configuration of the nodes' kubelets, and why it is missing where it is."""
    seen, refused = [], ""
    for node in nodes:
        name = node["metadata"]["name"]
        try:
            answer = await api.get(f"/api/v1/nodes/{name}/proxy/configz")
        except ApiError as error:
            refused = str(error)
            continue
        seen.append(Sighting(f"kubelet of {name}", configuration=answer.get("kubeletconfig", {})))
    # The last one wins, and the slowest heartbeat is what counts.
    return sorted(seen, key=lambda sighting: float(sighting.configuration.get("nodeLeaseDurationSeconds", 0))), refused


def _static_pod(pod: Object) -> Sighting:
    """A control plane program's arguments and plain variables."""
    container = pod["spec"]["containers"][0]
    words = [*container.get("command", []), *container.get("args", [])]
    variables = {entry["name"]: str(entry["value"]) for entry in container.get("env", []) if "value" in entry}
    only = {"kube-apiserver", "kube-controller-manager"}
    if pod["metadata"].get("labels", {}).get("component") not in only:
        return Sighting(pod["metadata"]["name"])  # the scheduler has leader election flags of the same names
    return Sighting(f"pod {pod['metadata']['name']}", recovery.flag_values(words), variables)


def predict(
    profile: Annotated[str | None, typer.Option(help="One profile; default: all.")] = None,
    behaviour: Behaviours = "replace",
    target: Annotated[float | None, typer.Option(help="recovery_target_seconds; a slower profile fails.")] = None,
    from_cluster: Annotated[bool, typer.Option("--from-cluster", help="Read the live settings of a cluster.")] = False,
    kubeconfig: Annotated[Path | None, typer.Option(help="For --from-cluster; default: KUBECONFIG.")] = None,
    context: Annotated[str | None, typer.Option(help="Context of the kubeconfig.")] = None,
    formulas: Annotated[bool, typer.Option("--formulas", help="Print how each stage is reckoned, and why.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """When each stage is to be expected after a worker's power loss, and what speaks against a profile.

    Exit status 1: a profile has an error, or misses the target. 2: the cluster could not be read.
    """
    if behaviour not in recovery.BEHAVIOURS:
        raise typer.BadParameter(f"unknown behaviour {behaviour!r}; known: {', '.join(recovery.BEHAVIOURS)}")
    live: LiveProfile | None = None
    try:
        chosen = [recovery.profile(profile)] if profile else []
        if from_cluster:
            live = asyncio.run(_read(kubeconfig, context))
            chosen = [live.profile, *chosen]
    except recovery.UnknownProfileError as error:
        raise typer.BadParameter(str(error)) from error
    except (ApiError, *NETWORK_ERRORS) as error:
        Console(stderr=True).print(f"[red]the cluster cannot be read:[/red] {error}", highlight=False)
        raise typer.Exit(EXIT_BROKEN) from error
    chosen = chosen or list(recovery.PROFILES.values())
    findings = {p.name: _findings(p, target) for p in chosen}
    kind = recovery.BEHAVIOURS[behaviour]
    if json_output:
        Console().print_json(json.dumps({p.name: _as_data(p, kind, findings[p.name], live) for p in chosen}))
    else:
        _print(chosen, kind, findings, live, formulas=formulas)
    if any(finding.level == "error" for found in findings.values() for finding in found):
        raise typer.Exit(1)


async def _read(kubeconfig: Path | None, context: str | None) -> LiveProfile:
    async with connect(kubeconfig, context) as api:
        return await cluster_profile(api)


def _findings(profile: RecoveryProfile, target: float | None) -> list[recovery.Finding]:
    found = list(recovery.check(profile))
    if target is not None and (missed := recovery.check_target(profile, target)):
        found.append(missed)
    return found


def _as_data(
    profile: RecoveryProfile, kind: recovery.Behaviour, findings: list[recovery.Finding], live: LiveProfile | None
) -> dict[str, Any]:
    """One profile for a program to read. An unlimited stall is null, for JSON knows no infinity."""
    stall = recovery.tolerated_stall_seconds(profile)
    data: dict[str, Any] = {
        "settings": recovery.to_dict(profile),
        "prediction": {
            stage: [round(window.low, 1), round(window.high, 1)]
            for stage, window in recovery.predict(profile, kind).items()
        },
        "tolerated_stall_seconds": None if stall == float("inf") else stall,
        "findings": [vars(finding) for finding in findings],
    }
    if live is not None and profile is live.profile:
        data |= {"sources": dict(live.sources), "remarks": list(live.remarks)}
    return data


def _print(
    chosen: list[RecoveryProfile],
    kind: recovery.Behaviour,
    findings: dict[str, list[recovery.Finding]],
    live: LiveProfile | None,
    *,
    formulas: bool,
) -> None:
    console = Console()
    windows = {p.name: recovery.predict(p, kind) for p in chosen}
    if live is not None:
        console.print(_settings_table(chosen, live))
    table = Table(title=f"seconds after power loss, an app that answers by `{kind}`")
    table.add_column("stage")
    for p in chosen:
        table.add_column(p.name, justify="right")
    for stage in recovery.STAGES:
        row = [windows[p.name].get(stage) for p in chosen]
        table.add_row(stage, *("-" if w is None else f"{w.low:.1f} .. {w.high:.1f}" for w in row))
    stalls = [recovery.tolerated_stall_seconds(p) for p in chosen]
    table.add_section()
    table.add_row("API stall survived", *("any short one" if s == float("inf") else f"{s:.1f}" for s in stalls))
    console.print(table)
    if formulas:
        for stage, formula in recovery.FORMULAS.items():
            console.print(f"{stage} = {formula.text}\n    {formula.source}", highlight=False, markup=False)
    for remark in live.remarks if live else ():
        console.print(f"note: {remark}", highlight=False, markup=False)
    for name, found in findings.items():
        for finding in found:
            colour = "red" if finding.level == "error" else "yellow"
            console.print(f"[{colour}]{name}[/{colour}] {finding.level}: {finding}", highlight=False)


def _settings_table(chosen: list[RecoveryProfile], live: LiveProfile) -> Table:
    """What each setting is, and where a live one was seen."""
    table = Table(title="settings")
    table.add_column("setting")
    for p in chosen:
        table.add_column(p.name, justify="right")
    table.add_column("seen at")
    for entry in recovery.KNOBS:
        values = [getattr(p, entry.field) for p in chosen]
        texts = ["default" if value is None else str(value) for value in values]
        table.add_row(entry.setting, *texts, live.sources.get(entry.field, ""))
    return table
