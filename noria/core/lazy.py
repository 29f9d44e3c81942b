"""What is imported when it is first used: public names, so that a room loads light (PEP 562); and what mustn't be."""

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


def load_before_threads() -> None:
    """Have Polars load NumPy now, before threads make it do so.

    Where two do at the same time, one may find NumPy's own `_globals` in the place of what Polars has kept under that
    name, and end with a TypeError (Polars 2.1, `polars._dependencies._LazyModule`).
    """
    from polars import _dependencies

    getattr(getattr(_dependencies, "numpy", None), "ndarray", None)
