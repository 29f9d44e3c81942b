"""`Stream`: events from the log with a schema and checks, as a table, and as what is newest of each key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from noria.core import ConfigError, Outcome, Progress, Schema, Settings, check_name, duration
from noria.pipelines.checks import Check, Unique
from noria.pipelines.expressions import definition
from noria.pipelines.source import Source
from noria.storage import Workspace

if TYPE_CHECKING:
    import polars as pl

    from noria.pipelines.event_formats import EventFormat
    from noria.pipelines.online_sinks import LatestRow, Totals


@dataclass(frozen=True)
class Stream:
    """Events of a topic; `noria stream` brings them into the table of the same name, seconds after they come.

    `noria run` brings in what is in the log at that moment, and stops.

    Attributes:
        name: of the component, of its table, and of its topic unless that is named.
        schema: the columns, as of a `Source`.
        checks: rules for values; an event that breaks one goes to quarantine with its partition and offset.
        key: the column that decides the partition: events with one key stay in order.
        time: the event time; by default the schema's only timestamp.
        where: events for which this isn't true are filtered out, and counted.
        steps_from: a source whose fitted steps are applied to each event.
        online: what is kept in the online store: `LatestRow`, `Totals`.
        lateness: how far behind the newest event (of its partition) an event may be before it counts as late.
        partitions: of the topic, if it has to be made: how many processes can share the work.
        format: how events are written: JSON unless said otherwise.
    """

    name: str
    schema: Schema
    checks: Sequence[Check] = ()
    key: str | None = None
    time: str | None = None
    where: pl.Expr | None = None
    steps_from: Source | None = None
    online: Sequence[LatestRow | Totals] = ()
    lateness: str = "1h"
    topic: str | None = None
    partitions: int = 1
    format: EventFormat | None = None
    description: str = "Events from the log."
    kind: str = field(default="stream", init=False)

    if TYPE_CHECKING:
        # A schema is given as a dictionary or a Schema, and kept as a Schema.
        def __init__(
            self,
            name: str,
            schema: Schema | Mapping[str, Any],
            checks: Sequence[Check] = (),
            key: str | None = None,
            time: str | None = None,
            where: pl.Expr | None = None,
            steps_from: Source | None = None,
            online: Sequence[LatestRow | Totals] = (),
            lateness: str = "1h",
            topic: str | None = None,
            partitions: int = 1,
            format: EventFormat | None = None,
            description: str = "Events from the log.",
        ) -> None: ...

    def __post_init__(self) -> None:
        check_name(self.name, "stream")
        # The same rules as a source's: checks, time, where.
        rules = Source(self.name, "events.jsonl", self.schema, self.checks, time=self.time, where=self.where)
        object.__setattr__(self, "schema", rules.schema)
        object.__setattr__(self, "time", rules.time)
        object.__setattr__(self, "checks", tuple(self.checks))
        if any(isinstance(check, Unique) for check in self.checks):
            raise ConfigError(
                f"stream {self.name!r}: uniqueness can't be checked in a stream, which has no end",
                hint="keep the newest row of each key online: online=[nr.LatestRow(key)]",
            )
        if self.key is not None:
            _ = rules.schema[self.key]
        for sink in self.online:
            sink.verify(self)
        if self.partitions < 1:
            raise ConfigError(f"stream {self.name!r}: partitions={self.partitions} must be at least 1")
        duration(self.lateness)

    @property
    def topic_name(self) -> str:
        """The topic in the log."""
        return self.topic or self.name

    @property
    def allowed_lateness(self) -> int:
        """`lateness` in microseconds."""
        return duration(self.lateness)

    @property
    def dependencies(self) -> tuple[str, ...]:
        return () if self.steps_from is None else (self.steps_from.name,)

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "name": self.name,
            "topic": self.topic_name,
            "schema": self.schema.to_dict(),
            "checks": [check.to_dict() for check in self.checks],
            "key": self.key,
            "time": self.time,
            "where": definition(self.where) if self.where is not None else None,
            "steps_from": self.steps_from.name if self.steps_from is not None else None,
            "online": [sink.to_dict() for sink in self.online],
            "lateness": self.lateness,
            "format": self.format.to_dict() if self.format is not None else {"format": "json"},
        }

    def inputs(self, settings: Settings) -> dict[str, str]:
        """Where each partition ends now."""
        from noria.storage.urls import open_log

        log = open_log(settings.storage.log, settings.root)
        try:
            if self.topic_name not in log.topics():
                return {}
            ends = log.bounds(self.topic_name)
        finally:
            log.close()
        return {f"{self.topic_name}/{partition}": str(end) for partition, (_, end) in ends.items()}

    def lost(self, workspace: Workspace, version: str) -> str:
        """Whether the table is gone."""
        found = workspace.table(self.name).version()
        return "" if found is not None and found >= int(version.partition("-")[0]) else "its table is gone"

    def run(self, workspace: Workspace, run_id: str, progress: Progress, *, full: bool = False) -> Outcome:
        """Bring in what is in the log now."""
        from noria.pipelines.stream_processor import StreamProcessor

        with StreamProcessor(self, workspace) as processor:
            result = processor.run_to_end(progress)
        version = workspace.table(self.name).version()
        return Outcome(f"{version}-{run_id[-8:]}", result.rows, {"by_rule": dict(result.by_rule)})
