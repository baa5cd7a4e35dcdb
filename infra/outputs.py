"""What a stack tells: where its apps are, what holds its data, what the checklist says, how long a loss would take."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi

from infra.components import App
from infra.declared import Declared, verdict
from infra.ground import Ground
from infra.settings import Settings


def export(settings: Settings, ground: Ground, apps: Mapping[str, App], declared: Declared) -> None:
    """Export all of it."""
    pulumi.export("profile", settings.profile.name)
    pulumi.export("namespace", ground.namespace)
    pulumi.export("storage_class", ground.storage_class)
    pulumi.export("apps", {name: app.summary() for name, app in apps.items()})
    pulumi.export("checklist", verdict(declared.objects, settings.stack, settings.profile))
    if settings.degraded:
        pulumi.export("not_waited_for", sorted(apps))
