"""On-demand features: computed from the request, and from what groups know of its entities.

In a training set the inputs are columns of the labels; online they come with the request. Both are brought into one
form first, and then the same expressions are evaluated, over a frame or over single rows with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from noria.core import ConfigError, Schema, allowed, check_name, fingerprint
from noria.features.request_inputs import from_request, inputs_of

if TYPE_CHECKING:
    import polars as pl

    from noria.features.group import FeatureGroup

_FEW = 100
"""Rows that are computed one by one; with more, columns are faster."""
_UNFIT = ("list", "timestamp", "date")


@dataclass(frozen=True)
class OnDemand:
    """Features of a request: `OnDemand("basket", {"amount": "float64"}, {"large": nr.col("amount") > 9})`.

    An expression looks at one row at a time. Where it gives NaN or infinity, as 1 / 0 does, the value is missing; of an
    input NaN, infinity and empty text are.

    Attributes:
        name: a feature's full name is `name.feature`.
        inputs: what the request brings, with types as in a source's schema: columns of the labels.
        features: name to expression, over the inputs and over features of groups by their full names.

    Raises:
        ConfigError: an unknown input, or an expression that looks at several rows or can't be computed.
    """

    name: str
    inputs: Mapping[str, Any]
    features: Mapping[str, pl.Expr] = field(compare=False)  # expressions have no equality of their own
    description: str = "Computed from the request."
    kind: str = field(default="on-demand", init=False)

    def __post_init__(self) -> None:
        from noria.pipelines.steps.expression_tree import tree, verify

        check_name(self.name, "set of on-demand features")
        schema = Schema.of(self.inputs)
        object.__setattr__(self, "inputs", schema.to_dict())
        for name in schema.names:
            if "." in name:
                raise ConfigError(
                    f"on-demand {self.name!r}: the input {name!r} has a dot in its name",
                    hint="that is how features of groups are written; rename the labels' column",
                    field=name,
                )
        if not self.features:
            raise ConfigError(
                f"on-demand {self.name!r} has no features", hint='features={"large": nr.col("amount") > 100}'
            )
        for name, expression in self.features.items():
            check_name(name, "feature")
            if not hasattr(expression, "meta"):
                raise ConfigError(
                    f"feature {self.name}.{name} is {expression!r}, and not an expression",
                    hint='nr.col("amount") * 2',
                    field=name,
                )
            verify(tree(expression), f"feature {self.name}.{name}")
        self._check_inputs({name for e in self.features.values() for name in e.meta.root_names() if "." not in name})
        if not self.dependencies:
            self.bind({})

    def _check_inputs(self, used: set[str]) -> None:
        for name in sorted(used - set(self.inputs)):
            raise ConfigError(
                f"on-demand {self.name!r} has no input {name!r}",
                hint=f"{allowed(self.inputs, name)}; a group's feature is written group.feature",
                field=name,
            )

    @property
    def dependencies(self) -> tuple[str, ...]:
        """The groups whose features are read."""
        columns = (name for expression in self.features.values() for name in expression.meta.root_names())
        return tuple(dict.fromkeys(name.partition(".")[0] for name in columns if "." in name))

    def bind(self, known: Mapping[str, str]) -> BoundOnDemand:
        """With the types of groups' features, by their full names.

        Raises:
            ConfigError: a feature isn't known, or an expression can't be computed from these types.
        """
        from noria.features.derivation import types_of

        wanted = dict(self.features)
        schema = Schema.of(self.inputs)
        for name, expression in wanted.items():
            for column in expression.meta.root_names():
                if "." in column and column not in known:
                    raise ConfigError(
                        f"feature {self.name}.{name}: there is no feature {column!r}",
                        hint=f"{allowed(known, column)}; give the groups that are read beside this" if known
                        else f"give feature group {column.partition('.')[0]!r} beside this",
                        field=column,
                    )  # fmt: skip
        types = types_of(wanted, {**known, **{one.name: one.dtype for one in schema}}, self.name)
        return BoundOnDemand(self, dict(known), {f"{self.name}.{name}": kind for name, kind in types.items()})

    def to_dict(self) -> dict[str, Any]:
        """The definition as plain JSON data."""
        from noria.pipelines.expressions import definition

        features = {name: definition(expression) for name, expression in self.features.items()}
        return {"kind": self.kind, "name": self.name, "inputs": dict(self.inputs), "features": features}

    def definition_hash(self) -> str:
        """A hash of all that determines the values."""
        return fingerprint(self.to_dict())

    def to_state(self) -> dict[str, Any]:
        """The definition as JSON data from which it can be made again."""
        from noria.pipelines.expressions import saved

        features = {name: saved(expression) for name, expression in self.features.items()}
        return {"name": self.name, "inputs": dict(self.inputs), "features": features, "description": self.description}

    @staticmethod
    def from_state(state: Mapping[str, Any]) -> OnDemand:
        """The reverse of `to_state`.

        Raises:
            DataError: an expression was saved by another version of Polars.
        """
        from noria.pipelines.expressions import loaded

        features = {name: loaded(expression) for name, expression in state["features"].items()}
        return OnDemand(state["name"], state["inputs"], features, state["description"])


@dataclass(frozen=True)
class BoundOnDemand:
    """On-demand features that can be computed.

    Attributes:
        part: their definition.
        known: the types of the groups' features, by full name.
        types: the types of the features, by full name.
    """

    part: OnDemand
    known: Mapping[str, str]
    types: Mapping[str, str]

    @cached_property
    def inputs(self) -> Schema:
        """What the request brings."""
        return Schema.of(self.part.inputs)

    def output_schema(self) -> dict[str, str]:
        """The features that a model can read, by full name (instants can't); any may be missing."""
        return {name: f"{kind}?" for name, kind in self.types.items() if not kind.startswith(_UNFIT)}

    def columns(self, frame: pl.DataFrame) -> list[pl.Series]:
        """The features of labels that have the inputs and the groups' features.

        Raises:
            ConfigError: an input is missing or of another type, or a feature's name is taken.
            DataError: a value doesn't fit into its type, or a feature can't be computed.
        """
        for name in self.types:
            if name in frame.columns:
                raise ConfigError(
                    f"there is already a column {name!r}", hint="rename a column of the labels", field=name
                )
        return self._computed(inputs_of(frame, self.inputs, f"on-demand {self.part.name!r}"))

    def _computed(self, frame: pl.DataFrame) -> list[pl.Series]:
        from noria.pipelines.steps.expression_rows import computed

        return computed(frame, self._expressions)

    def compute(self, given: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """The same of columns of Python values; the inputs as a request brings them."""
        import polars as pl

        columns = dict(given)
        for one in self.inputs:
            if one.name in self._schema:
                columns[one.name] = [from_request(one, value) for value in given[one.name]]
        needed = {name: columns[name] for name in self._schema}
        count = len(next(iter(given.values()), ()))
        if count > _FEW or self._rows is None:
            frame = pl.DataFrame(needed or {"": [0] * count}, schema=self._schema if needed else None)
            return {column.name: column.to_list() for column in self._computed(frame)}
        rows = [dict(zip(needed, values, strict=True)) for values in zip(*needed.values(), strict=True)]
        rows = rows or [{} for _ in range(count)]
        return {name: [function(row) for row in rows] for name, function in self._rows}

    @cached_property
    def _expressions(self) -> dict[str, pl.Expr]:
        return {f"{self.part.name}.{name}": expression for name, expression in self.part.features.items()}

    @cached_property
    def _schema(self) -> pl.Schema:
        """The columns that the expressions read."""
        from noria.features.derivation import schema_of

        everything = {**self.known, **{one.name: one.dtype for one in self.inputs}}
        used = {name for expression in self._expressions.values() for name in expression.meta.root_names()}
        return schema_of({name: kind for name, kind in everything.items() if name in used})

    @cached_property
    def _rows(self) -> list[tuple[str, Callable[[dict[str, Any]], Any]]] | None:
        """A function of a row for each feature; None where only the frame will do: days and instants, lists."""
        from noria.pipelines.steps.expression_rows import row_expression

        if any(dtype.is_temporal() or dtype.is_nested() for dtype in self._schema.values()):
            return None
        return [(name, row_expression(expression, self._schema)) for name, expression in self._expressions.items()]


def apart(parts: Sequence[FeatureGroup | OnDemand]) -> tuple[list[FeatureGroup], list[OnDemand]]:
    """Groups, and what is computed on demand."""
    on_demand = [part for part in parts if isinstance(part, OnDemand)]
    return [part for part in parts if not isinstance(part, OnDemand)], on_demand


def bound(parts: Sequence[OnDemand], groups: Sequence[FeatureGroup]) -> list[BoundOnDemand]:
    """On-demand features over those of groups.

    Raises:
        ConfigError: two parts have one name, or an input two types, or one can't be computed from the groups' features.
    """
    names = [group.name for group in groups] + [part.name for part in parts]
    for name in names if parts else ():
        if names.count(name) > 1:
            raise ConfigError(f"two parts are called {name!r}", hint="give each its own name", field=name)
    inputs: dict[str, tuple[str, str]] = {}
    for part in parts:
        for name, spec in part.inputs.items():
            first, there = inputs.setdefault(name, (part.name, spec))
            if there.removesuffix("?") != spec.removesuffix("?"):
                raise ConfigError(
                    f"the input {name!r} is {there} in on-demand {first!r}, and {spec} in {part.name!r}",
                    hint="give it one type",
                    field=name,
                )
    known = {f"{group.name}.{name}": kind for group in groups for name, kind in group.types().items()}
    return [part.bind(known) for part in parts]
