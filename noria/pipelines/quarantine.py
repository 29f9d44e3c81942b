"""Quarantine: the rows that broke a contract, and how they come back when the contract has been mended."""

from __future__ import annotations

import secrets
from collections.abc import Generator
from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl

from noria.core import ConfigError, NoProgress, NotFoundError, exclusive, fingerprint
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
from noria.storage import Workspace
from noria.storage.tables import Mode, TableMark

_REPLAYED = "noria/replayed"


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

    They go to the end of the log, and the quarantine is emptied of them; those that are bad still come back to it. Done
    again after a crash in between, on an embedded log, they are sent once.

    Raises:
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
    turn = table.mark(_REPLAYED)
    held = table.read()
    values = [row.encode() for row in held["row"].to_list()]
    if values:
        keys = _event_keys(stream, held) if stream.key is not None else None
        workspace.log.append(stream.topic_name, values, keys, producer=(f"replay/{stream.name}", turn + 1))
        mark = TableMark(_REPLAYED, turn, turn + 1)
        table.commit([], held.schema, mode="overwrite", marks=[mark])
    with StreamProcessor(stream, workspace) as processor:
        result = processor.run_to_end()
    rows = (len(values), len(values) - result.quarantined, result.quarantined, result.filtered)
    return BatchResult(*rows, dict(result.by_rule), table.version() or 0, (), "append")


def _event_keys(stream: Stream, held: pl.DataFrame) -> list[bytes | None]:
    """The events' keys, where they can be read; with them they come to the partition that they came from."""
    rows = read_json_events([row.encode() for row in held["row"].to_list()], stream.schema)
    places = rows.positions or range(1, len(rows.frame) + 1)
    keys: list[bytes | None] = [None] * len(held)
    for place, key in zip(places, rows.frame[str(stream.key)].cast(pl.String).to_list(), strict=True):
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
