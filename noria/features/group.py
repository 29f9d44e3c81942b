"""`FeatureGroup`: features of one entity from one source, as one component."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from noria.core import ConfigError, Outcome, Progress, Settings, allowed, check_name, duration, fingerprint
from noria.features.definitions import Feature
from noria.features.online import OnlineSpec
from noria.pipelines import Source
from noria.storage import Workspace


@dataclass(frozen=True)
class FeatureGroup:
    """What is known about an entity at a time.

    Attributes:
        name: of the component; a feature's full name is `group.feature`.
        entity: the source's column with the entity's id.
        source: where the events come from.
        features: name to definition.
        ttl: an entity whose newest event is older than this counts as expired, and its features as missing.

    Raises:
        ConfigError: an unknown column, a feature that doesn't fit its column, a window without an event time.
    """

    name: str
    entity: str
    source: Source
    features: Mapping[str, Feature]
    ttl: str | None = None
    description: str = "What is known about an entity at a time."
    kind: str = field(default="features", init=False)

    def __post_init__(self) -> None:
        check_name(self.name, "feature group")
        if not self.features:
            raise ConfigError(f"feature group {self.name!r} has no features", hint='features={"clicks": nr.count()}')
        if self.ttl is not None:
            duration(self.ttl)
        self._check_column(self.entity)
        if self.source.schema[self.entity].dtype not in ("str", "int8", "int16", "int32", "int64"):
            raise ConfigError(
                f"feature group {self.name!r}: the entity {self.entity!r} is {self.source.schema[self.entity].dtype}",
                hint="an entity's id is a whole number or text",
                field=self.entity,
            )
        for name, feature in self.features.items():
            self._check(name, feature)

    def _check(self, name: str, feature: Feature) -> None:
        check_name(name, "feature")
        if feature.column is not None:
            self._check_column(feature.column)
            try:
                feature.check(self.source.schema[feature.column])
            except ConfigError as error:
                error.message = f"feature {self.name}.{name}: {error.message}"
                raise
        if self.source.time is None and (feature.kind != "latest" or self.ttl is not None):
            raise ConfigError(
                f"feature {self.name}.{name}: source {self.source.name!r} has no event time",
                hint="give its schema one nr.Timestamp column, or use only nr.latest(…) without a ttl",
            )

    def _check_column(self, column: str) -> None:
        if column not in self.source.schema:
            raise ConfigError(
                f"feature group {self.name!r}: source {self.source.name!r} has no column {column!r}",
                hint=allowed(self.source.schema.names, column),
                field=column,
            )

    @property
    def dependencies(self) -> tuple[str, ...]:
        """The source."""
        return (self.source.name,)

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "name": self.name,
            "entity": self.entity,
            "source": self.source.name,
            "features": {name: feature.to_dict() for name, feature in self.features.items()},
            "types": self.types(),
            "ttl": self.ttl,
        }

    def types(self) -> dict[str, str]:
        """The type of each feature's values; `list[…]` for lists."""
        types = {}
        for name, feature in self.features.items():
            dtype = feature.dtype(self.source.schema[feature.column] if feature.column else None)
            types[name] = f"list[{dtype}]" if feature.is_list else dtype
        return types

    def output_schema(self) -> dict[str, str]:
        """The features that a model can read, by full name (lists and instants can't); any may be missing."""
        unfit = ("list", "timestamp", "date")
        return {f"{self.name}.{name}": f"{t}?" for name, t in self.types().items() if not t.startswith(unfit)}

    def definition_hash(self) -> str:
        """A hash of all that determines the values; another one is another layout in the online store."""
        return fingerprint(self.to_dict())

    def online_spec(self) -> OnlineSpec:
        """What a server needs to read the group without its source."""
        return OnlineSpec(
            self.name,
            self.entity,
            self.source.schema[self.entity].dtype,
            tuple(self.features),
            tuple(feature.empty for feature in self.features.values()),
            None if self.ttl is None else duration(self.ttl),
            self.definition_hash(),
            tuple(self.types().values()),
        )

    def inputs(self, settings: Settings) -> dict[str, str]:
        """Nothing from outside the system."""
        return {}

    def lost(self, workspace: Workspace, version: str) -> str:
        """Whether the online values are gone."""
        from noria.features.store import FeatureStore

        return "" if FeatureStore(workspace).is_materialized(self) else "its online values are gone"

    def run(self, workspace: Workspace, run_id: str, progress: Progress, *, full: bool = False) -> Outcome:
        """Compute the newest values of all entities and put them into the online store."""
        from noria.features.store import FeatureStore

        done = FeatureStore(workspace).materialize(self, run_id=run_id)
        rows = {"in": done.events, "out": done.entities}
        return Outcome(run_id, rows, {"features": len(self.features), "as_of": done.as_of})
