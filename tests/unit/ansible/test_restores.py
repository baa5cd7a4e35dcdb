"""What forbids a restore, each by its own, and how far revisions rise."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from plugins.module_utils import tandem_restores as restores

DATE = "20261122T120000Z"
TAKEN = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.UTC).timestamp()
SUMS = {name: f"sum of {name}" for name in restores.NEEDED}
ABOUT: dict[str, Any] = {
    "cluster": "lab",
    "date": DATE,
    "node": "cp1",
    "address": "10.0.0.10",
    "kubernetes": "v1.36.3",
    "sha256": "abc",
}
CHECKED: dict[str, Any] = {"sha256": "abc", "sums": SUMS}
SITE: dict[str, Any] = {
    "name": f"lab-{DATE}",
    "now": TAKEN + 3600,
    "max_age_hours": 24,
    "cluster": "lab",
    "version": "1.36.3",
    "control_plane": ["cp1"],
    "address": "10.0.0.10",
    "over_node": "",
    "stage": "",
    "held": [],
    "packages": {"kubeadm": {"version": "1.36.3-1.1"}},
    "trusted": {"w1": SUMS[restores.AUTHORITY], "w2": ""},
}


def test_a_good_backup_for_an_empty_machine() -> None:
    assert restores.restore_findings(ABOUT, CHECKED, SITE) == []


@pytest.mark.parametrize(
    ("about", "checked", "site", "words"),
    [
        ({}, {"sums": None}, {}, []),
        ({"sha256": "other"}, {}, {}, ["sha256", "stands beside it, other"]),
        ({}, {"sums": {**SUMS, "etcd.db": None}}, {}, ["missing files", "etcd.db"]),
        ({}, {}, {"now": TAKEN + 25 * 3600}, ["age in hours is 25.0", "tandem_restore_max_age_hours"]),
        ({}, {}, {"now": TAKEN - 7200}, ["not in the future"]),
        ({"cluster": "other"}, {}, {}, ["cluster is 'other'", "the inventory's, lab"]),
        ({"node": "cp2"}, {}, {}, ["node is 'cp2'"]),
        ({}, {}, {"address": "10.0.0.9"}, ["address is '10.0.0.10'", "10.0.0.9"]),
        ({}, {}, {"version": "1.35.4"}, ["v1.35.4", "-e tandem_kubernetes_version=1.36.3"]),
        ({}, {}, {"trusted": {"w1": "another"}}, ["inventory host w1", "ca.crt is 'another'"]),
        ({}, {}, {"control_plane": ["cp1", "cp2"]}, ["group control_plane", "join the lost one anew"]),
        ({}, {}, {"over_node": "w1"}, ["tandem_restore_over_node is 'w1'"]),
        ({}, {}, {"held": ["/var/lib/etcd/member"]}, ["/var/lib/etcd/member", "-e tandem_restore_over_node=cp1"]),
        (
            {},
            {},
            {"packages": {"kubelet": {"version": "1.36.1-1.1"}}},
            ["packages is {'kubelet': '1.36.1-1.1'}", "install --allow-down"],
        ),
        ({}, {}, {"held": ["/var/lib/etcd/member"], "stage": "done"}, ["/var/lib/etcd/member"]),
    ],
)
def test_what_forbids_it(
    about: dict[str, Any], checked: dict[str, Any], site: dict[str, Any], words: list[str]
) -> None:
    given = CHECKED | checked
    if given["sums"] is None:
        given = {"msg": "cannot be opened with backup.key: another key"}
        words = ["another key", "tandem_backup_key"]
    elif None in given["sums"].values():
        given = {**given, "sums": {name: value for name, value in given["sums"].items() if value}}
    found = restores.restore_findings(ABOUT | about, given, SITE | site)
    assert len(found) == 1, found
    assert all(word in found[0] for word in words), found


@pytest.mark.parametrize("change", [{"stage": "begun"}, {"stage": "serving"}, {"over_node": "cp1"}])
def test_a_machine_that_may_be_rebuilt_although_it_holds_something(change: dict[str, Any]) -> None:
    site = SITE | {"held": ["/etc/kubernetes/kubelet.conf"]} | change
    assert restores.restore_findings(ABOUT, CHECKED, site) == []


@pytest.mark.parametrize(
    ("marker", "site", "stage"),
    [
        ({}, {}, ""),
        ({"stage": "done"}, {}, ""),
        ({"stage": "begun"}, {}, "begun"),
        ({"stage": "begun"}, {"serves": True}, "begun"),
        ({"stage": "begun", "backup": "another"}, {}, "begun"),
        ({"stage": "begun", "at": 0}, {}, "begun"),
        # Mended by hand since, so that it serves: nothing permits to overwrite it.
        ({"stage": "begun", "at": 0}, {"serves": True}, ""),
        ({"stage": "serving"}, {"serves": True}, "serving"),
        ({"stage": "serving", "at": 0}, {"serves": True}, "serving"),
        ({"stage": "serving", "backup": "another"}, {"serves": True}, ""),
        # The same command after a kill goes on; the same command on another day means it anew.
        ({"stage": "serving"}, {"serves": True, "over_node": "cp1"}, "serving"),
        ({"stage": "serving", "at": 0}, {"serves": True, "over_node": "cp1"}, ""),
    ],
)
def test_what_an_earlier_restore_left_to_go_on_with(marker: dict[str, Any], site: dict[str, Any], stage: str) -> None:
    written = {"backup": SITE["name"], "at": TAKEN} | marker
    now = {"name": SITE["name"], "over_node": "", "serves": False, "now": TAKEN + 600} | site
    assert restores.restore_stage(written if marker else {}, now) == stage


def test_a_later_restore_of_the_same_backup_is_ahead_of_an_earlier_one() -> None:
    first, second = (restores.revision_bump(DATE, TAKEN + seconds) for seconds in (60, 90))
    assert first >= restores.BUMP
    assert second - first >= 30 * 1000
    assert restores.revision_bump(DATE, TAKEN - 5) == restores.BUMP
