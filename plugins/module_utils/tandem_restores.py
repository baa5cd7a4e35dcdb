"""What forbids restoring a control plane node from a backup, and how far its revisions are raised. Pure functions."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Final

from .tandem_release import refusal

AUTHORITY: Final = "pki/ca.crt"
NEEDED: Final = (
    "etcd.db",
    AUTHORITY,
    "pki/ca.key",
    "pki/sa.key",
    "pki/etcd/ca.key",
    "pki/front-proxy-ca.key",
    "documents/kubeadm-config.yaml",
    "documents/kubelet-config.yaml",
)
"""What a control plane node cannot be made without."""
BEGUN, SERVING, DONE = "begun", "serving", "done"
"""How far a restore came: half of it is there; the API server answers; finished."""
RECENT_SECONDS: Final = 3600
"""What ended unfinished so long ago may have been mended by hand since: its traces permit nothing any more."""
BUMP: Final = 1_000_000_000
"""etcd's own guide: how far revisions rise over the snapshot's, so that no client has seen a later one."""
BUMP_A_SECOND: Final = 1000
"""More writes a second than a small cluster takes: a later restore of a backup stays ahead of an earlier one."""


def age_seconds(date: str, now: float) -> float:
    """How old a backup of that date (YYYYMMDDTHHMMSSZ) is."""
    taken = datetime.datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC)
    return now - taken.timestamp()


def revision_bump(date: str, now: float) -> int:
    """How far revisions are raised, so that every watch of before begins anew, also after a second restore."""
    return BUMP + BUMP_A_SECOND * max(0, int(age_seconds(date, now)))


def restore_stage(marker: Mapping[str, Any], site: Mapping[str, Any]) -> str:
    """How far an earlier restore came that this run may go on with; empty for none.

    Args:
        marker: what that restore wrote down: `backup`, `stage`, and `at` (seconds since the epoch).
        site: `name` of the backup that is wanted now, `over_node`, whether an API server `serves` there, and `now`.
    """
    stage, recent = marker.get("stage", ""), float(site["now"]) - float(marker.get("at", 0)) < RECENT_SECONDS
    if stage == SERVING and marker.get("backup") == site["name"] and (recent or not site["over_node"]):
        return SERVING
    if stage == BEGUN and (recent or not site["serves"]):
        return BEGUN
    return ""


def restore_findings(about: Mapping[str, Any], checked: Mapping[str, Any], site: Mapping[str, Any]) -> list[str]:
    """What forbids it.

    Args:
        about: what stands beside the backup.
        checked: the result of opening it: `sha256`, `sums` (name to checksum), or `msg` when it could not be opened.
        site: `name` of the backup, `now` (seconds since the epoch), `max_age_hours`, `cluster`, `version`,
            `control_plane` (hosts), `address`, `over_node`, `stage`, `held` and `packages` of the machine, `trusted`
            (worker to the checksum of the authority that it trusts; empty for a machine that has not joined).
    """
    where = f"backup {site['name']}"
    if "sums" not in checked:
        way_out = "the private key of the certificate that it was made for, or another backup"
        said = checked.get("msg", "not opened")
        return [refusal(where, "its content", said, "opens with tandem_backup_key and is what was sealed", way_out)]
    return [
        *_backup(where, about, checked, site),
        *_cluster(where, about, checked, site),
        *_machine(site["control_plane"][0], site),
        *_packages(site["control_plane"][0], about, site),
    ]


def _backup(where: str, about: Mapping[str, Any], checked: Mapping[str, Any], site: Mapping[str, Any]) -> list[str]:
    found = []
    if checked["sha256"] != about.get("sha256"):
        rule = f"the checksum that stands beside it, {about.get('sha256')}"
        found.append(refusal(where, "sha256", checked["sha256"], rule, "fetch archive and .json again, or another one"))
    missing = [name for name in NEEDED if name not in checked["sums"]]
    if missing:
        found.append(refusal(where, "missing files", missing, "a whole backup", "another backup"))
    hours = age_seconds(str(about["date"]), float(site["now"])) / 3600
    if hours > float(site["max_age_hours"]):
        rule = f"at most {float(site['max_age_hours']):g} hours, for all that was written since is lost"
        way_out = "a newer backup, or -e tandem_restore_max_age_hours=N if the loss is meant"
        found.append(refusal(where, "age in hours", round(hours, 1), rule, way_out))
    if hours < -1:
        found.append(refusal(where, "date", about["date"], "not in the future", "set this control node's clock"))
    return found


def _cluster(where: str, about: Mapping[str, Any], checked: Mapping[str, Any], site: Mapping[str, Any]) -> list[str]:
    node = site["control_plane"][0]
    found = [
        refusal(where, key, about.get(key), f"the inventory's, {wanted}", "another backup, or the right inventory")
        for key, wanted in (("cluster", site["cluster"]), ("node", node), ("address", site["address"]))
        if about.get(key) != wanted
    ]
    if about.get("kubernetes") != f"v{site['version']}":
        version = str(about.get("kubernetes")).removeprefix("v")
        rule = f"the version that the machine will get, v{site['version']}: etcd's content is read by what wrote it"
        way_out = f"-e tandem_kubernetes_version={version}, and upgrade afterwards"
        found.append(refusal(where, "kubernetes", about.get("kubernetes"), rule, way_out))
    authority = checked["sums"].get(AUTHORITY)
    found += [
        refusal(
            f"inventory host {worker}",
            "/etc/kubernetes/pki/ca.crt",
            trusted,
            f"the authority in {where}, {authority}: else its kubelet belongs to another cluster",
            "another backup, or take the worker out of the cluster first",
        )
        for worker, trusted in sorted(site["trusted"].items())
        if trusted and trusted != authority
    ]
    return found


def _machine(node: str, site: Mapping[str, Any]) -> list[str]:
    where = f"inventory host {node}"
    if len(site["control_plane"]) > 1:
        rule = "one control plane node: where there are several, the others have newer content than any backup"
        way_out = "join the lost one anew with site.yml; if all are lost, restore with the first alone in the inventory"
        return [refusal("inventory", "group control_plane", list(site["control_plane"]), rule, way_out)]
    if site["over_node"] not in ("", node):
        rule = f"empty, or the node that is to be overwritten, {node}"
        return [refusal("inventory", "tandem_restore_over_node", site["over_node"], rule, "correct it")]
    if site["held"] and site["stage"] not in (BEGUN, SERVING) and site["over_node"] != node:
        rule = "an empty machine, or one on which a restore began"
        way_out = (
            f"wipe the machine, or -e tandem_restore_over_node={node}: then what it holds is set aside and replaced"
        )
        return [refusal(where, "state of a cluster", list(site["held"]), rule, way_out)]
    return []


def _packages(node: str, about: Mapping[str, Any], site: Mapping[str, Any]) -> list[str]:
    """Packages that are there already stay as they are: kubeadm of one version starts no kubelet of a newer one."""
    wanted = str(about.get("kubernetes")).removeprefix("v")
    others = {
        name: str(package["version"])
        for name, package in sorted(site["packages"].items())
        if str(package["version"]).partition("-")[0] != wanted
    }
    if not others:
        return []
    rule = f"the backup's version, {wanted}, or not installed: no package is replaced by a restore"
    names = " ".join(f"{name}={wanted}-*" for name in others)
    way_out = (
        f"on {node}: apt-get install --allow-downgrades --allow-change-held-packages {names} "
        f"(dnf: dnf install {names.replace('=', '-')}), then the same command again"
    )
    return [refusal(f"inventory host {node}", "packages", others, rule, way_out)]
