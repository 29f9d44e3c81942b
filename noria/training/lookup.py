"""Looking up the inputs of rows that name entities: all requests of a batch together, each group once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from noria.features import BoundOnDemand, OnlineFeatures, OnlineReader
from noria.features.reads import Read


def attribute(name: str) -> str:
    """What a column is called in a request's rows: names such as `group.feature` can't be attributes in Python."""
    return "f_" + name.encode().hex()


def plain(value: Any) -> Any:
    """A value as models read it: to them a UUID is text."""
    return str(value) if isinstance(value, UUID) else value


class Lookup:
    """Turns entities into rows.

    Args:
        reader: reads the feature groups; None where all is computed from the request.
        columns: the rows' own columns.
        on_demand: what is computed.
        names: the inputs, in the order that rows have.
    """

    def __init__(
        self,
        reader: OnlineReader | None,
        columns: Sequence[str],
        on_demand: Sequence[BoundOnDemand],
        names: Sequence[str],
    ) -> None:
        self._reader = reader
        self._groups = [] if reader is None else [(spec, list(map(attribute, spec.keys))) for spec in reader.specs]
        self._columns = [(name, attribute(name)) for name in columns]
        self._on_demand = on_demand
        self._names = names

    def rows(self, requests: Sequence[Sequence[Any]], reads: Sequence[list[Read] | None]) -> list[tuple[Any, ...]]:
        """The rows of all requests, one after another.

        Args:
            requests: the entities of each.
            reads: where to put what was read for each request; None for those of which nobody wants to know.
        """
        entities = requests[0] if len(requests) == 1 else [entity for request in requests for entity in request]
        values: dict[str, list[Any]] = {}
        for spec, keys in self._groups:
            parts = [[getattr(entity, key) for entity in entities] for key in keys]
            ids = parts[0] if len(parts) == 1 else list(zip(*parts, strict=True))
            assert self._reader is not None
            found = self._reader.read(spec.group, ids)
            values |= found.columns
            start = 0
            for request, wanted in zip(requests, reads, strict=True):
                end = start + len(request)
                if wanted is not None:
                    wanted.append(Read(spec, ids[start:end], _cut(found, start, end)))
                start = end
        for name, key in self._columns:
            values[name] = [plain(getattr(entity, key)) for entity in entities]
        for part in self._on_demand:
            given = {one.name: [getattr(entity, attribute(one.name)) for entity in entities] for one in part.inputs}
            values |= part.compute({**values, **given})
        return list(zip(*(values[name] for name in self._names), strict=True))


def _cut(found: OnlineFeatures, start: int, end: int) -> OnlineFeatures:
    """What was found of some of the entities."""
    if start == 0 and end == len(found.found):
        return found
    columns = {name: column[start:end] for name, column in found.columns.items()}
    return OnlineFeatures(
        columns, found.found[start:end], found.expired[start:end], found.event_times[start:end], found.as_of
    )
