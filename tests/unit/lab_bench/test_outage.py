"""The sweep's plan, its rows, and its way through a cluster that goes wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from lab.benches import outage
from lab.benches.api_server import SCRIPT, UNDO, Held, SweepError, Way
from lab.benches.damage import Damage
from lab.benches.outage import Outage, Plan, Sweep
from lab.docs import benchmarks_page
from tandem.recovery import ARTICLE, BALANCED


def one(way: Way = "kill", seconds: float = 9.5, run: int = 1, **changes: Any) -> Outage:
    made = Outage(
        way=way,
        asked_seconds=seconds,
        run=run,
        phase_seconds=1,
        held_seconds=seconds,
        away_seconds=seconds + 0.5,
        manager_exited=False,
        whole_seconds=2,
        damage=Damage(),
        watch_breaks=3,
    )
    return dataclasses.replace(made, **changes)


def test_the_default_is_the_whole_sweep() -> None:
    cases = Plan.from_environment({}).cases()
    assert len(cases) == 30
    assert {(seconds, way) for _, seconds, way, _ in cases[:10]} == {
        (seconds, way) for seconds in (5, 8, 9.5, 12, 20) for way in ("kill", "stop")
    }
    assert all(0 <= phase <= 10 for *_, phase in cases)
    assert len({phase for *_, phase in cases}) == 30


def test_the_environment_chooses_and_the_seed_repeats() -> None:
    asked = {"OUTAGE_SECONDS": "9.5,2", "OUTAGE_WAYS": "stop", "OUTAGE_RUNS": "2", "OUTAGE_MINUTES": "5"}
    plan = Plan.from_environment(asked)
    assert plan == Plan(seconds=(2, 9.5), ways=("stop",), runs=2, minutes=5)
    assert plan.cases() == Plan.from_environment(asked).cases()
    assert plan.cases() != Plan.from_environment({**asked, "OUTAGE_SEED": "2"}).cases()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("OUTAGE_SECONDS", "5,long", "OUTAGE_SECONDS=5,long"),
        ("OUTAGE_SECONDS", "90", "60 at most"),
        ("OUTAGE_SECONDS", "0", "above 0"),
        ("OUTAGE_WAYS", "unplug", "no way is called 'unplug'; there are kill, stop"),
        ("OUTAGE_RUNS", "0", "1 or more"),
        ("OUTAGE_RUNS", "many", "OUTAGE_RUNS=many"),
    ],
)
def test_a_wrong_wish_is_refused_by_name(name: str, value: str, said: str) -> None:
    with pytest.raises(SweepError, match=said):
        Plan.from_environment({name: value})


def test_a_row_sums_losses_and_shows_the_longest_times() -> None:
    found = Sweep(
        ARTICLE,
        [
            one(damage=Damage(lost=2, tainted=1, endpoints_lost=5), whole_seconds=30),
            one("stop"),
            one(run=2, damage=Damage(lost=1, pods_evicted=4), away_seconds=11, manager_exited=True),
            one(seconds=5),
        ],
    )
    rows = {(row["way"], row["seconds"]): row for row in outage.rows(found)}
    assert list(rows) == [("kill", 5), ("kill", 9.5), ("stop", 9.5)]
    worst = rows["kill", 9.5]
    assert (worst["runs"], worst["nodes falsely lost"], worst["endpoints lost"], worst["pods evicted"]) == (2, 3, 5, 4)
    assert (worst["away, longest"], worst["whole again, longest"]) == (11, 30)
    assert (worst["controller-manager exited"], worst["false losses predicted"]) == (1, "possible")


def test_the_page_shows_the_rows(tmp_path: Any) -> None:
    import json  # noqa: PLC0415

    result = {"name": "api-outage-balanced", "machine": "m", "date": "d", "unit": "s", "note": "n"}
    (tmp_path / "a.json").write_text(json.dumps({**result, "table": outage.rows(Sweep(BALANCED, [one()]))}))
    page = benchmarks_page(tmp_path)
    assert "| way | seconds | runs |" in page
    assert "| kill | 9.5 | 1 | 10.0 | none | 0 |" in page


class Hands:
    def __init__(self) -> None:
        self.did: list[str] = []

    async def hold(self, way: Way, seconds: float, begun: Callable[[], None]) -> Held:
        raise NotImplementedError

    async def restart_kubelet(self) -> None:
        self.did.append("kubelet")


async def swept(monkeypatch: pytest.MonkeyPatch, plan: Plan, answer: Callable[[int, Any], Outage]) -> Any:
    """A sweep whose outages are made up; what it returned, what was done, what was kept."""
    hands, kept, count = Hands(), list[int](), 0

    async def fake(_api: Any, _hands: Any, _profile: Any, case: Any, reference: Any) -> Any:
        nonlocal count
        count += 1
        hands.did.append(f"{case[2]} {case[1]:g}")
        return answer(count, case), reference or "reference"

    async def profile(_: Any) -> Any:
        return BALANCED

    def keep(outages: Sequence[Outage]) -> None:
        kept.append(len(outages))

    monkeypatch.setattr(outage, "one_outage", fake)
    monkeypatch.setattr(outage, "applied_profile", profile)
    monkeypatch.setattr(outage, "SETTLE_SECONDS", 0)
    found = await outage.sweep(None, hands, plan, lambda _: None, keep)  # type: ignore[arg-type]
    return found, hands.did, kept


async def test_kubelet_is_restarted_only_when_its_back_off_could_show(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(_: int, case: Any) -> Outage:
        return one(case[2], case[1], manager_exited=case[1] > 10)

    found, did, kept = await swept(monkeypatch, Plan(seconds=(5, 12), runs=1, ways=("stop", "kill")), answer)
    assert did == ["kubelet", "stop 5", "kill 5", "kubelet", "stop 12", "kubelet", "kill 12"]
    assert (len(found.outages), found.ended, kept) == (4, "", [1, 2, 3, 4])


async def test_what_was_measured_is_kept_when_it_cannot_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(count: int, case: Any) -> Outage:
        if count == 3:
            raise SweepError("the cluster is not whole")
        return one(case[2], case[1])

    found, _, kept = await swept(monkeypatch, Plan(), answer)
    assert (len(found.outages), found.ended, kept) == (2, "the cluster is not whole", [1, 2])
    assert "Ended early: the cluster is not whole" in outage.note(found)


async def test_time_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    found, did, _ = await swept(monkeypatch, Plan(minutes=0), lambda _, case: one(case[2]))
    assert (found.outages, did, found.ended) == ([], [], "0 minutes are over")


def test_what_is_done_on_the_machine_is_undone_whoever_dies() -> None:
    assert "pkill -CONT -x kube-apiserver" in UNDO
    assert "nft delete table inet tandem_outage" in UNDO
    assert not set("$%") & set(UNDO), "systemd expands these in a unit's command"
    assert SCRIPT.index("nft -f") < SCRIPT.index("pkill -KILL"), "a server killed first is back for a moment"
