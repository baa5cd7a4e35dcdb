"""Where a lab keeps what it writes."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

#: Longest path of a unix socket is 107 bytes; ssh appends a dot and 16 characters while it makes one,
#: and the longest node name has 4.
_LONGEST_CONTROL_FOLDER = 107 - 17 - 5


def state_root() -> Path:
    """The folder that holds one folder per lab: TANDEM_LAB_STATE, else below XDG_STATE_HOME."""
    given = os.environ.get("TANDEM_LAB_STATE")
    if given:
        return Path(given).absolute()
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state").absolute() / "tandem-lab"


@dataclass(frozen=True)
class LabPaths:
    """Every path of the lab called `name` below `root`."""

    root: Path
    name: str

    @classmethod
    def of(cls, name: str) -> LabPaths:
        """Paths of the lab NAME below the state root of the environment."""
        return cls(state_root(), name)

    @property
    def folder(self) -> Path:
        """All of the lab's state; `down` removes it."""
        return self.root / self.name

    @property
    def lock(self) -> Path:
        """Held by a command that starts or ends this lab. Beside the folder, since `down` removes the folder."""
        return self.root / f"{self.name}.lock"

    @property
    def state(self) -> Path:
        """Who the supervisor is (lab.runtime.state)."""
        return self.folder / "state.json"

    @property
    def spec(self) -> Path:
        """What the supervisor was asked to run."""
        return self.folder / "spec.json"

    @property
    def control_socket(self) -> Path:
        """The supervisor's ear, mode 0600."""
        return self.folder / "control.sock"

    @property
    def supervisor_log(self) -> Path:
        """What the supervisor and its services say."""
        return self.folder / "supervisor.log"

    @property
    def disks(self) -> Path:
        """Copy-on-write files."""
        return self.folder / "disks"

    @property
    def consoles(self) -> Path:
        """Console logs."""
        return self.folder / "consoles"

    @property
    def ssh_config(self) -> Path:
        """For `ssh -F`."""
        return self.folder / "ssh_config"

    @property
    def known_hosts(self) -> Path:
        """Host keys pinned on first contact."""
        return self.folder / "known_hosts"

    @property
    def ssh_key(self) -> Path:
        """The lab's own private key."""
        return self.folder / "id_ed25519"

    @property
    def connector(self) -> Path:
        """Copy of lab/runtime/connect.py, ssh's ProxyCommand."""
        return self.folder / "connect.py"

    @property
    def reboot(self) -> Path:
        """Executable copy of lab/runtime/reboot.py, what a machine's kernel runs when its guest reboots."""
        return self.folder / "reboot"

    @property
    def control_masters(self) -> Path:
        """Folder of ssh's shared connections: below the lab's own, or a short one if that path is too long."""
        inside = self.folder / "cm"
        if len(os.fsencode(inside)) <= _LONGEST_CONTROL_FOLDER:
            return inside
        digest = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"tandem-lab-{os.getuid()}-{digest}"

    def disk(self, node: str) -> Path:
        """Copy-on-write file of NODE."""
        return self.disks / f"{node}.cow"

    def console(self, node: str) -> Path:
        """Console log of NODE."""
        return self.consoles / f"{node}.log"
