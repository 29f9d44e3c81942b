"""Answering `POST /predict` with a registered tabular model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import msgspec
import numpy as np

from noria.core import NoriaError, RequestError, Schema
from noria.core.bodies import decode
from noria.features import BoundOnDemand, OnDemand, OnlineReader, OnlineSpec
from noria.features.reads import Read
from noria.pipelines import steps_from_dict
from noria.registry import ModelVersion
from noria.storage import Workspace
from noria.training.estimator import Estimator, output_types
from noria.training.fast import predictor_of
from noria.training.formats import estimator_of
from noria.training.inputs import Matrix, ModelInputs
from noria.training.lookup import Lookup, attribute, plain
from noria.training.row_json import RowReader
from noria.training.tables import (
    Numbers,
    Table,
    check_names,
    checked_frame,
    convert_rows,
    length_of,
    plain_rows,
    stays_columns,
)

if TYPE_CHECKING:
    from noria.serving.tabular import Column

MAX_ROWS = 10_000
"""The most rows that one request may hold."""
LONG_BODY = 16_384
"""Bytes above which a body's rows are read without objects."""

_KINDS = {"bool": bool, "str": str, "uuid": UUID, "date": date, "timestamp": datetime}
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_RANGES = {"int8": 7, "int16": 15, "int32": 31, "int64": 63}


class Answer(msgspec.Struct, omit_defaults=True):
    """A response: one prediction for each row, in order; `scores` are the positive class's probabilities.

    While a deployment runs, rows may be answered by different `versions`.
    """

    predictions: list[Any]
    model: str
    version: int
    scores: list[float] | None = None
    versions: list[int] | None = None


class TabularServable:
    """Keeps the `Servable` contract for an estimator with its fitted steps and its feature groups."""

    operations = ("predict",)

    def __init__(
        self,
        version: ModelVersion,
        estimator: Estimator,
        inputs: ModelInputs,
        reader: OnlineReader | None,
        entities: Mapping[str, str],
        columns: Sequence[str],
        on_demand: Sequence[BoundOnDemand] = (),
    ) -> None:
        self.model = version.name
        self.version = version.version
        self._example = version.signature.example
        self._inputs = inputs
        self._entities = entities
        self._columns = columns
        self._on_demand = on_demand
        self._lookup: Lookup | None = None
        if reader is not None or on_demand:
            self._lookup = Lookup(reader, columns, on_demand, inputs.schema.names)
        self.inputs = inputs.schema
        self.outputs = output_types(estimator)
        self.lookup = None if self._lookup is None else self._lookup_schema()
        self._inputs_by_name = {field.name: field for field in inputs.schema}
        self._lookup_by_name = {field.name: field for field in self.lookup or ()}
        self._has_uuids = any(field.dtype == "uuid" for field in inputs.schema)
        self._request = self._request_type()
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(self._request)
        self._reader = RowReader(inputs.schema) if inputs.is_plain and RowReader.reads(inputs.schema) else None
        self._predictor = predictor_of(estimator, self._known_rows())

    def _request_type(self) -> type[msgspec.Struct]:
        """A body has `instances` with every input, or `entities` with ids, the rows' own columns and inputs."""
        instance = _row_type("Instance", self._inputs.schema.to_dict())
        fields: list[Any] = [("instances", _rows_of(instance), None)]
        if self.lookup is not None:
            fields.append(("entities", _rows_of(_row_type("Entity", self.lookup.to_dict())), None))
        return msgspec.defstruct("PredictRequest", fields, forbid_unknown_fields=True)

    def _lookup_schema(self) -> Schema:
        """The columns of a row whose features are looked up."""
        own = {name: self._inputs.schema[name].spec() for name in self._columns}
        given = [part.inputs.to_dict() for part in self._on_demand]
        return Schema.of(_strictest(self._entities, own, *given))

    def decode(self, operation: str, body: bytes) -> Any:
        if self._reader is not None and len(body) > LONG_BODY:
            numbers = self._reader.read(body)
            if numbers is not None and len(numbers) <= MAX_ROWS:
                return Numbers(numbers, self.inputs)
        request: Any = decode(self._decoder, body)
        entities = request.entities if self.lookup is not None else None
        if (request.instances is None) == (entities is None):
            ways = "exactly one of instances and entities" if self.lookup is not None else "instances"
            raise RequestError(f"the body must have {ways}", status=422, field="instances", hint="see /openapi.json")
        return request

    def table(self, columns: Mapping[str, Column]) -> Any:
        is_instance = check_names(columns.keys(), self._inputs_by_name, self._lookup_by_name)
        rows = length_of(columns)
        if is_instance and stays_columns(columns, rows, self.inputs):
            return Table(checked_frame(columns, self.inputs, rows))
        fields = self._inputs_by_name if is_instance else self._lookup_by_name
        return convert_rows(plain_rows(columns, fields), self._request, "instances" if is_instance else "entities")

    def columns(self, answer: Answer) -> dict[str, Sequence[Any]]:
        more = {"scores": answer.scores, "versions": answer.versions}
        return {"predictions": answer.predictions, **{name: one for name, one in more.items() if one is not None}}

    def size(self, operation: str, request: Any) -> int:
        rows = getattr(request, "instances", None)
        if rows is None:
            rows = request if isinstance(request, Table) else request.entities
        return len(rows)

    def entities(self, operation: str, request: Any) -> Sequence[str]:
        """The first key of each row: who the rows are about, where features are looked up."""
        if isinstance(request, Table) or request.instances is not None or not self._entities:
            return ()
        key = attribute(next(iter(self._entities)))
        return [str(getattr(entity, key)) for entity in request.entities]

    def part(self, operation: str, request: Any, places: Sequence[int]) -> Any:
        given = {name: getattr(request, name) for name in self._request.__struct_fields__}
        parts = {name: None if rows is None else [rows[at] for at in places] for name, rows in given.items()}
        return self._request(**parts)

    def joined(self, operation: str, answers: Sequence[tuple[Sequence[int], Answer]]) -> Answer:
        count = sum(len(places) for places, _ in answers)
        predictions: list[Any] = [None] * count
        scores: list[Any] = [None] * count
        versions = [0] * count
        for places, answer in answers:
            for at, place in enumerate(places):
                predictions[place], versions[place] = answer.predictions[at], answer.version
                scores[place] = None if answer.scores is None else answer.scores[at]
        scored = None if None in scores else scores
        return Answer(predictions, self.model, self.version, scored, versions)

    def answer(self, operation: str, requests: Sequence[Any]) -> Sequence[Answer | NoriaError]:
        return self._answer(requests, [None] * len(requests))

    def answer_traced(
        self, operation: str, requests: Sequence[Any]
    ) -> tuple[Sequence[Answer | NoriaError], Sequence[Sequence[Read]]]:
        """The same, and what was read of feature groups for each request."""
        reads: list[list[Read]] = [[] for _ in requests]
        return self._answer(requests, reads), reads

    def _answer(self, requests: Sequence[Any], reads: Sequence[list[Read] | None]) -> Sequence[Answer | NoriaError]:
        matrix, ends = self._matrix(requests, reads)
        predicted, probabilities = self._predictor.predict(matrix)
        predictions = predicted.tolist()
        likely = None if probabilities is None else probabilities.tolist()
        starts = [0, *ends[:-1]]
        return [
            Answer(predictions[a:b], self.model, self.version, None if likely is None else likely[a:b])
            for a, b in zip(starts, ends, strict=True)
        ]

    def _matrix(self, requests: Sequence[Any], reads: Sequence[list[Read] | None]) -> tuple[Matrix, list[int]]:
        """The rows of all requests, and where each request's end."""
        if len(requests) == 1 and isinstance(requests[0], Table):
            return requests[0].matrix(self._inputs), [len(requests[0])]
        looked_up: list[tuple[Any, ...]] = []
        if self._lookup is not None:
            asked = [place for place, request in enumerate(requests) if getattr(request, "entities", None) is not None]
            if asked:
                entities = [requests[place].entities for place in asked]
                looked_up = self._lookup.rows(entities, [reads[place] for place in asked])
        rows: list[tuple[Any, ...]] = []
        parts: list[Matrix] = []
        ends, before, taken = [], 0, 0
        for request in requests:
            if isinstance(request, Table):
                parts += [*self._made(rows), request.matrix(self._inputs)]
                before, rows = before + len(rows) + len(request), []
            elif request.instances is not None:
                rows += map(msgspec.structs.astuple, request.instances)
            else:
                rows += looked_up[taken : taken + len(request.entities)]
                taken += len(request.entities)
            ends.append(before + len(rows))
        parts += self._made(rows)
        return parts[0] if len(parts) == 1 else np.concatenate(parts), ends

    def _made(self, rows: list[tuple[Any, ...]]) -> list[Matrix]:
        """The matrix of rows, if there are any."""
        if not rows:
            return []
        if self._has_uuids:
            rows = [tuple(map(plain, row)) for row in rows]
        return [self._inputs.matrix_of_rows(rows)]

    def _known_rows(self) -> Matrix | None:
        """The registered example, by which the predictor is checked too."""
        if not self._example or "instances" not in self._example:
            return None
        request = decode(self._decoder, msgspec.json.encode(self._example))
        return self._made([msgspec.structs.astuple(row) for row in request.instances])[0]

    def warm_up(self) -> None:
        if self._example:
            self.answer("predict", [self.decode("predict", msgspec.json.encode(self._example))])

    def describe(self, operation: str) -> dict[str, Any]:
        (request, response), parts = msgspec.json.schema_components(
            [self._request, Answer], ref_template="#/components/schemas/{name}"
        )
        return {"request": request, "response": response, "components": parts, "example": self._example}

    def close(self) -> None:
        """Nothing to let go."""


def _rows_of(row: Any) -> Any:
    return Annotated[list[row], msgspec.Meta(min_length=1, max_length=MAX_ROWS)] | None


def _row_type(title: str, specs: Mapping[str, str]) -> type[msgspec.Struct]:
    fields: list[Any] = []
    for field in Schema.of(specs):
        kind: Any = _KINDS.get(field.dtype, float)
        if field.dtype in _RANGES or (field.dtype == "timestamp" and field.unit != "iso"):
            bits = _RANGES.get(field.dtype, 63)
            kind = Annotated[int, msgspec.Meta(ge=-(2**bits), le=2**bits - 1)]
        if field.dtype == "float32":
            kind = Annotated[float, msgspec.Meta(ge=-_FLOAT32_MAX, le=_FLOAT32_MAX)]
        name = attribute(field.name)
        fields.append((name, kind | None, None) if field.nullable else (name, kind))
    names = {attribute(name): name for name in specs}
    # Keyword-only, so that a field that may be missing can stand before one that may not: the order is the schema's.
    return msgspec.defstruct(title, fields, rename=names, forbid_unknown_fields=True, kw_only=True)


def _strictest(*parts: Mapping[str, str]) -> dict[str, str]:
    """The types of all parts' columns; one that must not be missing in one of them must not be missing at all."""
    found: dict[str, str] = {}
    for name, spec in (pair for part in parts for pair in part.items()):
        is_needed = not (found.setdefault(name, spec).endswith("?") and spec.endswith("?"))
        found[name] = found[name].removesuffix("?") if is_needed else found[name]
    return found


def load(version: ModelVersion, workspace: Workspace) -> TabularServable:
    """The loader that the entry point `tabular` names."""
    spec = version.spec
    inputs = ModelInputs(Schema.of(spec["inputs"]), tuple(steps_from_dict(spec["steps"])))
    estimator = estimator_of(version, workspace)
    groups = [OnlineSpec.from_dict(group) for group in spec["groups"]]
    reader = OnlineReader(workspace.online, groups, workspace.clock) if groups else None
    known = {f"{g.group}.{name}": kind for g in groups for name, kind in zip(g.features, g.types, strict=False)}
    on_demand = [OnDemand.from_state(state).bind(known) for state in spec.get("on_demand", ())]
    return TabularServable(version, estimator, inputs, reader, spec["entities"], spec["columns"], on_demand)
