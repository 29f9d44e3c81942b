"""Servables that go wrong, as a package of a user would bring them: named by entry points of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from noria.registry import ModelVersion
from noria.storage import Workspace, open_online
from noria.training.servable import load as load_tabular

ENTRY_POINTS = """\
[noria.servables]
chaos_lmdb = chaos_servables:lmdb
chaos_slow = chaos_servables:Slow
chaos_crash = chaos_servables:Crashing
chaos_unloadable = chaos_servables:unloadable
"""
SLOW_SECONDS = 0.05


def lmdb(version: ModelVersion, workspace: Workspace) -> Any:
    """Looks features up in LMDB, whatever the project's store is."""
    return load_tabular(
        version, replace(workspace, online=open_online("lmdb://.noria/online", workspace.settings.root))
    )


def unloadable(version: ModelVersion, workspace: Workspace) -> Any:
    raise RuntimeError("this version can't be loaded")


class Wrapped:
    def __init__(self, version: ModelVersion, workspace: Workspace) -> None:
        self._inner = load_tabular(version, workspace)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def answer_traced(self, operation: str, requests: Sequence[Any]) -> Any:
        return self.answer(operation, requests), [[] for _ in requests]


class Slow(Wrapped):
    """Takes 50 ms for each request."""

    def answer(self, operation: str, requests: Sequence[Any]) -> Any:
        time.sleep(SLOW_SECONDS * len(requests))
        return self._inner.answer(operation, requests)


class Crashing(Wrapped):
    """Fails each request, but only once it is live."""

    def answer(self, operation: str, requests: Sequence[Any]) -> Any:
        raise ZeroDivisionError("this version always fails")

    def warm_up(self) -> None:
        pass

    def describe(self, operation: str) -> dict[str, Any]:
        return {**self._inner.describe(operation), "example": None}
