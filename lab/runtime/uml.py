"""The command line of a User Mode Linux machine."""

from __future__ import annotations

import base64
from pathlib import Path

from lab.runtime.errors import LabError
from lab.runtime.plan import GATEWAY, PREFIX_LENGTH, Node

#: UML splits `ubd0=` at these, and the kernel its command line at white space.
_FORBIDDEN = ",:"


def check_path(path: Path) -> Path:
    """PATH, if UML can take it.

    Raises:
        LabError: the path holds a character that ends an argument of UML.
    """
    text = str(path)
    if any(c in _FORBIDDEN or c.isspace() for c in text):
        raise LabError(f"{text!r} holds a comma, colon or space, which User Mode Linux cannot take in a disk's path")
    return path


def command_line(node: Node, *, reboot: Path, disk: Path, base_image: Path, authorized_key: str) -> list[str]:
    """Arguments that boot NODE.

    Args:
        node: the machine.
        reboot: argv[0], which the kernel executes when the guest reboots (lab.runtime.reboot).
        disk: its copy-on-write file; UML makes it if absent.
        base_image: the ext4 image below it, shared by all machines and never written.
        authorized_key: line for root's authorized_keys; carried base64, since it holds spaces.

    `seccomp=auto` takes the fast way to run user code where the kernel has it (6.16 and later). The console goes to
    standard output and takes no input. `depth` and `gro` are the vector driver's queue; SMP is left off, for it made
    fork and exec seven times slower and panics with a tap.
    """
    key = base64.b64encode(authorized_key.encode()).decode()
    return [
        str(reboot),
        f"ubd0={check_path(disk)},{check_path(base_image)}",
        "root=/dev/ubda",
        "rw",
        f"mem={node.memory_mib}M",
        f"vec0:transport=tap,ifname={node.tap},depth=128,gro=1,mac={node.mac}",
        "con0=null,fd:1",
        "con=null",
        f"umid={node.name}",
        "seccomp=auto",
        "net.ifnames=0",
        "quiet",
        f"lab.ip={node.address}/{PREFIX_LENGTH}",
        f"lab.gw={GATEWAY}",
        f"lab.name={node.name}",
        f"lab.sshkey={key}",
    ]


def panic_of(console: str) -> str:
    """What the kernel said when it panicked, from the console's text of this boot; empty if it did not."""
    _, found, rest = console.rpartition("Kernel panic - not syncing: ")
    return rest.splitlines()[0].strip() if found and rest else ""
