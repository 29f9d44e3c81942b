"""Quarantine: the rows that broke a contract, and how they come back when the contract has been mended."""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import polars as pl

from noria.core import ConfigError, ConflictError, NoProgress, NotFoundError, Schema, exclusive, fingerprint
from noria.pipelines.batch import BatchResult, Loading
from noria.pipelines.contract import POSITION
from noria.pipelines.event_formats import Json
from noria.pipelines.extract import PIECE_ROWS, Input, Piece
from noria.pipelines.json_events import read_json_events
from noria.pipelines.json_lines import read_json_lines
from noria.pipelines.loads import Loads
from noria.pipelines.plan import Plan, state_to_append_by
from noria.pipelines.rows import BrokenRow, Rows
from noria.pipelines.source import Source
from noria.pipelines.stream import Stream
from noria.pipelines.stream_processor import StreamProcessor
from noria.storage import ABSENT, Put, Workspace
from noria.storage.tables import Mode, Table, TableMark

_REPLAYED = "noria/replayed"
_COLLECTION = "replays"
_EVENT = ("file", "position", "at")
"""Which event it was, and when it came here."""
_TRIES = 100
"""How often events may come to the quarantine while those that were sent are taken out of it."""


@dataclass(frozen=True)
class QuarantineSummary:
    """How many rows of a source are in quarantine, by what their reasons have in common."""

    source: str
    rows: int
    by_rule: dict[str, int]
    newest: str | None


def rules(reasons: pl.Expr) -> pl.Expr:
    """Reasons without the values in them: `rating: 'abc' is not float32` is `rating: not float32`."""
    said = reasons.str.replace(r"(?s)^([^:]+): '.*' is not ", "${1}: not ")
    return pl.when(said.str.contains("not a JSON object")).then(pl.lit("not a JSON object")).otherwise(said)


def summarize(workspace: Workspace, source: str) -> QuarantineSummary:
    """What is in a source's quarantine; all zeros if it was never loaded."""
    table = workspace.table(f"{source}__quarantine")
    if table.version() is None:
        return QuarantineSummary(source, 0, {}, None)
    rows = table.read(columns=["reasons", "at"])
    counts = rows.select(rules(pl.col("reasons").list.explode()).alias("rule")).to_series().value_counts(sort=True)
    by_rule = {str(rule): int(count) for rule, count in counts.rows() if rule is not None}
    return QuarantineSummary(source, len(rows), by_rule, rows["at"].max())  # type: ignore[arg-type]


def show(workspace: Workspace, source: str, *, rule: str | None = None, limit: int = 20) -> pl.DataFrame:
    """The newest rows in quarantine (of one rule, if it is named), with their reasons."""
    table = workspace.table(f"{source}__quarantine")
    if table.version() is None:
        raise NotFoundError(f"source {source!r} was never loaded", hint=f"noria run {source}")
    rows = table.scan()
    if rule is not None:
        rows = rows.filter(pl.col("reasons").list.eval(rules(pl.element())).list.contains(rule))
    return rows.tail(limit).collect()


def replay(source: Source, workspace: Workspace, run_id: str | None = None) -> BatchResult:
    """Judge the rows in quarantine by the source's contract as it is now; those that hold it come to the table.

    The others stay, with the reasons that they have now. What could never be read as a row stays too. The contract as
    it is now counts as the one that the table was loaded by: the next run doesn't read everything anew for it. So only
    what rows are judged by may have changed: checks, limits, and what may be missing.

    Raises:
        BusyError: another process loads this source.
        ConfigError: something else of the definition has changed since the table was loaded.
        ConfigError: only a whole run can do it: a step looks at several rows, or the table lacks keys that may not be
            repeated, because a step or `where` has changed them or left them out.
        NotFoundError: the source was never loaded.
        SchemaError: the table has other columns than the source promises now.
    """
    lock = workspace.settings.state_dir / "locks" / f"source-{source.name}"
    with exclusive(lock, f"loading the source {source.name!r}"):
        loads = Loads(workspace, source.name)
        loads.recover()
        current = loads.current()
        if not current:
            raise NotFoundError(f"source {source.name!r} was never loaded", hint=f"noria run {source.name}")
        if current[-1].shape != fingerprint(source.shape()):
            raise ConfigError(
                f"source {source.name!r}: its table was loaded by another definition, and not only by other checks, "
                "limits (max_bad, fresh) or question marks: rows of two definitions would get into one table",
                hint=f"noria run {source.name} --full",
            )
        steps = state_to_append_by(source, workspace, current)
        if steps is None:
            raise ConfigError(
                f"source {source.name!r}: rows can't come to its table one by one, since a step looks at several rows, "
                "or a step or where= changes or leaves out what has to be unique",
                hint=f"noria run {source.name} --full",
            )
        held = loads.quarantine.read()
        frames = Input("quarantine", "pieces", "", 0, "")
        plan = Plan("append", (frames,), steps=steps, cursor=lambda: current[-1].cursor)
        return _Replaying(source, workspace, loads, plan, run_id or secrets.token_hex(8), NoProgress(), held).run()


def replay_stream(stream: Stream, workspace: Workspace) -> BatchResult:
    """Send the events in quarantine through the stream again, as it is now, and bring in what is in the log.

    They go to the end of the log, and leave the quarantine; those that are bad still come back to it, and so do those
    that come in meanwhile. Done again after a crash in between, on an embedded log, they are sent once: what is to be
    sent is written down first.

    Raises:
        BusyError: another process sends them.
        NotFoundError: the stream was never processed.
        ConfigError: its events aren't text, so that the quarantine doesn't have them.
    """
    table = workspace.table(f"{stream.name}__quarantine")
    if table.version() is None:
        raise NotFoundError(f"stream {stream.name!r} was never processed", hint=f"noria stream {stream.name} --once")
    if stream.format is not None and not isinstance(stream.format, Json):
        raise ConfigError(
            "only events of JSON can be sent again from the quarantine", hint="send them from their origin"
        )
    lock = workspace.settings.state_dir / "locks" / f"replay-{stream.name}"
    with exclusive(lock, f"sending what is in quarantine of {stream.name!r}"):
        # What a killed process has written down is sent to the end, before what has come since.
        sent = sum(_send(stream, workspace, table, sending) for sending in _sendings(stream, workspace, table))
    with StreamProcessor(stream, workspace) as processor:
        result = processor.run_to_end()
    rows = (sent, sent - result.quarantined, result.quarantined, result.filtered)
    return BatchResult(*rows, dict(result.by_rule), table.version() or 0, (), "append")


@dataclass(frozen=True)
class _Sending:
    """What is to be sent, written down before it is: whoever sends it after a crash sends the same, the same way.

    Attributes:
        turn: the mark that the quarantine gets when it is done.
        version: of the quarantine, whose rows are sent.
        producer: known to the log for these rows only.
        key, schema: the stream's when it was begun; another key would bring events to other partitions.
        done: that the quarantine has the mark, even if it is made anew later, without marks.
    """

    turn: int
    version: int
    producer: str
    key: str | None
    schema: dict[str, str]
    done: bool = False


def _sendings(stream: Stream, workspace: Workspace, table: Table) -> Iterator[_Sending]:
    """What was begun and not ended, and then what is in quarantine now."""
    turn = table.mark(_REPLAYED) + 1
    record = workspace.records.get(_COLLECTION, stream.name)
    if record is not None and record.data["turn"] == turn and not record.data["done"]:
        yield _Sending(**record.data)
        turn += 1
        record = workspace.records.get(_COLLECTION, stream.name)
    version = table.version()
    if version is None or not table.scan(version).select(pl.len()).collect().item():
        return
    producer = f"replay/{stream.name}/{secrets.token_hex(8)}"
    made = _Sending(turn, version, producer, stream.key, stream.schema.to_dict())
    workspace.records.commit(
        Put(_COLLECTION, stream.name, asdict(made), expect=ABSENT if record is None else record.revision)
    )
    yield made


def _send(stream: Stream, workspace: Workspace, table: Table, sending: _Sending) -> int:
    """Append the rows to the log, then take them, and no others, out of the quarantine; returns how many."""
    held = table.read(sending.version)
    values = [row.encode() for row in held["row"].to_list()]
    keys = _event_keys(values, sending)
    workspace.log.append(stream.topic_name, values, keys, producer=(sending.producer, sending.turn))
    mark = TableMark(_REPLAYED, sending.turn - 1, sending.turn)
    for _ in range(_TRIES):
        version = table.version()
        now = table.read(version)
        left = now.join(held, on=_EVENT, how="anti", nulls_equal=True, maintain_order="left")
        name = f"{(version or 0) + 1:012d}-{secrets.token_hex(4)}"
        parts = [table.stage(left, name)] if len(left) else []
        try:
            table.commit(parts, now.schema, mode="overwrite", marks=[mark], version=version)
        except ConflictError as error:  # others have come to the quarantine: they must stay
            table.discard(name)
            failure = error
        else:
            workspace.records.commit(Put(_COLLECTION, stream.name, asdict(replace(sending, done=True))))
            return len(held)
    raise failure


def _event_keys(values: Sequence[bytes], sending: _Sending) -> list[bytes | None] | None:
    """The events' keys, where they can be read; with them they come to the partition that they came from."""
    if sending.key is None:
        return None
    rows = read_json_events(values, Schema.of(sending.schema))
    places = rows.positions or range(1, len(rows.frame) + 1)
    keys: list[bytes | None] = [None] * len(values)
    for place, key in zip(places, rows.frame[sending.key].cast(pl.String).to_list(), strict=True):
        keys[place - 1] = None if key is None else key.encode()
    return keys


class _Replaying(Loading):
    """A load whose input is the quarantine, and which leaves in it what is still bad."""

    def __init__(self, *parts: Any) -> None:
        *rest, held = parts
        super().__init__(*rest)
        self._held: pl.DataFrame = held

    @property
    def bad_mode(self) -> Mode:
        return "overwrite"

    def inputs(self) -> dict[str, dict[str, Any]]:
        return {}

    def pieces(self, source: Input) -> Generator[Piece]:
        for start in range(0, len(self._held), PIECE_ROWS):
            rows = self._held.slice(start, PIECE_ROWS)
            yield Piece(partial(_read, rows, self._source), len(rows))

    def origin(self, bad: pl.DataFrame, name: str) -> pl.DataFrame:
        return self._held[(bad[POSITION] - 1).to_list()].select("run_id", "file", "position", "row", "at")

    def verify(self) -> None:
        """However many are bad: they were so before."""


def _read(held: pl.DataFrame, source: Source) -> Rows:
    """Rows in quarantine as they stood in their files; what is no JSON object could never be read as a row."""
    lines = held["row"].str.replace_all("\n", " ", literal=True).str.strip_chars()
    data = lines.set(lines == "", "-").str.join("\n").item() or ""
    rows = read_json_lines(data.encode(), source.schema, first=False)
    reasons = held["reasons"].list.first()
    broken = tuple(BrokenRow(row.position, str(reasons[row.position - 1]), row.text) for row in rows.broken)
    return Rows(rows.frame, rows.positions, broken)
