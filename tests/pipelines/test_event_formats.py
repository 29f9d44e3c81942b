"""Events of any bytes and types: what becomes of one never depends on its neighbours."""

from __future__ import annotations

import datetime
import io
import random
from codecs import BOM_UTF8
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import polars as pl
import pytest

import noria as nr
from noria.core import ConfigError
from noria.pipelines.event_formats import Arrow, EventFormat, Json
from noria.pipelines.stream_rows import judged_events

SCHEMA = {"user": "int64", "amount": "float64?", "at": nr.Timestamp("s")}
GOOD = pl.DataFrame({"user": [1, 2], "amount": [1.5, None], "at": [1, 2]})


def arrow(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_ipc_stream(buffer)
    return buffer.getvalue()


def outcome(form: EventFormat, values: Sequence[bytes]) -> list[tuple[int, Any]]:
    """For each row, in order, its event's number, and the good row or the reasons of the bad one."""
    stream = nr.Stream("clicks", SCHEMA, format=form)
    decoded = form.decode(values, stream.schema)
    judged = judged_events(decoded, stream)
    assert judged.positions.is_sorted()
    found = [(p, row) for p, row in zip(judged.positions.to_list(), judged.good.rows(), strict=True)]
    found += [(row[0], tuple(row[1])) for row in judged.bad.rows()]
    assert len(found) == decoded.count == len(decoded.events)
    return [(int(decoded.events[position - 1]), said) for position, said in sorted(found, key=lambda pair: pair[0])]


def verify_alone_and_together(form: EventFormat, values: Sequence[bytes]) -> None:
    together = outcome(form, values)
    alone = [(number, said) for number, value in enumerate(values) for _, said in outcome(form, [value])]
    assert together == alone


ARROW = [
    GOOD,
    GOOD.with_columns(user=pl.lit(datetime.date(2020, 1, 1))),
    GOOD.with_columns(amount=pl.Series([1, 2]).cast(pl.Duration("us"))),
    GOOD.with_columns(at=pl.lit(datetime.datetime(2020, 1, 1, 0, 0, 1, 500_000, datetime.UTC))),
    GOOD.with_columns(user=pl.Series([True, False])),
    GOOD.with_columns(user=pl.Series(["3", "x"])),
    GOOD.with_columns(user=pl.Series([b"\xff", b"4"])),
    GOOD.with_columns(amount=pl.lit(None, pl.Null)),
    GOOD.select("user"),
    GOOD.clear(),
]


def test_arrow_events_of_any_types_are_judged_each_alone() -> None:
    values = [arrow(frame) for frame in ARROW]
    verify_alone_and_together(Arrow(), values)
    for pair in permutations(values, 2):
        verify_alone_and_together(Arrow(), pair)
    (number, reasons), *_ = outcome(Arrow(), values[1:])
    assert number == 0
    assert "'user' is Date, which can't become int64" in reasons[0]


def test_a_cut_arrow_event_is_bad_and_not_empty() -> None:
    whole = arrow(GOOD)
    for size in range(len(whole)):
        ((_, reasons),) = outcome(Arrow(), [whole[:size]])
        assert "not an Arrow stream" in reasons[0]
    assert outcome(Arrow(), [arrow(GOOD.clear())]) == []


def test_no_byte_of_an_arrow_event_stops_the_stream(capfd: pytest.CaptureFixture[str]) -> None:
    whole, chance = arrow(GOOD), random.Random(5)
    for place in range(len(whole)):
        wrong = bytearray(whole)
        wrong[place] = chance.choice([0, 1, 255])
        found = outcome(Arrow(), [whole, bytes(wrong), whole])
        assert [said for number, said in found if number != 1] == [said for _, said in outcome(Arrow(), [whole] * 2)]
    capfd.readouterr()  # Polars tells of its panics


def avro_record(kind: Any) -> dict[str, Any]:
    fields = {"user": kind, "amount": ["null", "double"], "at": "long"}
    return {"type": "record", "name": "e", "fields": [{"name": n, "type": t} for n, t in fields.items()]}


def test_avro_events_of_another_type_are_bad_alone_and_among_others() -> None:
    fastavro = pytest.importorskip("fastavro")
    date = {"type": "int", "logicalType": "date"}
    schema = avro_record(["null", "long", "boolean", "string", date])
    parsed = fastavro.parse_schema(schema)
    values = []
    for user in (1, datetime.date(2020, 1, 1), None, True, "7", "x", datetime.date(2021, 1, 1), 2**62):
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, parsed, {"user": user, "amount": None, "at": 1})
        values.append(buffer.getvalue())
    form = nr.Avro(schema)
    verify_alone_and_together(form, [*values, b""])
    for pair in permutations(values, 2):
        verify_alone_and_together(form, pair)
    said = [reasons for _, reasons in outcome(form, values)]
    assert said[1] == ("user: Date can't become int64",)
    assert said[2] == ("user: missing",)


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {}, {"type": "string"}])
def test_what_is_no_avro_schema_of_a_record_is_refused_at_once(schema: dict[str, Any]) -> None:
    pytest.importorskip("fastavro")
    with pytest.raises(ConfigError, match="Avro: "):
        nr.Avro(schema)


def test_a_byte_order_mark_changes_nothing_wherever_its_event_stands() -> None:
    plain = b'{"user":1,"amount":1.5,"at":1}'
    marked, twice = BOM_UTF8 + plain, BOM_UTF8 * 2 + plain
    for values in permutations([plain, marked, twice, b"{"]):
        verify_alone_and_together(Json(), values)
    (good,) = outcome(Json(), [plain])
    assert outcome(Json(), [marked]) == [good]
    assert "not a JSON object" in outcome(Json(), [twice])[0][1][0]
