"""Recovery after everything was lost at once: what a run recorded, and the page that is made of it.

`tests/drill/test_everything_lost.py` records each case; `python -m lab.lost` publishes the records and makes
`docs/everything-lost.md` of what is published, as `make docs` does with all pages.
"""

from __future__ import annotations

import datetime
import itertools
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lab.story import ROOT
from tandem.drill.samples import Sample

RECORDS = ROOT / "build" / "everything-lost"
PUBLISHED = ROOT / "docs" / "everything-lost.json"
NOT_AWAY_SECONDS = 2.0
"""A pause between good answers below this is none: clients ask twice a second and give up after half a second."""


@dataclass(frozen=True)
class Record:
    """One case on one lab.

    Attributes:
        case: its name.
        lost: what was lost, and for how long, for people.
        back: what came back in which order, for people.
        nodes_seconds: from power at the last machine until every node is Ready in its new boot.
        whole_seconds: until every workload has all its pods, for good.
        away: per app, the longest time without a good answer from the loss on, in seconds; 0 when below two.
        resumed: per app, from power at the last machine until that time was over, in seconds; 0 when it was before.
        records: written in all, by app.
        lost_records: acknowledged, and not there any more.
        doubled_records: written by one who had been replaced.
        profile: the recovery profile.
        machine: the host.
        date: the day of the run.
    """

    case: str
    lost: str
    back: str
    nodes_seconds: float
    whole_seconds: float
    away: Mapping[str, float]
    resumed: Mapping[str, float]
    records: Mapping[str, int]
    lost_records: int
    doubled_records: int
    profile: str
    machine: str = field(default_factory=lambda: _machine())
    date: str = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).date().isoformat())


def _machine() -> str:
    """The host in a line."""
    from lab.bench import machine  # noqa: PLC0415  # every page of docs/ would load all benchmarks

    return machine()


def longest_pause(samples: Iterable[Sample], app: str, begin: float, end: float) -> tuple[float, float]:
    """The longest time without a good answer of one app between two moments, and when it was over.

    Args:
        samples: of all clients, in any order.
        app: its name.
        begin: in seconds since the epoch.
        end: likewise; a pause that lasts until then counts.
    """
    good = sorted(each.end for each in samples if each.app == app and each.error is None and begin < each.end < end)
    moments = [begin, *good, end]
    pauses = [(after - before, after) for before, after in itertools.pairwise(moments)]
    return max(pauses, key=lambda pause: pause[0])


def save(record: Record, folder: Path = RECORDS) -> Path:
    """Keep a case's record; an earlier one of the same case goes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{record.case}.json"
    path.write_text(json.dumps(asdict(record), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return path


def publish(folder: Path = RECORDS, published: Path = PUBLISHED) -> list[str]:
    """Put the recorded cases in place of those published before; their names.

    Raises:
        FileNotFoundError: nothing was recorded.
    """
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    if not records:
        raise FileNotFoundError(f"{folder} holds no record; run tests/drill/test_everything_lost.py first")
    before = json.loads(published.read_text(encoding="utf-8")) if published.exists() else []
    kept = {each["case"]: each for each in [*before, *records]}
    text = json.dumps([kept[case] for case in sorted(kept)], indent=2, sort_keys=True) + "\n"
    published.write_text(text, encoding="utf-8")
    return [record["case"] for record in records]


INTRODUCTION = """\
# When everything is lost at once

The reason to keep data on one external NFS machine instead of replicating it between the workers: when both workers
fail, no replica has to be rebuilt, compared or attached by hand. These cases pull plugs on the lab while clients write,
and check that

- no acknowledged record is lost and none doubled, by the drill's oracle (the order that the NFS server itself gave);
- claims are usable without a hand: the writers write again, and a new claim is bound;
- nobody did anything but give the machines power.

`tests/drill/test_everything_lost.py` is the test; `TANDEM_LOST_CASES` chooses cases, `all` also those that differ
little from others. `python -m lab.lost` publishes what it recorded.
"""
MEANINGS = """\
Seconds from power at the last machine, boot included: until all nodes are Ready in their new boot, until each app
answers again (in brackets: how long it was away in all), and until every workload has all its pods. `web` is a spread
app without data, `ledger-replace` and `ledger-hold` are single writers on the share.

`whole` is the API's word: where the control plane was off as well, it speaks at first of what was before the loss, and
so may come before the apps answer. They answer when kube-controller-manager leads again and has written where their
pods are. With the control plane last (2026-11-24) it led, ended because the API server was not healthy within the 10 s
that it waits, on two cores that booted four machines, and led again 44 s after the first time; the apps followed some
ten seconds later.
"""
NONE_YET = "No run has been published yet.\n"


def page(published: Path = PUBLISHED) -> str:
    """The page of what is published, as Markdown."""
    if not published.exists():
        return f"{INTRODUCTION}\n{NONE_YET}"
    records: list[dict[str, Any]] = json.loads(published.read_text(encoding="utf-8"))
    apps = sorted({app for record in records for app in record["away"]}, reverse=True)
    head = ["lost", "back", "nodes Ready", *apps, "whole", "records", "lost", "doubled"]
    lines = [f"| {' | '.join(head)} |", f"|---|---|{'---:|' * (len(head) - 2)}"]
    for record in records:
        answers = [
            f"{record['resumed'][app]:.0f} ({record['away'][app]:.0f})" if record["away"].get(app) else "not away"
            for app in apps
        ]
        cells = [
            record["lost"],
            record["back"],
            f"{record['nodes_seconds']:.0f}",
            *answers,
            f"{record['whole_seconds']:.0f}",
            str(sum(record["records"].values())),
            str(record["lost_records"]),
            str(record["doubled_records"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    sources = sorted({f"{each['date']}, profile {each['profile']}, {each['machine']}" for each in records})
    measured = "\n".join(f"- {source}" for source in sources)
    table = "\n".join(lines)
    return f"{INTRODUCTION}\n{MEANINGS}\n{table}\n\nMeasured on the lab, one run a case:\n\n{measured}\n"


def main() -> None:
    """Publish the records and make the page."""
    from lab.docs import DOCS, PAGES  # noqa: PLC0415  # which knows this module

    try:
        cases = publish()
    except FileNotFoundError as error:
        sys.exit(str(error))
    (DOCS / "everything-lost.md").write_text(PAGES["everything-lost.md"](), encoding="utf-8")
    print(f"published: {', '.join(cases)}")  # noqa: T201


if __name__ == "__main__":
    main()
