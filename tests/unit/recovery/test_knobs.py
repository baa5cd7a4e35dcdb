"""The table of settings: complete, consistent with the profiles, and the same as the defaults that programs report."""

from __future__ import annotations

from dataclasses import fields

import pytest

from tandem import recovery
from tandem.recovery import KNOBS, MINORS, RecoveryProfile


def test_every_field_of_a_profile_is_a_knob_and_every_knob_a_field() -> None:
    assert sorted(entry.field for entry in KNOBS) == sorted(
        field.name for field in fields(RecoveryProfile) if field.name != "name"
    )


@pytest.mark.parametrize("entry", KNOBS, ids=lambda entry: entry.field)
def test_a_knob_says_all_about_itself(entry: recovery.Knob) -> None:
    assert set(entry.defaults) == set(MINORS)
    assert all(entry.low <= float(value) <= entry.high for value in entry.defaults.values())
    assert entry.meaning
    assert entry.source
    assert (entry.unit == "s") == entry.field.endswith("_seconds")


@pytest.mark.parametrize("entry", KNOBS, ids=lambda entry: entry.field)
def test_stock_is_the_defaults(entry: recovery.Knob) -> None:
    value = getattr(recovery.STOCK, entry.field)
    assert value is None or value == recovery.default(entry.field)


def test_what_a_profile_writes_is_in_the_table_under_its_name() -> None:
    settings = {entry.setting.removeprefix("--") for entry in KNOBS}
    for names in recovery.managed_names().values():
        assert set(names) <= settings


def test_versions() -> None:
    assert recovery.minor_of("v1.36.3") == "1.36"
    assert recovery.minor_of("1.34.0-rc.1") == "1.34"
    with pytest.raises(recovery.UnknownMinorError, match=r"'v1\.29\.0'.*1\.34, 1\.35, 1\.36"):
        recovery.minor_of("v1.29.0")


def test_an_unknown_knob() -> None:
    with pytest.raises(KeyError):
        recovery.knob("podEvictionTimeout")
