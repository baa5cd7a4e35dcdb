"""What the rival's measurement takes from a drill's report."""

from __future__ import annotations

from typing import Any

import pytest

from lab.benches import same_node
from tandem.recovery import STOCK, predict


def report(node: str, on_node: int = 1, profile: str = "stock", **gaps: float) -> dict[str, Any]:
    clients = {name.replace("__", "/").replace("_", "-"): {"longest_gap_seconds": gap} for name, gap in gaps.items()}
    app = {"on_node": on_node, "requests": clients}
    return {"scenario": "power-loss", "profile": profile, "node": node, "apps": {"web": app}}


def test_each_vantage_point_but_the_lost_worker_and_kept_connections() -> None:
    made = report("w1", pod__new=0.3, cp1__new=51.0, outside_w1__new=75.0, outside_w2__new=0.4, pod__kept=9.0)
    assert same_node.gaps(made, "any node") == {
        "any node: pod": [0.3],
        "any node: cp1": [51.0],
        "any node: outside-w2": [0.4],
    }


def test_vantage_points_outside_are_one_whichever_worker_was_lost() -> None:
    runs = [
        same_node.gaps(report("w1", pod__new=1, outside_w2__new=2), "any node"),
        same_node.gaps(report("w2", pod__new=3, outside_w1__new=4), "any node"),
    ]
    assert same_node.pooled(runs) == {
        "any node: longest gap, pod": [1, 3],
        "any node: longest gap, outside": [2, 4],
    }


@pytest.mark.parametrize("wrong", [report("w1", on_node=0), report("w1", profile="balanced")])
def test_a_report_that_shows_nothing_of_it_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="power-loss under"):
        same_node.gaps(wrong, "any node")


def test_the_observation_ends_after_the_endpoint_is_out() -> None:
    assert predict(STOCK, "spread-wait")["serving"].high < same_node.GIVE_UP_SECONDS
    assert str(same_node.GIVE_UP_SECONDS) in same_node.NOTE
