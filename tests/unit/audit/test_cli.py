"""`tandem audit` from its arguments to its exit status, with files and with a live cluster's objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tandem.audit import files, live
from tandem.cli import app
from tandem.drill.api import ApiError
from tandem.recovery import BALANCED, to_dict
from tests.unit.audit.test_survey import HEALTHY, TUNED, api_server
from tests.unit.checklist.test_manifests import FOLDER, load


def run(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(app, ["audit", *arguments], input=stdin)


def manifest(name: str) -> str:
    return str(FOLDER / f"{name}.yaml")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["spread-app-good"], 0),
        (["spread-app-neglected"], 1),
        (["spread-app-neglected", "--fail-on", "warning"], 1),
        (["single-writer-replace"], 0),
        (["single-writer-replace", "--fail-on", "warning"], 1),
        (["gatekeeper"], 0),
        (["gatekeeper", "--fail-on", "warning"], 1),
        (["spread-app-exempted", "--fail-on", "warning"], 0),
        (["spread-app-one-replica", "--environment", "dev"], 0),
        (["spread-app-one-replica"], 1),
        (["spread-app-neglected", "-n", "elsewhere"], 0),
        (["airflow-webserver-stale-tolerations", "--profile", "nonsense"], 2),
        (["spread-app-good", "--json", "--sarif"], 2),
        (["spread-app-good", "--fail-on", "nothing"], 2),
        (["no-such-file"], 4),
    ],
)
def test_exit_status(arguments: list[str], status: int) -> None:
    name, *options = arguments
    result = run(manifest(name), *options)
    assert result.exit_code == status, result.output


def test_standard_input_and_json() -> None:
    result = run("-", "--json", "--profile", "balanced", stdin=Path(manifest("spread-app-exempted")).read_text())
    data = json.loads(result.stdout)
    assert (data["errors"], data["warnings"], data["exempted"]) == (0, 0, 3)
    assert data["findings"][0]["source"].startswith("stdin:")
    assert data["workers"] is None


def test_the_table_names_object_line_rule_and_way_out() -> None:
    result = run(manifest("spread-app-one-replica"))
    assert "shop/Deployment/shop" in result.output
    assert "spread-app-one-replica.yaml:2" in result.output
    assert "way out: spec.replicas: 2" in result.output
    assert "2 errors" in result.output


def test_sarif() -> None:
    data = json.loads(run(manifest("spread-app-exempted"), manifest("gatekeeper"), "--sarif").stdout)
    (one,) = data["runs"]
    results = {(each["ruleId"], each["level"]): each for each in one["results"]}
    exempted = results["image-pinned", "error"]
    assert exempted["suppressions"] == [{"kind": "inSource", "justification": "the vendor publishes only latest"}]
    place = results["replicas-need-election", "warning"]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"].endswith("gatekeeper.yaml")
    assert place["region"]["startLine"] == 2
    described = {rule["id"] for rule in one["tool"]["driver"]["rules"]}
    assert described == {each["ruleId"] for each in one["results"]}


class FakeApi:
    """Answers lists page by page; raises what it is told to for a path."""

    def __init__(self, objects: list[dict[str, Any]], refused: dict[str, int], broken: Exception | None = None) -> None:
        self.objects, self.refused, self.broken = objects, refused, broken

    async def find(self, path: str) -> dict[str, Any]:
        assert path.endswith("/recovery-profile")
        return {"data": {"profile": "balanced", "recovery.json": json.dumps(to_dict(BALANCED))}}

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        if self.broken:
            raise self.broken
        kind = next(kind for kind, each in live.LISTED.items() if each == path)
        if kind in self.refused:
            raise ApiError(f"GET {path}: {self.refused[kind]} no", self.refused[kind])
        # As the API does: items carry no kind.
        items = [{k: v for k, v in o.items() if k != "kind"} for o in self.objects if o["kind"] == kind]
        at = int(query.get("continue", "0"))
        more = {"continue": str(at + 1)} if at + 1 < len(items) else {}
        return {"items": items[at : at + 1], "metadata": more}


async def test_a_cluster_is_listed_page_by_page_and_refusals_are_said() -> None:
    found = await live._read(FakeApi(HEALTHY, {"Lease": 403, "APIService": 404}))  # type: ignore[arg-type]
    assert sorted(each["metadata"]["name"] for each in found.objects) == sorted(
        each["metadata"]["name"] for each in HEALTHY
    )
    assert found.recorded == BALANCED
    assert [note.partition(":")[0] for note in found.notes] == ["Lease was not judged"]


async def test_a_connection_that_breaks_while_listing_is_an_error_of_the_source() -> None:
    with pytest.raises(TimeoutError):
        await live._read(FakeApi([], {}, TimeoutError()))  # type: ignore[arg-type]


async def test_who_may_list_nothing_gets_no_clean_bill() -> None:
    with pytest.raises(files.SourceError, match="nothing may be listed"):
        await live._read(FakeApi([], dict.fromkeys(live.LISTED, 403)))  # type: ignore[arg-type]


def test_a_live_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    dns = load("coredns")
    objects = [*HEALTHY, *load("spread-app-one-replica"), *dns, api_server(*TUNED)]

    async def read(*_: object) -> live.Live:
        return live.Live(objects, BALANCED, ("Lease was not judged: 403",))

    monkeypatch.setattr(live, "read", read)
    result = run("--json")
    data = json.loads(result.stdout)
    assert result.exit_code == 1
    assert data["profile"] == "balanced"
    assert {each["rule"] for each in data["findings"] if each["name"] == "shop"} == {"replicas", "pdb-fits-replicas"}
    assert not [each for each in data["findings"] if each["namespace"] == "kube-system"]
    assert {node: each["can_be_lost"] for node, each in data["workers"].items()} == {"w1": "yes", "w2": "yes"}
    shown = run().output
    assert "Can each worker be lost now?" in shown
    assert "Lease was not judged: 403" in shown
    only = json.loads(run("--json", "-n", "kube-system").stdout)
    assert {each["name"] for each in only["findings"]} == {"coredns", "kube-dns"}


def test_no_way_to_the_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    result = run()
    assert result.exit_code == 4


async def test_a_cluster_that_does_not_answer(tmp_path: Path) -> None:
    file = tmp_path / "config"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    file.write_text(json.dumps(document))
    with pytest.raises(files.SourceError, match="does not answer"):
        await live.read(file, None)
