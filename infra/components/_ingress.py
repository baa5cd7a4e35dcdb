"""The Ingress of an app: one host, one path, its Service."""

from __future__ import annotations

from pulumi_kubernetes.networking.v1 import (
    HTTPIngressPathArgs,
    HTTPIngressRuleValueArgs,
    IngressBackendArgs,
    IngressRuleArgs,
    IngressServiceBackendArgs,
    IngressSpecArgs,
    IngressTLSArgs,
    ServiceBackendPortArgs,
)

from infra.components._parts import IngressArgs


def ingress_spec(service: str, args: IngressArgs) -> IngressSpecArgs:
    """Its spec: everything below the path goes to the Service's HTTP port."""
    backend = IngressBackendArgs(
        service=IngressServiceBackendArgs(name=service, port=ServiceBackendPortArgs(name="http"))
    )
    path = HTTPIngressPathArgs(path=args.path, path_type="Prefix", backend=backend)
    return IngressSpecArgs(
        ingress_class_name=args.class_name,
        rules=[IngressRuleArgs(host=args.host, http=HTTPIngressRuleValueArgs(paths=[path]))],
        tls=[IngressTLSArgs(hosts=[args.host], secret_name=args.tls_secret)] if args.tls_secret else None,
    )
