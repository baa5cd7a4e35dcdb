"""Label names and name rules that all components share."""

from __future__ import annotations

import re
from typing import Final

from infra.errors import ArgsError
from tandem.labels import WORKLOAD

NAME: Final = "app.kubernetes.io/name"
MANAGED_BY: Final = "app.kubernetes.io/managed-by"

_DNS_LABEL: Final = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")


def check_name(name: str, field: str = "name") -> None:
    """Refuse a name that Kubernetes would not take for a Service or a namespace (RFC 1035 label)."""
    if not _DNS_LABEL.fullmatch(name):
        raise ArgsError(field, name, "must be lower case letters, digits and dashes, starting with a letter", "my-app")


def check_image(image: str, field: str = "image") -> None:
    """Refuse an image that may be another one tomorrow."""
    tag = image.rpartition("/")[2].partition(":")[2]
    if "@sha256:" in image or (tag and tag != "latest"):
        return
    way_out = f"{image.removesuffix(':latest')}:1.2.3, or a digest"
    raise ArgsError(field, image, "a replacement must run what the lost pod ran, and this name may move", way_out)


def labels_of(name: str, workload: str | None) -> dict[str, str]:
    """The labels of an app's objects and pods. `workload` None: not judged by the blocking rules."""
    return {NAME: name, MANAGED_BY: "pulumi"} | ({WORKLOAD: workload} if workload else {})
