"""When the certificates end that an audit can see from where it runs: the API server's, and its own credential.

Those on the machines (etcd, kubelets, the control plane's own kubeconfigs) are seen there alone, by
`playbooks/verify.yml`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import os
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography import x509
from kubernetes_asyncio import client, config

from tandem.findings import Finding

WARN_DAYS: Final = 90.0
FAIL_DAYS: Final = 14.0
"""Before the end of a certificate; the same as the verification's defaults (roles/verify)."""

DAY: Final = 86400.0
CONNECT_SECONDS: Final = 10.0
ELSEWHERE: Final = (
    "of certificates, an audit sees the API server's and its own credential; those on the machines are judged by "
    "playbooks/verify.yml"
)


@dataclass(frozen=True)
class Credential:
    """Something that ends.

    Args:
        what: for people.
        ends: seconds since the epoch; None when it has no end or is of a kind that does not show it.
        note: why there is no end, else empty.
    """

    what: str
    ends: float | None
    note: str = ""


async def read(kubeconfig: Path | None, context: str | None) -> list[Credential]:
    """The API server's certificate, whoever vouches for it, and the kubeconfig's credential.

    Args:
        kubeconfig: its path; None takes KUBECONFIG or the user's own.
        context: its context; None takes the current one.
    """
    path = kubeconfig or Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
    settings = client.Configuration()
    try:
        await config.load_kube_config(str(path), context, settings, persist_config=False)
    except (config.ConfigException, OSError) as error:
        return [Credential("the kubeconfig", None, f"cannot be read: {error}")]
    return [await _server(settings), own(settings.cert_file, settings.api_key.get("BearerToken", ""))]


async def _server(settings: Any) -> Credential:
    what = f"the API server's certificate ({settings.host})"
    address = urlsplit(str(settings.host))
    # Its end is what is asked for, also when nobody trusts it any more; the audit itself has verified it or failed.
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            name = settings.tls_server_name or address.hostname
            _, writer = await asyncio.open_connection(
                address.hostname, address.port or 443, ssl=tls, server_hostname=name
            )
        encoded = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return Credential(what, x509.load_der_x509_certificate(encoded).not_valid_after_utc.timestamp())
    except (OSError, TimeoutError, ValueError) as error:
        return Credential(what, None, f"could not be seen: {error or type(error).__name__}")


def own(certificate: str | None, authorization: str) -> Credential:
    """The audit's own credential.

    Args:
        certificate: path of a client certificate (PEM), None without one.
        authorization: an Authorization header, empty without one.
    """
    if certificate:
        what = "this kubeconfig's client certificate"
        try:
            ends = x509.load_pem_x509_certificate(Path(certificate).read_bytes()).not_valid_after_utc
        except (OSError, ValueError) as error:
            return Credential(what, None, f"cannot be read: {error}")
        return Credential(what, ends.timestamp())
    what = "this kubeconfig's token"
    parts = authorization.rpartition(" ")[2].split(".")
    if len(parts) != 3:
        return Credential(what, None, "does not show its end")
    try:
        padded = parts[1] + "=" * (-len(parts[1]) % 4)
        claims = json.loads(base64.urlsafe_b64decode(padded))
        return Credential(what, float(claims["exp"]))
    except (ValueError, binascii.Error, KeyError, TypeError):
        return Credential(what, None, "has no end")


def findings(credentials: Iterable[Credential], now: float) -> list[Finding]:
    """Those that end before long: an error `FAIL_DAYS` before, a warning `WARN_DAYS` before."""
    found = []
    for each in credentials:
        if each.ends is None:
            continue
        left = (each.ends - now) / DAY
        if left >= WARN_DAYS:
            continue
        when = f"ends in {left:.0f} days" if left >= 0 else f"ended {-left:.0f} days ago"
        fix = "ansible-playbook playbooks/certs.yml, which also makes the control node's kubeconfig anew"
        found.append(Finding("error" if left < FAIL_DAYS else "warning", "certificate-end", f"{each.what} {when}", fix))
    return found


def notes(credentials: Iterable[Credential]) -> list[str]:
    """What could not be judged, and what is judged elsewhere."""
    return [*(f"{each.what} {each.note}" for each in credentials if each.note), ELSEWHERE]
