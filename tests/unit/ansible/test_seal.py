"""A sealed backup opens with its key alone, and shows when it was changed."""

from __future__ import annotations

import io
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path
from typing import IO

import pytest

from plugins.modules import tandem_seal


def key_pair(folder: Path, name: str) -> tuple[str, str]:
    """A certificate's text and the path of its key, as docs/backup.md makes them."""
    key, certificate = folder / f"{name}.key", folder / f"{name}.crt"
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    subprocess.run([*argv, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return certificate.read_text(), str(key)


@pytest.fixture
def source(tmp_path: Path) -> dict[str, Path]:
    """A folder with a private key, and a file."""
    folder = tmp_path / "pki"
    (folder / "etcd").mkdir(parents=True)
    (folder / "ca.key").write_text("very secret")
    (folder / "ca.key").chmod(0o600)
    (folder / "etcd" / "ca.crt").write_text("x" * 3_000_000)
    (tmp_path / "etcd.db").write_bytes(bytes(range(256)) * 1000)
    return tandem_seal.members({"pki": str(folder), "etcd.db": str(tmp_path / "etcd.db"), "none": "/no/such"})


def test_sealed_and_opened(tmp_path: Path, source: dict[str, Path]) -> None:
    certificate, key = key_pair(tmp_path, "mine")
    _, other = key_pair(tmp_path, "other")
    path = tmp_path / "backup.tar.cms"
    tandem_seal.seal(path, source, certificate)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"very secret" not in path.read_bytes()
    assert list(tandem_seal.unseal(path, key, None)) == ["pki/ca.key", "pki/etcd/ca.crt", "etcd.db"]
    sums = tandem_seal.unseal(path, key, tmp_path / "out")
    assert sums == {name: tandem_seal.checksum(original) for name, original in source.items()}
    for name, original in source.items():
        assert (tmp_path / "out" / name).read_bytes() == original.read_bytes()
    assert stat.S_IMODE((tmp_path / "out/pki/ca.key").stat().st_mode) == 0o600
    with pytest.raises(tandem_seal.SealError, match="cannot be opened"):
        tandem_seal.unseal(path, other, tmp_path / "never")
    assert not (tmp_path / "never").exists()
    assert not list(tmp_path.glob(".*")), "no clear copy is left"


def test_links_are_sealed_as_what_they_lead_to(tmp_path: Path) -> None:
    """As on nodes whose PKI is linked from another disk: the restored machine has no such disk."""
    folder, elsewhere = tmp_path / "node" / "pki", tmp_path / "node" / "elsewhere"
    folder.mkdir(parents=True)
    (elsewhere / "etcd").mkdir(parents=True)
    for name in ("real.crt", "etcd/ca.crt"):
        (elsewhere / name).write_text(f"content of {name}")
    (folder / "sub").mkdir()
    (folder / "relative.crt").symlink_to("../elsewhere/real.crt")
    (folder / "sub" / "absolute.crt").symlink_to(elsewhere / "real.crt")
    (folder / "twice.crt").hardlink_to(elsewhere / "real.crt")
    (folder / "etcd").symlink_to(elsewhere / "etcd")
    (folder / "masked.conf").symlink_to("/dev/null")
    certificate, key = key_pair(tmp_path, "mine")
    path = tmp_path / "backup.tar.cms"
    tandem_seal.seal(path, tandem_seal.members({"pki": str(folder), "one": str(folder / "relative.crt")}), certificate)
    shutil.rmtree(tmp_path / "node")
    wanted = {
        "pki/etcd/ca.crt": "content of etcd/ca.crt",
        "pki/relative.crt": "content of real.crt",
        "pki/sub/absolute.crt": "content of real.crt",
        "pki/twice.crt": "content of real.crt",
        "one": "content of real.crt",
    }
    assert list(tandem_seal.unseal(path, key, tmp_path / "out")) == list(wanted)
    for name, content in wanted.items():
        assert not (tmp_path / "out" / name).is_symlink()
        assert (tmp_path / "out" / name).read_text() == content


def test_a_link_that_leads_nowhere_or_in_a_circle_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "pki"
    (folder / "etcd").mkdir(parents=True)
    link = folder / "etcd" / "ca.crt"
    link.symlink_to("/no/such")
    with pytest.raises(tandem_seal.SealError, match=r"etcd/ca.crt is a link to /no/such, where no file is.*way out"):
        tandem_seal.members({"pki": str(folder)})
    with pytest.raises(tandem_seal.SealError, match="where no file is"):
        tandem_seal.members({"ca.crt": str(link)})
    link.unlink()
    link.symlink_to(folder)
    with pytest.raises(tandem_seal.SealError, match="leads back to"):
        tandem_seal.members({"pki": str(folder)})


@pytest.mark.parametrize("manifest", [True, False])
def test_an_archive_of_links_or_without_sums_says_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manifest: bool
) -> None:
    """Earlier versions sealed links as links."""

    def as_before(stream: IO[bytes], files: dict[str, Path], sums: bytes) -> None:
        with tarfile.open(fileobj=stream, mode="w|") as archive:
            if manifest:
                entry = tarfile.TarInfo(tandem_seal.MANIFEST)
                entry.size = len(sums)
                archive.addfile(entry, io.BytesIO(sums))
            for name, source in files.items():
                archive.add(source, arcname=name, recursive=False)

    monkeypatch.setattr(tandem_seal, "_write_tar", as_before)
    (tmp_path / "real.crt").write_text("content")
    link = tmp_path / "ca.crt"
    link.symlink_to("real.crt")
    certificate, key = key_pair(tmp_path, "mine")
    path = tmp_path / "backup.tar.cms"
    tandem_seal.seal(path, {"pki/ca.crt": link if manifest else tmp_path / "real.crt"}, certificate)
    lacking = "pki/ca.crt was sealed as a link to real.crt.*another backup" if manifest else "is not what was sealed"
    with pytest.raises(tandem_seal.SealError, match=lacking):
        tandem_seal.unseal(path, key, tmp_path / "never")
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize("where", [0.3, 0.9])
def test_a_changed_archive_is_not_opened(tmp_path: Path, source: dict[str, Path], where: float) -> None:
    certificate, key = key_pair(tmp_path, "mine")
    path = tmp_path / "backup.tar.cms"
    tandem_seal.seal(path, source, certificate)
    data = bytearray(path.read_bytes())
    data[int(len(data) * where)] ^= 1
    path.write_bytes(data)
    with pytest.raises(tandem_seal.SealError):
        tandem_seal.unseal(path, key, tmp_path / "never")
    assert not (tmp_path / "never").exists()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises((tandem_seal.SealError, tarfile.TarError)):
        tandem_seal.unseal(path, key, None)


def test_a_recipient_that_is_none_leaves_nothing(tmp_path: Path, source: dict[str, Path]) -> None:
    path = tmp_path / "backup.tar.cms"
    with pytest.raises(tandem_seal.SealError, match="did not encrypt"):
        tandem_seal.seal(path, source, "no certificate")
    assert not path.exists()
    assert not list(tmp_path.glob(".*"))
