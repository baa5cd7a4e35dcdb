"""Two workers on one wire: power, cables and the ways in, on real machines."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.runtime import NODES, ExitCode, Lab, LabError, MachineStatus, lock
from tests.lab.conftest import Cli

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def pair(lab: Lab) -> Iterator[Lab]:
    """w1 and w2, up."""
    result = lab.up(only=["w1", "w2"])
    assert result.failed == {}
    assert set(result.ready) == {"w1", "w2"}
    yield lab
    lab.down()


@pytest.fixture(autouse=True)
def whole_again(pair: Lab) -> Iterator[None]:
    """Every test finds both machines on and every cable whole, whatever the one before it came to."""
    pair.heal()
    for name, machine in pair.status().machines.items():
        if machine.state == "frozen":
            pair.thaw(name)
        pair.power_on(name)
    yield
    pair.heal()


def on(lab: Lab, node: str, command: str, timeout: float = 30) -> str:
    """Output of COMMAND on NODE."""
    argv = lab.ssh_argv(node, command)
    done = subprocess.run(
        argv, stdout=subprocess.PIPE, text=True, check=True, timeout=timeout, stdin=subprocess.DEVNULL
    )
    return done.stdout.strip()


def reaches(lab: Lab, node: str, address: str) -> bool:
    """Whether a ping from NODE is answered."""
    return on(lab, node, f"ping -c 2 -i 0.2 -W 1 -q {address} >/dev/null && echo yes || echo no") == "yes"


def comes_to_reach(lab: Lab, node: str, address: str) -> bool:
    """Whether a ping from NODE is answered within 10 s: a neighbour once given up is asked for again in seconds."""
    return any(reaches(lab, node, address) for _ in range(6))


def ends(lab: Lab, node: str) -> MachineStatus:
    """Wait until a machine has ended by itself."""
    deadline = time.monotonic() + 15
    while (machine := lab.status().machines[node]).state != "off":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return machine


def test_up_again_changes_nothing_and_starts_a_machine_that_ended_by_itself(pair: Lab, cli: Cli) -> None:
    before = pair.status()
    answer = cli("up", "--only", "w1", "--only", "w2")
    assert answer.code == 0
    assert "already up" in answer.out
    assert pair.status().supervisor == before.supervisor

    on(pair, "w2", "(sleep 0.2; poweroff -f -f) >/dev/null 2>&1 &")
    ended = ends(pair, "w2")
    assert (ended.last_exit, ended.panic) == (0, "")

    answer = cli("up", "--only", "w1", "--only", "w2")
    assert answer.code == 0
    assert "started w2" in answer.out
    after = pair.status().machines
    assert (after["w1"].boots, after["w1"].pid) == (before.machines["w1"].boots, before.machines["w1"].pid)
    assert after["w2"].boots == before.machines["w2"].boots + 1


def test_a_kernel_panic_is_told(pair: Lab, cli: Cli) -> None:
    on(pair, "w2", "(sleep 0.2; echo c > /proc/sysrq-trigger) >/dev/null 2>&1 &")
    assert ends(pair, "w2").panic == "sysrq triggered crash"
    assert "w2 ended by a kernel panic: sysrq triggered crash" in cli("status").out
    assert cli("power-on", "w2").code == 0
    assert pair.status().machines["w2"].panic == ""
    assert on(pair, "w2", "hostname") == "w2"


def test_a_second_lab_is_refused_by_name_and_leaves_nothing(pair: Lab, cli: Cli) -> None:
    if (first := lock.who_runs("another")) is None or first["name"] != pair.name:
        pytest.fail(f"this test needs the machine for itself, and another lab holds it: {first}")
    answer = cli("up", "--only", "nfs1", name="another")
    assert answer.code == ExitCode.REFUSED
    assert "'lifecycle'" in answer.err
    assert "--name lifecycle down" in answer.err
    assert not (pair.paths.root / "another").exists()
    assert cli("down", name="another").code == 0
    assert pair.status().running


def test_a_wrong_machine_is_named_with_the_right_ones(pair: Lab, cli: Cli) -> None:
    for words in (["power-off", "w9"], ["cut", "w1", "--from", "w9"], ["power-off", "nfs1"], ["ssh", "cp1", "true"]):
        answer = cli(*words)
        assert answer.code == ExitCode.USAGE, words
        assert "w1, w2" in answer.err
    with pytest.raises(LabError, match="from itself"):
        pair.cut("w1", ["w1"])


def test_status_tells_what_runs(pair: Lab, cli: Cli) -> None:
    answer = cli("status", "--json")
    assert answer.code == 0
    status = json.loads(answer.out)
    assert status["running"] is True
    assert set(status["machines"]) == {"w1", "w2"}
    for machine in status["machines"].values():
        assert machine["state"] == "running"
        assert Path(f"/proc/{machine['pid']}").exists()
    assert all(service["pid"] and service["restarts"] == 0 for service in status["services"].values())
    port = int(status["api_server"].rsplit(":", 1)[1])
    assert port != 16443, "the default lab's port stays the default lab's"
    assert cli("status").out.count("running") == 2


def test_ways_in(pair: Lab, cli: Cli) -> None:
    assert on(pair, "w1", "hostname") == "w1"
    assert cli("ssh", "w1", "echo", "a  b").out == "a b\n"
    assert cli("ssh", "w2", "exit", "7").code == 7
    assert "10.77.0.1/24" in cli("exec", "ip", "-br", "address", "show", "dev", "br0").out
    assert cli("exec", "sh", "-c", "exit 9").code == 9
    assert cli("exec", "no-such-program").code != 0
    assert "w1" in cli("logs", "w1").out
    for url in ("http://10.77.0.1:8080/key.asc", "http://10.77.0.1:5000/v2/"):
        assert on(pair, "w1", f"curl -s -o /dev/null -w '%{{http_code}}' {url}") == "200"
    upload = "-X POST http://10.77.0.1:5000/v2/x/blobs/uploads/"
    assert on(pair, "w1", f"curl -s -o /dev/null -w '%{{http_code}}' {upload}") == "405"


def test_power_loss_takes_what_was_not_written_and_nothing_else(pair: Lab) -> None:
    on(pair, "w1", "echo kept > /var/tmp/kept; sync /var/tmp/kept")
    boot = on(pair, "w1", "cat /proc/sys/kernel/random/boot_id")
    group = pair.status().machines["w1"].pid
    # An ssh makes what it inherits non-blocking and, cut off, leaves it so: nothing of ours for it.
    nothing = subprocess.DEVNULL
    session = subprocess.Popen(pair.ssh_argv("w1", "sleep 300"), stdin=nothing, stdout=nothing, stderr=nothing)
    time.sleep(0.5)
    assert session.poll() is None
    began = time.time()
    at = pair.power_off("w1")
    assert at is not None
    assert session.wait(timeout=5) == 255, "no login outlives its machine"
    assert began <= at <= time.time()
    assert pair.power_off("w1") is None, "off already"
    off = pair.status().machines["w1"]
    assert (off.state, off.pid, off.last_exit) == ("off", None, -9)
    assert not Path(f"/proc/{group}").exists()
    assert not reaches(pair, "w2", pair.address("w1"))
    with pytest.raises(LabError, match="w1 is off"):
        pair.freeze("w1")
    with pytest.raises(LabError, match="w1 is off"):
        pair.ssh_argv("w1")
    assert pair.power_on("w1")
    assert not pair.power_on("w1"), "on already"
    assert on(pair, "w1", "cat /var/tmp/kept") == "kept"
    assert on(pair, "w1", "cat /proc/sys/kernel/random/boot_id") != boot


def test_a_reboot_from_inside_keeps_the_power_and_the_wire(pair: Lab) -> None:
    boot = on(pair, "w2", "cat /proc/sys/kernel/random/boot_id")
    before = pair.status().machines["w2"]
    on(pair, "w2", "(sleep 0.2; reboot -f -f) >/dev/null 2>&1 &")
    deadline = time.monotonic() + 60
    while True:
        assert time.monotonic() < deadline, pair.console("w2").read_text(errors="replace")[-2000:]
        options = ["-F", str(pair.ssh_config), "-o", "ControlPath=none", "-o", "ConnectTimeout=2"]
        argv = ["ssh", *options, "w2", "cat /proc/sys/kernel/random/boot_id"]
        told = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if told.returncode == 0 and told.stdout.strip() != boot:
            break
        time.sleep(0.2)
    after = pair.status().machines["w2"]
    assert (after.pid, after.boots) == (before.pid, before.boots)
    assert comes_to_reach(pair, "w2", pair.address("w1"))


def test_an_empty_machine_takes_anothers_place(pair: Lab, cli: Cli) -> None:
    on(pair, "w2", "echo kept > /root/kept; sync")
    on(pair, "w1", "echo kept > /root/kept; sync")
    before = pair.paths.known_hosts.read_text().splitlines()
    answer = cli("replace", "w2")
    assert answer.code == 0, answer.err
    assert "an empty w2 has power, SSH after" in answer.out
    assert on(pair, "w2", "hostname; test -e /root/kept && echo there || echo gone").split() == ["w2", "gone"]
    assert on(pair, "w1", "cat /root/kept") == "kept"
    after = pair.paths.known_hosts.read_text().splitlines()
    assert len(after) == len(before) == 2
    assert len(set(after) & set(before)) == 1, "w1 is who it was, w2 is another"
    assert comes_to_reach(pair, "w1", pair.address("w2"))


def test_a_machine_comes_on_request_and_goes_again(pair: Lab, cli: Cli) -> None:
    assert pair.up(["w3"], only=["w1", "w2"]).started == ["w3"]
    assert reaches(pair, "w1", pair.address("w3"))
    on(pair, "w3", "touch /root/there && sync")
    pair.cut("w3", ["w1"])
    refused = cli("remove", "w1")
    assert refused.code == ExitCode.USAGE
    assert "w1 belongs to every lab" in refused.err
    removed = cli("remove", "w3")
    assert removed.code == 0, removed.err
    assert "w3 lost power" in removed.out
    now = pair.status()
    assert set(now.machines) == {"w1", "w2"}
    assert now.cuts == []
    assert cli("remove", "w3").code == ExitCode.USAGE
    assert pair.up(["w3"], only=["w1", "w2"]).started == ["w3"]
    assert on(pair, "w3", "ls /root") == "", "an empty machine"
    pair.remove("w3")


def test_a_frozen_machine_answers_nobody_and_goes_on_as_it_was(pair: Lab) -> None:
    boot = on(pair, "w1", "cat /proc/sys/kernel/random/boot_id")
    pair.freeze("w1")
    assert pair.status().machines["w1"].state == "frozen"
    assert not reaches(pair, "w2", pair.address("w1"))
    with pytest.raises(LabError, match="frozen"):
        pair.power_on("w1", wait=False)
    pair.thaw("w1")
    assert comes_to_reach(pair, "w2", pair.address("w1"))
    assert on(pair, "w1", "cat /proc/sys/kernel/random/boot_id") == boot


def test_a_cut_from_one_peer_spares_the_others(pair: Lab) -> None:
    assert comes_to_reach(pair, "w1", pair.address("w2"))
    pair.cut("w1", ["w2"])
    assert not reaches(pair, "w1", pair.address("w2"))
    assert not reaches(pair, "w2", pair.address("w1"))
    assert reaches(pair, "w1", "10.77.0.1")
    assert pair.heal() == ["w1 cut from w2"]
    assert comes_to_reach(pair, "w1", pair.address("w2"))


LISTEN = """
import socket, time
server = socket.create_server(("10.77.0.1", 7777))
print("ready", flush=True)
peer, _ = server.accept()
while peer.recv(100):
    print(time.time(), flush=True)
"""
TALK = """
import socket, time
peer = socket.create_connection(("10.77.0.1", 7777))
while True:
    peer.send(b"x")
    time.sleep(0.05)
"""
HEAR_ONE = """
import socket
ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
ear.bind(("", 7777))
ear.settimeout(3)
print("ready", flush=True)
try:
    print(ear.recv(9).decode(), flush=True)
except TimeoutError:
    print("nothing", flush=True)
"""


def python_on(lab: Lab, node: str, program: str) -> list[str]:
    """A command line that runs PROGRAM on NODE."""
    return lab.ssh_argv(node, shlex.join(["python3", "-c", program]))


def test_a_cut_stops_a_connection_that_is_open_already(pair: Lab) -> None:
    """From w1 to a program at the host's end, over one TCP connection, there before the cut and there after it."""
    heard: list[float] = []
    ear = subprocess.Popen(pair.exec_argv("python3", "-c", LISTEN), stdout=subprocess.PIPE, text=True)
    assert ear.stdout is not None
    assert ear.stdout.readline() == "ready\n"
    nothing = subprocess.DEVNULL
    mouth = subprocess.Popen(python_on(pair, "w1", TALK), stdin=nothing, stdout=nothing, stderr=nothing)
    try:
        heard = [float(ear.stdout.readline()) for _ in range(20)]
        cut = pair.cut("w1", ["host"])
        time.sleep(2)
        pair.heal()
        while heard[-1] < cut + 2:
            heard.append(float(ear.stdout.readline()))
    finally:
        ear.kill()
        mouth.kill()
        ear.wait()
        mouth.wait()
    before = [at for at in heard if at <= cut + 0.1]
    during = [at for at in heard if cut + 0.1 < at < cut + 2]
    assert len(before) >= 20
    assert during == []


def test_one_way_loses_only_what_the_machine_sends(pair: Lab) -> None:
    pair.cut("w1", ["w2"], one_way=True)
    assert not reaches(pair, "w1", pair.address("w2"))
    for hearer, talker, arrives in (("w1", "w2", "x"), ("w2", "w1", "nothing")):
        address = pair.address(hearer)
        # the neighbour's hardware address is given: asking for it would need the way that is cut
        on(pair, talker, f"ip neigh replace {address} lladdr {NODES[hearer].mac} dev vec0 nud permanent")
        argv = python_on(pair, hearer, HEAR_ONE)
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as ear:
            assert ear.stdout is not None
            assert ear.stdout.readline() == "ready\n"
            on(pair, talker, f"bash -c 'printf x > /dev/udp/{address}/7777'")
            assert ear.stdout.readline().strip() == arrives
        on(pair, talker, f"ip neigh del {address} dev vec0")


def test_cut_from_everybody_and_heal_of_one_machine(pair: Lab) -> None:
    pair.cut("w1")
    assert not reaches(pair, "w2", pair.address("w1"))
    assert pair.heal("w2") == []
    assert not reaches(pair, "w2", pair.address("w1"))
    assert pair.heal("w1") == ["w1 cut from everybody"]
    assert comes_to_reach(pair, "w2", pair.address("w1"))


def round_trip_ms(lab: Lab, node: str, address: str) -> float:
    """Median round trip of a few pings."""
    text = on(lab, node, f"ping -c 5 -i 0.2 -W 2 {address} | sed -n 's/.*time=\\([0-9.]*\\) ms/\\1/p'")
    times = sorted(float(value) for value in text.split())
    assert times, "no ping was answered"
    return times[len(times) // 2]


def test_a_bad_wire_delays_and_loses_and_heals(pair: Lab) -> None:
    assert round_trip_ms(pair, "w2", pair.address("w1")) < 50
    pair.degrade("w1", delay_ms=100)
    assert 200 <= round_trip_ms(pair, "w2", pair.address("w1")) < 400
    assert pair.status().degraded == {"w1": {"loss_percent": 0, "delay_ms": 100}}
    pair.degrade("w1", loss_percent=100)
    assert not reaches(pair, "w2", pair.address("w1"))
    assert on(pair, "w1", "echo spared") == "spared"
    assert pair.heal() == ["w1 degraded"]
    assert round_trip_ms(pair, "w2", pair.address("w1")) < 50
    assert pair.status().degraded == {}
