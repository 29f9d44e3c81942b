"""Intake: what a server has to know of streams to take their events in: the schema and the key, no more.

It is written to a file when the project is served, so that a server needs neither `system.py` nor a dataframe library.
Types and missing members are checked here, event by event; a stream's checks are for the processor, whose quarantine
keeps what breaks them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from noria.core import Field, RequestError, Schema, Settings, allowed
from noria.core.decoding import decodable

if TYPE_CHECKING:
    from noria.pipelines.stream import Stream

_INTEGERS = {f"int{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)}
_FILE = "streams.json"


@decodable
@dataclass(frozen=True)
class StreamSpec:
    """A stream as servers know it: its topic, the topic's partitions, the columns' types, the key."""

    name: str
    topic: str
    partitions: int
    schema: dict[str, str]
    key: str | None


class Events(msgspec.Struct, forbid_unknown_fields=True):
    """A request to take events in.

    Attributes:
        events: JSON objects.
        stream: needed if there are several.
        durable: false to be answered at once, and lose the events if the machine dies in the next moment.
        producer, sequence: a name of yours, and a number that grows with each request: then a request that is sent
            again is taken once.
    """

    events: list[msgspec.Raw]
    stream: str | None = None
    durable: bool = True
    producer: str | None = None
    sequence: int | None = None


class Intake:
    """Checks events of some streams."""

    def __init__(self, specs: Iterable[StreamSpec]) -> None:
        self.specs = {spec.name: spec for spec in specs}
        self._decoders = {name: _decoder(spec) for name, spec in self.specs.items()}
        self._body = msgspec.json.Decoder(Events)

    def decode(self, body: bytes) -> tuple[StreamSpec, Events, list[bytes], list[bytes] | None]:
        """The stream, the request, its events' bytes, and their keys.

        Raises:
            RequestError: the body is wrong, or an event is; the error names it.
        """
        try:
            request = self._body.decode(body)
        except msgspec.ValidationError as error:
            raise RequestError(str(error), status=422, hint='{"events": [{…}, …]}') from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RequestError(f"the body is no JSON: {error}", hint='{"events": [{…}, …]}') from error
        except RecursionError as error:
            raise RequestError(
                "the body is nested too deeply", status=422, hint="an event's members are plain values"
            ) from error
        spec = self._spec(request.stream)
        if (request.producer is None) != (request.sequence is None):
            raise RequestError("producer and sequence go together", status=422, field="sequence")
        if request.sequence is not None and not 0 <= request.sequence < 2**63:
            raise RequestError(
                f"sequence: {request.sequence} is not from 0 to 2^63 - 1",
                status=422,
                field="sequence",
                hint="a number that grows with each request of the producer",
            )
        values = [bytes(event) for event in request.events]
        return spec, request, values, self.keys(spec, values)

    def _spec(self, name: str | None) -> StreamSpec:
        if name is None and len(self.specs) == 1:
            return next(iter(self.specs.values()))
        if name is None or name not in self.specs:
            what = f"there is no stream {name!r}" if name is not None else "which stream?"
            raise RequestError(what, status=422, field="stream", hint=allowed(self.specs, name))
        return self.specs[name]

    def keys(
        self, spec: StreamSpec, values: Sequence[bytes], places: Sequence[str] | None = None
    ) -> list[bytes] | None:
        """The events' keys, if the stream has one; each event is checked by itself.

        Args:
            places: what errors call the events; `events[0]` and so on unless given.

        Raises:
            RequestError: an event is wrong; the error names it.
        """
        decode, keys = self._decoders[spec.name].decode, []
        for number, value in enumerate(values):
            try:
                keys.append(str(decode(value).key).encode())
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                place = f"events[{number}]" if places is None else places[number]
                raise _wrong(place, "." if places is None else ": ", spec, error) from error
        return keys if spec.key is not None else None


def _wrong(event: str, separator: str, spec: StreamSpec, error: Exception) -> RequestError:
    said = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    text, _, place = said.partition(" - at `$")
    member = place.strip("`").lstrip(".")
    field = f"{event}{separator}{member}" if member else event
    types = ", ".join(f"{name}: {kind}" for name, kind in spec.schema.items())
    return RequestError(
        f"{field}: {text}", status=422, field=field, hint=f"none was taken; an event of {spec.name}: {types}"
    )


def _decoder(spec: StreamSpec) -> msgspec.json.Decoder[Any]:
    """Decodes an event to something with the attribute `key`; other members are only checked."""
    members: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    names: dict[str, str] = {}
    schema = Schema.of(spec.schema)
    for place, field in enumerate(sorted(schema, key=lambda field: field.nullable)):
        attribute = "key" if field.name == spec.key else f"c{place}"
        names[attribute] = field.name
        members.append((attribute, _type(field) | None, None) if field.nullable else (attribute, _type(field)))
    if spec.key is None:
        members.append(("key", str, ""))
        names["key"] = "__no_key__"
    return msgspec.json.Decoder(msgspec.defstruct("Event", members, rename=names))


def _type(field: Field) -> Any:
    if field.dtype in _INTEGERS:
        low, high = _INTEGERS[field.dtype]
        return _between(low, high)
    if field.dtype == "timestamp" and field.unit != "iso":
        return _between(*_INTEGERS["int64"])
    if field.dtype.startswith("float"):
        return float
    return {"bool": bool, "uuid": UUID}.get(field.dtype, str)


def _between(low: int, high: int) -> Any:
    from typing import Annotated

    # What a 64-bit integer holds can't be said of msgspec's bounds, which are such integers themselves.
    return int if high >= 2**63 - 1 else Annotated[int, msgspec.Meta(ge=low, le=high)]


def publish(streams: Iterable[Stream], settings: Settings) -> None:
    """Write down for the servers what they have to know of the project's streams."""
    specs = [
        StreamSpec(s.name, s.topic_name, s.partitions, s.schema.to_dict(), s.key) for s in streams if s.format is None
    ]
    file = settings.state_dir / _FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_suffix(f".{os.getpid()}")
    aside.write_bytes(msgspec.json.encode([asdict(spec) for spec in specs]))
    aside.replace(file)


def published(settings: Settings) -> list[StreamSpec]:
    """What was written down; empty if nothing was."""
    try:
        return msgspec.json.decode((settings.state_dir / _FILE).read_bytes(), type=list[StreamSpec])
    except FileNotFoundError:
        return []
