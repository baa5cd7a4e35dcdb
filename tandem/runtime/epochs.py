"""An admission policy by which the API server itself refuses a status of an epoch that is over.

A request that was sent while the lead was valid, and that lay in the network beyond the lease, is accepted on an object
that nobody has changed since: no check of the sender's can bind it. Here the server compares the epoch in the status
with the Lease, which is the policy's parameter, at the moment it stores. docs/election.md says what that guarantees.

Pure: names in, objects out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tandem.labels import LABEL_PREFIX
from tandem.runtime.resources import Object, Resource

API_VERSION: Final = "admissionregistration.k8s.io/v1"


def epoch_policy(
    resource: Resource,
    *,
    field_manager: str,
    epoch_field: str,
    lease_name: str,
    lease_namespace: str,
    namespaces: Sequence[str] = (),
) -> tuple[Object, Object]:
    """A ValidatingAdmissionPolicy and its binding, for one resource whose status a controller stamps.

    Only writes of this field manager are judged: others may touch the status of an object whose stamp is an earlier
    leader's. While there is no Lease nothing is refused; its leader puts it back under its epoch.

    Args:
        resource: whose status is written; it must have the status subresource.
        field_manager: the controller's, as it is named in its writes (`Controller.name` unless it was set).
        epoch_field: the field of the status that carries the epoch, a number (`ControllerSettings.epoch_field`).
        lease_name: the Lease whose transitions are the epoch.
        lease_namespace: where the Lease is.
        namespaces: of the objects, for a shard that has these only; none given means all.

    Raises:
        ValueError: the epoch's field is no plain name.
    """
    if not epoch_field.isidentifier():
        raise ValueError(f"epoch_field {epoch_field!r} is not the name of a field")
    name = f"epoch-{lease_name}-{resource.plural}.{LABEL_PREFIX}"
    rule: Object = {
        "apiGroups": [resource.group],
        "apiVersions": [resource.version],
        "resources": [f"{resource.plural}/status"],
        "operations": ["UPDATE"],
    }
    written, current = f"int(object.status.{epoch_field})", "int(params.spec.?leaseTransitions.orValue(0))"
    manager = field_manager.replace("\\", "\\\\").replace("'", "\\'")
    policy: Object = {
        "apiVersion": API_VERSION,
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "paramKind": {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"},
            "matchConstraints": {"resourceRules": [rule]},
            "matchConditions": [
                {"name": "ours", "expression": f"request.options.?fieldManager.orValue('') == '{manager}'"},
                {"name": "stamped", "expression": f"object.?status.?{epoch_field}.hasValue()"},
            ],
            "validations": [
                {
                    "expression": f"{written} >= {current}",
                    "message": "a later leader holds the Lease: this epoch is over",
                    "messageExpression": f"'epoch ' + string({written}) + ' is over: the Lease {lease_namespace}/"
                    f"{lease_name} is at ' + string({current})",
                    "reason": "Forbidden",
                }
            ],
        },
    }
    binding: Object = {
        "apiVersion": API_VERSION,
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {
            "policyName": name,
            "validationActions": ["Deny"],
            "paramRef": {"name": lease_name, "namespace": lease_namespace, "parameterNotFoundAction": "Allow"},
        },
    }
    if namespaces:
        only = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": list(namespaces)}
        binding["spec"]["matchResources"] = {"namespaceSelector": {"matchExpressions": [only]}}
    return policy, binding
