"""What gates have to know of a version, gathered.

The candidate and the champion are judged on the same rows: those of the candidate's test part, without those that the
champion learned from, as far as that can be told. The champion reads its own features of these rows, as of the same
instants. Where the rows can't be read any more, what was recorded with each version has to do, and the verdict says so.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import DataError, NoriaError, NotFoundError
from noria.registry import ModelRegistry, ModelVersion
from noria.registry.difference import metric_values
from noria.registry.evidence import Evidence, Needs
from noria.storage import Workspace
from noria.training.answers import Answers
from noria.training.bootstrap import Rows, Task, intervals
from noria.training.dataset import PART, TARGET, part_mask, parts_of, rebuild_dataset, selection_of
from noria.training.learner import rows_of
from noria.training.metrics import METRICS, check_answers
from noria.training.servable import TabularServable
from noria.training.servable import load as load_servable
from noria.training.tables import MAX_TABLE_ROWS, Table

TABULAR = "tabular"
_ENOUGH = 30
"""Rows that neither version has learned from; with fewer, all test rows judge."""
_REQUESTS = 500
_SECONDS = 1.0
"""How often a row is asked for, and how long at most, to measure the latency."""
_MISSING = "(missing)"
_VALUES = 200
"""Values that a column of slices may have."""


@dataclass(frozen=True)
class TestRows:
    """What a version was made of: `frame` as it was joined, with `TARGET`, and which of its rows judged the version."""

    __test__ = False  # no test of pytest's

    frame: pl.DataFrame
    test: NDArray[np.bool_]


def evidence(
    workspace: Workspace,
    needs: Needs,
    candidate: ModelVersion,
    champion: ModelVersion | None,
    rows: TestRows | None,
) -> tuple[Evidence, Evidence | None]:
    """What is known of the candidate and of the champion; `rows` is what the candidate was made of, if at hand."""
    ours = _recorded(candidate)
    theirs = None if champion is None else _recorded(champion)
    if needs.latency:
        ours = _with_latency(workspace, candidate, ours)
    if not needs.metrics:
        return ours, theirs
    try:
        return _on_same_rows(workspace, needs, candidate, champion, rows, ours, theirs)
    except NoriaError as error:  # the versions' own figures have to do
        reason = f"the same rows can't be read: {error.message}"
        ours = replace(
            ours, rows=f"each version's own test rows ({reason})", missing={**ours.missing, "slices": reason}
        )
        return ours, theirs


def _recorded(version: ModelVersion) -> Evidence:
    """What was written down when the version was registered."""
    kept = version.parameters.get("evaluation") or {}
    figures = {name: one for name, one in (kept.get("metrics") or {}).items() if one.get("value") is not None}
    values = {name: float(value) for name, value in metric_values(version).items()}
    intervals = {name: (float(v[1]), float(v[2])) for name, v in version.metrics.items() if isinstance(v, list)}
    for name, one in figures.items():
        values[name] = float(one["value"])
        if one.get("low") is not None and one.get("high") is not None:
            intervals[name] = (float(one["low"]), float(one["high"]))
    return Evidence(
        version.label,
        values,
        intervals,
        slices=kept.get("slices") or {},
        size=sum(blob.size for blob in version.files.values()),
        rows="its own test rows",
        lower=frozenset(name for name, metric in METRICS.items() if not metric.greater_is_better),
    )


def _on_same_rows(
    workspace: Workspace,
    needs: Needs,
    candidate: ModelVersion,
    champion: ModelVersion | None,
    rows: TestRows | None,
    ours: Evidence,
    theirs: Evidence | None,
) -> tuple[Evidence, Evidence | None]:
    if candidate.servable != TABULAR:
        raise DataError(f"{candidate.label} isn't a tabular model")
    rows = rows or _made_again(workspace, candidate)
    if champion is None or theirs is None:
        told = f"{int(rows.test.sum()):,} test rows"
        columns = rows_of(rows.frame, rows.test)
        return _judged(needs, _answered(workspace, candidate, columns), columns, ours, told), None
    frame = _rows_of_champion(workspace, candidate, champion, rows.frame)
    mask, told = _fair(workspace, candidate, champion, rows)
    columns, chosen = rows.frame.filter(pl.Series(mask)), frame.filter(pl.Series(mask))
    mine, other = _answered(workspace, candidate, columns), _answered(workspace, champion, chosen)
    drawn = _drawn(candidate, columns, workspace.settings.run.seed)

    def gain(metric: str, column: str = "", value: str = "") -> tuple[float, float]:
        if not column:
            return interval_of_gain(metric, mine, other, drawn)
        some = np.flatnonzero((columns[column].cast(pl.String).fill_null(_MISSING) == value).to_numpy())
        return interval_of_gain(metric, mine.take(some), other.take(some), drawn.take(some))

    return replace(_judged(needs, mine, columns, ours, told), gain=gain), _judged(needs, other, columns, theirs, told)


def _made_again(workspace: Workspace, version: ModelVersion) -> TestRows:
    frame = rebuild_dataset(workspace, version).frame
    if PART not in frame.columns or TARGET not in frame.columns:
        raise NotFoundError(f"{version.label} doesn't say which rows judged it")
    return TestRows(frame.drop(PART), part_mask(frame, "test"))


def _rows_of_champion(
    workspace: Workspace, candidate: ModelVersion, champion: ModelVersion, frame: pl.DataFrame
) -> pl.DataFrame:
    """The candidate's rows with what the champion reads, by the champion's definitions."""
    ours, theirs = candidate.lineage.dataset, champion.lineage.dataset
    if champion.servable != TABULAR or any(
        ours.get(part) != theirs.get(part) for part in ("labels", "target", "where")
    ):
        raise DataError(f"{champion.label} predicts something else, or for other rows")
    if all(ours.get(part) == theirs.get(part) for part in ("columns", "groups", "on_demand", "features")):
        return frame
    chosen = selection_of(champion)
    newest = {name: workspace.table(name).version() or 0 for name in chosen.versions}
    made, _ = replace(chosen, versions={**newest, **candidate.lineage.dataset["versions"]}).read(workspace)
    if len(made) != len(frame) or not made[TARGET].equals(frame[TARGET]):
        raise DataError(f"the rows of {champion.label} can't be told to be those of {candidate.label}")
    return made


def _fair(
    workspace: Workspace, candidate: ModelVersion, champion: ModelVersion, rows: TestRows
) -> tuple[NDArray[np.bool_], str]:
    """The test rows that neither version has learned from, and what they are in words."""
    labels = candidate.lineage.dataset["labels"]
    before, now = (int(one.lineage.dataset["versions"][labels]) for one in (champion, candidate))
    count = int(champion.lineage.dataset["rows"])
    is_grown = before == now or (before < now and workspace.table(labels).added(before, now) is not None)
    if not is_grown or count > len(rows.test):
        return rows.test, f"{int(rows.test.sum()):,} test rows, which {champion.label} may have learned from"
    learned = np.zeros(len(rows.test), np.bool_)
    learned[:count] = parts_of(ModelRegistry.of(workspace), champion, count)[0]
    fair = rows.test & ~learned
    if fair.sum() >= _ENOUGH:
        return fair, f"{int(fair.sum()):,} rows that neither has learned from"
    seen = int((rows.test & learned).sum())
    told = f", {seen:,} of which {champion.label} has learned from" if seen else ""
    return rows.test, f"{int(rows.test.sum()):,} test rows{told}"


def _answered(workspace: Workspace, version: ModelVersion, frame: pl.DataFrame) -> Answers:
    return Answers.of(frame[TARGET].to_numpy(), *answers(load_servable(version, workspace), frame))


def _drawn(version: ModelVersion, frame: pl.DataFrame, seed: int) -> Rows:
    """How the rows are drawn: all of an entity together, where the version was judged so."""
    keys = (version.parameters.get("evaluation") or {}).get("by") or []
    if not keys or not set(keys) <= set(frame.columns):
        return Rows(len(frame), seed=seed)
    units = frame.select(pl.struct(keys).rank("dense")).to_series().to_numpy().astype(np.int64) - 1
    return Rows(len(frame), units, seed)


def interval_of_gain(metric: str, ours: Answers, theirs: Answers, rows: Rows) -> tuple[float, float]:
    """The 95 % interval of how much better ours is, by the same draws of the rows; NaN where it can't be told."""
    tasks = [Task(METRICS[metric], ours), Task(METRICS[metric], theirs)]
    pair = (0, 1) if METRICS[metric].greater_is_better else (1, 0)
    (found,) = intervals(tasks, rows, minus=[pair])[1]
    return np.nan if found.low is None else found.low, np.nan if found.high is None else found.high


def _judged(needs: Needs, answered: Answers, columns: pl.DataFrame, evidence: Evidence, told: str) -> Evidence:
    """The evidence with metrics of these rows, and of the slices that their columns make."""
    usable = tuple(name for name in needs.metrics if answered.has_probabilities or not METRICS[name].needs_scores)
    check_answers(usable, answered)
    slices, missing = {}, {}
    for column in needs.columns:
        found = _slices(column, columns)
        if isinstance(found, str):
            missing["slices"] = found
            continue
        slices[column] = {value: _slice(usable, answered.take(mask)) for value, mask in found.items()}
    return replace(
        evidence,
        metrics=_values(usable, answered),
        slices=slices or evidence.slices,
        rows=told,
        missing={**evidence.missing, **missing},
    )


def _values(names: Sequence[str], answered: Answers) -> dict[str, float]:
    return {name: value for name in names if np.isfinite(value := METRICS[name].value(answered))}


def answers(servable: TabularServable, frame: pl.DataFrame) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
    """What a version answers to rows of its inputs: predictions, and the positive class's probabilities if any."""
    inputs = frame.select(servable.inputs.names)
    predictions: list[Any] = []
    scores: list[float] | None = []
    for start in range(0, len(inputs), MAX_TABLE_ROWS):
        (answer,) = servable.answer("predict", [Table(inputs.slice(start, MAX_TABLE_ROWS))])
        if isinstance(answer, NoriaError):
            raise answer
        predictions += answer.predictions
        scores = None if scores is None or answer.scores is None else scores + answer.scores
    return np.asarray(predictions), None if scores is None else np.asarray(scores, dtype=np.float64)


def _slices(column: str, frame: pl.DataFrame) -> dict[str, NDArray[np.bool_]] | str:
    """The rows of each value; or why there are none."""
    if column not in frame.columns or column == TARGET:
        return f"its rows have no column {column!r}: {', '.join(name for name in frame.columns if name != TARGET)}"
    values = frame[column].cast(pl.String).fill_null(_MISSING)
    distinct = values.unique().sort().to_list()
    if len(distinct) > _VALUES:
        return f"{column} has {len(distinct):,} values, and {_VALUES} slices are the most"
    return {value: (values == value).to_numpy() for value in distinct}


def _slice(names: Sequence[str], answered: Answers) -> dict[str, Any]:
    return {"rows": len(answered), **{name: {"value": value} for name, value in _values(names, answered).items()}}


def _with_latency(workspace: Workspace, version: ModelVersion, evidence: Evidence) -> Evidence:
    """The 99th percentile over many requests for the version's example, one row each."""
    example = version.signature.example
    if version.servable != TABULAR or "instances" not in example:
        reason = f"{version.label} has no example of a tabular model"
        return replace(evidence, missing={**evidence.missing, "latency": reason})
    servable = load_servable(version, workspace)
    body = msgspec.json.encode({"instances": example["instances"][:1]})
    servable.warm_up()
    taken: list[float] = []
    end = time.perf_counter() + _SECONDS
    while len(taken) < _REQUESTS and (not taken or time.perf_counter() < end):
        began = time.perf_counter()
        servable.answer("predict", [servable.decode("predict", body)])
        taken.append(time.perf_counter() - began)
    return replace(evidence, latency=float(np.percentile(taken, 99)))
