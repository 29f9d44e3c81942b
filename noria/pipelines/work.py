"""Work: what is done with one piece of an input, by whoever has it: read, judge, filter, and perhaps stage."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from noria.core import Schema
from noria.pipelines.checks import Check
from noria.pipelines.contract import POSITION, judge
from noria.pipelines.duplicates import Hashes, key_hashes
from noria.pipelines.extract import Piece, readable
from noria.pipelines.first_look import Look
from noria.pipelines.steps import FittedStep, apply_steps
from noria.storage.tables import Part, Table


@dataclass(frozen=True)
class Said:
    """What the work says of a piece; positions count from the piece's start."""

    rows: int
    good: int
    kept: int
    by_rule: Counter[str]
    bad: pl.DataFrame
    extra: tuple[str, ...]
    newest: int | None
    size: int
    hashes: list[Hashes] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    part: Part | None = None


@dataclass(frozen=True)
class Work:
    """Reads and judges a piece.

    Attributes:
        checks: those that look at one row.
        where: rows for which it isn't true are left out; None where that has to wait.
        keys: sets of columns whose hashes are wanted.
        steps: transform what is kept.
        looks: what is to be told of the rows that come out of the steps.
        table: where the rows are staged at once; None to give them back, with `POSITION` if keys are wanted.
    """

    schema: Schema
    checks: tuple[Check, ...]
    where: pl.Expr | None
    keys: tuple[tuple[str, ...], ...]
    time: str | None
    steps: tuple[FittedStep, ...]
    looks: tuple[Look, ...]
    table: Table | None
    prefix: str

    def __call__(self, item: tuple[int, str, Piece]) -> tuple[Said, pl.DataFrame | None]:
        number, name, piece = item
        with readable(name):
            rows = piece.read()
            judged = judge(rows, self.schema, self.checks)
        kept = judged.good if self.where is None else judged.good.filter(self.where)
        by_rule = judged.by_rule
        if len(kept) < len(judged.good):
            by_rule["filtered by where"] += len(judged.good) - len(kept)
        newest: Any = judged.good[self.time].to_physical().max() if self.time is not None else None
        said = {
            "rows": rows.count,
            "good": len(judged.good),
            "kept": len(kept),
            "by_rule": by_rule,
            "bad": judged.bad,
            "extra": rows.extra,
            "newest": newest,
            "size": piece.size,
            "hashes": [key_hashes(judged.good, columns) for columns in self.keys],
        }
        kept = apply_steps(self.steps, kept)
        said["answers"] = [look(kept, number) for look in self.looks]
        if self.table is not None:
            part = self.table.stage(kept, f"{self.prefix}-{number:06d}") if len(kept) else None
            return Said(**said, part=part), None
        return Said(**said), kept.with_columns(judged.positions.alias(POSITION)) if self.keys else kept
