"""What a lost worker left goes from a real API server, and nothing of anybody else's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from plugins.action import tandem_replace
from plugins.module_utils.tandem_kube import Kube, KubeError
from plugins.module_utils.tandem_kubelet_objects import LEASES
from tandem.runtime.testing.localapi import LocalApi
from tests.api.test_release import Site

pytestmark = pytest.mark.api

EMPTY = {"boot_id": "boot-2", "joined": False}


@pytest.fixture
def site(api: LocalApi, name: str) -> Iterator[Site]:
    """A site whose first worker is gone, with its Lease and a pod on each worker."""
    made = Site(api, name)
    for node in (made.gone, made.there):
        body = {"metadata": {"name": node}, "spec": {"holderIdentity": node}}
        made.kube.request("POST", LEASES, body=body)
        made.add_pod(f"ledger-{node}", node)
    yield made
    kube = Kube(made.kubeconfig)  # the old connection may have been idle for too long
    for node in (made.gone, made.there):
        for path in (
            f"/api/v1/namespaces/{name}/pods/ledger-{node}?gracePeriodSeconds=0",
            f"{LEASES}/{node}",
            f"/api/v1/nodes/{node}",
        ):
            if kube.find(path.partition("?")[0]) is not None:
                kube.request("DELETE", path)


def parameters(site: Site, **changes: Any) -> dict[str, Any]:
    workers = [site.gone, site.there]
    return {"node": site.gone, "workers": workers, "machine": EMPTY, "record": {}, "gone": True, **changes}


def there(site: Site, node: str) -> list[bool]:
    paths = (f"/api/v1/nodes/{node}", f"{LEASES}/{node}", f"/api/v1/namespaces/{site.namespace}/pods/ledger-{node}")
    return [site.kube.find(path) is not None for path in paths]


def test_node_lease_and_pods_go_and_those_of_others_stay(site: Site) -> None:
    plan = tandem_replace.removed(site.kube, parameters(site), check_mode=True)
    assert plan["changed"]
    assert f"{site.namespace}/ledger-{site.gone}" in plan["told"]
    assert there(site, site.gone) == [True, True, True], "check mode tells and leaves"
    # As a kubelet that is gone leaves it: a deletion that waits for it.
    site.kube.request("DELETE", f"/api/v1/namespaces/{site.namespace}/pods/ledger-{site.gone}")
    done = tandem_replace.removed(site.kube, parameters(site), check_mode=False)
    assert done["changed"]
    assert there(site, site.gone) == [False, False, False]
    assert there(site, site.there) == [True, True, True]
    again = tandem_replace.removed(site.kube, parameters(site), check_mode=False)
    assert not again["changed"]
    assert again["told"] == f"{site.gone} is no node yet; it joins"


def test_broken_off_it_goes_on(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tandem_replace, "remove_node", broken)
        with pytest.raises(KeyboardInterrupt):
            tandem_replace.removed(site.kube, parameters(site), check_mode=False)
    assert there(site, site.gone) == [True, True, False]
    tandem_replace.removed(site.kube, parameters(site), check_mode=False)
    assert there(site, site.gone) == [False, False, False]


def test_refused_it_changes_nothing(site: Site) -> None:
    for changes in (
        {"gone": False},
        {"node": site.there},
        {"machine": {"boot_id": "boot-2", "joined": True}},
        {"machine": {"boot_id": "", "joined": False}},
        {"node": "nobody"},
    ):
        plan = tandem_replace.planned(site.kube, parameters(site, **changes))
        assert plan["refusals"], changes
        with pytest.raises(KubeError):
            tandem_replace.removed(site.kube, parameters(site, **changes), check_mode=False)
    for node in (site.gone, site.there):
        assert there(site, node) == [True, True, True]


def test_a_machine_is_cleaned_of_a_drained_node_alone(site: Site) -> None:
    mine = parameters(site, node=site.there, confirmed=site.there)
    headers = {"Content-Type": "application/merge-patch+json"}
    path = f"/api/v1/namespaces/{site.namespace}/pods/ledger-{site.there}"
    assert "twice" in tandem_replace.drained(site.kube, {**mine, "confirmed": site.gone})["refusals"][0]
    assert "a worker of the inventory" in tandem_replace.drained(site.kube, {**mine, "node": "cp"})["refusals"][0]
    assert f"ledger-{site.there}, schedulable" in tandem_replace.drained(site.kube, mine)["refusals"][0]
    site.kube.request("PATCH", f"/api/v1/nodes/{site.there}", body={"spec": {"unschedulable": True}}, headers=headers)
    assert f"ledger-{site.there}, cordoned" in tandem_replace.drained(site.kube, mine)["refusals"][0]
    with pytest.raises(KubeError, match="kubectl drain"):
        tandem_replace.forgotten(site.kube, mine, check_mode=False)
    assert there(site, site.there) == [True, True, True]
    site.kube.request("DELETE", path, body={"gracePeriodSeconds": 0})
    assert tandem_replace.drained(site.kube, mine)["refusals"] == []
    assert tandem_replace.forgotten(site.kube, mine, check_mode=True)["changed"]
    assert there(site, site.there) == [True, True, False]
    assert tandem_replace.forgotten(site.kube, mine, check_mode=False)["changed"]
    assert there(site, site.there) == [False, False, False]
    assert not tandem_replace.forgotten(site.kube, mine, check_mode=False)["changed"]
