"""What a stack deploys, in order. Settings come from `stacks/Pulumi.<stack>.yaml`; everything else is a component."""

from __future__ import annotations

import pulumi

from infra import components, outputs
from infra.apps import deploy_apps
from infra.capacity import warn_of_shortage
from infra.cluster import connect, refuse_other_profile
from infra.components.admission_policy import admission_args
from infra.declared import Declared
from infra.ground import lay_ground
from infra.incident import tell_of_incident
from infra.network import enforcer_of
from infra.settings import load_settings


def main() -> None:
    """Deploy the stack. A wrong setting raises `SettingsError`, with a way out, before anything is registered."""
    settings = load_settings()
    refuse_other_profile(settings)
    warn_of_shortage(settings)
    tell_of_incident(settings)
    enforcer = enforcer_of(settings)

    declared = Declared()
    on_cluster = pulumi.ResourceOptions.merge(declared.options, pulumi.ResourceOptions(provider=connect(settings)))

    def after(resources: list[pulumi.Resource]) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions.merge(on_cluster, pulumi.ResourceOptions(depends_on=resources))

    ground = lay_ground(settings, on_cluster)
    at_home = after([*ground.workspaces])
    apps = deploy_apps(settings.apps, after=ground.resources, opts=on_cluster)
    if settings.monitoring:
        components.Monitoring("monitoring", settings.monitoring, settings.namespace, apps, on_cluster)
    if settings.longhorn:
        components.LonghornSettings("longhorn-settings", settings.longhorn, on_cluster)
    if (policies := settings.network_policies) and enforcer:
        components.NetworkPolicies("network-policies", policies, settings.namespace, apps, at_home)
    if settings.gateway:
        apps_at, profile, degraded = settings.namespace, settings.profile, settings.degraded
        components.Gateway(settings.gateway, apps=apps_at, profile=profile, degraded=degraded, opts=at_home)
    if settings.rebalance:
        components.Rebalancer(settings.rebalance, namespace=settings.namespace, profile=settings.profile, opts=at_home)
    if settings.admission != "off":
        args = admission_args(settings.stack, settings.profile, settings.namespace, apps)
        components.AdmissionPolicy("admission", args, at_home)
    if settings.keep_data:
        opts = after([*ground.resources, *apps.values()])
        held, protect = apps.values(), settings.protect
        components.DataGuard("data-guard", namespace=settings.namespace, apps=held, protect=protect, opts=opts)

    outputs.export(settings, ground, apps, declared)


if __name__ == "__main__":
    main()
