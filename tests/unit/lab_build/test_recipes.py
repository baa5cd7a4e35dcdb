"""What the recipes decide before anything is built."""

from __future__ import annotations

import pytest

from lab.build import BuildError
from lab.build._apt import choose_mirror, mirror
from lab.build._go import GoTools, Stamp, kubernetes_version, modules, tool_recipes
from lab.build._images import mirrored, specs
from lab.build._kernel import choose_source, options
from lab.build._machine import MACHINE, packages
from lab.build._packages import PACKAGES, debs
from lab.build._progress import clock
from lab.build._registry import recipes


@pytest.mark.parametrize(
    ("listed", "found"),
    [
        ("http://mirror.test/debian/|bookworm|main|Debian", "http://mirror.test/debian/"),
        (
            "http://m.test/debian-security/|bookworm-security|main|Debian\nhttp://m.test/d/|trixie|main|Debian",
            "http://m.test/d/",
        ),
        (
            "http://m.test/nodesource/|nodistro|main|. nodistro\nhttp://m.test/debian/|trixie|main|",
            "http://m.test/debian/",
        ),
        ("http://m.test/debian|trixie|contrib|Debian\nhttp://m.test/debian|trixie|main|Debian", "http://m.test/debian"),
    ],
    ids=["plain", "security-first", "other-vendor-and-no-lists", "component"],
)
def test_mirror_is_taken_from_the_hosts_sources(listed: str, found: str) -> None:
    assert choose_mirror(listed) == found


def test_host_without_a_debian_archive_is_told_what_to_set() -> None:
    with pytest.raises(BuildError, match="TANDEM_LAB_MIRROR"):
        choose_mirror("http://m.test/ubuntu/|noble|main|Ubuntu\n")


def test_mirror_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_LAB_MIRROR", "http://mine.test/debian")
    assert mirror() == "http://mine.test/debian"


def test_kernel_prefers_the_tested_series_then_the_newest() -> None:
    old, tested, new = (
        ("linux-source-6.12", "6.12.9-1"),
        ("linux-source-7.2", "7.2.12-1"),
        ("linux-source-7.10", "7.10.1-1"),
    )
    assert choose_source([("linux-source", "7.10.1-1"), new, old, tested]) == tested
    assert choose_source([("linux-source-7.9", "7.9-1"), new, old]) == new
    with pytest.raises(BuildError, match=r"6\.16 or newer \(found: linux-source-6\.12\)"):
        choose_source([old])


def test_kernel_has_what_the_lab_uses() -> None:
    assert {
        "IFB",
        "NET_SCH_NETEM",
        "NET_ACT_MIRRED",
        "NFSD_V4",
        "NF_TABLES_IPV4",
        "UML_NET_VECTOR",
        "OVERLAY_FS",
    } <= set(options())


def test_every_module_has_a_recipe_and_its_hashes() -> None:
    built = {recipe.folder for recipe in tool_recipes()} | {"pulumi"}
    assert built == set(modules())


def test_key_of_a_tool_changes_with_its_flags() -> None:
    def inputs(**changed: object) -> object:
        tags = ("a",) if changed.get("tags") else ()
        return GoTools("etcd", {"etcd": "p"}, Stamp({"v": str(changed.get("version"))}), tags=tags).inputs()

    assert inputs() == inputs()
    assert inputs(tags=True) != inputs()
    assert inputs(version="2") != inputs()


def test_needs_of_all_recipes_exist() -> None:
    known = {recipe.name for recipe in recipes()}
    assert len(known) == len(recipes())
    for recipe in recipes():
        assert set(recipe.needs) <= known, recipe.name


def test_packages_carry_upstreams_names_and_versions() -> None:
    version = kubernetes_version().removeprefix("v")
    found = {deb.name: (deb.repository, deb.version) for deb in debs()}
    assert found["kubelet"] == found["kubeadm"] == found["kubectl"] == ("kubernetes", f"{version}-1.1")
    assert found["containerd.io"][0] == "docker"
    for deb in debs():
        control = (PACKAGES / deb.name / "DEBIAN/control").read_text()
        assert f"Package: {deb.name}\n" in control
        assert "@VERSION@" in control


def test_machines_do_not_have_what_the_roles_install() -> None:
    preinstalled = set(packages(MACHINE / "packages.txt"))
    assert not preinstalled & {deb.name for deb in debs()}
    assert not preinstalled & {"runc", "containerd"}


def test_image_names() -> None:
    references = [spec.reference for spec in specs()]
    assert len(references) == len(set(references))
    assert mirrored("tandem-ha.io/demo:0.1.0") == "demo:0.1.0"
    assert mirrored("library/busybox:1.37") == "library/busybox:1.37"
    for spec in specs():
        assert ("BASE" in (spec.folder / "Containerfile").read_text()) == spec.on_base


def test_clock() -> None:
    assert [clock(0), clock(59.9), clock(521)] == ["0:00", "0:59", "8:41"]
