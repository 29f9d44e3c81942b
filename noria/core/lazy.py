"""Public names that are imported from their module when they are first used (PEP 562), so that a room loads light."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def exports(package: str, origin: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__`: `origin` says for each public name in which of its modules it lives.

    >>> exports("noria.core", {"duration": "time"})("duration")("1s")
    1000000
    """

    def look_up(name: str) -> Any:
        if name not in origin:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{origin[name]}"), name)

    return look_up
