"""What stands before the claims of a protected stack: the first object that a destroy comes to, and it refuses.

Pulumi deletes what depends on others first, and finds that a claim is protected only when its apps are gone already.
The guard depends on all of the stack, and is protected itself: a destroy, even one without preview, ends with it before
anything is deleted, and the guard's name in Pulumi's message says why. A stack that keeps its data and is not protected
has one too: else the run that takes a protection back would have to delete what is still protected.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import pulumi
from pulumi_kubernetes.core.v1 import ConfigMap
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from infra.components._app import App
from infra.components._names import MANAGED_BY
from tandem.labels import LABEL_PREFIX

GUARD: Final = "destroy-is-refused-while-claims-hold-data"
"""The guard's name in Pulumi, which is what its message shows."""

CONFIG_MAP: Final = "tandem-claims"
CLAIMS: Final = f"{LABEL_PREFIX}/claims"
DESCRIPTION: Final = (
    "Keeps `pulumi destroy` from this stack. When the data is meant to go: docs/components.md, Production."
)


class DataGuard(pulumi.ComponentResource):
    """A ConfigMap that lists the stack's claims; none where no app has one.

    Args:
        name: of the component.
        namespace: of the stack's apps.
        apps: all of the stack's.
        protect: refuse; else it only lists.
        opts: depending on all that is to outlast the refusal.
    """

    def __init__(
        self,
        name: str,
        *,
        namespace: str,
        apps: Iterable[App],
        protect: bool,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("tandem:components:DataGuard", name, None, opts)
        self.claims = sorted(app.name for app in apps if app.claim is not None)
        if self.claims:
            # Annotations, not data: Pulumi replaces a ConfigMap whose data changes, and a protected one it would not.
            said = {CLAIMS: ",".join(self.claims), "description": DESCRIPTION}
            ConfigMap(
                GUARD,
                metadata=ObjectMetaArgs(
                    name=CONFIG_MAP, namespace=namespace, labels={MANAGED_BY: "pulumi"}, annotations=said
                ),
                # False, not nothing: it takes a protection back.
                opts=pulumi.ResourceOptions(parent=self, protect=protect),
            )
        self.register_outputs({"claims": self.claims})
