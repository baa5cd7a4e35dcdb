"""The NFS server refuses a node: rules, what is seen of the node, and an attempt broken off at each of its steps."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.tandem_fencing import FenceError  # the modules' own class of it

from plugins.module_utils import tandem_fencing as fencing
from plugins.modules import tandem_fence, tandem_share

ROOT = Path(__file__).resolve().parents[3]
INFO = """clientid: 0x2d1bb86a6a1f3a31
address: "{address}:948"
status: confirmed
seconds from last renew: 3
name: "Linux NFSv4.2 {name}"
minor version: 2
Implementation domain: "kernel.org"
callback state: UP
"""
TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0801 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1
   1: 144D0A0A:0801 0B4D0A0A:03B4 01 00000000:00000010 00:00000000 00000000     0        0 2
   2: 144D0A0A:0801 0C4D0A0A:03B4 01 00000000:00000000 00:00000000 00000000     0        0 3
   3: 144D0A0A:0016 0B4D0A0A:8001 01 00000000:00000000 00:00000000 00000000     0        0 4
   4: 144D0A0A:0801 0B4D0A0A:03B5 06 00000000:00000000 00:00000000 00000000     0        0 5
"""
TCP6 = """  sl  local_address                         remote_address                        st tx_queue rx_queue
   0: 0000000000000000FFFF0000144D0A0A:0801 0000000000000000FFFF00000B4D0A0A:03B6 01 00000000:00000001 00:00000000
   1: 000080FE000000000000000000000001:0801 000080FE000000000000000000000002:03B6 01 00000000:00000000 00:00000000
"""


def listing(rules: str) -> str:
    """What `nft --json list table` says of our ruleset (nftables 1.0.6 and 1.1), as far as it is looked at."""
    if "table inet tandem_fence {" not in rules:
        return ""
    elements = re.search(r"elements = \{ (.*) \}", rules)
    assert elements is not None
    items: list[dict[str, Any]] = [{"metainfo": {"json_schema_version": 1}}]
    named: list[Any] = []
    for text in elements[1].split(", "):
        address, _, length = text.partition("/")
        named.append({"prefix": {"addr": address, "len": int(length)}} if length else address)
    items.append({"set": {"family": "inet", "name": "refused", "table": "tandem_fence", "elem": named}})
    for hook, field, port in (("input", "saddr", "dport"), ("output", "daddr", "sport")):
        items.append({"chain": {"family": "inet", "name": hook, "hook": hook, "policy": "accept"}})
        expressions = [
            {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": field}}, "right": "@refused"}},
            {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": port}}, "right": 2049}},
            {"counter": {"packets": 0, "bytes": 0}},
            {"drop": None},
        ]
        items.append({"rule": {"family": "inet", "table": "tandem_fence", "chain": hook, "expr": expressions}})
    return json.dumps({"nftables": items})


def test_a_table_without_its_drops_refuses_nobody() -> None:
    whole = json.loads(listing(fencing.ruleset(["10.77.0.11"])))
    assert fencing.live_addresses(json.dumps(whole)) == ["10.77.0.11/32"]
    assert fencing.live_addresses("") == []
    assert fencing.live_addresses("Error: No such file or directory") == []
    for broken in ("input", "output"):
        one_way = [each for each in whole["nftables"] if each.get("rule", {}).get("chain") != broken]
        assert fencing.live_addresses(json.dumps({"nftables": one_way})) == [], broken
    assert fencing.live_addresses(json.dumps(whole), port=2050) == [], "another port"


def test_elements_of_a_set_in_every_form() -> None:
    rules = json.loads(listing(fencing.ruleset(["10.77.0.11"])))
    named = next(each["set"] for each in rules["nftables"] if "set" in each)
    named["elem"] = [
        {"range": ["10.77.0.12", "10.77.0.13"]},
        {"elem": {"val": "10.77.0.20", "counter": {}}},
        {"prefix": {"addr": "10.244.1.0", "len": 24}},
    ]
    live = fencing.live_addresses(json.dumps(rules))
    assert fencing.covered(["10.77.0.12", "10.77.0.13", "10.77.0.20", "10.244.1.0/24"], live)
    assert not fencing.covered(["10.77.0.14"], live)
    assert not fencing.covered(["10.244.0.0/16"], live)


def test_only_nodes_that_are_not_readmitted_are_refused() -> None:
    nodes = {
        "w1": {"phase": "refused", "addresses": ["10.77.0.11", "10.244.1.0/24", "10.244.1.7"]},
        "w2": {"phase": "lifted", "addresses": ["10.77.0.12"]},
    }
    assert fencing.refused_addresses({"nodes": nodes}) == ["10.77.0.11", "10.244.1.0/24"]
    assert "table inet tandem_fence {" not in fencing.ruleset([])


def test_clients_are_known_by_address_or_name(tmp_path: Path) -> None:
    for number, (address, name) in enumerate([("10.77.0.11", "w1"), ("[::ffff:10.77.0.12]", "w2"), ("10.9.0.1", "w1")]):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "info").write_text(INFO.format(address=address, name=name))
    found = fencing.clients(tmp_path)
    assert [each["address"] for each in found] == ["10.77.0.11", "10.77.0.12", "10.9.0.1"]
    mine = [each["id"] for each in found if fencing.belongs(each, "w1.example.internal", ["10.77.0.11"])]
    assert mine == ["0", "2"], "by its address, and by its name from another address"
    assert not fencing.belongs({"address": "10.9.0.2", "name": "Linux NFSv4.2 xw1"}, "w1", ["10.77.0.11"])


def test_connections_of_a_node(tmp_path: Path) -> None:
    (tmp_path / "tcp").write_text(TCP)
    (tmp_path / "tcp6").write_text(TCP6)
    tables = [str(tmp_path / name) for name in ("tcp", "tcp6", "none")]
    found = fencing.connections(["10.10.77.11"], tables=tables)
    assert [each["queued"] for each in found] == [16, 1], "established ones to the share, over IPv4 and mapped"
    assert len(fencing.connections(["10.10.77.0/24"], tables=tables)) == 3


def test_a_broken_record_is_no_empty_record(tmp_path: Path) -> None:
    assert fencing.read_record(tmp_path) == {"epoch": 0, "nodes": {}}
    (tmp_path / fencing.RECORD).write_text("{")
    with pytest.raises(fencing.FenceError, match="on a guess"):
        fencing.read_record(tmp_path)


class Server:
    """An NFS server as the module sees it. `fails_at` breaks the run off before its n-th act, as a kill would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.begin()

    def begin(self) -> None:
        """Two clients, and nothing done yet."""
        self.rules, self.acts, self.fails_at = "", [], 0  # type: tuple[str, list[str], int]
        self.established, self.can_kill, self.queued = 1, True, 0
        self.add_client("1", "10.77.0.11", "w1")
        self.add_client("2", "10.77.0.12", "w2")

    def add_client(self, number: str, address: str, name: str) -> None:
        path = self.folder / "clients" / number
        path.mkdir(parents=True)
        (path / "info").write_text(INFO.format(address=address, name=name))

    def act(self, name: str) -> None:
        self.acts.append(name)
        if len(self.acts) == self.fails_at:
            raise KeyboardInterrupt(name)

    def run(self, *argv: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
        output = ""
        if argv[:2] == ("nft", "-f"):
            self.act("nft")
            self.rules = Path(argv[2]).read_text()
        elif argv[0] == "nft":
            output = listing(self.rules)
        elif argv[0] == "systemctl":
            self.act("enable")
            link = self.folder / "units" / "nfs-server.service.requires" / "tandem-fence.service"
            link.parent.mkdir(exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to("..")
        elif argv[0] == "exportfs" and argv[1] == "-s":
            output = "/srv/nfs/tandem  10.77.0.11(sync,wdelay)\n/srv/nfs/tandem  10.77.0.12(sync)\n"
        elif argv[0] == "ss" and self.can_kill:
            self.act("kill")
            self.established = 0
        else:
            self.act(" ".join(argv))
        return subprocess.CompletedProcess(argv, 0, output, "")

    def expire(self, client: str, seconds: float) -> bool:
        self.act(f"expire {client}")
        assert self.rules, "a client that is expired before its packets are dropped comes back at once"
        shutil.rmtree(self.folder / "clients" / client)
        return True

    def connections(self, addresses: list[str], port: int) -> list[dict[str, Any]]:
        return [{"peer": "10.77.0.11", "queued": self.queued}] * self.established


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server with two clients."""
    made = Server(tmp_path)
    monkeypatch.setattr(tandem_fence, "CLIENTS", str(tmp_path / "clients"))
    monkeypatch.setattr(tandem_fence, "UNITS", str(tmp_path / "units"))
    monkeypatch.setattr(tandem_fence, "QUEUE_SECONDS", 0.2)
    for name in ("run", "expire", "connections"):
        monkeypatch.setattr(tandem_fence, name, getattr(made, name))
    monkeypatch.setattr(tandem_fence, "program", lambda name: name)
    monkeypatch.setattr(shutil, "which", lambda name, path="": name)

    def writing(write: Callable[..., None], name: str) -> Callable[..., None]:
        def write_it(*arguments: Any) -> None:
            made.act(f"write {name}")
            write(*arguments)

        return write_it

    monkeypatch.setattr(tandem_fence, "write_file", writing(fencing.write_file, "file"))
    monkeypatch.setattr(tandem_fence, "write_record", writing(fencing.write_record, "record"))
    return made


def refuse(server: Server, boot: str = "boot-1", *, check_mode: bool = False, **changes: Any) -> dict[str, Any]:
    parameters = {
        "node": "w1",
        "addresses": ["10.77.0.11", "10.244.1.0/24"],
        "boot_id": boot,
        "by": "test",
        "heirs": ["w2"],
        "unless_refused": [],
        "port": 2049,
        "timeout_seconds": 1,
        **changes,
    }
    return tandem_fence.refuse(parameters, server.folder / "state", check_mode=check_mode)


def lift(server: Server) -> dict[str, Any]:
    return tandem_fence.lift({"node": "w1", "port": 2049}, server.folder / "state", check_mode=False)


def forget(server: Server) -> dict[str, Any]:
    return tandem_fence.forget({"node": "w1", "port": 2049}, server.folder / "state", check_mode=False)


def test_refused_and_taken_again(server: Server) -> None:
    told = refuse(server, check_mode=True)
    assert told["changed"]
    assert (server.acts, server.rules) == ([], ""), "check mode tells and leaves"
    done = refuse(server)
    entry = done["nodes"]["w1"]
    assert (done["changed"], entry["phase"], entry["epoch"], entry["boot_ids"]) == (True, "refused", 1, ["boot-1"])
    assert done["seen"] == {"rule": True, "clients": [], "connections": 0, "queued": 0}
    assert server.acts.index("nft") < server.acts.index("kill") < server.acts.index("expire 1")
    assert "exportfs -u 10.77.0.11:/srv/nfs/tandem" in server.acts
    assert "expire 2" not in server.acts, "the other worker is left alone"
    assert not refuse(server)["changed"]
    assert not refuse(server, check_mode=True)["changed"]
    with pytest.raises(FenceError, match="refused still"):
        forget(server)
    assert lift(server)["changed"]
    assert "table inet tandem_fence {" not in server.rules
    assert not lift(server)["changed"]
    assert refuse(server, "boot-2")["nodes"]["w1"]["boot_ids"] == ["boot-2"], "a new release knows the new boot"
    assert fencing.read_record(server.folder / "state")["epoch"] == 2
    lift(server)
    assert forget(server)["nodes"] == {}
    assert fencing.read_record(server.folder / "state") == {"epoch": 2, "nodes": {}}, "epochs are never used twice"


def test_what_the_record_forbids_is_refused_before_anything_changes(server: Server) -> None:
    for check_mode in (True, False):
        with pytest.raises(FenceError, match=r"Nothing has been changed(?s:.*)\nnode w1 lives"):
            refuse(server, unless_refused=["node w1 lives"], check_mode=check_mode)
    assert (server.acts, server.rules) == ([], "")
    refuse(server)
    assert not refuse(server, unless_refused=["node w1 lives"])["changed"], "a release that began goes on"
    with pytest.raises(FenceError, match="refused by the NFS server itself"):
        refuse(server, node="w2", heirs=["w1"])
    assert "w2" not in fencing.read_record(server.folder / "state")["nodes"], "never the last one"
    lift(server)
    with pytest.raises(FenceError, match="node w1 lives"):
        refuse(server, unless_refused=["node w1 lives"])
    assert refuse(server, node="w2", addresses=["10.77.0.12"], heirs=["w1"])["changed"]


def test_prepared_ahead_a_release_installs_nothing(server: Server) -> None:
    folder = server.folder / "state"
    assert tandem_fence.prepare({}, folder, check_mode=True)["changed"]
    assert server.acts == []
    assert tandem_fence.prepare({}, folder, check_mode=False) == {"changed": True, "nodes": {}}
    assert not tandem_fence.prepare({}, folder, check_mode=False)["changed"]
    assert not tandem_fence.prepare({}, folder, check_mode=True)["changed"]
    server.acts.clear()
    refuse(server)
    assert "enable" not in server.acts
    assert server.acts.count("write file") == 1, "its rules alone"


def test_broken_off_at_every_step_it_resumes_and_keeps_the_first_boot_id(server: Server, tmp_path: Path) -> None:
    refuse(server)
    steps = len(server.acts)
    assert steps > 8
    for step in range(1, steps + 1):
        for folder in ("state", "units", "clients"):
            shutil.rmtree(tmp_path / folder, ignore_errors=True)
        server.begin()
        server.fails_at = step
        with pytest.raises(KeyboardInterrupt) as broken:
            refuse(server, "boot-1")
        recorded = fencing.read_record(tmp_path / "state")["nodes"].get("w1", {})
        assert recorded.get("phase") != "refused", f"{broken.value}: acknowledged too early"
        assert recorded or not server.rules, f"{broken.value}: a rule that no record knows of"
        server.fails_at = 0
        entry = refuse(server, "boot-2")["nodes"]["w1"]
        assert entry["phase"] == "refused"
        assert entry["boot_ids"] == (["boot-1"] if recorded else ["boot-2"])
        assert (tmp_path / "units" / "nfs-server.service.requires" / "tandem-fence.service").is_symlink()


def test_a_client_that_stays_is_no_acknowledgement(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tandem_fence, "expire", lambda client, seconds: False)
    with pytest.raises(FenceError, match=r"no pod has been deleted.*goes on"):
        refuse(server)
    assert fencing.read_record(server.folder / "state")["nodes"]["w1"]["phase"] == "refusing"
    assert server.rules, "what holds stays"


def test_a_kernel_that_cannot_end_connections(server: Server) -> None:
    server.can_kill = False
    assert refuse(server)["seen"]["connections"] == 1, "dropped packets, no client, nothing in the queue"
    lift(server)
    server.add_client("1", "10.77.0.11", "w1")
    server.queued = 100
    with pytest.raises(FenceError, match="100 bytes of its requests"):
        refuse(server, "boot-2")


def test_a_rule_that_does_not_take_is_no_acknowledgement(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tandem_fence, "live", lambda nft, port: [])
    with pytest.raises(FenceError, match="does not drop"):
        refuse(server)


def test_the_nfs_server_does_not_start_without_the_table(tmp_path: Path) -> None:
    files = tandem_fence.unit_files("/usr/sbin/nft", tmp_path)
    unit = next(text for path, text in files.items() if path.endswith("/tandem-fence.service"))
    assert "RequiredBy=nfs-server.service" in unit
    assert re.search(r"^Before=.*nfs-server\.service", unit, re.MULTILINE)
    assert re.search(r"^After=.*nftables\.service", unit, re.MULTILINE), "which flushes everything at boot"
    assert "RemainAfterExit" not in unit, "so that each start of the server loads the table anew"


def test_a_share_that_answers_and_one_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tandem_share.answers(str(tmp_path), 5)
    assert tandem_share.source_of("/srv/a", "x /srv/a nfs4 rw 0 0\ny /srv/ab nfs4 rw 0 0\n") == "x"
    assert tandem_share.source_of("/srv/b", "x /srv/a nfs4 rw 0 0\n") == ""
    assert tandem_share.look(str(tmp_path), 5) == ("", False), "what is not mounted does not answer"
    monkeypatch.setattr(Path, "stat", lambda _: time.sleep(60))
    assert not tandem_share.answers(str(tmp_path), 0.3)


NETWORK = """
import socket, subprocess, sys
from plugins.module_utils import tandem_fencing as fencing
server = socket.create_server(("10.9.0.20", 2049))
client = socket.socket()
client.bind(("10.9.0.11", 0))
client.connect(("10.9.0.20", 2049))
taken, _ = server.accept()
taken.settimeout(1)
client.send(b"before")
assert taken.recv(100) == b"before"
rules = fencing.ruleset(["10.9.0.11", "10.244.1.0/24"])
subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
show = ["nft", "--json", "list", "table", "inet", fencing.TABLE]
live = fencing.live_addresses(subprocess.run(show, capture_output=True, text=True).stdout)
assert fencing.covered(["10.9.0.11", "10.244.1.0/24"], live), live
client.send(b"after")
try:
    raise SystemExit(f"arrived: {taken.recv(100)!r}")
except TimeoutError:
    pass
other = socket.create_connection(("10.9.0.20", 2049), timeout=1, source_address=("10.9.0.12", 0))
again = socket.socket()
again.settimeout(1)
again.bind(("10.9.0.11", 0))
try:
    again.connect(("10.9.0.20", 2049))
    raise SystemExit("connected anew")
except TimeoutError:
    pass
assert [each["peer"] for each in fencing.connections(["10.9.0.11"])] == ["10.9.0.11"]
subprocess.run(["nft", "-f", "-"], input=fencing.ruleset([]), text=True, check=True)
assert not fencing.live_addresses(subprocess.run(show, capture_output=True, text=True).stdout)
taken.settimeout(10)
assert taken.recv(100) == b"after", "as TCP is: what was sent comes once nobody drops it; hence the boot id"
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace of its own needs root")
def test_a_real_kernel_drops_what_an_open_connection_sends() -> None:
    addresses = "".join(f"ip address add 10.9.0.{number}/32 dev lo; " for number in (11, 12, 20))
    script = f'set -e; ip link set lo up; {addresses}exec "$@"'
    argv = ["unshare", "--net", "sh", "-c", script, "sh", sys.executable, "-c", NETWORK]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
