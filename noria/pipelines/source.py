"""`Source`: where rows come from and what they promise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from noria.core import (
    ConfigError,
    DataError,
    Outcome,
    Progress,
    Schema,
    Settings,
    allowed,
    check_name,
    duration,
)
from noria.pipelines.checks import Check, unique
from noria.pipelines.expressions import definition
from noria.pipelines.sql.url import masked
from noria.storage import Workspace

if TYPE_CHECKING:
    import polars as pl

    from noria.pipelines.extract import Input
    from noria.pipelines.query import Query
    from noria.pipelines.steps import Step

DATABASES = ("postgresql", "postgres", "mysql", "mariadb", "sqlite", "duckdb")
FORMATS = (
    *(f"{form}{packed}" for form in (".csv", ".jsonl", ".ndjson") for packed in ("", ".gz", ".zst")),
    ".parquet",
)


@dataclass(frozen=True)
class Source:
    """Rows with a schema and checks, from files, objects, a database or another Delta table.

    `noria run` turns them into the table of the same name. It takes what is new since the last run: new files, what was
    added to the end of a text file, rows above the query's cursor. When something has changed otherwise (a file, this
    definition), it reads everything anew.

    Attributes:
        name: of the component and of its table.
        path: CSV, JSON lines (both also `.gz` and `.zst`) or Parquet, relative to the project's folder or under
            `s3://`; `*`, `?` and `**` match many. Or a database: `postgresql://`, `mysql://`, `mariadb://`,
            `sqlite:///` or `duckdb:///`. Or the folder of a Delta table: `delta://`.
        schema: the columns; those of the file that it doesn't name are left out, and reported.
        checks: rules for values; a row that breaks one goes to quarantine.
        key: the column that names the entity, if each row is one entity: never missing, never twice.
        time: the event time; by default the schema's only timestamp.
        where: rows for which this expression isn't true are filtered out, and counted.
        steps: transformations of the whole table, fitted to it; rows that come later are transformed by the same
            state, until everything is read anew (`noria run NAME --full`).
        query: for databases: a `SELECT`, or a table's name.
        cursor: for databases: a column that never shrinks (a serial number, the time of change); rows in which it is
            missing come only when all rows are read. Without a cursor each run reads all rows.
        max_bad: the largest share of bad rows that is let through; with more, or when a table would be replaced by
            nothing since every row is bad, the run stops and the table stays as it is.
        fresh: how old the newest row's event time may be when rows are loaded, such as `2d`.

    Raises:
        ConfigError: an unknown type or column, a check that doesn't fit, an unknown file format.
    """

    name: str
    path: str = field(repr=False)  # it may have a password
    schema: Schema
    checks: Sequence[Check] = ()
    key: str | None = None
    time: str | None = None
    where: pl.Expr | None = None
    steps: Sequence[Step] = ()
    query: str | None = None
    cursor: str | None = None
    max_bad: float = 1.0
    fresh: str | None = None
    description: str = "Rows from files."
    kind: str = field(default="source", init=False)

    if TYPE_CHECKING:
        # A schema is given as a dictionary or a Schema, and kept as a Schema.
        def __init__(
            self,
            name: str,
            path: str,
            schema: Schema | Mapping[str, Any],
            checks: Sequence[Check] = (),
            key: str | None = None,
            time: str | None = None,
            where: pl.Expr | None = None,
            steps: Sequence[Step] = (),
            query: str | None = None,
            cursor: str | None = None,
            max_bad: float = 1.0,
            fresh: str | None = None,
            description: str = "Rows from files.",
        ) -> None: ...

    def __post_init__(self) -> None:
        check_name(self.name, "source")
        self._verify_path()
        schema = Schema.of(self.schema)
        object.__setattr__(self, "schema", schema)
        checks = (*self.checks, *((unique(self.key),) if self.key else ()))
        object.__setattr__(self, "checks", checks)
        try:
            for check in checks:
                check.verify(schema)
            self._verify_time(schema)
            self._verify_where(schema)
            self._verify_limits(schema)
            if self.key is not None and schema[self.key].nullable:
                raise ConfigError(
                    f"the key {self.key!r} may not be missing", hint="remove its question mark", field=self.key
                )
        except ConfigError as error:
            error.message = f"source {self.name!r}: {error.message}"
            raise

    def _verify_time(self, schema: Schema) -> None:
        if self.time is None:
            object.__setattr__(self, "time", schema.time_column)
        elif schema[self.time].dtype != "timestamp":
            raise ConfigError(
                f"the time column {self.time!r} is {schema[self.time].dtype}", hint="make it nr.Timestamp(…)"
            )
        if self.time is not None and schema[self.time].nullable and self.where is None:
            raise ConfigError(
                f"the event time {self.time!r} may be missing",
                hint=f"remove nullable=True, or filter: where=nr.col({self.time!r}).is_not_null()",
                field=self.time,
            )

    def _verify_where(self, schema: Schema) -> None:
        if self.where is None:
            return
        import polars as pl

        from noria.pipelines.dtypes import polars_schema

        for name in self.where.meta.root_names():
            _ = schema[name]  # did you mean …?
        try:
            pl.DataFrame(schema=polars_schema(schema)).filter(self.where)
        except (pl.exceptions.PolarsError, TypeError) as error:
            raise ConfigError(f"where={self.where} can't filter its rows: {error}", field="where") from error

    def _verify_path(self) -> None:
        if self.is_query:
            if not self.query:
                raise ConfigError(
                    f"source {self.name!r} names a database and nothing in it",
                    hint='add query="SELECT …" or query="table"',
                    field="query",
                )
        elif self.query or self.cursor:
            raise ConfigError(
                f"source {self.name!r}: query and cursor go with a database", hint=allowed(DATABASES), field="query"
            )
        elif not self.path.startswith("delta://") and not self.path.lower().endswith(FORMATS):
            raise ConfigError(
                f"source {self.name!r}: {masked(self.path)!r} has no known format",
                hint=allowed([*FORMATS, "delta://", *(f"{name}://" for name in DATABASES)]),
                field="path",
            )

    def _verify_limits(self, schema: Schema) -> None:
        if not 0 <= self.max_bad <= 1:
            raise ConfigError(f"max_bad={self.max_bad} is no share of the rows", hint="it is from 0 to 1")
        if self.cursor is not None:
            _ = schema[self.cursor]
        if self.fresh is not None:
            duration(self.fresh)
            if self.time is None:
                raise ConfigError("fresh= needs an event time", hint="name it: time=", field="time")

    @property
    def is_query(self) -> bool:
        """Whether the rows come from a database."""
        return self.path.partition("://")[0] in DATABASES

    @property
    def fresh_within(self) -> int:
        """`fresh` in microseconds."""
        return duration(self.fresh) if self.fresh is not None else 0

    @property
    def dependencies(self) -> tuple[str, ...]:
        """None: data enters here."""
        return ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "name": self.name,
            "path": masked(self.path),
            "schema": self.schema.to_dict(),
            "checks": [check.to_dict() for check in self.checks],
            "key": self.key,
            "time": self.time,
            "where": definition(self.where) if self.where is not None else None,
            "steps": [step.to_dict() for step in self.steps],
            **({"query": self.query, "cursor": self.cursor} if self.is_query else {}),
            **({"max_bad": self.max_bad} if self.max_bad < 1 else {}),
            **({"fresh": self.fresh} if self.fresh is not None else {}),
        }

    def shape(self) -> dict[str, Any]:
        """The definition without what rows are only judged by: the checks, the limits, and what may be missing.

        Sources of one shape make the same columns of the same rows. The key belongs to it: it names the entity.
        """
        made = {name: value for name, value in self.to_dict().items() if name not in ("checks", "max_bad", "fresh")}
        made["schema"] = [replace(column, nullable=False).spec() for column in self.schema]
        made["columns"] = self.schema.names
        return made

    def find(self, settings: Settings) -> list[Input]:
        """The files, objects or tables that the path names now, in order.

        Raises:
            DataError: there is none.
        """
        from noria.pipelines import files, tables

        if self.path.startswith("s3://"):
            found = files.find_objects(self.path)
        elif self.path.startswith("delta://"):
            found = tables.find_table(self.path.removeprefix("delta://"), settings)
        else:
            found = files.find_files(self.path, settings)
        if not found:
            where = self.path if "://" in self.path else settings.root / self.path
            raise DataError(
                f"source {self.name!r}: there is no file {where}",
                hint="put the file there, or change the path in system.py (relative to the project's folder)",
                field="path",
            )
        return found

    def open_query(self, settings: Settings, last: Any) -> Query:
        """The query, ready to be read from where the last load ended."""
        from noria.pipelines.query import Query

        return Query(self.path, str(self.query), self.cursor, settings.root, last)

    def inputs(self, settings: Settings) -> dict[str, str]:
        """Each file's digest, so that a changed byte, and nothing else, makes the source stale.

        A query's cursor stands for its rows; one without a cursor is never known to be fresh.
        """
        if self.is_query:
            query = self.open_query(settings, None)
            return {query.input.name: query.identity()}
        return {found.name: found.identity for found in self.find(settings)}

    def lost(self, workspace: Workspace, version: str) -> str:
        """Whether the table is gone."""
        found = workspace.table(self.name).version()
        return "" if found is not None and found >= int(version.partition("-")[0]) else "its table is gone"

    def run(self, workspace: Workspace, run_id: str, progress: Progress, *, full: bool = False) -> Outcome:
        """Read, check, transform and load."""
        from noria.pipelines.batch import BatchProcessor

        result = BatchProcessor(self, workspace).run(run_id, full=full, progress=progress)
        return Outcome(
            # The run's hash too: a table that was removed and made anew counts its versions from 0 again.
            f"{result.table_version}-{run_id[-8:]}",
            result.rows,
            {"by_rule": result.by_rule, "extra_columns": list(result.extra_columns), "mode": result.mode},
        )
