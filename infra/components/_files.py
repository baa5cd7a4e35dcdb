"""An app's configuration: files and secrets of its own, under names that change with the content, so that pods roll.

A new content is a new object: the running pods keep the one they started with, an update that fails leaves it in
place, and Pulumi removes it when the last pod that used it is gone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pulumi
from pulumi_kubernetes.core.v1 import (
    ConfigMap,
    ConfigMapVolumeSourceArgs,
    EmptyDirVolumeSourceArgs,
    EnvVarArgs,
    EnvVarSourceArgs,
    Secret,
    SecretKeySelectorArgs,
    SecretVolumeSourceArgs,
    VolumeArgs,
    VolumeMountArgs,
)
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from infra.components._parts import file_key

if TYPE_CHECKING:
    from infra.components._app import AppArgs


@dataclass(frozen=True)
class Mounted:
    """What a pod needs to see its configuration."""

    volumes: list[VolumeArgs]
    mounts: list[VolumeMountArgs]
    env: list[EnvVarArgs]


def mounted(name: str, args: AppArgs) -> Mounted:
    """Volumes, mounts and variables of the app `name`."""
    volumes, mounts = [], []
    if args.files:
        volumes.append(VolumeArgs(name="files", config_map=ConfigMapVolumeSourceArgs(name=config_map_name(name, args))))
        mounts += [_file("files", path) for path in sorted(args.files)]
    if args.secret_files:
        source = SecretVolumeSourceArgs(secret_name=secret_name(name, args))
        volumes.append(VolumeArgs(name="secret-files", secret=source))
        mounts += [_file("secret-files", path) for path in sorted(args.secret_files)]
    for index, each in enumerate(args.mounts):
        volumes.append(
            VolumeArgs(
                name=f"mount-{index}",
                config_map=ConfigMapVolumeSourceArgs(name=each.config_map) if each.config_map else None,
                secret=SecretVolumeSourceArgs(secret_name=each.secret) if each.secret else None,
                empty_dir=EmptyDirVolumeSourceArgs(size_limit=each.empty_size) if each.empty_size else None,
            )
        )
        read_only = True if each.empty_size is None else None
        mounts.append(VolumeMountArgs(name=f"mount-{index}", mount_path=each.path, read_only=read_only))
    env = [
        EnvVarArgs(
            name=variable,
            value_from=EnvVarSourceArgs(
                secret_key_ref=SecretKeySelectorArgs(name=secret_name(name, args), key=variable)
            ),
        )
        for variable in sorted(args.secret_env)
    ]
    return Mounted(volumes, mounts, env)


def configure(name: str, args: AppArgs, labels: Mapping[str, str], opts: pulumi.ResourceOptions) -> list[Any]:
    """Create the app's ConfigMap and Secret, as far as it has any."""
    made: list[Any] = []
    if args.files:
        made.append(
            ConfigMap(
                f"{name}-files",
                metadata=ObjectMetaArgs(
                    name=config_map_name(name, args), namespace=args.namespace, labels=dict(labels)
                ),
                data={file_key(path): text for path, text in args.files.items()},
                immutable=True,
                opts=opts,
            )
        )
    if args.secret_files or args.secret_env:
        content = {file_key(path): text for path, text in args.secret_files.items()} | dict(args.secret_env)
        made.append(
            Secret(
                f"{name}-secrets",
                metadata=ObjectMetaArgs(name=secret_name(name, args), namespace=args.namespace, labels=dict(labels)),
                # Encrypted in the state and starred out in what the CLI prints.
                string_data=pulumi.Output.secret(content),
                immutable=True,
                opts=opts,
            )
        )
    return made


def config_map_name(name: str, args: AppArgs) -> str:
    """Of the app's files, with a digest of them."""
    return f"{name}-files-{_digest(args.files)}"


def secret_name(name: str, args: AppArgs) -> str:
    """Of the app's secrets, with a digest of them; too short to be tried against a list of likely secrets."""
    return f"{name}-secrets-{_digest({**args.secret_files, **args.secret_env})[:6]}"


def _file(volume: str, path: str) -> VolumeMountArgs:
    return VolumeMountArgs(name=volume, mount_path=path, sub_path=file_key(path), read_only=True)


def _digest(content: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(sorted(content.items())).encode()).hexdigest()[:10]
