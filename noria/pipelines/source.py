"""`Source`: where rows come from and what they promise."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noria.core import ConfigError, DataError, Outcome, Progress, Schema, Settings, allowed, check_name
from noria.pipelines.checks import Check, unique
from noria.pipelines.expressions import definition
from noria.storage import Workspace

if TYPE_CHECKING:
    import polars as pl

    from noria.pipelines.steps import Step

FORMATS = (".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".parquet")


@dataclass(frozen=True)
class Source:
    """Files of rows with a schema and checks; `noria run` turns them into the table of the same name.

    Attributes:
        name: of the component and of its table.
        path: CSV, JSON lines (both also `.gz`) or Parquet, relative to the project's folder; `*` and `?` match many.
        schema: the columns; those of the file that it doesn't name are left out, and reported.
        checks: rules for values; a row that breaks one goes to quarantine.
        key: the column that names the entity, if each row is one entity: never missing, never twice.
        time: the event time; by default the schema's only timestamp.
        where: rows for which this expression isn't true are filtered out, and counted.
        steps: transformations of the whole table, fitted to it.

    Raises:
        ConfigError: an unknown type or column, a check that doesn't fit, an unknown file format.
    """

    name: str
    path: str
    schema: Schema
    checks: Sequence[Check] = ()
    key: str | None = None
    time: str | None = None
    where: pl.Expr | None = None
    steps: Sequence[Step] = ()
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
            description: str = "Rows from files.",
        ) -> None: ...

    def __post_init__(self) -> None:
        check_name(self.name, "source")
        if not self.path.lower().endswith(FORMATS):
            raise ConfigError(
                f"source {self.name!r}: {self.path!r} has no known format", hint=allowed(FORMATS), field="path"
            )
        schema = Schema.of(self.schema)
        object.__setattr__(self, "schema", schema)
        checks = (*self.checks, *((unique(self.key),) if self.key else ()))
        object.__setattr__(self, "checks", checks)
        try:
            for check in checks:
                check.verify(schema)
            self._verify_time(schema)
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

    @property
    def dependencies(self) -> tuple[str, ...]:
        """None: data enters here."""
        return ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "name": self.name,
            "path": self.path,
            "schema": self.schema.to_dict(),
            "checks": [check.to_dict() for check in self.checks],
            "key": self.key,
            "time": self.time,
            "where": definition(self.where) if self.where is not None else None,
            "steps": [step.to_dict() for step in self.steps],
        }

    def files(self, settings: Settings) -> list[Path]:
        """The files that the path names now, in order.

        Raises:
            DataError: there is none.
        """
        pattern = settings.root / self.path
        if any(sign in self.path for sign in "*?["):
            found = sorted(
                path for path in Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))) if path.is_file()
            )
        else:
            found = [pattern] if pattern.is_file() else []
        if not found:
            raise DataError(
                f"source {self.name!r}: there is no file {pattern}",
                hint="put the file there, or change the path in system.py (relative to the project's folder)",
                field="path",
            )
        return found

    def inputs(self, settings: Settings) -> dict[str, str]:
        """Each file's digest, so that a changed byte, and nothing else, makes the source stale."""
        return {
            str(file.relative_to(settings.root) if file.is_relative_to(settings.root) else file): _digest(file)
            for file in self.files(settings)
        }

    def lost(self, workspace: Workspace, version: str) -> str:
        """Whether the table is gone."""
        found = workspace.table(self.name).version()
        return "" if found is not None and found >= int(version.partition("-")[0]) else "its table is gone"

    def run(self, workspace: Workspace, run_id: str, progress: Progress) -> Outcome:
        """Read, check, transform and load."""
        from noria.pipelines.batch import BatchProcessor

        result = BatchProcessor(self, workspace).run(run_id)
        return Outcome(
            # The run's hash too: a table that was removed and made anew counts its versions from 0 again.
            f"{result.table_version}-{run_id[-8:]}",
            result.rows,
            {"by_rule": result.by_rule, "extra_columns": list(result.extra_columns)},
        )


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise DataError(f"{file} can't be read: {error}") from error
