"""`BatchProcessor`: extract, check, filter, transform, load; every row accounted for."""

from __future__ import annotations

import secrets
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from noria.core import to_iso
from noria.pipelines.contract import REASONS, judge
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
        whole = _concatenated(files)
        judged = judge(whole, source)
        reasons = Counter(reason for row in judged.bad[REASONS].to_list() for reason in _rules(row))
        reasons += Counter(line.reason for file in files for line in file.broken)
        good = judged.good.drop(POSITION)
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
        at = to_iso(self._workspace.clock.now())
        names, ends = [str(file.file) for file in files], np.cumsum([len(file.frame) for file in files])
        index = (bad[POSITION] - 1).to_list()
        places = np.searchsorted(ends, index, side="right").tolist()
        starts = [0, *ends.tolist()]
        rows = [
            (
                run_id,
                self._source.name,
                names[place],
                files[place].frame[POSITION][at_row - starts[place]],
                reasons,
                row,
                at,
            )
            for place, at_row, reasons, row in zip(
                places, index, bad[REASONS].to_list(), bad["row"].to_list(), strict=True
            )
        ]
        rows += [
            (run_id, self._source.name, str(file.file), line.position, [line.reason], line.text, at)
            for file in files
            for line in file.broken
        ]
        return pl.DataFrame(rows, schema=_QUARANTINE, orient="row")

    def _keep(self, fitted: tuple[FittedStep, ...], run_id: str) -> None:
        if fitted:
            state = {"steps": steps_to_dict(fitted)}
            self._workspace.records.commit(Put("steps", f"{self._source.name}@{run_id}", state))


def _concatenated(files: list[Extracted]) -> Extracted:
    """All files as one, so that rules such as uniqueness see all rows; positions are then those in the whole."""
    frame = pl.concat([file.frame for file in files], how="vertical_relaxed")
    frame = frame.with_columns(pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias(POSITION))
    return Extracted(files[0].file, frame, [], ())


def _rules(reasons: list[str]) -> list[str]:
    """The reasons without the values in them: `rating: 'abc' is not float32` counts as `rating: not float32`."""
    return [
        f"{reason.split(': ', 1)[0]}: not {reason.rsplit(' is not ', 1)[1]}" if " is not " in reason else reason
        for reason in reasons
    ]
