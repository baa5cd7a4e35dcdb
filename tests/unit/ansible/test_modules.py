"""The modules' own logic, without a machine."""

from __future__ import annotations

import shutil
import signal
import stat
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.tandem_kube import KubeError

from plugins.inventory import tandem_lab
from plugins.module_utils import tandem_processes
from plugins.modules import tandem_cluster, tandem_files, tandem_gate, tandem_node
from tests.conftest import wait_until


def item(path: Path, **changes: Any) -> dict[str, Any]:
    return {"path": str(path), "content": "", "block": "", "mode": "0644", "state": "present", "topic": "", **changes}


def test_a_file_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    wanted = item(path, content="text\n", mode="0600")
    diff = tandem_files.apply(wanted, False)
    assert diff is not None
    assert diff["after"] == "text\n"
    assert path.read_text() == "text\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert tandem_files.apply(wanted, False) is None
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_check_mode_tells_and_leaves(tmp_path: Path) -> None:
    assert tandem_files.apply(item(tmp_path / "file", content="text"), True) is not None
    assert not (tmp_path / "file").exists()


def test_a_mode_alone_is_a_change(tmp_path: Path) -> None:
    path = tmp_path / "file"
    tandem_files.apply(item(path, content="x", mode="0644"), False)
    assert tandem_files.apply(item(path, content="x", mode="0600"), False) is not None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_goes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    assert tandem_files.apply(item(path, state="absent"), False) is not None
    assert not path.exists()
    assert tandem_files.apply(item(path, state="absent"), False) is None


def test_a_block_lives_in_a_file_of_others(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("127.0.0.1 localhost")
    path.chmod(0o640)
    tandem_files.apply(item(path, block="tandem", content="10.0.0.1 a\n"), False)
    assert path.read_text() == "127.0.0.1 localhost\n# BEGIN tandem\n10.0.0.1 a\n# END tandem\n"
    path.write_text(path.read_text() + "10.9.9.9 theirs\n")
    tandem_files.apply(item(path, block="tandem", content="10.0.0.2 b\n"), False)
    assert path.read_text() == "127.0.0.1 localhost\n# BEGIN tandem\n10.0.0.2 b\n# END tandem\n10.9.9.9 theirs\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert tandem_files.apply(item(path, block="tandem", content="10.0.0.2 b\n"), False) is None
    tandem_files.apply(item(path, block="tandem", state="absent"), False)
    assert path.read_text() == "127.0.0.1 localhost\n10.9.9.9 theirs\n"


def test_half_a_block_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("# BEGIN tandem\nx\n")
    with pytest.raises(ValueError, match="does not end"):
        tandem_files.apply(item(path, block="tandem", content="y"), False)


class Files:
    """Calls of the module tandem_files, each a run of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, pending: Path) -> None:
        monkeypatch.setattr(tandem_files, "PENDING", pending)
        monkeypatch.setattr(tandem_files, "AnsibleModule", lambda **_: self)
        self.params: dict[str, Any] = {}
        self.check_mode = False
        self.answer: dict[str, Any] = {}

    def exit_json(self, **answer: Any) -> None:
        self.answer = answer

    def fail_json(self, **answer: Any) -> None:
        raise OSError(answer["msg"])

    def __call__(self, *files: dict[str, Any], role: str = "role", acted: Any = (), check: bool = False) -> list[str]:
        """Topics that the module returns."""
        self.params, self.check_mode = {"files": [*files], "remember": role, "acted": [*acted]}, check
        tandem_files.main()
        return list(self.answer["topics"])


@pytest.fixture(name="files")
def _files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Files:
    return Files(monkeypatch, tmp_path / "pending")


def test_a_topic_waits_until_somebody_acted_on_it(files: Files, tmp_path: Path) -> None:
    unit, other = item(tmp_path / "unit", content="x", topic="unit"), item(tmp_path / "other", topic="other")
    assert files(unit) == ["unit"]
    # That run ended here: in the next ones the file is as it is to be.
    assert files(unit, other, check=True) == ["unit", "other"]
    assert files(unit, other) == ["unit", "other"]
    assert files.answer["paths"] == [other["path"]]
    assert files(unit, other) == ["unit", "other"]
    assert files.answer["changed"] is False
    assert files(acted=["unit", "other"]) == []
    assert files.answer["changed"] is False
    assert files(unit, other) == []


def test_check_mode_leaves_no_mark_and_takes_none_away(files: Files, tmp_path: Path) -> None:
    unit = item(tmp_path / "unit", content="x", topic="unit")
    assert files(unit, check=True) == ["unit"]
    assert not (tmp_path / "pending").exists()
    files(unit)
    files(acted=["unit"], check=True)
    assert files(unit) == ["unit"]


def test_the_mark_is_there_before_the_file(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    unit = item(tmp_path / "unit", content="x", topic="unit")
    with monkeypatch.context() as patched:
        patched.setattr(tandem_files, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            files(unit)
    assert not (tmp_path / "unit").exists()
    (tmp_path / "unit").write_text("x")
    assert files(unit) == ["unit"]


def test_marks_are_of_one_role_and_only_where_asked_for(files: Files, tmp_path: Path) -> None:
    unit = item(tmp_path / "unit", content="x", topic="unit")
    assert files(unit, role="") == ["unit"]
    assert not (tmp_path / "pending").exists()
    unit["content"] = "y"
    files(unit, role="one")
    assert files(unit, role="two") == []
    assert files(unit, role="one") == ["unit"]


def test_a_mark_that_cannot_be_left_leaves_the_file_alone(files: Files, tmp_path: Path) -> None:
    (tmp_path / "pending").write_text("in the way")
    with pytest.raises(OSError, match="pending"):
        files(item(tmp_path / "unit", content="x", topic="unit"))
    assert not (tmp_path / "unit").exists()


@pytest.mark.parametrize("path", ["/etc/kubernetes/manifests/x.yaml", "/etc/kubernetes/tandem/../manifests/x.bak"])
def test_the_static_pod_directory_is_out_of_bounds(path: str) -> None:
    with pytest.raises(ValueError, match="static pod directory"):
        tandem_files.apply(item(Path(path), content="x"), True)


def test_flags_of_a_running_process() -> None:
    assert tandem_processes.flag_values(["--a=1", "--b", "--c=x=y", "--d=1", "--d=2", "positional"]) == {
        "a": "1",
        "b": "true",
        "c": "x=y",
        "d": ["1", "2"],
    }


def test_facts_of_this_machine_have_every_part() -> None:
    facts = tandem_node.gather(
        {
            "packages": [],
            "units": [],
            "mount_point": "",
            "disk_paths": ["/var/lib", "/no/such"],
            "files": ["/", "/no"],
            "sent_at": 1.0,
        }
    )
    assert facts["os"]["architecture"]
    assert facts["disks"]["/no/such"]["total"] > 0
    assert facts["files"] == {"/": True, "/no": False}
    assert facts["sent_at"] == 1.0


def test_a_kubeadm_of_an_earlier_run_is_told_without_its_secrets(tmp_path: Path) -> None:
    for pid, words in {
        "7": ["/usr/bin/kubeadm", "join", "10.0.0.1:6443", "--token", "secret"],
        "8": ["kubeadm", "upgrade", "apply", "v1.36.3"],
        "9": ["kubelet"],
        "10": [],
    }.items():
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "cmdline").write_text("".join(f"{word}\0" for word in words))
    assert tandem_processes.at_work(str(tmp_path)) == ["kubeadm join (pid 7)", "kubeadm upgrade apply (pid 8)"]


def test_a_kubeadm_of_an_earlier_run_is_waited_for() -> None:
    with subprocess.Popen(["kubeadm", "600"], executable=shutil.which("sleep")) as work:
        told = f"kubeadm (pid {work.pid})"
        wait_until(lambda: told in tandem_processes.at_work(), 5, "it runs")
        tandem_node.wait_for_others(1)
        assert work.poll() is None, "the wait has an end, and the other's work goes on"
        end = threading.Timer(1, work.kill)
        end.start()
        tandem_node.wait_for_others(300)
        assert work.wait(1) == -signal.SIGKILL, "its end ends the wait"


@pytest.mark.parametrize(
    ("name", "like", "family"),
    [
        ("debian", "", "debian"),
        ("ubuntu", "debian", "debian"),
        ("rhel", "fedora", "redhat"),
        ("almalinux", "rhel centos fedora", "redhat"),
        ("arch", "", ""),
    ],
)
def test_the_family_of_a_system_is_that_of_its_packages(name: str, like: str, family: str) -> None:
    assert tandem_node.family(name, like) == family


def test_packages_of_rpm_and_their_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "kubelet 1.36.3-150500.1.1\npackage kubeadm is not installed\nkubectl 1.36.3-150500.1.1\n"
    locks = "# Added lock on Sun Nov 22 2026\nkubelet-0:1.36.3-150500.1.1.*\nkubectl-convert-0:1.36.3-1.*\n"
    monkeypatch.setattr(tandem_node, "run", lambda *_: said)
    monkeypatch.setattr(tandem_node, "read", lambda _: locks)
    assert tandem_node.packages(["kubelet", "kubeadm", "kubectl"], "redhat") == {
        "kubelet": {"version": "1.36.3-150500.1.1", "held": True},
        "kubectl": {"version": "1.36.3-150500.1.1", "held": False},
    }
    assert tandem_node.packages(["kubelet"], "") == {}


def pod(name: str, node: str = "a", restarts: int = 0, uid: str = "u") -> dict[str, Any]:
    return {
        "metadata": {"namespace": "n", "name": name, "uid": uid},
        "spec": {"nodeName": node},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"restartCount": restarts}],
        },
    }


def test_the_gate_knows_a_restarted_pod() -> None:
    before = {"pods": tandem_gate.pods_of([pod("p"), pod("q", node="b")], "a"), "services": ["n/s"]}
    assert list(before["pods"]) == ["n/p"]

    def gate(pods: list[dict[str, Any]], **changes: Any) -> list[str]:
        state = {"node_ready": True, "heartbeat": "2", "services": ["n/s"], **changes}
        evicted = tandem_gate.evicted_from(pods, "a")
        return tandem_gate.missing(
            before, state["node_ready"], "1", state["heartbeat"], pods, state["services"], "a", evicted
        )

    assert gate([pod("p")]) == []
    assert gate([]) == [], "deleted by somebody"
    sick, gone = pod("p"), pod("p")
    sick["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
    gone["metadata"]["deletionTimestamp"] = "now"
    gone["status"]["conditions"].append({"type": "DisruptionTarget", "status": "True"})
    assert "not Ready" in gate([sick])[0]
    assert "evicted" in gate([gone])[0]
    assert "restarts" in gate([pod("p", restarts=1)])[0]
    assert "uid" in gate([pod("p", uid="v")])[0]
    assert "heartbeat" in gate([pod("p")], heartbeat="1")[0]
    assert "the node is not Ready" in gate([pod("p")], node_ready=False)
    assert "n/s" in gate([pod("p")], services=[])[0]


def test_the_gate_minds_no_restart_after_a_lost_lease() -> None:
    for component, problems in (("kube-controller-manager", 0), ("kube-scheduler", 0), ("kube-apiserver", 1)):
        one, two = pod("p"), pod("p", restarts=1)
        one["metadata"]["labels"] = two["metadata"]["labels"] = {"component": component, "tier": "control-plane"}
        before = {"pods": tandem_gate.pods_of([one], "a")}
        assert len(tandem_gate.missing(before, True, "1", "2", [two], [], "a", set())) == problems
        two["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
        assert "not Ready" in tandem_gate.missing(before, True, "1", "2", [two], [], "a", set())[0]


def test_services_with_an_endpoint_elsewhere() -> None:
    def entry(name: str, node: str, ready: bool) -> dict[str, Any]:
        return {
            "metadata": {"namespace": "n", "labels": {"kubernetes.io/service-name": name}},
            "endpoints": [{"nodeName": node, "conditions": {"ready": ready}}],
        }

    slices = [entry("here", "a", True), entry("there", "b", True), entry("sick", "b", False)]
    assert tandem_gate.services_elsewhere(slices, "a") == ["n/there"]


def test_lab_machines_fall_into_groups() -> None:
    names = {name: tandem_lab.group_of(name) for name in ("cp1", "cp2", "w1", "w3", "nfs1")}
    assert names == {
        "cp1": "control_plane",
        "cp2": "control_plane",
        "w1": "workers",
        "w3": "workers",
        "nfs1": "nfs_server",
    }
    with pytest.raises(ValueError, match="no group"):
        tandem_lab.group_of("db1")


@pytest.mark.parametrize(("fails", "seconds", "looks"), [(0, 0, 1), (3, 10, 4), (9, 5, 4)])
def test_an_api_server_that_comes_back_is_waited_for(fails: int, seconds: int, looks: int) -> None:
    now, tries = [0.0], []

    def look() -> dict[str, Any]:
        tries.append(now[0])
        if len(tries) <= fails:
            raise KubeError("away")
        return {"reachable": True}

    def sleep(pause: float) -> None:
        now[0] += pause

    found = tandem_cluster.patient(look, seconds, lambda: now[0], sleep)
    assert len(tries) == looks
    assert found["reachable"] == (fails < looks)
    assert found.get("error", "away") == "away"


def test_a_program_leads_when_its_lead_is_renewed_and_not_brand_new() -> None:
    def lease(acquired: str, renewed: str, holder: str = "cp1_1") -> dict[str, Any]:
        times = {"acquireTime": f"2026-11-24T03:{acquired}.000000Z", "renewTime": f"2026-11-24T03:{renewed}.000000Z"}
        return {"spec": {"holderIdentity": holder, **times}}

    old = lease("00:00", "07:00")
    first = {"kube-controller-manager": old["spec"]["renewTime"]}

    def told(now: dict[str, Any]) -> list[str]:
        return tandem_gate.without_lead(first, {"kube-controller-manager": now})

    assert "nobody has renewed its lead since 2026-11-24T03:07:00" in told(old)[0]
    assert told(lease("00:00", "07:02")) == []
    assert told(lease("07:06", "07:16"))[0].endswith("cp1_1 leads since 10 s")
    assert told(lease("07:06", "07:18")) == []
    assert told({"spec": {"holderIdentity": "", "renewTime": "2026-11-24T03:07:20Z"}}) != []
