#!/usr/bin/python
"""Ansible module: files sealed into one archive that only the holder of a private key can open; and opened again."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import IO

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: tandem_seal
short_description: Seals files into an encrypted archive, and opens it
description:
  - With C(state=sealed), writes a tar of the files, encrypted for a certificate (CMS, AES-256-GCM, by openssl),
    without a clear copy on any disk. The private key is not needed and should be nowhere near.
  - With C(state=checked), decrypts the archive with the private key and compares each file with the checksums
    inside; with C(state=opened), also unpacks it.
  - Supports check mode.
options:
  path:
    description: The archive.
    type: path
    required: true
  state:
    description: What to do.
    type: str
    choices: [sealed, checked, opened]
    required: true
  files:
    description: For C(state=sealed), name in the archive to path. Folders go whole; missing ones are left out. A link
      goes as what it leads to, and one that leads nowhere is refused.
    type: dict
    default: {}
  recipient:
    description: For C(state=sealed), the certificate (PEM).
    type: str
    default: ''
  key:
    description: Path of the private key (PEM). For the other states.
    type: path
    default: ''
  folder:
    description: Where C(state=opened) unpacks to.
    type: path
    default: ''
author: Tandem
"""

EXAMPLES = """
- name: The backup is sealed
  tandem_seal:
    path: /var/lib/tandem/backup/lab.tar.cms
    state: sealed
    recipient: "{{ lookup('ansible.builtin.file', 'backup.crt') }}"
    files: {pki: /etc/kubernetes/pki}
"""

RETURN = """
sha256:
  description: Of the archive.
  returned: always
  type: str
names:
  description: What is in it.
  returned: always
  type: list
sums:
  description: SHA-256 of each file in it.
  returned: when checked or opened
  type: dict
"""

MANIFEST = "SHA256SUMS"
BLOCK = 1024 * 1024


class SealError(Exception):
    """The archive cannot be written or opened, or is not what it was; the message says why."""


def checksum(path: Path) -> str:
    """SHA-256 of a file, block by block."""
    total = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            total.update(block)
    return total.hexdigest()


def members(files: dict[str, str]) -> dict[str, Path]:
    """Every file to be sealed, by its name in the archive.

    Raises:
        SealError: a link leads nowhere, or back to a folder above it.
    """
    found = {}
    for name, given in files.items():
        path = Path(given)
        if path.is_dir():
            found.update(_inside(name, path, ()))
        elif path.is_file():
            found[name] = path
        elif path.is_symlink() and not path.exists():
            raise _nowhere(path)
    return found


def _inside(name: str, folder: Path, above: tuple[Path, ...]) -> dict[str, Path]:
    """A folder's files, by their names in the archive; those of linked folders too."""
    real = folder.resolve()
    if real in above:
        raise SealError(f"{folder} leads back to {real}, a folder above it; way out: remove that link")
    found = {}
    for each in sorted(folder.iterdir()):
        if each.is_dir():
            found.update(_inside(f"{name}/{each.name}", each, (*above, real)))
        elif each.is_file():
            found[f"{name}/{each.name}"] = each
        elif not each.exists():
            raise _nowhere(each)
    return found


def _nowhere(link: Path) -> SealError:
    return SealError(
        f"{link} is a link to {link.readlink()}, where no file is; rule: a backup holds every file that was there; "
        "way out: bring the file back, or remove the link"
    )


def seal(path: Path, files: dict[str, Path], recipient: str) -> None:
    """Write the archive, whole or not at all.

    Raises:
        SealError: openssl refused the certificate or could not write.
    """
    partial = path.with_name(f".{path.name}.partial")
    sums = "".join(f"{checksum(source)}  {name}\n" for name, source in files.items()).encode()
    try:
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as certificate:
            certificate.write(recipient)
            certificate.flush()
            argv = ["openssl", "cms", "-encrypt", "-binary", "-stream", "-aes-256-gcm", "-outform", "DER"]
            process = subprocess.Popen(
                [*argv, "-out", str(partial), certificate.name],
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
                umask=0o077,
            )
            assert process.stdin is not None  # noqa: S101
            with contextlib.suppress(BrokenPipeError):  # openssl ended and says why
                _write_tar(process.stdin, files, sums)
            _, said = process.communicate()
        if process.returncode:
            raise SealError(f"openssl did not encrypt: {said.decode(errors='replace').strip()[-400:]}")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _write_tar(stream: IO[bytes], files: dict[str, Path], sums: bytes) -> None:
    # A link goes as the file that it leads to: what lies outside the folder is nowhere else in the archive.
    with tarfile.open(fileobj=stream, mode="w|", dereference=True) as archive:
        with tempfile.TemporaryFile() as first:
            first.write(sums)
            first.seek(0)
            entry = tarfile.TarInfo(MANIFEST)
            entry.size = len(sums)
            archive.addfile(entry, first)
        for name, source in files.items():
            archive.add(source, arcname=name, recursive=False)


def unseal(path: Path, key: str, folder: Path | None) -> dict[str, str]:
    """Decrypt, compare every file with its checksum, and unpack when a folder is given; each name's checksum.

    Raises:
        SealError: the key is another's, or the archive is not what it was.
    """
    argv = ["openssl", "cms", "-decrypt", "-binary", "-inform", "DER", "-in", str(path), "-inkey", key]
    # A file without a name: whatever ends this program, nothing that is open stays behind.
    with tempfile.TemporaryFile(dir=folder.parent if folder else None) as clear:
        done = subprocess.run(argv, stdout=clear, stderr=subprocess.PIPE, check=False)
        # openssl writes before it has seen the seal: nothing of it counts unless it ends well.
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()[-400:]
            raise SealError(f"{path} cannot be opened with {key}: {said or 'another key, or a changed archive'}")
        clear.seek(0)
        with tarfile.open(fileobj=clear) as archive:
            sealed = _sums(archive)
            sums = dict(sealed)
            for entry in archive.getmembers():
                content = _content(archive, entry, path)
                if entry.name == MANIFEST or content is None:
                    continue
                if sums.pop(entry.name, "") != _sum(content):
                    raise SealError(f"{path}: {entry.name} is not what was sealed")
            if sums:
                raise SealError(f"{path}: {', '.join(sorted(sums))} is missing")
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                archive.extractall(folder, filter="tar")
            return sealed


def _sums(archive: tarfile.TarFile) -> dict[str, str]:
    first = archive.extractfile(MANIFEST) if MANIFEST in archive.getnames() else None
    lines = first.read().decode().splitlines() if first is not None else []
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _content(archive: tarfile.TarFile, entry: tarfile.TarInfo, path: Path) -> IO[bytes] | None:
    try:
        return archive.extractfile(entry)
    except KeyError:
        # Archives of earlier versions may hold such links.
        raise SealError(
            f"{path}: {entry.name} was sealed as a link to {entry.linkname}, and that file is not in the archive; "
            "way out: another backup"
        ) from None


def _sum(stream: IO[bytes]) -> str:
    total = hashlib.sha256()
    while block := stream.read(BLOCK):
        total.update(block)
    return total.hexdigest()


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["sealed", "checked", "opened"], "required": True},
            "files": {"type": "dict", "default": {}},
            "recipient": {"type": "str", "default": ""},
            "key": {"type": "path", "default": "", "no_log": False},
            "folder": {"type": "path", "default": ""},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    path, state = Path(parameters["path"]), parameters["state"]
    try:
        if state == "sealed":
            files = members(parameters["files"])
            if module.check_mode:
                module.exit_json(changed=True, sha256="", names=list(files))
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            seal(path, files, parameters["recipient"])
            module.exit_json(changed=True, sha256=checksum(path), names=list(files))
        opens = state == "opened" and not module.check_mode
        sums = unseal(path, parameters["key"], Path(parameters["folder"]) if opens else None)
        module.exit_json(changed=state == "opened", sha256=checksum(path), names=list(sums), sums=sums)
    except (SealError, OSError, tarfile.TarError) as error:
        module.fail_json(msg=f"{path}: {error}")


if __name__ == "__main__":
    main()
