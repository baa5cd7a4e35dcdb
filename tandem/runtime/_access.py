"""Where the API server is and who we are, as a kubeconfig or a pod's service account says.

Certificates, tokens and token files are read here. Whatever needs a helper (exec plugins, OIDC, gcloud, passwords) is
left to kubernetes-asyncio, which is imported only then: its 700 generated models cost 0.7 s of CPU and 37 MiB in every
process, whether it is a pod or not.
"""

from __future__ import annotations

import base64
import os
import ssl
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where the kubelet puts a pod's token and the cluster's authority."""
_HELPERS: Final = frozenset({"exec", "auth-provider", "username", "password"})
_SECTIONS: Final = ("clusters", "contexts", "users")
Refresh = Callable[[], Awaitable[None]]


@dataclass
class Access:
    """The way to one API server.

    Attributes:
        server: its address.
        authorization: the header that says who we are; empty when a certificate does. The only one that changes.
        authority: certificates (PEM) that may vouch for the server; None trusts the system's.
        certificate: our own certificate (PEM).
        key: its key (PEM).
        verify: whether the server must prove who it is.
        server_name: the name that its certificate must have; empty for that of the address.
        proxy: through which to go; empty leaves it to the environment.
    """

    server: str
    authorization: str = ""
    authority: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None
    verify: bool = True
    server_name: str = ""
    proxy: str = ""

    def tls(self) -> ssl.SSLContext:
        """A context for connections to the server.

        Raises:
            ValueError: what should be a certificate or a key is none (`ssl.SSLError` is one).
        """
        context = ssl.create_default_context(cadata=self.authority.decode() if self.authority else None)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate:
            with _as_file(self.certificate + b"\n" + (self.key or b"")) as path:
                context.load_cert_chain(path)
        return context


def in_pod() -> tuple[Access, Refresh]:
    """The service account of the pod that we run in.

    Raises:
        OSError: a file is missing.
        ValueError: a file is empty.
    """
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    host = f"[{host}]" if ":" in host else host
    access = Access(f"https://{host}:{port}", authority=_content(SERVICE_ACCOUNT / "ca.crt"))

    async def refresh() -> None:
        access.authorization = _bearer(SERVICE_ACCOUNT / "token")

    access.authorization = _bearer(SERVICE_ACCOUNT / "token")
    return access, refresh


async def from_kubeconfig(paths: str, context: str | None = None) -> tuple[Access, Refresh | None]:
    """A context of a kubeconfig, or of several with the path separator between, of which the first wins.

    Args:
        paths: one or several.
        context: which; the current one when None.

    Returns the access, and what brings its authorization up to date; None when that cannot change.

    Raises:
        OSError: a file cannot be read.
        ValueError, TypeError: they do not say how to reach a server.
    """
    cluster, user = _chosen(_merged(paths), context)
    if _HELPERS & user.keys():
        return await _with_helper(paths, context)
    access = Access(
        server=str(cluster.get("server") or "").rstrip("/"),
        authority=_pem(cluster, "certificate-authority"),
        certificate=_pem(user, "client-certificate"),
        key=_pem(user, "client-key"),
        verify=not cluster.get("insecure-skip-tls-verify", False),
        server_name=cluster.get("tls-server-name") or "",
        proxy=cluster.get("proxy-url") or "",
    )
    if not access.server:
        raise ValueError("its cluster has no server")
    if not user.get("tokenFile"):  # it has precedence over a token, as in client-go
        access.authorization = f"Bearer {user['token']}" if user.get("token") else ""
        return access, None
    token_file = Path(user["tokenFile"])

    async def refresh() -> None:
        access.authorization = _bearer(token_file)

    await refresh()
    return access, refresh


async def _with_helper(paths: str, context: str | None) -> tuple[Access, Refresh | None]:
    """The same by kubernetes-asyncio."""
    from kubernetes_asyncio import client, config  # noqa: PLC0415 - see the module

    settings = client.Configuration()
    try:
        loader = await config.load_kube_config(paths, context, client_configuration=settings, persist_config=False)
    except config.ConfigException as error:
        raise ValueError(str(error)) from error
    access = Access(
        server=str(settings.host).rstrip("/"),
        authorization=settings.api_key.get("BearerToken", ""),
        authority=_content(Path(settings.ssl_ca_cert)) if settings.ssl_ca_cert else None,
        certificate=_content(Path(settings.cert_file)) if settings.cert_file else None,
        key=_content(Path(settings.key_file)) if settings.key_file else None,
        verify=settings.verify_ssl,
        server_name=settings.tls_server_name or "",
        proxy=settings.proxy or "",
    )
    if not access.authorization:
        return access, None

    async def refresh() -> None:
        try:
            await loader.load_and_set(settings)  # an exec plugin is run if its token has expired
        except config.ConfigException as error:
            raise ValueError(str(error)) from error
        access.authorization = settings.api_key["BearerToken"]

    return access, refresh


def _merged(paths: str) -> dict[str, Any]:
    """Several kubeconfigs as one; file names in them become absolute, for each is meant from where its file is."""
    merged: dict[str, Any] = {section: {} for section in _SECTIONS}
    for path in map(Path, filter(None, paths.split(os.pathsep))):
        if not path.expanduser().is_file():
            continue
        content = yaml.safe_load(path.expanduser().read_text(encoding="utf-8")) or {}
        if not isinstance(content, dict):
            raise TypeError(f"{path} is no kubeconfig")
        for section in _SECTIONS:
            for entry in content.get(section) or ():
                body = dict(entry.get(section.removesuffix("s")) or {})
                for name in ("certificate-authority", "client-certificate", "client-key", "tokenFile"):
                    if body.get(name):
                        body[name] = str(path.expanduser().absolute().parent / Path(body[name]).expanduser())
                merged[section].setdefault(entry["name"], body)
        merged.setdefault("current-context", content.get("current-context"))
    return merged


def _chosen(merged: Mapping[str, Any], wanted: str | None) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The cluster and the user of a context, or of the current one."""
    chosen = wanted or merged.get("current-context")
    if not chosen:
        raise ValueError("it names no current context")
    context = merged["contexts"].get(chosen)
    if context is None:
        raise ValueError(f"there is no context {chosen}")
    cluster = merged["clusters"].get(context.get("cluster"))
    if cluster is None:
        raise ValueError(f"context {chosen}: there is no cluster {context.get('cluster')}")
    return cluster, merged["users"].get(context.get("user"), {})


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """A name for what can only be read by name: in memory where there is such a thing, for a root may be read-only."""
    if sys.platform == "linux":
        with os.fdopen(os.memfd_create("client"), "wb") as file:
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            yield file.name


def _pem(section: Mapping[str, Any], name: str) -> bytes | None:
    """`name-data`, else the file that `name` names."""
    if data := section.get(f"{name}-data"):
        return base64.b64decode(data)
    return _content(Path(section[name])) if section.get(name) else None


def _bearer(path: Path) -> str:
    return f"Bearer {_content(path).decode().strip()}"


def _content(path: Path) -> bytes:
    if content := path.read_bytes().strip():
        return content
    raise ValueError(f"{path} is empty")
