"""What is done to a stream's decoded events: judged in the order in which they came, transformed by fitted steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import ConfigError
from noria.pipelines.contract import Judged, judge
from noria.pipelines.event_formats import Decoded
from noria.pipelines.loads import Loads
from noria.pipelines.plan import fitted_state
from noria.pipelines.steps import FittedStep, steps_from_dict
from noria.pipelines.stream import Stream
from noria.storage import Workspace

_ROW = "__row__"
"""The number of a row in its batch, while a step decides which rows stay."""


def fitted_steps(stream: Stream, workspace: Workspace) -> tuple[FittedStep, ...]:
    """The steps of the source that the stream takes them from, as they were fitted."""
    source = stream.steps_from
    if source is None:
        return ()
    current = Loads(workspace, source.name).current()
    if not current:
        raise ConfigError(
            f"stream {stream.name!r} takes its steps from {source.name!r}, which was never loaded",
            hint=f"noria run {source.name}",
        )
    state = fitted_state(source, workspace, current)
    if state is None:
        raise ConfigError(
            f"stream {stream.name!r}: a step of {source.name!r} looks at several rows, and can't be applied to events"
        )
    return steps_from_dict(state)


def judged_events(decoded: Decoded, stream: Stream) -> Judged:
    """All rows judged, in the order of their events."""
    first, *more = (judge(rows, stream.schema, tuple(stream.checks)) for rows in decoded.rows)
    if not more:
        return first
    found = [first, *more]
    positions = pl.concat([judged.positions for judged in found])
    order = positions.arg_sort()
    return Judged(
        pl.concat([judged.good for judged in found])[order],
        positions[order],
        pl.concat([judged.bad for judged in found]),
        sum((judged.by_rule for judged in found), Counter[str]()),
    )


def apply_counted(steps: Sequence[FittedStep], frame: pl.DataFrame) -> tuple[pl.DataFrame, NDArray[np.int64]]:
    """The rows as the steps make them, and where each that is left stood before."""
    stayed = np.arange(len(frame))
    for step in steps:
        made = step.apply(frame)
        if len(made) < len(frame):
            # A step passes a column on that it doesn't know; one that is fitted has chosen its columns before.
            numbered = step.apply(frame.with_row_index(_ROW))
            if _ROW in numbered.columns:
                stayed = stayed[numbered[_ROW].to_numpy()]
            else:  # a step of someone's own that names all columns which it keeps
                keeps = step.row(frame.schema)
                stayed = stayed[[keeps(row) for row in frame.to_dicts()]]
        frame = made
    return frame, stayed
