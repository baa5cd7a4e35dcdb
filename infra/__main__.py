"""What a stack deploys, in order. Settings come from `stacks/Pulumi.<stack>.yaml`; everything else is a component."""

from __future__ import annotations

import pulumi

from infra import outputs
from infra.apps import deploy_apps
from infra.capacity import warn_of_shortage
from infra.cluster import connect, refuse_other_profile
from infra.components import AdmissionPolicy, DataGuard, LonghornSettings, Monitoring, NetworkPolicies, Rebalancer
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
    apps = deploy_apps(settings.apps, after=ground.resources, opts=on_cluster)
    if settings.monitoring:
        Monitoring("monitoring", settings.monitoring, settings.namespace, apps, on_cluster)
    if settings.longhorn:
        LonghornSettings("longhorn-settings", settings.longhorn, on_cluster)
    if settings.network_policies and enforcer:
        policies = settings.network_policies
        NetworkPolicies("network-policies", policies, settings.namespace, apps, after([*ground.workspaces]))
    if settings.rebalance:
        namespace, profile = settings.namespace, settings.profile
        Rebalancer(settings.rebalance, namespace=namespace, profile=profile, opts=after([*ground.workspaces]))
    if settings.admission != "off":
        args = admission_args(settings.stack, settings.profile, settings.namespace, apps)
        AdmissionPolicy("admission", args, after([*ground.workspaces]))
    if settings.keep_data:
        opts = after([*ground.resources, *apps.values()])
        held, protect = apps.values(), settings.protect
        DataGuard("data-guard", namespace=settings.namespace, apps=held, protect=protect, opts=opts)

    outputs.export(settings, ground, apps, declared)


if __name__ == "__main__":
    main()
