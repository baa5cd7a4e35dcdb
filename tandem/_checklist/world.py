"""All objects of one run, found by kind, by namespace and by what refers to what."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from tandem._checklist.objects import (
    WORKLOADS,
    Object,
    kind,
    name,
    namespace,
    pod,
    pod_labels,
    selects,
    spec,
)


def same_namespace(one: str, other: str) -> bool:
    """Whether two namespaces are the same; an empty one, of a file that leaves it open, is the same as any."""
    return one == other or not one or not other


class World:
    """An index of objects.

    Args:
        objects: of any kinds; those that no rule asks for are ignored.
    """

    def __init__(self, objects: Iterable[Object]) -> None:
        self._by_kind: dict[str, list[Object]] = defaultdict(list)
        self._by_place: dict[tuple[str, str], list[Object]] = defaultdict(list)
        for obj in objects:
            self._by_kind[kind(obj)].append(obj)
            self._by_place[kind(obj), namespace(obj)].append(obj)

    def of(self, *kinds: str) -> list[Object]:
        """All objects of these kinds."""
        return [obj for each in kinds for obj in self._by_kind.get(each, ())]

    def beside(self, obj: Object, *kinds: str) -> list[Object]:
        """The objects of these kinds in the object's namespace."""
        here = namespace(obj)
        if not here:
            return self.of(*kinds)
        return [found for each in kinds for place in (here, "") for found in self._by_place.get((each, place), ())]

    def named(self, obj: Object, kind_: str, name_: str) -> Object | None:
        """The object of this kind and name in the object's namespace."""
        return next((each for each in self.beside(obj, kind_) if name(each) == name_), None)

    def budgets(self, workload: Object) -> list[Object]:
        """The PodDisruptionBudgets that select a workload's pods."""
        found = pod_labels(workload)
        return [b for b in self.beside(workload, "PodDisruptionBudget") if selects(spec(b).get("selector"), found)]

    def selected(self, budget: Object) -> list[Object]:
        """The workloads whose pods a PodDisruptionBudget selects."""
        chosen = spec(budget).get("selector")
        return [w for w in self.beside(budget, *WORKLOADS) if selects(chosen, pod_labels(w))]

    def behind(self, service: Object) -> list[Object]:
        """The workloads that a Service leads to."""
        wanted = spec(service).get("selector") or {}
        if not wanted:
            return []
        return [w for w in self.beside(service, *WORKLOADS) if selects({"matchLabels": wanted}, pod_labels(w))]

    def autoscaler(self, workload: Object) -> Object | None:
        """The autoscaler that sets a workload's replicas."""
        for each in self.beside(workload, "HorizontalPodAutoscaler"):
            target = spec(each).get("scaleTargetRef") or {}
            if (target.get("kind"), target.get("name")) == (kind(workload), name(workload)):
                return each
        return None

    def rules_of(self, workload: Object, *, anywhere: bool = False) -> list[Object]:
        """The RBAC rules that a workload's ServiceAccount has in its own namespace, or in any (`anywhere`).

        Charts often put the Lease, and the Role with it, into another namespace than the program.
        """
        account = pod(workload).get("serviceAccountName") or "default"
        found: list[Object] = []
        local = self.of("RoleBinding") if anywhere else self.beside(workload, "RoleBinding")
        for binding in [*local, *self.of("ClusterRoleBinding")]:
            subjects = binding.get("subjects") or []
            if not any(_is_account(subject, account, workload) for subject in subjects):
                continue
            role = binding.get("roleRef") or {}
            roles = self.of("ClusterRole") if role.get("kind") == "ClusterRole" else self.beside(binding, "Role")
            for each in roles:
                if name(each) == role.get("name"):
                    found += each.get("rules") or []
        return found

    def knows_rbac(self) -> bool:
        """Whether any roles are known: rendered files and readers without the right to list them have none."""
        return any(self._by_kind.get(each) for each in ("Role", "ClusterRole"))

    def storage_class(self, class_name: str) -> Object | None:
        """The StorageClass of this name."""
        return next((each for each in self.of("StorageClass") if name(each) == class_name), None)


def _is_account(subject: Object, account: str, workload: Object) -> bool:
    return (
        subject.get("kind") == "ServiceAccount"
        and subject.get("name") == account
        and same_namespace(str(subject.get("namespace") or ""), namespace(workload))
    )
