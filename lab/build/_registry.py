"""The list of everything that `python -m lab build` makes."""

from __future__ import annotations

from lab.build._cache import Store
from lab.build._controllers import ControllersSite
from lab.build._go import tool_recipes
from lab.build._images import BaseImage, Busybox, Image, Pause, Registry, RegistryUpgrade, specs, upgrade_servers
from lab.build._kernel import Kernel
from lab.build._machine import Machine, MachineRoot
from lab.build._packages import AptRepositories, AptUpgrade, Runc, SigningKey
from lab.build._paths import cache_root
from lab.build._recipe import Recipe
from lab.build._session import Session
from lab.build._tools import Pulumi, Tools


def recipes() -> list[Recipe]:
    """All recipes, in the order in which a cold build shows results soonest."""
    return [
        Kernel(),
        MachineRoot(),
        Machine(),
        *tool_recipes(),
        Runc(),
        SigningKey(),
        AptRepositories(),
        AptUpgrade(),
        Pause(),
        Busybox(),
        BaseImage(),
        ControllersSite(),
        *(Image(spec) for spec in specs()),
        Registry(),
        *(Image(spec, optional=True) for spec in upgrade_servers()),
        RegistryUpgrade(),
        Pulumi(),
        Tools(),
    ]


def session() -> Session:
    """All recipes over this user's cache."""
    return Session(recipes(), Store(cache_root()))
