"""The examples that a pipeline learns from: labels with a target, joined with every feature as of their time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import DataError
from noria.storage import Workspace
from noria.training.dataset import TARGET, Selection, pinned_versions
from noria.training.slices import column_of

if TYPE_CHECKING:
    from noria.training.pipeline import ModelTrainingPipeline


@dataclass(frozen=True)
class Examples:
    """Joined rows: inputs, the value to predict, and event times in microseconds (None without a time column).

    Attributes:
        frame: all of it as it is kept: entities, time, inputs and target.
        entities: whose each row is, as numbers; None when the rows belong to nobody.
    """

    frame: pl.DataFrame
    inputs: pl.DataFrame
    target: NDArray[Any]
    times: NDArray[np.int64] | None
    skipped: int
    entities: NDArray[Any] | None = None


def selection(pipeline: ModelTrainingPipeline, workspace: Workspace) -> Selection:
    """The rows that the pipeline learns from, of the tables as they are now."""
    labels = pipeline.labels
    keys = [key for group in pipeline.groups for key in group.keys]
    given = [name for part in pipeline.on_demand for name in part.inputs.names]
    whose = (pipeline.entity,) if pipeline.entity is not None else ()
    sliced = [name for name in (column_of(one, labels.time) for one in pipeline.slices) if name in labels.schema]
    time = (labels.time,) if labels.time is not None else ()
    own = dict.fromkeys((*keys, *whose, *time, *pipeline.columns, *given, *sliced))
    return Selection(
        labels.name,
        pinned_versions(_sources(pipeline), workspace),
        tuple(own),
        labels.time,
        pl.col(pipeline.target) if isinstance(pipeline.target, str) else pipeline.target,
        groups=pipeline.groups,
        on_demand=[bound.part for bound in pipeline.on_demand],
        features=[name for name in pipeline.input_schema().names if name not in own],
    )


def join(pipeline: ModelTrainingPipeline, workspace: Workspace, chosen: Selection | None = None) -> Examples:
    """The labels that have a target, with every feature as of their time.

    Args:
        chosen: which rows; by default those of the tables as they are now.

    Raises:
        DataError: no row has a target.
    """
    frame, skipped = (chosen or selection(pipeline, workspace)).read(workspace)
    if frame.is_empty():
        raise DataError(
            f"model {pipeline.name!r}: none of the {skipped} rows of {pipeline.labels.name!r} has a target",
            hint="check the target's expression and its column",
        )
    return examples_of(pipeline, frame, skipped)


def examples_of(pipeline: ModelTrainingPipeline, frame: pl.DataFrame, skipped: int = 0) -> Examples:
    """Rows that have been joined."""
    entities = None if pipeline.entity is None else _numbers(frame[pipeline.entity])
    inputs = frame.select(pipeline.input_schema().names)
    return Examples(frame, inputs, frame[TARGET].to_numpy(), times_of(frame, pipeline.labels.time), skipped, entities)


def times_of(frame: pl.DataFrame, time: str | None) -> NDArray[np.int64] | None:
    """[rows] event times in microseconds; None without a column for them."""
    return None if time is None else frame[time].dt.timestamp("us").to_numpy().astype(np.int64)


def _numbers(entities: pl.Series) -> NDArray[Any]:
    """A number for each entity; rows without one are of one entity."""
    if entities.dtype.is_integer() and not entities.has_nulls():
        return entities.to_numpy()
    return entities.rank("dense").fill_null(0).to_numpy()


def _sources(pipeline: ModelTrainingPipeline) -> tuple[str, ...]:
    sources = (source for group in pipeline.groups for source in group.dependencies)
    return tuple(dict.fromkeys((pipeline.labels.name, *sources)))
