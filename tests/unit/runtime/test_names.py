"""The runtime's public names: each is there, and none is loaded before somebody asks for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tandem import runtime


def test_every_name_has_one_home() -> None:
    assert sorted(runtime._HOME_OF) == sorted(runtime.__all__)
    assert sum(len(names) for names in runtime._HOMES.values()) == len(runtime.__all__)
    for name in runtime.__all__:
        assert getattr(runtime, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Elektor'"):
        _ = runtime.Elektor


def test_the_pulumi_program_loads_no_transport() -> None:
    """Half of the time that it took to start was a controller's."""
    heavy = "{'aiohttp', 'kubernetes_asyncio', 'structlog', 'prometheus_client'}"
    program = f"import sys, infra.__main__; print(sorted({heavy} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said == "[]\n"
