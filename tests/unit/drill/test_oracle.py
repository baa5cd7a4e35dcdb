"""The oracle on constructed journals, and on real ones written by the demo server's own code and read by its reader."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tandem.drill import oracle
from tandem.drill.demo import server
from tandem.drill.oracle import Journal
from tandem.drill.samples import Sample


def ack(epoch: int, seq: int, number: int, client: str = "cp1/new") -> Sample:
    return Sample("db", client, number, 0, 0.1, None, "pod", epoch, seq)


def journal(*tickets: str | None, client: str = "cp1/new", closed: bool = True) -> Journal:
    records = {}
    for content in tickets:
        if content and content != "reader":
            epoch, first, last = (int(part) for part in content.split(":"))
            records.update({(epoch, seq): (client, seq, 0.0) for seq in range(first, last + 1)})
    return Journal(tuple(enumerate(tickets, 1)), records, len(tickets), closed)


def test_one_writer_after_the_other_is_neither_lost_nor_doubled() -> None:
    verdict = oracle.judge(journal("1:1:2", "1:3:3", "2:1:1"), [ack(1, 1, 1), ack(1, 3, 3), ack(2, 1, 1)])
    assert (verdict.records, verdict.lost, verdict.doubled, verdict.acknowledged) == (4, 0, 0, 3)
    assert verdict.epochs == (1, 2)
    assert verdict.doubtful == ()


def test_an_older_epoch_after_a_newer_is_doubled_record_by_record() -> None:
    assert oracle.judge(journal("1:1:1", "2:1:1", "1:2:4", "2:2:2", "1:5:5"), []).doubled == 4


def test_an_acknowledged_record_that_is_absent_is_lost() -> None:
    assert oracle.judge(journal("1:1:2"), [ack(1, 1, 1), ack(1, 3, 3)]).lost == 1


def test_a_record_with_another_clients_content_is_lost_too() -> None:
    assert oracle.judge(journal("1:1:1"), [ack(1, 1, 9)]).lost == 1
    assert oracle.judge(journal("1:1:1"), [ack(1, 1, 1, "pod/new")]).lost == 1


def test_failed_requests_promise_nothing() -> None:
    assert oracle.judge(journal("1:1:1"), [Sample("db", "c", 1, 0, 1, "timeout")]).lost == 0


@pytest.mark.parametrize(
    ("made", "doubt"),
    [
        (journal("1:1:1", None, "1:2:2"), "ticket 2 is missing"),
        (journal("1:1:1", closed=False), "could not be closed"),
        (Journal(((1, "1:1:2"),), {(1, 1): ("c", 1, 0.0)}), "1 records have a ticket but are not in their log"),
    ],
)
def test_doubt_is_spoken_out(made: Journal, doubt: str) -> None:
    assert any(doubt in text for text in oracle.judge(made, []).doubtful)


def read(folder: Path, since: int) -> Journal:
    argv = [sys.executable, "-c", oracle.READER, str(folder), str(since)]
    return oracle.parse(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


def test_real_journals_of_two_interleaved_writers_are_judged(tmp_path: Path) -> None:
    before = server.Journal(str(tmp_path), "w1", "p0")
    before.open()
    before.append([{"client": "earlier", "n": 1}])
    since = read(tmp_path, -1).last
    assert since == 2, "one ticket of the writer, one of the reader"
    old, new = server.Journal(str(tmp_path), "w1", "p1"), server.Journal(str(tmp_path), "w2", "p2")
    old.open()
    acks = old.append([{"client": "cp1/new", "n": 1}, {"client": "cp1/new", "n": 2}])
    new.open()
    acks += new.append([{"client": "cp1/new", "n": 3}])
    acks += old.append([{"client": "outside-w1/new", "n": 1}])
    asked = [("cp1/new", 1), ("cp1/new", 2), ("cp1/new", 3), ("outside-w1/new", 1)]
    samples = [
        Sample("db", client, n, 0, 0.1, None, a["pod"], a["epoch"], a["seq"])
        for (client, n), a in zip(asked, acks, strict=True)
    ]
    verdict = oracle.judge(read(tmp_path, since), samples)
    assert (verdict.records, verdict.lost, verdict.doubled) == (4, 0, 1)
    assert verdict.doubtful == ()
    (tmp_path / "records-000003.jsonl").write_text("")
    assert oracle.judge(read(tmp_path, since), samples).lost == 1


def test_an_empty_share_is_no_error(tmp_path: Path) -> None:
    assert read(tmp_path, -1).tickets == ()
