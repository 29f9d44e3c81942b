"""`BatchProcessor`: extract, check, filter, transform, load; every row accounted for."""

from __future__ import annotations

import secrets
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from noria.core import to_iso
from noria.pipelines.contract import FILE, REASONS, judge
from noria.pipelines.extract import POSITION, Extracted, extract
from noria.pipelines.source import Source
from noria.pipelines.steps import fit_steps, steps_to_dict
from noria.storage import Put, Workspace

if TYPE_CHECKING:
    from noria.pipelines.steps import FittedStep

_QUARANTINE: dict[str, pl.DataType | type[pl.DataType]] = {
    "run_id": pl.String,
    "source": pl.String,
    "file": pl.String,
    "position": pl.Int64,
    "reasons": pl.List(pl.String),
    "row": pl.String,
    "at": pl.String,
}


@dataclass(frozen=True)
class BatchResult:
    """What became of the rows: `rows_in = rows_out + quarantined + filtered`.

    Attributes:
        by_rule: rows for each reason; a row with two reasons counts for both.
        table_version: the version that holds the rows.
        extra_columns: the files' columns that the schema doesn't name.
    """

    rows_in: int
    rows_out: int
    quarantined: int
    filtered: int
    by_rule: dict[str, int]
    table_version: int
    extra_columns: tuple[str, ...]

    @property
    def rows(self) -> dict[str, int]:
        """The counts by the names that reports use."""
        return {"in": self.rows_in, "out": self.rows_out, "quarantined": self.quarantined, "filtered": self.filtered}


class BatchProcessor:
    """Loads a source into the table of its name, and what breaks its contract into `NAME__quarantine`."""

    def __init__(self, source: Source, workspace: Workspace | None = None) -> None:
        self._source = source
        self._workspace = workspace or Workspace.open()

    def run(self, run_id: str | None = None) -> BatchResult:
        """Read every file and replace both tables; done twice under one `run_id` it is done once.

        Raises:
            DataError: there is no file, or one can't be read.
            SchemaError: a file lacks a column; nothing has been written then.
        """
        source, run_id = self._source, run_id or secrets.token_hex(8)
        files = [extract(file, source.schema) for file in source.files(self._workspace.settings)]
        judged = judge(files, source)
        names = {check.name for check in source.checks}
        reasons = Counter(_rule(reason, names) for reason in judged.bad[REASONS].explode().to_list())
        reasons += Counter(line.reason.partition(": ")[0] for file in files for line in file.broken)
        good = judged.good
        kept = good if source.where is None else good.filter(source.where)
        if source.where is not None and len(good) > len(kept):
            reasons["filtered by where"] = len(good) - len(kept)
        fitted, loaded = fit_steps(source.steps, kept)
        if len(kept) > len(loaded):
            reasons["dropped by steps"] = len(kept) - len(loaded)
        bad = self._quarantined(files, judged.bad, run_id)
        # Quarantine first: if the machine dies between the two, no bad row is without its record.
        self._workspace.table(f"{source.name}__quarantine").write(bad, run_id=run_id, mode="overwrite")
        self._keep(fitted, run_id)
        version = self._workspace.table(source.name).write(loaded, run_id=run_id, mode="overwrite")
        return BatchResult(
            rows_in=sum(file.rows for file in files),
            rows_out=len(loaded),
            quarantined=len(bad),
            filtered=len(good) - len(loaded),
            by_rule=dict(reasons.most_common()),
            table_version=version,
            extra_columns=tuple(dict.fromkeys(name for file in files for name in file.extra_columns)),
        )

    def _quarantined(self, files: list[Extracted], bad: pl.DataFrame, run_id: str) -> pl.DataFrame:
        names = [str(file.file) for file in files]
        broken = [
            (name, line.position, [line.reason], line.text)
            for name, file in zip(names, files, strict=True)
            for line in file.broken
        ]
        rows = bad.select(
            pl.lit(pl.Series(names)).gather(pl.col(FILE)).alias("file"),
            pl.col(POSITION).alias("position"),
            pl.col(REASONS).alias("reasons"),
            "row",
        )
        columns = {name: _QUARANTINE[name] for name in rows.columns}
        whole = pl.concat([rows, pl.DataFrame(broken, schema=columns, orient="row")])
        return whole.select(
            pl.lit(run_id).alias("run_id"),
            pl.lit(self._source.name).alias("source"),
            *columns,
            pl.lit(to_iso(self._workspace.clock.now())).alias("at"),
        )

    def _keep(self, fitted: tuple[FittedStep, ...], run_id: str) -> None:
        if fitted:
            state = {"steps": steps_to_dict(fitted)}
            self._workspace.records.commit(Put("steps", f"{self._source.name}@{run_id}", state))


def _rule(reason: str, checks: set[str]) -> str:
    """The reason without the value in it: `rating: 'abc' is not float32` counts as `rating: not float32`."""
    if reason in checks or " is not " not in reason:
        return reason
    return f"{reason.split(': ', 1)[0]}: not {reason.rsplit(' is not ', 1)[1]}"
