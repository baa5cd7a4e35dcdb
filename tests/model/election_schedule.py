"""Draws schedules: what goes wrong, when, and with whom. The same seed draws the same schedule for ever.

Our own generator, because a hundred thousand cases are wanted in minutes; hypothesis draws some two thousand more
through `build`, for it can shrink what it finds.
"""

from __future__ import annotations

import random
from typing import Final

from tandem.runtime._election.record import Record
from tandem.runtime._election.settings import ElectorSettings
from tests.model.election_world import LEADER, Happening, Schedule, Window

CANDIDATES: Final = 3
WINDOWS: Final = ("slow", "late", "hang", "reset", "error", "busy", "conflict", "watch-broken", "watch-stuck")
HAPPENINGS: Final = ("stop", "block", "crash", "terminate", "delete", "break", "step")
_WEIGHTS: Final = (5, 4, 3, 3, 1, 2, 2)


def _settings(lease: int, deadline: float, retry: float, timeout: float) -> ElectorSettings:
    return ElectorSettings(
        lease_name="model",
        namespace="default",
        identity="template",
        lease_duration=lease,
        renew_deadline=deadline,
        retry_period=retry,
        request_timeout=timeout,
    )


TIGHT: Final = _settings(12, 10.0, 2.0, 5.0)
DEFAULT: Final = _settings(15, 10.0, 2.0, 5.0)
SETTINGS: Final = (DEFAULT, DEFAULT, _settings(8, 5.0, 1.0, 2.5), _settings(30, 20.0, 4.0, 5.0), TIGHT)
FREE: Final = Record("", 1, 0, "", "", 1, "1", {})
INITIAL: Final = (
    None,
    FREE,
    FREE,
    FREE,
    Record("", None, 7, "", "", 1, "1", {}),  # as a deployment creates it
    Record("foreign", None, 3, "yesterday", "", 1, "1", {}),  # left behind by another program
)

SPREADS: Final = (0.0001, 0.0001, 0.0001, 0.001, 0.014, 0.08)
"""Relative errors of the candidates' clock rates: real ones (1e-4 and less), hardly believable ones, absurd ones."""


def draw(seed: int) -> Schedule:
    """The schedule of this seed."""
    rng = random.Random(seed)
    random_ = rng.random
    calm_at = 10 + 30 * random_()
    same = random_()
    settings: tuple[ElectorSettings, ...]
    if same < 0.8:
        settings = (DEFAULT if same < 0.6 else TIGHT,) * CANDIDATES
    else:  # in the middle of a roll-out that changes the times
        settings = tuple(SETTINGS[int(random_() * len(SETTINGS))] for _ in range(CANDIDATES))
    spread = SPREADS[int(random_() * len(SPREADS))]
    rates = tuple(1 + spread * (2 * random_() - 1) for _ in range(CANDIDATES))
    windows = []
    for _ in range(int(random_() * 4)):
        start = calm_at * random_()
        end = min(calm_at, start + 0.5 + 20 * random_() * random_())
        who = int(random_() * (CANDIDATES + 1))
        kind = WINDOWS[int(random_() * len(WINDOWS))]
        windows.append(Window(kind, start, end, who if who < CANDIDATES else None))
        if kind == "late" and random_() < 0.7:
            # The worst that can follow a late answer is none at all.
            windows.append(Window("hang", end, calm_at, who if who < CANDIDATES else None))
    happenings = []
    for _ in range(1 + int(random_() * 5)):
        kind = rng.choices(HAPPENINGS, _WEIGHTS)[0]
        seconds = 25 * random_() * random_() if kind != "step" else 120 * random_() - 60
        who = LEADER if random_() < 0.6 else int(random_() * CANDIDATES)
        happenings.append(Happening(kind, calm_at * random_(), who, seconds))
    return Schedule(seed, settings, rates, tuple(windows), tuple(happenings), calm_at, INITIAL[int(random_() * 6)])
