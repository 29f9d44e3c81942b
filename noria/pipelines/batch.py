"""`BatchProcessor`: extract, check, filter, transform, load; every row accounted for, however many there are."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from noria.core import DataError, NoProgress, Progress, exclusive, fingerprint, to_iso
from noria.pipelines.blocks import Blocks
from noria.pipelines.checks import Unique
from noria.pipelines.compute import Compute, open_compute
from noria.pipelines.contract import POSITION, REASONS, TEXT
from noria.pipelines.dtypes import polars_schema
from noria.pipelines.duplicates import KeyIndex, key_hashes
from noria.pipelines.extract import PIECE_BYTES, Input, Piece, pieces
from noria.pipelines.first_look import Answered, Look, first_look
from noria.pipelines.loads import MARK, Load, Loads
from noria.pipelines.plan import Plan, plan_load
from noria.pipelines.source import Source
from noria.pipelines.steps import steps_from_dict, steps_to_dict
from noria.pipelines.work import Said, Work
from noria.storage import Put, Workspace
from noria.storage.tables import Mode, Part, Table

if TYPE_CHECKING:
    from noria.pipelines.steps import FittedStep

Rows = np.ndarray[Any, np.dtype[np.uint32]]

QUARANTINE: dict[str, pl.DataType | type[pl.DataType]] = {
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
        extra_columns: the inputs' columns that the schema doesn't name.
        mode: whether the rows replaced the table's (`overwrite`) or came to them (`append`).
        inputs: how many files (or queries) were read.
    """

    rows_in: int
    rows_out: int
    quarantined: int
    filtered: int
    by_rule: dict[str, int]
    table_version: int
    extra_columns: tuple[str, ...]
    mode: str = "overwrite"
    inputs: int = 0

    @property
    def rows(self) -> dict[str, int]:
        """The counts by the names that reports use."""
        return {"in": self.rows_in, "out": self.rows_out, "quarantined": self.quarantined, "filtered": self.filtered}


class BatchProcessor:
    """Loads a source into the table of its name, and what breaks its contract into `NAME__quarantine`.

    Memory stays flat however large the input is: rows go through in pieces. A process that is killed at any instant
    leaves the tables as they were; the next run goes on from there.
    """

    def __init__(self, source: Source, workspace: Workspace | None = None) -> None:
        self._source = source
        self._workspace = workspace or Workspace.open()

    def run(self, run_id: str | None = None, *, full: bool = False, progress: Progress | None = None) -> BatchResult:
        """Load what is new since the last run; all of it if something has changed, or if `full`.

        Done twice under one `run_id` it is done once. When nothing is new, the last run's result is returned.

        Raises:
            BusyError: another process loads this source.
            DataError: there is no file, or one can't be read; too many rows are bad, or none is fresh enough.
            SchemaError: an input lacks a column or has it in a type that can't be meant; nothing has been written then.
        """
        run_id = run_id or secrets.token_hex(8)
        lock = self._workspace.settings.state_dir / "locks" / f"source-{self._source.name}"
        with exclusive(lock, f"loading the source {self._source.name!r}"):
            loads = Loads(self._workspace, self._source.name)
            loads.recover()
            current = loads.current()
            done = next((load for load in current if load.run_id == run_id), None)
            if done is None:
                plan = plan_load(self._source, self._workspace, current, full)
                if plan is not None:
                    return Loading(self._source, self._workspace, loads, plan, run_id, progress or NoProgress()).run()
                done = current[-1]
            return BatchResult(**{**done.result, "extra_columns": tuple(done.result["extra_columns"])})


class Loading:
    """One load, from its inputs to the commit."""

    def __init__(
        self, source: Source, workspace: Workspace, loads: Loads, plan: Plan, run_id: str, progress: Progress
    ) -> None:
        self._source = source
        self._workspace = workspace
        self._loads = loads
        self._plan = plan
        self._run_id = run_id
        self._progress = progress
        self._number = loads.next_number()
        self._prefix = f"{self._number:012d}-{secrets.token_hex(4)}"
        self._at = to_iso(workspace.clock.now())
        self._unique = [check for check in source.checks if isinstance(check, Unique)]
        self._by_rule: Counter[str] = Counter()
        self._extra: dict[str, None] = {}
        self._rows_in = self._good = self._kept = self._bad = 0
        self._newest: int | None = None
        self._bad_parts: list[Part] = []
        self._input_rows: dict[str, int] = {}
        self._open: set[str] = set()
        self._starts: list[int] = []
        self._answers: list[list[Any]] = []

    def run(self) -> BatchResult:
        self._loads.table.discard(f"{self._number:012d}-")
        self._loads.quarantine.discard(f"{self._number:012d}-")
        scratch = self._workspace.settings.state_dir / "scratch" / self._source.name
        steps, looks = self._steps_while_reading()
        at_once = not self._unique and len(steps) == len(self._source.steps)
        work = Work(
            self._source.schema,
            tuple(check for check in self._source.checks if not isinstance(check, Unique)),
            None if self._unique else self._source.where,
            tuple(check.columns for check in self._unique),
            self._source.time,
            steps,
            looks,
            self._loads.table if at_once else None,
            self._prefix,
        )
        with open_compute(self._workspace.settings, scratch / "rows", self._loads.table) as compute:
            parts = self._read(work, compute, scratch)
            if not at_once:
                steps, parts = self._transform(compute, steps, looks)
        dropped = self._kept - sum(part.rows for part in parts)
        if dropped:
            self._by_rule["dropped by steps"] += dropped
        self.verify()
        return self._commit(steps, parts)

    def _steps_while_reading(self) -> tuple[tuple[FittedStep, ...], tuple[Look, ...]]:
        """Steps that can transform rows as they come in, and what those after them ask of the rows."""
        if self._unique:  # which rows stay is known only at the end
            return (), ()
        if self._plan.steps is not None:
            return steps_from_dict(self._plan.steps), ()
        return first_look(self._source.steps, pl.Schema(polars_schema(self._source.schema)))

    @property
    def bad_mode(self) -> Mode:
        """What becomes of the quarantine."""
        return self._plan.mode

    def inputs(self) -> dict[str, dict[str, Any]]:
        """What the next load has to know of what was read."""
        return {
            source.name: {
                "identity": source.identity,
                "size": source.size,
                "rows": self._input_rows[source.name],
                "open": source.name in self._open,
            }
            for source in self._plan.inputs
        }

    def origin(self, bad: pl.DataFrame, name: str) -> pl.DataFrame:
        """Where bad rows come from, and their text."""
        return bad.select(
            pl.lit(self._run_id).alias("run_id"),
            pl.lit(name).alias("file"),
            pl.col(POSITION).alias("position"),
            pl.col(TEXT).alias("row"),
            pl.lit(self._at).alias("at"),
        )

    # --- the first pass: every piece by itself

    def _read(self, work: Work, compute: Compute, scratch: Path) -> list[Part]:
        self._indexes = []
        for number in range(len(self._unique)):
            folder = scratch / f"keys-{number}"
            folder.mkdir(parents=True, exist_ok=True)
            self._indexes.append(KeyIndex(folder))
        self._earlier = self._add_earlier_keys()
        parts, rows = [], dict.fromkeys((source.name for source in self._plan.inputs), 0)
        self._progress.begin(self._source.name, sum(source.size for source in self._plan.inputs) or None)
        with closing(self._pieces()) as items:  # else files and connections would stay open after an error
            for number, said in enumerate(compute.each(work, items)):
                source, start = self._places[number]
                self._starts.append(start + rows[source.name])
                rows[source.name] += said.rows
                self._account(said, source, self._starts[-1])
                parts += [said.part] if said.part is not None else []
                self._progress.advance(self._source.name, said.size)
        self._input_rows = rows
        return parts

    def _pieces(self) -> Generator[tuple[int, str, Piece]]:
        self._places: list[tuple[Input, int]] = []
        for source in self._plan.inputs:
            before = self._plan.rows_before.get(source.name, 0)
            with closing(self.pieces(source)) as found:
                for piece in found:
                    self._open |= {source.name} if piece.is_open else set()
                    self._places.append((source, before))
                    yield len(self._places) - 1, source.name, piece

    def pieces(self, source: Input) -> Generator[Piece]:
        """What an input consists of."""
        return pieces(source, self._source.schema, PIECE_BYTES)

    def _account(self, said: Said, source: Input, start: int) -> None:
        self._rows_in += said.rows
        self._good += said.good
        self._kept += said.kept
        self._by_rule += said.by_rule
        self._extra |= dict.fromkeys(said.extra)
        if said.newest is not None:
            self._newest = max(said.newest, self._newest or said.newest)
        for index, hashes in zip(self._indexes, said.hashes, strict=True):
            index.add(hashes)
        self._answers.append(said.answers)
        if len(said.bad):
            self._put_aside(said.bad.with_columns(pl.col(POSITION) + start), source.name)

    def _put_aside(self, bad: pl.DataFrame, name: str) -> None:
        """Stage bad rows for the quarantine."""
        self._bad += len(bad)
        known = self.origin(bad, name)
        rows = known.with_columns(pl.lit(self._source.name).alias("source"), bad[REASONS].alias("reasons"))
        rows = rows.select(*QUARANTINE)
        self._bad_parts.append(self._loads.quarantine.stage(rows, f"{self._prefix}-{len(self._bad_parts):06d}"))

    def _add_earlier_keys(self) -> int:
        """What is in the table already comes before the new rows."""
        if not self._unique or self._plan.mode == "overwrite":
            return 0
        number = 0
        columns = sorted({name for check in self._unique for name in check.columns})
        for frame in self._loads.table.scan().select(columns).collect_batches():
            number += 1
            for index, check in zip(self._indexes, self._unique, strict=True):
                index.add(key_hashes(frame, check.columns))
        return number

    # --- the second pass: what needs to have seen all rows

    def _transform(
        self, compute: Compute, fitted: tuple[FittedStep, ...], looks: tuple[Look, ...]
    ) -> tuple[tuple[FittedStep, ...], list[Part]]:
        schema = self._empty(fitted).schema
        if self._unique:
            schema[POSITION] = pl.Int64()
        blocks: Blocks = compute.blocks(schema)
        repeated = self._repeated()
        if repeated:
            self._quarantine_repeated(blocks, repeated)
        union = {block: np.unique(np.concatenate(list(rules.values()))) for block, rules in repeated.items()}
        if self._unique:
            blocks = blocks.then(_Keep(union, self._where()))
            self._count_filtered(blocks, sum(map(len, union.values())))
        known = () if self._plan.steps is None else steps_from_dict(self._plan.steps)
        asked = {look.step: (place, look.question) for place, look in enumerate(looks)}
        for number in range(len(fitted), len(self._source.steps)):
            seen = blocks
            if number in asked:
                place, question = asked[number]
                seen = Answered(blocks, question, [answers[place] for answers in self._answers])
            fitted = (*fitted, known[number] if known else self._source.steps[number].fit(seen))
            blocks = blocks.then(fitted[-1])
        parts = blocks.map(partial(_stage, self._loads.table, self._prefix))
        return fitted, [part for part in parts if part.rows]

    def _count_filtered(self, kept: Blocks, repeated: int) -> None:
        self._kept = sum(kept.map(_height))
        if self._good - repeated > self._kept:
            self._by_rule["filtered by where"] += self._good - repeated - self._kept

    def _where(self) -> pl.Expr | None:
        return self._source.where if self._unique else None

    def _repeated(self) -> dict[int, dict[str, Rows]]:
        """By block and rule, the rows whose key stands in an earlier row."""
        found: dict[int, dict[str, Rows]] = {}
        for check, index in zip(self._unique, self._indexes, strict=True):
            for piece, rows in index.repeated().items():
                found.setdefault(piece - self._earlier, {})[check.name] = rows
                self._by_rule[check.name] += len(rows)
        return found

    def _quarantine_repeated(self, blocks: Blocks, repeated: dict[int, dict[str, Rows]]) -> None:
        for block, bad in enumerate(blocks.map(partial(_repeated_rows, repeated))):
            if bad is not None:
                self._put_aside(bad.with_columns(pl.col(POSITION) + self._starts[block]), self._places[block][0].name)

    # --- the end

    def verify(self) -> None:
        """Stop before anything is committed, if this can't be what the user wants."""
        source = self._source
        share = self._bad / self._rows_in if self._rows_in else 0.0
        # A few new rows may all be bad; a table that is to be replaced by nothing is a mistake.
        nothing = self._plan.mode == "overwrite" and self._bad and self._bad == self._rows_in
        if share > source.max_bad or nothing:
            worst = "; ".join(f"{rule} ({rows:,})" for rule, rows in self._by_rule.most_common(3))
            raise DataError(
                f"source {source.name!r}: {self._bad:,} of {self._rows_in:,} rows break the contract: {worst}",
                hint="nothing was written. Is the schema right, and are the files? "
                f"max_bad={source.max_bad:g} is the largest share that is let through",
            )
        if source.fresh is not None and self._rows_in:
            age = self._workspace.clock.now() - (self._newest if self._newest is not None else 0)
            if age > source.fresh_within:
                newest = to_iso(self._newest) if self._newest is not None else "missing"
                raise DataError(
                    f"source {source.name!r}: the newest {source.time} is {newest}, more than {source.fresh} ago",
                    hint="nothing was written. Has the export stopped? fresh= is how old the newest row may be",
                )

    def _commit(self, fitted: Sequence[FittedStep], parts: list[Part]) -> BatchResult:
        table, quarantine = self._loads.table, self._loads.quarantine
        if not parts:
            parts = [table.stage(self._empty(fitted), f"{self._prefix}-000000")]
        if not self._bad_parts:
            empty = pl.DataFrame(schema=QUARANTINE)
            self._bad_parts = [quarantine.stage(empty, f"{self._prefix}-000000")]
        rows_out = sum(part.rows for part in parts)
        filtered = self._rows_in - self._bad - rows_out
        result = BatchResult(
            rows_in=self._rows_in,
            rows_out=rows_out,
            quarantined=self._bad,
            filtered=filtered,
            by_rule=dict(self._by_rule.most_common()),
            table_version=-1,
            extra_columns=tuple(self._extra),
            mode=self._plan.mode,
            inputs=len(self._plan.inputs),
        )
        if self._plan.steps is None and fitted:
            # Before the commit: rows without the state that made them would be of no use.
            key = f"{self._source.name}@{self._run_id}"
            self._workspace.records.commit(Put("steps", key, {"steps": steps_to_dict(fitted)}))
        load = Load(
            self._number,
            self._run_id,
            fingerprint(self._source.to_dict()),
            self._plan.mode,
            self.inputs(),
            before=table.mark(MARK),
            parts=[part.to_dict() for part in parts],
            bad_mode=self.bad_mode,
            bad_before=quarantine.mark(MARK),
            bad_parts=[part.to_dict() for part in self._bad_parts],
            path="" if self._source.is_query else self._source.path,
            cursor=self._plan.cursor(),
            result=asdict(result),
            shape=fingerprint(self._source.shape()),
        )
        return replace(result, table_version=self._loads.commit(load))

    def _empty(self, fitted: Sequence[FittedStep]) -> pl.DataFrame:
        frame = pl.DataFrame(schema=polars_schema(self._source.schema))
        for step in fitted:
            frame = step.apply(frame)
        return frame


@dataclass(frozen=True)
class _Keep:
    """The rows of each block that are not repeated, and that the source's `where` lets through."""

    repeated: dict[int, Rows]
    where: pl.Expr | None

    def apply_to_fit(self, frame: pl.DataFrame, block: int) -> pl.DataFrame:
        rows = self.repeated.get(block)
        if rows is not None:
            mask = np.ones(len(frame), bool)
            mask[rows] = False
            frame = frame.filter(pl.Series(mask))
        if POSITION in frame.columns:
            frame = frame.drop(POSITION)
        return frame if self.where is None else frame.filter(self.where)


def _height(frame: pl.DataFrame, block: int) -> int:
    return len(frame)


def _stage(table: Table, prefix: str, frame: pl.DataFrame, block: int) -> Part:
    return table.stage(frame, f"{prefix}-{block:06d}")


def _repeated_rows(repeated: dict[int, dict[str, Rows]], frame: pl.DataFrame, block: int) -> pl.DataFrame | None:
    """The block's repeated rows, as rows for the quarantine."""
    rules = repeated.get(block)
    if rules is None:
        return None
    places = np.unique(np.concatenate(list(rules.values())))
    found = frame[places.tolist()]
    reasons = [pl.Series(name, [name]).new_from_index(0, len(places)) for name in rules]
    said = [column.set(pl.Series(~np.isin(places, rules[column.name])), None) for column in reasons]
    return pl.DataFrame(
        {
            POSITION: found[POSITION],
            REASONS: pl.DataFrame(said).select(pl.concat_list(pl.all()).list.drop_nulls()).to_series(),
            TEXT: found.drop(POSITION).select(pl.struct(pl.all().cast(pl.String)).struct.json_encode()).to_series(),
        }
    )
