"""One address for what the workers serve: when it moves, how long a client waits for it, and never on two workers.

The listener is a small web server on each worker that answers with the worker's name; the client is nfs1, which is no
worker. All machines of the lab have one clock, the host's, so what each of them notes can be laid side by side.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from lab.runtime import Lab
from tests.conftest import wait_until
from tests.testinfra.playbooks import TIMEOUT_SECONDS, outcome

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.disruptive, pytest.mark.timeout(2 * TIMEOUT_SECONDS)]

ADDRESS = "10.77.0.200"
PORT = 8099
CLIENT = "nfs1"
LISTENER = """
import http.server, socket
class Name(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(socket.gethostname().encode())
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("0.0.0.0", %d), Name).serve_forever()
"""
ASK = """
import http.client, time
while True:
    began = time.time()
    try:
        connection = http.client.HTTPConnection("%s", %d, timeout=%g)
        connection.request("GET", "/", headers={"Host": "%s"})
        answer = connection.getresponse()
        body = answer.read().decode()
        said = "-" if answer.status != 200 else body if body.isalnum() else "somebody"
    except (OSError, http.client.HTTPException):
        said = "-"
    finally:
        connection.close()
    print("%%.3f %%s" %% (began, said), flush=True)
    time.sleep(max(0, 0.05 - (time.time() - began)))
"""
WATCH = "ip -oneline address show to %s | wc -l; exec ip -timestamp=short -oneline monitor address"
MISSED_ADVERTS_SECONDS = 2.0
"""Three announcements, 0.5 s apart, and what a backup of priority 100 adds (RFC 9568, 6.1: 0.3 s)."""

BUSY_SECONDS = 4.0
"""What a slow machine may add; the figures are printed."""

Connect = Callable[[str], Any]


def in_background(machine: Any, unit: str, *argv: str) -> None:
    """Run a program as a transient unit that ends with the machine, its output in /run/UNIT.log."""
    options = f"--collect --unit={unit} --property=StandardOutput=truncate:/run/{unit}.log"
    said = machine.run(f"systemd-run {options} -- {' '.join('%s' for _ in argv)}", *argv)
    assert said.rc == 0, said.stderr


@dataclass
class Address:
    """The address at work."""

    machine: Connect
    workers: list[str]

    def holders(self) -> list[str]:
        """Workers that have it now."""
        return [
            name
            for name in self.workers
            if self.machine(name).run("ip -oneline address show to %s", ADDRESS).stdout.strip()
        ]

    def holder(self) -> str:
        """The one that has it."""
        (name,) = self.holders()
        return name

    def answers(self, since: float) -> list[tuple[float, str]]:
        """When the client asked, and who answered (`-` for nobody)."""
        lines = self.machine(CLIENT).run("cat /run/tandem-test-client.log").stdout.splitlines()
        asked = [(float(at), name) for at, name in (line.split() for line in lines if line.count(" ") == 1)]
        return [(at, name) for at, name in asked if at >= since]

    def longest_gap(self, since: float) -> float:
        """Seconds between two answers that followed each other."""
        times = [at for at, name in self.answers(since) if name != "-"]
        return max(later - sooner for sooner, later in itertools.pairwise(times))

    def settled(self, other_than: str = "") -> bool:
        """Somebody holds it and answers, and it is not `other_than`."""
        found = self.holders()
        last = self.answers(time.time() - 1)
        return len(found) == 1 and found[0] != other_than and bool(last) and last[-1][1] == found[0]


@pytest.fixture(scope="module")
def address(machine: Connect, workers: list[str], profile: str) -> Iterator[Address]:
    """The role's work, with listeners of the test's own and a client; afterwards the site's own settings again."""
    try:
        for name in workers:
            in_background(machine(name), "tandem-test-listener", "/usr/bin/python3", "-c", LISTENER % PORT)
        status, said = outcome("address", profile, tandem_virtual_ip=ADDRESS, tandem_virtual_ip_port=PORT)
        assert status == 0, said[-3000:]
        in_background(
            machine(CLIENT), "tandem-test-client", "/usr/bin/python3", "-c", ASK % (ADDRESS, PORT, 0.5, "names")
        )
        yield Address(machine, workers)
    finally:
        status, said = outcome("address", profile)
        for name, unit in [*((name, "listener") for name in workers), (CLIENT, "client")]:
            machine(name).run("systemctl stop tandem-test-%s", unit)
    assert status == 0, said[-3000:]


def test_a_second_run_changes_nothing(address: Address, profile: str) -> None:
    wait_until(address.settled, 30, "a worker holds the address")
    status, said = outcome("address", profile, tandem_virtual_ip=ADDRESS, tandem_virtual_ip_port=PORT)
    assert status == 0, said[-3000:]
    assert "changed=1" not in said


def test_the_address_of_a_machine_is_refused(address: Address, profile: str) -> None:
    status, said = outcome("address", profile, tandem_virtual_ip=Lab().address("nfs1"))
    assert status != 0
    assert "it is nfs1's" in said


@pytest.mark.parametrize("victim", ["tandem-virtual-ip.service", "tandem-test-listener.service"])
def test_keepalived_s_crash_and_a_listener_s(address: Address, victim: str) -> None:
    """Killed with SIGKILL: the address moves, and at no moment it is on both."""
    wait_until(address.settled, 60, "a worker holds the address")
    before, began = address.holder(), time.time()
    for name in address.workers:
        in_background(address.machine(name), "tandem-test-watch", "/bin/sh", "-c", WATCH % ADDRESS)
    try:
        assert address.machine(before).run("systemctl kill --signal=KILL %s", victim).rc == 0
        wait_until(lambda: address.settled(other_than=before), 30, "the other worker holds the address")
        time.sleep(5)
        notes = {
            name: address.machine(name).run("cat /run/tandem-test-watch.log").stdout.splitlines()
            for name in address.workers
        }
    finally:
        for name in address.workers:
            address.machine(name).run("systemctl stop tandem-test-watch")
    gap = address.longest_gap(began)
    print(f"{victim} killed on {before}: {gap:.2f} s without an answer")
    assert both(notes) == [], notes
    assert gap < MISSED_ADVERTS_SECONDS + BUSY_SECONDS
    if victim == "tandem-test-listener.service":
        listener = LISTENER % PORT
        in_background(address.machine(before), "tandem-test-listener", "/usr/bin/python3", "-c", listener)


def both(notes: dict[str, list[str]]) -> list[str]:
    """Moments at which two workers had the address, by what each of them noted of its own."""
    events = []
    for name, lines in notes.items():
        had = lines[0].strip() == "1"
        events.append(("", name, had))
        for line in lines[1:]:
            if ADDRESS in line:
                moment = line.split("]")[0].lstrip("[")
                events.append((moment, name, "Deleted" not in line))
    holding: set[str] = set()
    found = []
    for moment, name, has in sorted(events, key=lambda each: (each[0], each[2])):
        (holding.add if has else holding.discard)(name)
        if len(holding) > 1:
            found.append(moment)
    return found


def test_two_that_hold_it_would_be_seen() -> None:
    taken = f"[2026-11-22T10:00:01.000000] 2: eth0    inet {ADDRESS}/32 scope global eth0"
    lost = f"[2026-11-22T10:00:02.000000] Deleted 2: eth0    inet {ADDRESS}/32 scope global eth0"
    assert both({"w1": ["1", lost], "w2": ["0", taken]}) == ["2026-11-22T10:00:01.000000"]
    assert both({"w1": ["1", lost.replace(":02.", ":00.")], "w2": ["0", taken]}) == []


def test_a_power_loss_and_the_worker_s_return(address: Address) -> None:
    wait_until(address.settled, 60, "a worker holds the address")
    lab, before, began = Lab(), address.holder(), time.time()
    lab.power_off(before)
    try:
        other = next(name for name in address.workers if name != before)
        answered = lambda: any(name == other for _, name in address.answers(began))  # noqa: E731
        wait_until(answered, 30, "the other worker answers")
        time.sleep(2)
        gap = address.longest_gap(began - 1)
    finally:
        lab.power_on(before)
    print(f"{before} lost power: {gap:.2f} s without an answer")
    assert gap < MISSED_ADVERTS_SECONDS + BUSY_SECONDS
    listener = LISTENER % PORT
    in_background(address.machine(before), "tandem-test-listener", "/usr/bin/python3", "-c", listener)
    returned = time.time()
    time.sleep(20)
    assert address.holders() == [other], "who serves keeps it"
    assert {name for _, name in address.answers(returned)} == {other}, "the return is not noticed"


def test_an_address_that_is_not_wanted_any_more_is_let_go(address: Address, profile: str) -> None:
    status, said = outcome("address", profile, tandem_virtual_ip="")
    assert status == 0, said[-3000:]
    assert address.holders() == []
    for name in address.workers:
        assert not address.machine(name).file("/etc/tandem/virtual-ip.conf").exists
        assert not address.machine(name).service("tandem-virtual-ip").is_running
