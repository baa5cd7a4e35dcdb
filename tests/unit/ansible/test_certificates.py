"""Ends of certificates: read from real ones, judged by days; and what a broken-off renewal has left to do."""

from __future__ import annotations

import base64
import datetime
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from plugins.module_utils import tandem_certificates as certificates
from plugins.module_utils import tandem_processes
from plugins.modules import tandem_restart

NOW = 1_790_000_000.0
DAY = 86400.0


def issued(starts: float, ends: float) -> str:
    """A certificate (PEM) that is valid between two moments."""

    def moment(seconds: float) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC)

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(moment(starts))
        .not_valid_after(moment(ends))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()


def test_real_certificates_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem = issued(NOW - DAY, NOW + 364 * DAY)
    for name in ("pki/apiserver.crt", "pki/etcd/server.crt", "kubelet.pem"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("KEY BEFORE IT\n" + pem)
    (tmp_path / "pki/broken.crt").write_text("nothing")
    embedded = base64.b64encode(pem.encode()).decode()
    (tmp_path / "scheduler.conf").write_text(f"users:\n- user:\n    client-certificate-data: {embedded}\n")
    (tmp_path / "kubelet.conf").write_text("users:\n- user:\n    client-certificate: /var/lib/kubelet/pki/x.pem\n")
    monkeypatch.setattr(certificates, "CONFIGURATION", str(tmp_path))
    monkeypatch.setattr(certificates, "KUBELET", str(tmp_path / "kubelet.pem"))
    found = {Path(entry["path"]).name: entry for entry in certificates.gather()}
    assert set(found) == {"apiserver.crt", "server.crt", "kubelet.pem", "broken.crt", "scheduler.conf"}
    assert "no certificate" in found.pop("broken.crt")["error"]
    for entry in found.values():
        assert (entry["starts"], entry["ends"], entry["error"]) == (NOW - DAY, NOW + 364 * DAY, "")
    [broken] = certificates.failures({"cp1": {"now": NOW, "certificates": certificates.gather()}}, 14)
    assert broken["wanted"] == "readable"


def entry(name: str, days: float, written: float = 0.0, life: float = 365.0) -> dict[str, Any]:
    path = name if name.startswith("/") else f"/etc/kubernetes/{name}"
    ends = NOW + days * DAY
    return {"path": path, "starts": ends - life * DAY, "ends": ends, "written": written, "error": ""}


def node(*entries: dict[str, Any], **started: float) -> dict[str, Any]:
    processes = {name.replace("_", "-"): {"started": moment} for name, moment in started.items()}
    return {"now": NOW, "certificates": list(entries), "processes": processes}


@pytest.mark.parametrize(
    ("days", "fails", "warns"),
    [
        (364, False, False),
        (90, False, False),
        (89.9, False, True),
        (14, False, True),
        (13.9, True, False),
        (-3, True, False),
    ],
)
def test_ninety_days_are_told_and_fourteen_fail(days: float, fails: bool, warns: bool) -> None:
    nodes = {"cp1": node(entry("pki/apiserver.crt", days))}
    assert bool(certificates.failures(nodes, 14)) == fails
    assert bool(certificates.warnings(nodes, 90, 14)) == warns
    if fails:
        [found] = certificates.failures(nodes, 14)
        assert "certs.yml" in found["found"]
        assert ("ended 3 days ago" in found["found"]) == (days < 0)


def test_kubelet_renews_its_own_and_is_told_when_it_does_not() -> None:
    def nodes(days: float) -> dict[str, Any]:
        return {"w1": node(entry(certificates.KUBELET, days))}

    assert certificates.warnings(nodes(40), 90, 14) == [], "it renews between three tenths and a tenth of its life"
    assert "journalctl -u kubelet" in certificates.warnings(nodes(36), 90, 14)[0]
    assert certificates.failures(nodes(5), 14)
    short = {"w1": node(entry(certificates.KUBELET, 20, life=30))}
    assert certificates.warnings(short, 90, 14) == []


def test_an_authority_is_told_but_never_due() -> None:
    nodes = {"cp1": node(entry("pki/ca.crt", 30), entry(certificates.KUBELET, 10))}
    assert "manual rotation" in certificates.warnings(nodes, 90, 14)[0]
    assert certificates.due(nodes, ["cp1"], 180, force=False) == {}


def test_what_is_due() -> None:
    fresh = node(entry("pki/apiserver.crt", 300), entry("scheduler.conf", 300, written=100.0), kube_scheduler=200.0)
    old = node(entry("pki/apiserver.crt", 300), entry("pki/etcd/peer.crt", 179))
    plan = certificates.due({"cp1": fresh, "cp2": old}, ["cp1", "cp2"], 180, force=False)
    assert list(plan) == ["cp2"]
    assert plan["cp2"]["renew"]
    assert plan["cp2"]["restart"] == ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]
    assert "peer.crt" in certificates.plan_sentences(plan)[0]
    assert certificates.due({"cp1": fresh}, ["cp1"], 180, force=True)["cp1"]["renew"]
    assert "nothing to do" in certificates.plan_sentences({})[0]


def test_a_renewal_that_broke_off_leaves_programs_older_than_their_files() -> None:
    names = [name for paths in certificates.USERS.values() for name in paths]
    half = node(
        *(entry(name, 364, written=1000.0) for name in names),
        etcd=1005.0,
        kube_apiserver=1008.0,
        kube_controller_manager=500.0,
        kube_scheduler=999.0,
    )
    plan = certificates.due({"cp1": half}, ["cp1"], 180, force=False)
    assert plan == {"cp1": {"renew": False, "ending": [], "restart": ["kube-controller-manager"]}}
    [told] = certificates.warnings({"cp1": half}, 90, 14)
    assert "kube-controller-manager started before /etc/kubernetes/controller-manager.conf" in told


def test_when_a_process_started() -> None:
    own, machine = Path("/proc/self/stat").read_text(), Path("/proc/stat").read_text()
    started = tandem_processes.started(own, machine)
    assert 0 <= time.time() - started < 86400
    again = tandem_processes.started(re.sub(r"\(.*\)", "(a ) name)", own), machine)
    assert again == started
    assert tandem_processes.started("", machine) == 0


def test_where_a_program_tells_its_health() -> None:
    assert (
        tandem_restart.health_url("etcd", {"listen-metrics-urls": "http://127.0.0.1:9"}) == "http://127.0.0.1:9/health"
    )
    assert tandem_restart.health_url("kube-apiserver", {"secure-port": "443"}) == "https://127.0.0.1:443/readyz"
    address = {"bind-address": "0.0.0.0"}  # noqa: S104
    assert tandem_restart.health_url("kube-scheduler", address) == "https://127.0.0.1:10259/healthz"


def test_healthy_is_another_process_that_answers_several_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tandem_restart, "POLL_SECONDS", 0.01)
    pids, good = iter([7, 7, None, *[8] * 500]), iter([True, False, *[True] * 500])
    asked: list[bool] = []

    def processes() -> dict[str, Any]:
        pid = next(pids)
        return {"kube-scheduler": {"pid": pid, "args": {}}} if pid else {}

    def answers(_: str) -> bool:
        asked.append(next(good))
        return asked[-1]

    monkeypatch.setattr(tandem_restart, "processes", processes)
    monkeypatch.setattr(tandem_restart, "answers", answers)
    assert tandem_restart.wait("kube-scheduler", 7, 5) == ""
    assert asked == [True, False, *[True] * tandem_restart.IN_A_ROW]
    monkeypatch.setattr(tandem_restart, "processes", lambda: {"kube-scheduler": {"pid": 7, "args": {}}})
    assert tandem_restart.wait("kube-scheduler", 7, 0.1) == "it has not ended"
    monkeypatch.setattr(tandem_restart, "processes", dict)
    assert "has not started it again" in tandem_restart.wait("kube-scheduler", 7, 0.1)
    monkeypatch.setattr(tandem_restart, "processes", lambda: {"kube-scheduler": {"pid": os.getpid(), "args": {}}})
    monkeypatch.setattr(tandem_restart, "answers", lambda _: False)
    assert "does not answer well" in tandem_restart.wait("kube-scheduler", 7, 0.1)


def test_a_program_that_has_read_its_certificates_is_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    running = {"kube-scheduler": {"pid": 7, "started": 1000.0}, "kube-apiserver": {"pid": 8, "started": 900.0}}
    files = [
        {"path": "/etc/kubernetes/scheduler.conf", "written": 950.0},
        {"path": "/etc/kubernetes/pki/apiserver.crt", "written": 950.0},
    ]
    monkeypatch.setattr(tandem_restart, "processes", lambda: running)
    monkeypatch.setattr(tandem_restart, "gather", lambda: files)
    assert tandem_restart.late("kube-apiserver") == 8
    assert tandem_restart.late("kube-scheduler") == 0
    assert tandem_restart.late("etcd") == 0
