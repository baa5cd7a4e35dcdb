"""The check for idempotence passes what is, and names what is not."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from tandem.runtime.controller import Context, Controller, ControllerSettings, Done, RequeueAfter, Result, Watch
from tandem.runtime.resources import CONFIG_MAPS, Key, Object
from tandem.runtime.testing.cluster import FakeCluster
from tandem.runtime.testing.idempotence import NotIdempotent, assert_idempotent
from tandem.runtime.testing.loop import virtual

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples" / "controllers"


def cluster(**labels: str) -> FakeCluster:
    made = FakeCluster()
    for name in "abc":
        made.put(CONFIG_MAPS, {"metadata": {"name": name, "namespace": "x", "labels": labels}, "data": {"k": name}})
    return made


def found(key: Key, ctx: Context) -> Object:
    obj = ctx.cache.get(key)
    assert obj is not None
    return obj


async def compares(key: Key, ctx: Context) -> Result:
    obj = found(key, ctx)
    if obj["data"].get("done") != "yes":
        await ctx.writer.apply(CONFIG_MAPS, obj, {"data": {"done": "yes"}})
    return RequeueAfter(5)


async def counts(key: Key, ctx: Context) -> Result:
    obj = found(key, ctx)
    number = int(obj["data"].get("n", "0"))
    if number < 3:  # several writes until it is content
        await ctx.writer.apply(CONFIG_MAPS, obj, {"data": {"n": str(number + 1)}})
    return Done()


async def repeats(key: Key, ctx: Context) -> Result:
    await ctx.writer.apply(CONFIG_MAPS, found(key, ctx), {"data": {"done": "yes"}})
    return Done()


async def stamps(key: Key, ctx: Context) -> Result:
    await ctx.writer.patch_status(CONFIG_MAPS, found(key, ctx), {"seen": True})
    ctx.events.record(found(key, ctx), "Normal", "Seen", "again")
    return Done()


async def fails(_: Key, __: Context) -> Result:
    raise RuntimeError("never")


def controller(reconcile: object, epoch_field: str | None = None) -> Controller:
    settings = ControllerSettings(epoch_field=epoch_field)
    return Controller("test", reconcile, [Watch(CONFIG_MAPS)], settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("reconcile", [compares, counts, stamps])
def test_who_compares_first_passes(reconcile: object) -> None:
    virtual(assert_idempotent)(controller(reconcile, "epoch"), cluster())


def test_who_writes_without_looking_is_named_with_what_he_wrote() -> None:
    with pytest.raises(NotIdempotent, match=r"wrote 3 times.*\n  apply configmaps x/a \(it changed nothing") as caught:
        virtual(assert_idempotent)(controller(repeats), cluster())
    assert len(caught.value.writes) == 3


def test_who_always_fails_shows_nothing() -> None:
    with pytest.raises(NotIdempotent, match="3 keys still fail"):
        virtual(assert_idempotent)(controller(fails), cluster())


def test_the_published_example_is_idempotent() -> None:
    example = runpy.run_path(str(EXAMPLES / "elected.py"))
    made = cluster(**{"example.com/checksum": "wanted"})
    virtual(assert_idempotent)(example["controller"], made)
    assert all(obj["metadata"]["annotations"] for obj in made.objects(CONFIG_MAPS))
