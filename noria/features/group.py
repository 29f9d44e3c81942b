"""`FeatureGroup`: features of one entity from one source, as one component."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from noria.core import ConfigError, Outcome, Progress, Settings, allowed, check_name, duration, fingerprint
from noria.features.definitions import KINDS, Feature
from noria.features.entity import KEY_TYPES, Entity, check_keys, columns_of, plain
from noria.features.online import OnlineSpec
from noria.pipelines import Source, Stream
from noria.storage import Workspace

if TYPE_CHECKING:
    import polars as pl

_LAYOUT = 2
"""How values that depend on time are packed; another number makes the online values of old versions unreadable."""


@dataclass(frozen=True)
class FeatureGroup:
    """What is known about an entity at a time.

    Attributes:
        name: of the component; a feature's full name is `group.feature`.
        entity: the source's column with the entity's id, several that are it together, or an `Entity` that names them.
        source: where the events come from; a stream's values are kept up with each event.
        features: name to definition.
        ttl: an entity whose newest event is older than this counts as expired, and its features as missing.
        owner, tags: for people who look for it.

    Raises:
        ConfigError: an unknown column, a feature that doesn't fit its column, a window without an event time.
    """

    name: str
    entity: str | Sequence[str] | Entity
    source: Source | Stream
    features: Mapping[str, Feature]
    ttl: str | None = None
    description: str = ""
    owner: str = ""
    tags: Sequence[str] = ()
    kind: str = field(default="features", init=False)

    def __post_init__(self) -> None:
        check_name(self.name, "feature group")
        self._check_kinds()
        if not self.features:
            raise ConfigError(f"feature group {self.name!r} has no features", hint='features={"clicks": nr.count()}')
        if self.ttl is not None:
            duration(self.ttl)
        check_keys(self.keys, f"feature group {self.name!r}: entity={self.entity!r}")
        for key in self.keys:
            self._check_column(key)
            if self.source.schema[key].dtype not in KEY_TYPES:
                raise ConfigError(
                    f"feature group {self.name!r}: the entity {key!r} is {self.source.schema[key].dtype}",
                    hint="an entity's id is a UUID, a whole number or text",
                    field=key,
                )
        for name, feature in self.features.items():
            self._check(name, feature)
        self._check_derived()

    def _check_kinds(self) -> None:
        """What Python would else tell of, far from here and in other words."""

        def wrong(what: str, got: Any, hint: str) -> ConfigError:
            shown = repr(got) if isinstance(got, (str, int, type(None))) else f"of type {type(got).__name__}"
            return ConfigError(f"feature group {self.name!r}: {what} is {shown}", hint=hint)

        if not isinstance(self.source, (Source, Stream)):
            raise wrong("source=", self.source, "give the nr.Source or nr.Stream itself")
        if not isinstance(self.entity, (str, Entity, Sequence)):
            raise wrong("entity=", self.entity, 'entity="user", ("origin", "dest"), or an nr.Entity')
        if not isinstance(self.features, Mapping):
            raise wrong("features=", self.features, 'features={"clicks": nr.count()}')
        if isinstance(self.tags, str):
            raise wrong("tags=", self.tags, f"give a list: tags=[{self.tags!r}]")
        for name, feature in self.features.items():
            if not isinstance(feature, Feature):
                hint = "nr.derived(…) computes from other features" if hasattr(feature, "meta") else ""
                raise wrong(f"feature {name!r}", feature, f"nr.{', nr.'.join(KINDS)}; {hint}".removesuffix("; "))

    def _check(self, name: str, feature: Feature) -> None:
        check_name(name, "feature")
        if feature.column is not None:
            self._check_column(feature.column)
            try:
                feature.check(self.source.schema[feature.column])
            except ConfigError as error:
                error.message = f"feature {self.name}.{name}: {error.message}"
                raise
        if feature.where is not None:
            self._check_where(name, feature.where)
        if self.source.time is None and (feature.kind not in ("latest", "derived") or self.ttl is not None):
            raise ConfigError(
                f"feature {self.name}.{name}: source {self.source.name!r} has no event time",
                hint="give its schema one nr.Timestamp column, or name one of several: nr.Source(…, time=…); "
                "or use only nr.latest(…) without a ttl",
            )

    def _check_where(self, name: str, where: pl.Expr) -> None:
        import polars as pl

        from noria.pipelines.dtypes import polars_schema
        from noria.pipelines.steps.derive import verify_expression

        for column in where.meta.root_names():
            self._check_column(column)
        what = f"feature {self.name}.{name}: where="
        if verify_expression(where, pl.Schema(polars_schema(self.source.schema)), what) != pl.Boolean:
            raise ConfigError(f"{what}{where} is neither true nor false", hint='where=nr.col("price") > 0')

    def _check_derived(self) -> None:
        plain = {name: feature for name, feature in self.features.items() if feature.expression is None}
        for name, feature in self.features.items():
            for column in feature.inputs:
                if column not in plain:
                    raise ConfigError(
                        f"feature {self.name}.{name}: the group has no feature {column!r} to derive it from",
                        hint=allowed(plain, column),
                        field=name,
                    )
                if plain[column].kind == "decayed_sum":
                    raise ConfigError(
                        f"feature {self.name}.{name} can't be derived from {column!r}, which fades from one moment to "
                        "the next",
                        hint="give the model both, or compute it in a step",
                        field=name,
                    )
        self.types()

    def _check_column(self, column: str) -> None:
        if column not in self.source.schema:
            raise ConfigError(
                f"feature group {self.name!r}: source {self.source.name!r} has no column {column!r}",
                hint=allowed(self.source.schema.names, column),
                field=column,
            )

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that are the entity's id together."""
        return columns_of(self.entity)

    @property
    def dependencies(self) -> tuple[str, ...]:
        """The source."""
        return (self.source.name,)

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "name": self.name,
            "entity": plain(self.entity),
            **self._uuids(),
            "source": self.source.name,
            "features": {name: feature.to_dict() for name, feature in self.features.items()},
            "types": self.types(),
            "ttl": self.ttl,
        }

    def _uuids(self) -> dict[str, Any]:
        # A UUID is another key online than the same text. Definitions from before there were UUIDs stay as they were.
        uuids = [key for key in self.keys if self.source.schema[key].dtype == "uuid"]
        return {"uuids": uuids} if uuids else {}

    def types(self) -> dict[str, str]:
        """The type of each feature's values; `list[…]` for lists."""
        return dict(self._types)

    @cached_property
    def _types(self) -> dict[str, str]:
        types = {}
        for name, feature in self.features.items():
            if feature.expression is None:
                dtype = feature.dtype(self.source.schema[feature.column] if feature.column else None)
                types[name] = f"list[{dtype}]" if feature.is_list else dtype
        derived = {name: f.expression for name, f in self.features.items() if f.expression is not None}
        if derived:
            from noria.features.derivation import types_of

            types |= types_of(derived, types, self.name)
        return {name: types[name] for name in self.features}

    def output_schema(self) -> dict[str, str]:
        """The features that a model can read, by full name (lists and instants can't); any may be missing."""
        unfit = ("list", "timestamp", "date")
        return {f"{self.name}.{name}": f"{t}?" for name, t in self.types().items() if not t.startswith(unfit)}

    def definition_hash(self) -> str:
        """A hash of all that determines the values; another one is another layout in the online store."""
        layout = {"layout": _LAYOUT} if self.segments() or self.fading() else {}
        return fingerprint({**self.to_dict(), **layout})

    def segments(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Windows (microseconds), and the places of the features that change when an event leaves one of those."""
        made: dict[tuple[int, ...], list[int]] = {}
        for place, feature in enumerate(self.features.values()):
            inputs = [feature] if feature.expression is None else [self.features[name] for name in feature.inputs]
            windows = sorted({one.window_micros for one in inputs if one.window_micros is not None})
            if windows:
                made.setdefault(tuple(windows), []).append(place)
        return [(windows, tuple(places)) for windows, places in made.items()]

    def fading(self) -> list[tuple[int, int]]:
        """The places of decayed sums, and their half-lives."""
        features = enumerate(self.features.values())
        return [(place, feature.half_life_micros) for place, feature in features if feature.kind == "decayed_sum"]

    def online_spec(self) -> OnlineSpec:
        """What a server needs to read the group without its source."""
        return OnlineSpec(
            self.name,
            self.keys,
            tuple(self.source.schema[key].dtype for key in self.keys),
            tuple(self.features),
            self._empty(),
            None if self.ttl is None else duration(self.ttl),
            self.definition_hash(),
            tuple(self.types().values()),
            tuple(places for _, places in self.segments()),
            tuple(self.fading()),
        )

    def _empty(self) -> tuple[Any, ...]:
        """The features of an entity without events."""
        if not any(feature.kind == "derived" for feature in self.features.values()):
            return tuple(feature.empty for feature in self.features.values())
        from noria.features.derivation import empty_of

        return empty_of(self.features, self.types())

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

        store = FeatureStore(workspace)
        if isinstance(self.source, Stream):
            done, kept = store.catch_up(self, run_id=run_id, progress=progress, full=full), []
        else:
            done, kept = store.materialize(self, run_id=run_id, full=full), store.keep_up(self, run_id=run_id)
        rows = {"in": done.events, "out": done.entities}
        notes = {"features": len(self.features), "as_of": done.as_of, **({"kept_up": kept} if kept else {})}
        return Outcome(run_id, rows, notes)
