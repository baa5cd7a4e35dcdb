"""A small client of the Kubernetes API for our modules: a kubeconfig, JSON in, JSON out.

The modules run on the control node many times a run; importing the full client takes longer than all their requests.
What it writes are steps of a protocol (a lock, a drain, a move) with versions and UIDs as preconditions; plain objects
are left to kubernetes.core.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

TIMEOUT_SECONDS = 15
MERGE: Final = {"Content-Type": "application/merge-patch+json"}
"""Header of a PATCH whose body is laid over the object (RFC 7386)."""


class KubeError(Exception):
    """The API refused a request, or could not be asked; `status` is the HTTP status, 0 when there was none."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status

    @property
    def away(self) -> bool:
        """Whether the API server did not answer, or not for good: asking again makes sense."""
        return self.status in (0, 429) or self.status >= 500


class StrangerError(KubeError):
    """What answers is not the API server that the kubeconfig is for."""

    @property
    def away(self) -> bool:
        """No: whoever asks again is told the same."""
        return False


class _Connection(http.client.HTTPSConnection):
    """A connection whose certificate is checked against another name than the one connected to (tls-server-name)."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext, server_name: str) -> None:
        super().__init__(host, port, timeout=TIMEOUT_SECONDS, context=context)
        self._tls, self._server_name = context, server_name

    def connect(self) -> None:
        """Connect, and check the certificate for the server name."""
        http.client.HTTPConnection.connect(self)
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._server_name)


class Kube:
    """Requests with the credentials of a kubeconfig's current context (client certificate or token).

    Raises:
        KubeError: the kubeconfig cannot be read, or names credentials of a kind that is not supported (exec plug-ins).
    """

    def __init__(self, kubeconfig: str) -> None:
        self._path = kubeconfig
        try:
            document = yaml.safe_load(Path(kubeconfig).expanduser().read_text(encoding="utf-8"))
            context = _named(document["contexts"], document["current-context"])["context"]
            cluster = _named(document["clusters"], context["cluster"])["cluster"]
            user = _named(document["users"], context["user"])["user"]
        except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
            raise KubeError(f"kubeconfig {kubeconfig} cannot be used: {type(error).__name__}: {error}") from error
        if "exec" in user or "auth-provider" in user:
            raise KubeError(f"kubeconfig {kubeconfig}: only client certificates and tokens are supported")
        address = urlsplit(cluster["server"])
        self._host, self._port = address.hostname or "", address.port or 443
        self._server_name = cluster.get("tls-server-name", self._host)
        self._headers = {"Accept": "application/json"}
        if "token" in user:
            self._headers["Authorization"] = f"Bearer {user['token']}"
        self._tls = _context(cluster, user)
        self._connection: _Connection | None = None

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """The decoded answer.

        Raises:
            KubeError: no answer, or one other than 2xx; its `status` says which.
            StrangerError: it shows a certificate of another authority or name.
        """
        payload = None if body is None else json.dumps(body)
        all_headers = {**self._headers, **(headers or {})}
        if payload is not None:
            all_headers.setdefault("Content-Type", "application/json")
        kept = self._connection is not None
        try:
            if self._connection is None:
                self._connection = _Connection(self._host, self._port, self._tls, self._server_name)
            self._connection.request(method, path, body=payload, headers=all_headers)
            answer = self._connection.getresponse()
            text = answer.read()
        except ssl.SSLCertVerificationError as error:
            self._connection = None
            raise StrangerError(
                f"{self._host}:{self._port} shows a certificate that does not fit kubeconfig {self._path} "
                f"({error.verify_message}): the file is of another cluster, this one was made anew, or the "
                "certificate has expired. Way out: for the first two move the file away, and playbooks/bootstrap.yml "
                "fetches this cluster's own"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            self._connection = None
            if kept and method == "GET":  # the API server was restarted since; reading twice does no harm
                return self.request(method, path, body, headers)
            raise KubeError(f"{self._host}:{self._port} does not answer: {type(error).__name__}: {error}") from error
        if not 200 <= answer.status < 300:
            raise KubeError(f"{method} {path}: {answer.status}: {text.decode(errors='replace')[:400]}", answer.status)
        decoded: dict[str, Any] = json.loads(text)
        return decoded

    def get(self, path: str) -> dict[str, Any]:
        """One object or list.

        Raises:
            KubeError: see `request`.
        """
        return self.request("GET", path)

    def gather(self, *paths: str) -> list[dict[str, Any]]:
        """Several objects or lists, asked for at once: a busy API server answers any one of them late, not all in turn.

        Raises:
            KubeError: see `request`.
        """
        with ThreadPoolExecutor(len(paths)) as pool:
            return list(pool.map(lambda path: Kube(self._path).get(path), paths))

    def find(self, path: str) -> dict[str, Any] | None:
        """One object, None when it does not exist.

        Raises:
            KubeError: see `request`.
        """
        try:
            return self.get(path)
        except KubeError as error:
            if error.status == 404:
                return None
            raise


def delete(api: Kube, path: str, uid: str, **options: Any) -> None:
    """Delete one object; one that went meanwhile, or whose name is another's by now, is left.

    Args:
        api: the cluster.
        path: the object's path.
        uid: its UID: another object of its name stays.
        options: further fields of DeleteOptions, by their API names.

    Raises:
        KubeError: the API refused or cannot be reached.
    """
    body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}, **options}
    try:
        api.request("DELETE", path, body=body)
    except KubeError as error:
        if error.status not in (404, 409):
            raise


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    for entry in entries:
        if entry["name"] == name:
            return entry
    raise KeyError(name)


def _pem(source: dict[str, Any], key: str) -> str:
    """A PEM text that a kubeconfig holds inline or as a path; empty when it holds neither."""
    if f"{key}-data" in source:
        return base64.b64decode(source[f"{key}-data"]).decode()
    return Path(source[key]).read_text(encoding="utf-8") if key in source else ""


def _context(cluster: dict[str, Any], user: dict[str, Any]) -> ssl.SSLContext:
    authority = _pem(cluster, "certificate-authority")
    context = ssl.create_default_context(cadata=authority or None)
    certificate, key = _pem(user, "client-certificate"), _pem(user, "client-key")
    if certificate and key:
        # The ssl module reads a chain from a file only; this one is 0600 and gone at once.
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as chain:
            chain.write(certificate + "\n" + key)
            chain.flush()
            context.load_cert_chain(chain.name)
    return context
