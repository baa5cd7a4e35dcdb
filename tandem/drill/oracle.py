"""The judge of the writers: what is on the share, in the server's own order, against what the clients were promised.

The order rests on operations that are atomic on the NFS server, never on clocks: see `tandem.drill.demo.server`. This
module reads the journal on a node that mounts the share and counts

- `lost`: acknowledged to a client, but not in the journal;
- `doubled`: records of an older epoch after the first of a newer one, that is, written by one who had been replaced.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tandem.drill.samples import Sample

READER: Final = r"""
import json, os, sys
folder, since = sys.argv[1], int(sys.argv[2])
order = os.path.join(folder, "order")
def highest():
    return max([int(n) for n in os.listdir(order) if n.isdigit()] or [0])
last, closed = (highest() if os.path.isdir(order) else 0), False
if os.path.isdir(order):
    # A ticket of the reader's own ends the order: the server refuses a number that is taken, whatever this client has
    # cached, and the change makes it look anew.
    while True:
        try:
            os.symlink("reader", os.path.join(order, "%010d" % (last + 1)))
            last, closed = last + 1, True
            break
        except FileExistsError:
            last = max(last + 1, highest())
        except OSError as error:
            print(error, file=sys.stderr)
            break
if since < 0:
    since = last
tickets, records = [], []
for number in range(since + 1, last + 1):
    try:
        tickets.append([number, os.readlink(os.path.join(order, "%010d" % number))])
    except FileNotFoundError:
        tickets.append([number, None])
wanted = {}
for _, content in tickets:
    if content and content != "reader":
        epoch, first, end = map(int, content.split(":"))
        low, high = wanted.get(epoch, (first, end))
        wanted[epoch] = (min(low, first), max(high, end))
for epoch, (low, high) in wanted.items():
    with open(os.path.join(folder, "records-%06d.jsonl" % epoch)) as log:
        for line in log:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if low <= record["seq"] <= high:
                records.append([epoch, record["seq"], record.get("client"), record.get("n"), record["wall"]])
json.dump({"last": last, "closed": closed, "tickets": tickets, "records": records}, sys.stdout)
"""
"""A program for `python3 -c`: arguments: the folder, the last ticket already known (-1: skip all); prints JSON."""


@dataclass(frozen=True)
class Journal:
    """The part of a share's journal that a drill wrote.

    Args:
        tickets: (number, content) in order; content is `EPOCH:FIRST:LAST`, `reader` or None for a hole.
        records: (epoch, seq) to (client, number, writer's wall clock).
        last: the number of the last ticket.
        closed: whether the reader could end the order with its own ticket, so that nothing can be missing at its end.
    """

    tickets: tuple[tuple[int, str | None], ...] = ()
    records: Mapping[tuple[int, int], tuple[str | None, int | None, float]] = field(default_factory=dict)
    last: int = 0
    closed: bool = True


def parse(text: str) -> Journal:
    """The journal of the reader's output."""
    data: dict[str, Any] = json.loads(text)
    return Journal(
        tuple((number, content) for number, content in data["tickets"]),
        {(epoch, seq): (client, number, wall) for epoch, seq, client, number, wall in data["records"]},
        data["last"],
        data["closed"],
    )


@dataclass(frozen=True)
class Writers:
    """The verdict on one app's writers.

    Args:
        records: committed records, in the common order.
        lost: acknowledged but absent.
        doubled: of an older epoch after the first of a newer one.
        acknowledged: answers that clients got.
        epochs: the epochs that wrote, in the order of their first record.
        doubtful: what keeps the verdict from being certain; empty when nothing does.
    """

    records: int
    lost: int
    doubled: int
    acknowledged: int
    epochs: tuple[int, ...]
    doubtful: tuple[str, ...] = ()


def judge(journal: Journal, samples: Iterable[Sample]) -> Writers:
    """Hold a journal against the acknowledgments in the samples of its app."""
    committed: list[tuple[int, int]] = []
    doubtful = []
    for number, content in journal.tickets:
        if content is None:
            doubtful.append(f"ticket {number} is missing from the order")
        elif content != "reader":
            epoch, first, last = (int(part) for part in content.split(":"))
            committed += [(epoch, seq) for seq in range(first, last + 1)]
    if absent := [entry for entry in committed if entry not in journal.records]:
        doubtful.append(f"{len(absent)} records have a ticket but are not in their log")
    if not journal.closed:
        doubtful.append("the order could not be closed by a ticket of the reader: its end may be missing")
    doubled, newest = 0, 0
    epochs: list[int] = []
    for epoch, _ in committed:
        doubled += epoch < newest
        newest = max(newest, epoch)
        if epoch not in epochs:
            epochs.append(epoch)
    present = {entry: journal.records[entry][:2] for entry in committed if entry in journal.records}
    acknowledged = lost = 0
    for sample in samples:
        if sample.error is None and sample.epoch is not None and sample.seq is not None:
            acknowledged += 1
            lost += present.get((sample.epoch, sample.seq)) != (sample.client, sample.number)
    return Writers(len(committed), lost, doubled, acknowledged, tuple(epochs), tuple(doubtful))
