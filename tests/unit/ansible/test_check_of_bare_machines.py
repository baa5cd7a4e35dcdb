"""`site.yml --check` on machines that hold nothing yet: it ends well, says what would follow, and writes nothing.

The machines are this one, four times: with mounts and network of its own, and every write into a layer that goes again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
ADDRESSES = {"cp": "10.0.0.10", "a": "10.0.0.11", "b": "10.0.0.12", "n": "10.0.0.20"}
SCRIPT = """
set -e
folder=$1 root=$2; shift 2
mount --make-rprivate /
mount -t tmpfs tmpfs "$folder"
mkdir "$folder/written" "$folder/work" "$folder/machine"
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/written,workdir=$folder/work" "$folder/machine"
mount -t proc proc "$folder/machine/proc"
mount --rbind /dev "$folder/machine/dev"
mount --rbind /sys "$folder/machine/sys"
mount -t tmpfs tmpfs "$folder/machine/run"
ip link set lo up
for address in 10.0.0.10 10.0.0.11 10.0.0.12 10.0.0.20; do ip address add "$address/24" dev lo; done
"$PYTHON" -m http.server 8080 --bind 127.0.0.1 --directory "$root/roles" >/dev/null 2>&1 &
sleep 1
chroot "$folder/machine" sh -c 'cd "$0" && "$@"' "$root" "$@"
kill %1
echo "written:" $(find "$folder/written/etc" "$folder/written/usr" "$folder/written/srv" -type f 2>/dev/null)
"""


def inventory() -> dict[str, Any]:
    """Three nodes and an NFS server, with repositories whose keys can be had here."""
    groups = {"control_plane": ["cp"], "workers": ["a", "b"], "nfs_server": ["n"]}
    repository = {"url": "http://127.0.0.1:8080/", "suite": "/", "key": "http://127.0.0.1:8080/preflight/meta/main.yml"}
    variables = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "tandem_kubeconfig": "/nowhere/admin.conf",
        "tandem_kubernetes_repository": repository,
        "tandem_containerd_repository": repository,
        "preflight_supported_systems": [{"id": "debian", "version": 1}, {"id": "ubuntu", "version": 1}],
        "preflight_max_skew_seconds": 600,
    }
    children = {
        group: {"hosts": {name: {"tandem_address": ADDRESSES[name]} for name in names}}
        for group, names in groups.items()
    }
    return {"all": {"vars": variables, "children": children}}


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.skipif(os.geteuid() != 0, reason="makes mounts and a network of its own")
def test_it_ends_well_and_writes_nothing(tmp_path: Path) -> None:
    hosts, folder = tmp_path / "hosts.yml", tmp_path / "layer"
    hosts.write_text(yaml.safe_dump(inventory()))
    folder.mkdir()
    playbook = [
        str(Path(sys.executable).with_name("ansible-playbook")),
        "--inventory",
        str(hosts),
        "site.yml",
        "--check",
    ]
    done = subprocess.run(
        ["unshare", "--mount", "--net", "bash", "-c", SCRIPT, "bash", str(folder), str(ROOT), *playbook],
        env={**os.environ, "PYTHON": sys.executable, "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    told = " ".join(done.stdout.split())
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert "kubeadm would begin one on cp, and a, b would join" in told
    assert "would be installed from repositories that are not set up yet" in told
    assert "failed=1" not in told
    assert told.endswith("written:")
