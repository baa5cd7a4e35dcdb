#!/usr/bin/python
"""Ansible module: the NFS server refuses a node, or takes it again; verified, kept over reboots, safe to repeat."""

from __future__ import annotations

import ipaddress
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.tandem_fencing import (
    FOLDER,
    LIFTED,
    PORT,
    REFUSED,
    REFUSING,
    RULES,
    TABLE,
    FenceError,
    belongs,
    clients,
    connections,
    covered,
    live_addresses,
    read_record,
    refused_addresses,
    ruleset,
    write_file,
    write_record,
)

DOCUMENTATION = """
module: tandem_fence
short_description: Makes a kernel NFS server refuse a node, and proves it
description:
  - Runs on the NFS server. With C(state=refused), writes down the node with its addresses and boot id, drops its
    packets to the share in an nftables table of our own, withdraws its exports, ends its TCP connections, expires its
    sessions, and fails unless all of that is seen to hold. A systemd unit, without which the NFS server does not start,
    loads the table at boot. What a broken-off run wrote down is kept, the boot id of the first attempt above all.
  - Before it changes anything it makes sure that one of C(heirs) is not refused itself, and fails with what stands in
    C(unless_refused) when the node is not refused already.
  - With C(state=prepared), installs that unit alone, so that a release need not.
  - With C(state=lifted), lets its packets pass again and keeps the record; with C(state=absent), removes the record.
  - With C(state=read), only tells. Supports check mode.
options:
  node:
    description: Name of the node.
    type: str
    default: ''
  state:
    description: What to do.
    type: str
    choices: [read, prepared, refused, lifted, absent]
    default: read
  addresses:
    description: IPv4 addresses and networks of the node. Those from which it is connected are found besides.
    type: list
    elements: str
    default: []
  boot_id:
    description: The node's boot id as the cluster knows it. It has to be another one before the node is taken back.
    type: str
    default: ''
  heirs:
    description: Workers that can take the node's pods over. When all of them are refused, nothing is changed.
    type: list
    elements: str
    default: []
  unless_refused:
    description: What forbids a release that has not begun yet, as sentences.
    type: list
    elements: str
    default: []
  by:
    description: Who refuses it, for the record.
    type: str
    default: ''
  port:
    description: Port of the NFS server.
    type: int
    default: 2049
  timeout_seconds:
    description: How long the kernel may take to expire one client. It waits for requests that are being served.
    type: int
    default: 10
author: Tandem
"""

EXAMPLES = """
- name: The NFS server refuses the node
  tandem_fence:
    node: w1
    state: refused
    addresses: [192.0.2.11]
    boot_id: "{{ plan.boot_id }}"
"""

RETURN = """
nodes:
  description: The record, by node.
  returned: always
  type: dict
seen:
  description: For the node, whether the rule is live, and its clients, connections and bytes that wait in them.
  returned: when a node is named
  type: dict
clients:
  description: All clients of the server.
  returned: always
  type: list
"""

CLIENTS = "/proc/fs/nfsd/clients"
SYSTEM_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
UNIT = "tandem-fence.service"
UNITS = "/etc/systemd/system"
POLL_SECONDS = 0.1
QUEUE_SECONDS = 3.0
"""How long requests that the server has received may still wait to be read, on a kernel that cannot end connections."""


def program(name: str) -> str:
    """Path of a system program.

    Raises:
        FenceError: it is not installed.
    """
    found = shutil.which(name, path=SYSTEM_PATH)
    if found is None:
        raise FenceError(f"{name} is not installed on the NFS server; way out: playbooks/storage.yml installs it")
    return found


def run(*argv: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
    """A command, its output kept."""
    return subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)


def unit_files(nft: str, folder: Path) -> dict[str, str]:
    """Systemd's side: the table is loaded before the NFS server starts, and again when somebody flushes all tables."""
    load = f"{nft} -f {folder / RULES}"
    return {
        f"{UNITS}/{UNIT}": f"""\
# Written when a node was released (playbooks/release-node.yml). Without it the NFS server does not start: a node that
# is refused stays refused over reboots.
[Unit]
Description=Nodes that the NFS server refuses
DefaultDependencies=no
Conflicts=shutdown.target
After=local-fs.target nftables.service
Before=nfs-server.service shutdown.target
ConditionPathExists={folder / RULES}

[Service]
Type=oneshot
ExecStart={load}

[Install]
RequiredBy=nfs-server.service
""",
        f"{UNITS}/nftables.service.d/tandem-fence.conf": f"""\
# A start or reload of this service flushes every table, the one that refuses released nodes too.
[Service]
ExecStartPost=-{load}
ExecReload=-{load}
""",
    }


def persisted(nft: str, folder: Path) -> bool:
    """Whether the table comes back at boot."""
    files = unit_files(nft, folder).items()
    same = all(Path(path).exists() and Path(path).read_text(encoding="utf-8") == text for path, text in files)
    return same and Path(f"{UNITS}/nfs-server.service.requires/{UNIT}").is_symlink()


def persist(nft: str, folder: Path) -> bool:
    """Make the table come back at boot; whether anything had to change.

    Raises:
        FenceError: systemd refused.
    """
    if persisted(nft, folder):
        return False
    for path, text in unit_files(nft, folder).items():
        write_file(Path(path), text)
    done = run("systemctl", "enable", UNIT)
    if done.returncode:
        raise FenceError(f"{UNIT} cannot be enabled: {done.stderr.strip()}")
    return True


def prepare(parameters: dict[str, Any], folder: Path, *, check_mode: bool) -> dict[str, Any]:
    """Install systemd's side ahead of any release.

    Raises:
        FenceError: systemd refused, or there is no packet filter.
        OSError: a unit could not be written.
    """
    record = read_record(folder)
    if check_mode:
        nft = shutil.which("nft", path=SYSTEM_PATH)
        return {"changed": nft is None or not persisted(nft, folder), "nodes": record["nodes"]}
    return {"changed": persist(program("nft"), folder), "nodes": record["nodes"]}


def load(nft: str, record: dict[str, Any], folder: Path, port: int) -> None:
    """Put the table in place, at once and on the disk.

    Raises:
        FenceError: nft refused.
    """
    write_file(folder / RULES, ruleset(refused_addresses(record), port))
    done = run(nft, "-f", str(folder / RULES))
    if done.returncode:
        raise FenceError(f"nft refused {folder / RULES}: {done.stderr.strip()}")


def live(nft: str, port: int) -> list[str]:
    """Whom the kernel's table refuses now."""
    found: list[str] = live_addresses(run(nft, "--json", "list", "table", "inet", TABLE).stdout, port)
    return found


def unexport(addresses: list[str]) -> None:
    """Withdraw exports made to exactly these addresses: a second refusal, should somebody flush the packet filter."""
    exportfs = shutil.which("exportfs", path=SYSTEM_PATH)
    for line in run(exportfs, "-s").stdout.splitlines() if exportfs else []:
        path, _, client = line.partition("  ")
        name = client.partition("(")[0].strip()
        if exportfs and name in addresses:
            run(exportfs, "-u", f"{name}:{path.strip()}")


def expire(client: str, seconds: float) -> bool:
    """Tell the kernel to forget a client; False when it did not come back in time (it may hang for good in there)."""
    process = subprocess.Popen(
        ["sh", "-c", 'echo expire >"$1"', "sh", f"{CLIENTS}/{client}/ctl"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def see(nft: str, node: str, addresses: list[str], port: int) -> dict[str, Any]:
    """What of the node there is on the server now."""
    open_now = connections(addresses, port)
    return {
        "rule": covered(addresses, live(nft, port)),
        "clients": [each for each in clients(CLIENTS) if belongs(each, node, addresses)],
        "connections": len(open_now),
        "queued": sum(each["queued"] for each in open_now),
    }


def end(seen: dict[str, Any], addresses: list[str], port: int, seconds: float) -> list[str]:
    """End what of the node there is: connections first, so that nobody waits for their answers; what would not go."""
    if seen["connections"] and shutil.which("ss"):
        for address in addresses:
            run("ss", "--kill", "--tcp", "state", "established", "dst", address, "sport", "=", f":{port}")
    stuck = [client for client in seen["clients"] if not expire(client["id"], seconds)]
    return [f"the kernel did not expire client {each['id']} ({each['name']}) in {seconds:g} s" for each in stuck]


def wanted_entry(record: dict[str, Any], parameters: dict[str, Any], addresses: list[str]) -> dict[str, Any]:
    """What the record is to say of the node: a broken-off attempt's entry with new addresses, or a new one.

    The boot id of the first attempt stays: a node that booted in between is taken back by that alone.
    """
    before = record["nodes"].get(parameters["node"])
    if before is not None and before["phase"] != LIFTED:
        return {**before, "addresses": sorted({*before["addresses"], *addresses})}
    return {
        "epoch": record["epoch"] + 1,
        "phase": REFUSING,
        "addresses": sorted(addresses),
        "boot_ids": [parameters["boot_id"]],
        "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "by": parameters["by"],
    }


def forbidding(parameters: dict[str, Any], nodes: dict[str, Any]) -> list[str]:
    """What of the record forbids a release, as sentences; empty when nothing does."""
    refused = {name for name, entry in nodes.items() if entry["phase"] != LIFTED}
    found = [] if parameters["node"] in refused else list(parameters["unless_refused"])
    if parameters["heirs"] and refused.issuperset(parameters["heirs"]):
        found.append(
            f"node {parameters['node']}: other workers is {', '.join(parameters['heirs'])}: refused by the NFS server "
            "itself; rule: one that is Ready, schedulable and not refused itself takes the pods over; way out: bring "
            "one of them back first"
        )
    return found


def refuse(parameters: dict[str, Any], folder: Path, *, check_mode: bool) -> dict[str, Any]:
    """Refuse a node, and prove it.

    Raises:
        FenceError: it is not proven; what holds so far stays, and the same call goes on from there.
        OSError: the record or a unit could not be written.
    """
    nft, port, node = program("nft"), parameters["port"], parameters["node"]
    record = read_record(folder)
    forbidden = forbidding(parameters, record["nodes"])
    if forbidden:
        raise FenceError("\n".join(["Nothing has been changed. The release is refused:", *forbidden]))
    addresses = list(parameters["addresses"])
    named = [each["address"] for each in clients(CLIENTS) if belongs(each, node, [])]
    try:
        addresses = sorted({str(ipaddress.IPv4Network(each)) for each in [*addresses, *named]})
    except ValueError as error:
        raise FenceError(f"{node}: {error}; rule: nodes reach the share by IPv4; nothing has been changed") from error
    addresses = [each.removesuffix("/32") for each in addresses]
    if not addresses or not parameters["boot_id"]:
        raise FenceError(f"{node}: an address and a boot id are needed; nothing has been changed")
    entry = wanted_entry(record, parameters, addresses)
    addresses = entry["addresses"]
    before = record["nodes"].get(node)
    if check_mode:
        seen = see(nft, node, addresses, port)
        held = before == entry and entry["phase"] == REFUSED and seen["rule"] and not seen["clients"]
        return {"changed": not held, "nodes": {**record["nodes"], node: entry}, "seen": seen}
    changed = before != entry
    record = {"epoch": max(record["epoch"], entry["epoch"]), "nodes": {**record["nodes"], node: entry}}
    if changed:
        write_record(record, folder)
    if not covered(addresses, live(nft, port)) or not (folder / RULES).exists() or changed:
        load(nft, record, folder, port)
        changed = True
    changed = persist(nft, folder) or changed
    unexport(addresses)
    seen, problems, tried = see(nft, node, addresses, port), [], False
    if seen["clients"] or seen["connections"]:
        problems = end(seen, addresses, port, parameters["timeout_seconds"])
        seen, tried, changed = see(nft, node, addresses, port), True, True
    until = time.monotonic() + QUEUE_SECONDS
    while tried and seen["queued"] and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
        seen = see(nft, node, addresses, port)
    problems += [] if seen["rule"] else [f"the table inet {TABLE} does not drop all of {', '.join(addresses)}"]
    problems += [f"client {each['id']} ({each['name']}) is still known" for each in seen["clients"]]
    problems += [f"{seen['queued']} bytes of its requests wait to be served"] if seen["queued"] else []
    if problems:
        raise FenceError(
            f"{node} is not refused for certain: {'; '.join(problems)}. Its packets are dropped where the rule "
            "holds; no pod has been deleted; way out: run the same playbook again, it goes on from here"
        )
    if entry["phase"] != REFUSED:
        entry = {**entry, "phase": REFUSED}
        write_record({**record, "nodes": {**record["nodes"], node: entry}}, folder)
        changed = True
    return {"changed": changed, "nodes": {**record["nodes"], node: entry}, "seen": seen}


def lift(parameters: dict[str, Any], folder: Path, *, check_mode: bool) -> dict[str, Any]:
    """Let a node's packets pass again; its record stays until `forget`.

    Raises:
        FenceError: nft refused, or the table still drops them.
        OSError: the record could not be written.
    """
    record, node = read_record(folder), parameters["node"]
    entry = record["nodes"].get(node)
    if entry is None:
        return {"changed": False, "nodes": record["nodes"]}
    nft, port = program("nft"), parameters["port"]
    wanted = {**record, "nodes": {**record["nodes"], node: {**entry, "phase": LIFTED}}}
    holds = [each for each in entry["addresses"] if covered([each], live(nft, port))]
    changed = entry["phase"] != LIFTED or bool(holds)
    if changed and not check_mode:
        write_record(wanted, folder)
        load(nft, wanted, folder, port)
        if exportfs := shutil.which("exportfs", path=SYSTEM_PATH):
            run(exportfs, "-ra")
        if any(
            covered([each], live(nft, port)) for each in entry["addresses"] if each not in refused_addresses(wanted)
        ):
            raise FenceError(f"{node}: the table inet {TABLE} still drops its packets; way out: run it again")
    return {"changed": changed, "nodes": wanted["nodes"]}


def forget(parameters: dict[str, Any], folder: Path, *, check_mode: bool) -> dict[str, Any]:
    """Remove a node's record.

    Raises:
        FenceError: it is refused still.
        OSError: the record could not be written.
    """
    record, node = read_record(folder), parameters["node"]
    entry = record["nodes"].get(node)
    if entry is None:
        return {"changed": False, "nodes": record["nodes"]}
    if entry["phase"] != LIFTED and not check_mode:
        raise FenceError(f"{node} is refused still; its record goes only after that; nothing has been changed")
    nodes = {name: each for name, each in record["nodes"].items() if name != node}
    if not check_mode:
        write_record({**record, "nodes": nodes}, folder)
    return {"changed": True, "nodes": nodes}


def tell(parameters: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The record, and what of a refused node there is.

    Raises:
        FenceError: the record cannot be read.
    """
    record, nft = read_record(folder), program("nft")
    result: dict[str, Any] = {"changed": False, "nodes": record["nodes"]}
    entry = record["nodes"].get(parameters["node"])
    if entry is not None:
        result["seen"] = see(nft, parameters["node"], entry["addresses"], parameters["port"])
    return result


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "node": {"type": "str", "default": ""},
            "state": {"type": "str", "choices": ["read", "prepared", "refused", "lifted", "absent"], "default": "read"},
            "addresses": {"type": "list", "elements": "str", "default": []},
            "boot_id": {"type": "str", "default": ""},
            "heirs": {"type": "list", "elements": "str", "default": []},
            "unless_refused": {"type": "list", "elements": "str", "default": []},
            "by": {"type": "str", "default": ""},
            "port": {"type": "int", "default": PORT},
            "timeout_seconds": {"type": "int", "default": 10},
        },
        supports_check_mode=True,
    )
    folder, parameters = Path(FOLDER), module.params
    if parameters["state"] not in ("read", "prepared") and not parameters["node"]:
        module.fail_json(msg="node is empty; rule: the name of one node; nothing has been changed")
    try:
        if parameters["state"] == "read":
            result = tell(parameters, folder)
        else:
            act = {"prepared": prepare, "refused": refuse, "lifted": lift, "absent": forget}[parameters["state"]]
            result = act(parameters, folder, check_mode=module.check_mode)
    except FenceError as error:
        module.fail_json(msg=str(error))
    except (OSError, subprocess.TimeoutExpired) as error:
        module.fail_json(
            msg=f"{parameters['node']}: {error}; way out: run the same playbook again, it goes on from here"
        )
    module.exit_json(**result, clients=clients(CLIENTS))


if __name__ == "__main__":
    main()
