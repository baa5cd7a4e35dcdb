"""At most one candidate passes the fence at any instant, whatever goes wrong; and somebody leads once nothing does.

TANDEM_MODEL_SCHEDULES says how many schedules are run (default 100,000, in two processes), TANDEM_MODEL_SEED which one
alone, with its history printed.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.model.election_schedule import CANDIDATES, HAPPENINGS, INITIAL, SETTINGS, WINDOWS, draw
from tests.model.election_world import LEADER, Happening, Schedule, Violation, Window, World

SCHEDULES = int(os.environ.get("TANDEM_MODEL_SCHEDULES", "100000"))
ONE_SEED = os.environ.get("TANDEM_MODEL_SEED")
SHARE = 2500


def run_share(first: int) -> tuple[str, int, int]:
    """Run a share of the schedules in this process: what failed first, how many leads there were, how many events."""
    leads = events = 0
    for seed in range(first, min(first + SHARE, SCHEDULES)):
        world = World(draw(seed))
        try:
            world.run()
        except Violation as violation:
            return f"seed {seed}: {violation}; replay with TANDEM_MODEL_SEED={seed}", leads, events
        leads += world.leads
        events += world.events
    return "", leads, events


def history(schedule: Schedule) -> str:
    """What happened in this schedule, event by event."""
    lines = [repr(schedule.windows), repr(schedule.happenings)]
    world = World(schedule, log=lines)
    try:
        world.run()
    except Violation as violation:
        world.say(f"VIOLATION: {violation}")
        raise Violation("\n".join(lines)) from None
    return "\n".join(lines)


def test_random_schedules(capsys: pytest.CaptureFixture[str]) -> None:
    if ONE_SEED is not None:
        with capsys.disabled():
            print(history(draw(int(ONE_SEED))))
        return
    shares = range(0, SCHEDULES, SHARE)
    if len(shares) == 1:
        results = [run_share(0)]
    else:
        with multiprocessing.get_context("fork").Pool(2) as pool:
            results = pool.map(run_share, shares, chunksize=1)
    failed = [text for text, _, _ in results if text]
    assert not failed, "\n".join(failed)
    # A generator under which nothing changes hands would prove nothing.
    assert sum(leads for _, leads, _ in results) > 1.3 * SCHEDULES


def test_a_schedule_replays_to_the_same_history() -> None:
    assert history(draw(4)) == history(draw(4))


@pytest.mark.parametrize("wrong", ["guard", "wall_clock"])
def test_a_wrong_shell_is_caught(wrong: str) -> None:
    """The world can tell: without the kernel's timer, or by the wall clock, two work at once within few schedules."""
    change = {"guard": {"guard": False}, "wall_clock": {"wall_clock": True}}[wrong]

    def hurts(seed: int) -> bool:
        try:
            World(dataclasses.replace(draw(seed), **change)).run()  # type: ignore[arg-type]
        except Violation:
            return True
        return False

    assert any(hurts(seed) for seed in range(3000))


moment = st.floats(min_value=0, max_value=1, allow_nan=False)


@st.composite
def schedules(draw_: st.DrawFn) -> Schedule:
    calm_at = draw_(st.floats(min_value=10, max_value=40))
    windows = []
    for _ in range(draw_(st.integers(0, 3))):
        start = calm_at * draw_(moment)
        end = min(calm_at, start + 20 * draw_(moment))
        who = draw_(st.one_of(st.none(), st.integers(0, CANDIDATES - 1)))
        windows.append(Window(draw_(st.sampled_from(WINDOWS)), start, end, who))
    happenings = [
        Happening(
            draw_(st.sampled_from(HAPPENINGS)),
            calm_at * draw_(moment),
            draw_(st.integers(LEADER, CANDIDATES - 1)),
            25 * draw_(moment),
        )
        for _ in range(draw_(st.integers(0, 4)))
    ]
    return Schedule(
        draw_(st.integers(0, 2**16)),
        tuple(draw_(st.sampled_from(SETTINGS)) for _ in range(CANDIDATES)),
        tuple(1 + draw_(st.sampled_from((0.0, 0.001, 0.014, -0.014))) for _ in range(CANDIDATES)),
        tuple(windows),
        tuple(happenings),
        calm_at,
        draw_(st.sampled_from(INITIAL)),
    )


@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schedules())
def test_drawn_schedules(schedule: Schedule) -> None:
    """The same, drawn by hypothesis, which shrinks what it finds."""
    World(schedule).run()
