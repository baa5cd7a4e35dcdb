"""A machine is cleaned, and what it shares with others is never touched: in a mount namespace, with real mounts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from plugins.module_utils import tandem_mounts as mounting
from plugins.modules import tandem_reset

ROOT = Path(__file__).resolve().parents[3]
MOUNTINFO = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 22 0:40 / /srv/tandem rw,noatime shared:9 - nfs4 10.77.0.20:/srv/nfs/tandem rw,vers=4.2
31 22 0:40 /pvc-1 /var/lib/kubelet/pods/1/volume-subpaths/a rw - nfs4 10.77.0.20:/srv/nfs/tandem rw,vers=4.2
32 22 0:50 / /var/lib/kubelet/pods/1/volumes/with\\040space rw - tmpfs tmpfs rw
33 22 8:2 / /var/lib/kubelet rw - ext4 /dev/vdb1 rw
34 22 0:60 / /var/lib/kubelet-not rw - tmpfs tmpfs rw
35 22 0:61 / /mnt/other rw - nfs4 192.0.2.9:/other rw
odd line
"""


def test_mounts_that_have_to_go() -> None:
    mounts = mounting.parse(MOUNTINFO)
    assert len(mounts) == 7
    assert [each.point for each in mounting.below(mounts, ["/var/lib/kubelet", "/etc/cni"])] == [
        "/var/lib/kubelet/pods/1/volumes/with space",
        "/var/lib/kubelet/pods/1/volume-subpaths/a",
    ], "the last one first; a file system of its own at the folder itself stays"
    assert [each.point for each in mounting.of_share(mounts, "/srv/tandem")] == [
        "/var/lib/kubelet/pods/1/volume-subpaths/a",
        "/srv/tandem",
    ], "wherever it shows, and no other server's"
    assert mounting.of_share(mounts, "/srv/none") == []


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert mounting.links(str(tmp_path / "real" / "deep")) == ""
    assert mounting.links(str(tmp_path / "link" / "deep")) == str(tmp_path / "link")
    share = str(tmp_path / "share")
    [told] = tandem_reset.refusals(share, (str(tmp_path / "link"),))
    assert "links are not followed" in told
    assert "lie in each other" in tandem_reset.refusals(share, (str(tmp_path),))[0]
    assert "lie in each other" in tandem_reset.refusals(share, (f"{share}/kubelet",))[0]
    assert tandem_reset.refusals(share, (str(tmp_path / "real"),)) == []


WRITTEN = re.compile(r"""(?:path|dest): ["']?(/(?:etc|usr|opt)/[^\s"',]+)""")
ELSEWHERE = {"nfs_server", "cluster_backup", "cluster_restore"}
"""Roles of machines that are no mere workers, which a reset refuses."""


def written() -> set[str]:
    """Every path that the roles for workers name as one that they write; the mount unit's is a variable."""
    files = [path for path in (ROOT / "roles").rglob("*") if path.suffix in {".yml", ".j2"}]
    mine = [path for path in files if path.relative_to(ROOT / "roles").parts[0] not in ELSEWHERE]
    return {found for path in mine for found in WRITTEN.findall(path.read_text()) if not found.endswith("/{{")}


def test_all_that_the_roles_write_goes_or_is_named_as_left() -> None:
    paths = written()
    assert "/etc/systemd/system/tandem-virtual-ip.service" in paths
    assert len(paths) > 20
    known = (*tandem_reset.FOLDERS, *tandem_reset.FILES, *tandem_reset.LEFT)
    assert [path for path in sorted(paths) if not any(mounting.inside(path, each) for each in known)] == []


def test_every_unit_that_the_roles_write_is_disabled() -> None:
    units = {path.name for each in written() if (path := Path(each)).parent == Path(tandem_reset.UNITS)}
    assert units == set(tandem_reset.DISABLED)


def process(proc: Path, pid: int, cwd: str, *, group: str = "0::/user.slice", files: tuple[str, ...] = ()) -> None:
    folder = proc / str(pid)
    (folder / "fd").mkdir(parents=True)
    (folder / "cgroup").write_text(group)
    (folder / "comm").write_text("sh\n")
    (folder / "cwd").symlink_to(cwd)
    (folder / "root").symlink_to("/")
    for number, target in enumerate(files):
        (folder / "fd" / str(number)).symlink_to(target)


def test_processes_on_the_share_that_are_in_no_pod(tmp_path: Path) -> None:
    process(tmp_path, 1, "/")
    process(tmp_path, 7, "/srv/tandem/pvc-1")
    process(tmp_path, 8, "/", files=("/dev/null", "/srv/tandem/file (deleted)"))
    process(tmp_path, 9, "/srv/tandem", group="0::/kubepods.slice/kubepods-pod1.slice/cri-1")
    process(tmp_path, 10, "/srv/tandem-other")
    (tmp_path / "11").mkdir()  # one that just ended
    assert mounting.busy("/srv/tandem", tmp_path) == ["7 (sh)", "8 (sh)"]


def test_a_tree_goes_and_what_its_links_lead_to_stays(tmp_path: Path) -> None:
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("data")
    (tmp_path / "tree" / "deep" / "link").symlink_to(tmp_path / "kept")
    assert mounting.remove_tree(str(tmp_path / "tree"))
    assert not (tmp_path / "tree").exists()
    assert (tmp_path / "kept" / "file").read_text() == "data"
    assert not mounting.remove_tree(str(tmp_path / "tree"))


def test_two_that_remove_the_same_folder_both_end_well(tmp_path: Path) -> None:
    for folder in range(40):
        for file in range(20):
            path = tmp_path / "tree" / str(folder) / str(file)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(mounting.remove_tree, [str(tmp_path / "tree")] * 4))
    assert not (tmp_path / "tree").exists()


MACHINE = """
import subprocess, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tests import ansible_modules
from plugins.module_utils import tandem_mounts
from plugins.modules import tandem_reset
top = Path(sys.argv[1])
server, share, kubelet = top / "server", top / "share", top / "kubelet"
pod = kubelet / "pods" / "1"
for folder in (server / "pvc-1", share, pod / "shared", pod / "local", top / "own"):
    folder.mkdir(parents=True)
(server / "pvc-1" / "record").write_text("data")
(top / "own" / "file").write_text("data")
def mount(*argv):
    subprocess.run(["mount", *argv], check=True)
mount("--bind", server, share)
mount("--bind", server / "pvc-1", kubelet / "pods" / "1" / "shared")
mount("--bind", top / "own", kubelet / "pods" / "1" / "local")
tandem_reset.FOLDERS, tandem_reset.FILES, tandem_reset.CGROUPS = (str(kubelet),), (), top / "cgroups"
tandem_reset.UNITS = str(top / "units")
stopped = []
tandem_reset.stop = stopped.append
plain = tandem_reset.run
tandem_reset.run = lambda *argv, **how: plain(*argv, **how) if argv[0] == "umount" else stopped.append(argv)
def whole():
    assert (server / "pvc-1" / "record").read_text() == "data"
    assert (top / "own" / "file").read_text() == "data"
def mounted():
    return [each.point for each in tandem_reset.mounts() if each.point.startswith(str(top))]
def reset():
    return tandem_reset.reset(str(share), "share.mount", 5)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
@pytest.mark.parametrize(
    "what",
    [
        pytest.param(
            """
            plan = tandem_reset.plan(str(share))
            assert plan["changed"] and len(mounted()) == 3
            assert reset()["changed"]
            assert not kubelet.exists() and mounted() == [] and share.is_dir()
            whole()
            assert stopped[:2] == ["tandem-virtual-ip.service", "kubelet.service"], "the address is let go first"
            assert ("systemctl", "disable", "--now", "tandem-virtual-ip.service") in stopped
            assert not reset()["changed"], "a second run finds nothing"
            """,
            id="clean",
        ),
        pytest.param(
            """
            child = subprocess.Popen(["sleep", "60"], cwd=kubelet / "pods" / "1" / "shared")
            try:
                reset()
                raise SystemExit("it did not notice")
            except tandem_reset.ResetError as error:
                assert "nothing has been removed" in str(error), error
            finally:
                child.kill(); child.wait()
            assert (kubelet / "pods" / "1").is_dir()
            whole()
            reset()
            whole()
            assert not kubelet.exists(), "it goes on from there"
            """,
            id="busy",
        ),
        pytest.param(
            """
            child = subprocess.Popen(["sleep", "60"], cwd=share)
            [told] = tandem_reset.refusals(str(share), (str(kubelet),))
            child.kill(); child.wait()
            assert f"in use by {child.pid} (sleep)" in told, told
            """,
            id="in-use",
        ),
        pytest.param(
            """
            mount("--types", "tmpfs", "tmpfs", kubelet / "pods" / "1")
            (kubelet / "pods" / "1" / "late").write_text("data")
            try:
                tandem_mounts.remove_tree(str(kubelet))
                raise SystemExit("it crossed")
            except tandem_mounts.CrossingError as error:
                assert str(kubelet / "pods" / "1") in str(error), error
            assert (kubelet / "pods" / "1" / "late").read_text() == "data"
            """,
            id="crossing",
        ),
        pytest.param(
            """
            subprocess.run(["umount", pod / "shared"], check=True)
            subprocess.run(["umount", pod / "local"], check=True)
            mount("--types", "tmpfs", "tmpfs", kubelet)
            (kubelet / "pods").mkdir()
            assert reset()["changed"]
            assert mounted() == [str(kubelet)] and list(kubelet.iterdir()) == []
            assert not reset()["changed"]
            whole()
            """,
            id="a-file-system-of-its-own",
        ),
        pytest.param(
            """
            tandem_reset.unmount = lambda point, seconds: None
            try:
                reset()
                raise SystemExit("it did not look again")
            except tandem_reset.ResetError as error:
                assert "still mounted" in str(error) and str(share) in str(error), error
            assert (kubelet / "pods" / "1" / "shared" / "record").exists()
            whole()
            """,
            id="unmounted-in-words-only",
        ),
    ],
)
def test_on_a_machine_with_mounts(what: str, tmp_path: Path) -> None:
    program = MACHINE + textwrap.dedent(what)
    argv = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
