"""What a stack deploys, in order. Settings come from `stacks/Pulumi.<stack>.yaml`; everything else is a component."""

from __future__ import annotations

import pulumi

from infra.apps import deploy_apps
from infra.capacity import warn_of_shortage
from infra.cluster import connect, refuse_other_profile
from infra.components import (
    AdmissionPolicy,
    LonghornSettings,
    Monitoring,
    PriorityClasses,
    SharedStorage,
    Workspace,
)
from infra.components.admission_policy import admission_args
from infra.settings import load_settings


def main() -> None:
    """Deploy the stack. A wrong setting raises `SettingsError`, with a way out, before anything is registered."""
    settings = load_settings()
    refuse_other_profile(settings)
    warn_of_shortage(settings)

    on_cluster = pulumi.ResourceOptions(provider=connect(settings))
    storage = SharedStorage("shared-storage", settings.storage, on_cluster)
    workspace = Workspace("workspace", settings.workspace(settings.namespace), on_cluster)
    others = [Workspace(f"namespace-{name}", settings.workspace(name), on_cluster) for name in settings.namespaces]
    needed: list[pulumi.Resource] = [storage, workspace, *others]
    if settings.priority_classes.classes:
        needed.append(PriorityClasses("priority-classes", settings.priority_classes, on_cluster))
    apps = deploy_apps(settings.apps, after=needed, opts=on_cluster)
    if settings.monitoring and settings.monitoring.scrape == "operator":
        watched = list(apps.values())
        Monitoring("monitoring", settings.monitoring, namespace=settings.namespace, apps=watched, opts=on_cluster)
    if settings.longhorn:
        LonghornSettings("longhorn-settings", settings.longhorn, on_cluster)

    if settings.admission != "off":
        args = admission_args(settings.stack, settings.profile, settings.namespace, apps)
        after = pulumi.ResourceOptions.merge(on_cluster, pulumi.ResourceOptions(depends_on=[workspace, *others]))
        AdmissionPolicy("admission", args, after)

    pulumi.export("profile", settings.profile.name)
    pulumi.export("namespace", workspace.namespace)
    pulumi.export("storage_class", storage.class_name)
    pulumi.export("apps", {name: app.summary() for name, app in apps.items()})


if __name__ == "__main__":
    main()
