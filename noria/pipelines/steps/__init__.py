"""steps: transformations of columns, fitted once, applied everywhere.

A step is a frozen definition; `fit` looks at rows, in blocks of which there may be more than memory holds, and returns
a frozen state. Its `apply` transforms frames, and its `row` gives a function that does the same to one row, to the bit,
in microseconds. State is plain data: it is saved with the table's or the model's version and can be read by people.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

import polars as pl

from noria.core import ConfigError, DataError, allowed
from noria.pipelines.blocks import Applied, Blocks, FrameBlocks
from noria.pipelines.steps.clip import Bucket, Clip
from noria.pipelines.steps.columns import Cast, Drop, Rename
from noria.pipelines.steps.deduplicate import Deduplicate
from noria.pipelines.steps.derive import Derive, Filter
from noria.pipelines.steps.drop_missing import DropMissing
from noria.pipelines.steps.encode import Encode
from noria.pipelines.steps.forward_fill import ForwardFill
from noria.pipelines.steps.impute import Impute
from noria.pipelines.steps.normalize import Normalize
from noria.pipelines.steps.step import FittedStep, Row, Step

__all__ = [
    "Bucket",
    "Cast",
    "Clip",
    "Deduplicate",
    "Derive",
    "Drop",
    "DropMissing",
    "Encode",
    "Filter",
    "FittedStep",
    "ForwardFill",
    "Impute",
    "Normalize",
    "Rename",
    "Step",
    "apply_steps",
    "fit_blocks",
    "fit_steps",
    "row_function",
    "steps_from_dict",
    "steps_to_dict",
]

_FITTED = {
    "Bucket": "noria.pipelines.steps.clip:FittedBucket",
    "Cast": "noria.pipelines.steps.columns:FittedCast",
    "Clip": "noria.pipelines.steps.clip:FittedClip",
    "Deduplicate": "noria.pipelines.steps.deduplicate:FittedDeduplicate",
    "Derive": "noria.pipelines.steps.derive:FittedDerive",
    "Drop": "noria.pipelines.steps.columns:FittedDrop",
    "DropMissing": "noria.pipelines.steps.drop_missing:FittedDropMissing",
    "Encode": "noria.pipelines.steps.encode:FittedEncode",
    "Filter": "noria.pipelines.steps.derive:FittedFilter",
    "ForwardFill": "noria.pipelines.steps.forward_fill:FittedForwardFill",
    "Impute": "noria.pipelines.steps.impute:FittedImpute",
    "Normalize": "noria.pipelines.steps.normalize:FittedNormalize",
    "Rename": "noria.pipelines.steps.columns:FittedRename",
}
"""Which class reads the saved state of a step. A step of yours is named by its package's entry points `noria.steps`."""


def fit_blocks(steps: Sequence[Step], blocks: Blocks) -> tuple[FittedStep, ...]:
    """Fit each step to what the steps before it make of the blocks."""
    fitted: tuple[FittedStep, ...] = ()
    for step in steps:
        fitted = (*fitted, step.fit(Applied(blocks, fitted) if fitted else blocks))
    return fitted


def fit_steps(steps: Sequence[Step], frame: pl.DataFrame) -> tuple[tuple[FittedStep, ...], pl.DataFrame]:
    """Fit each step to what the steps before it make of a frame; returns them and the transformed frame."""
    fitted: list[FittedStep] = []
    for step in steps:
        fitted.append(step.fit(FrameBlocks([frame])))
        frame = fitted[-1].apply_to_fit(frame, 0)
    return tuple(fitted), frame


def apply_steps(steps: Sequence[FittedStep], frame: pl.DataFrame) -> pl.DataFrame:
    """Transform new rows by fitted steps."""
    for step in steps:
        frame = step.apply(frame)
    return frame


def row_function(steps: Sequence[FittedStep], schema: pl.Schema) -> Callable[[Row], Row | None]:
    """A function that transforms one row of this schema as `apply_steps` would; None if the row is dropped.

    The row is a dictionary of Python values with all columns of the schema, in any order; it stays as it is. What is
    returned has the columns that `apply_steps` gives, in that order.

    Raises:
        ConfigError: a step looks at several rows.
    """
    functions = []
    frame = pl.DataFrame(schema=schema)
    for step in steps:
        if not step.by_row:
            raise ConfigError(
                f"{type(step).__name__} looks at several rows, and can't be applied to one",
                hint="give it to a source: its table is made before rows are served",
            )
        functions.append(step.row(frame.schema))
        frame = step.apply(frame)
    given, made = tuple(schema), tuple(frame.schema)

    def transform(row: Row) -> Row | None:
        row = {name: row[name] for name in given}
        for function in functions:
            if not function(row):
                return None
        return row if tuple(row) == made else {name: row[name] for name in made}

    return transform


def steps_to_dict(steps: Sequence[FittedStep]) -> list[dict[str, Any]]:
    """The fitted state of all steps as plain JSON data."""
    return [step.to_dict() for step in steps]


def steps_from_dict(states: Sequence[dict[str, Any]]) -> tuple[FittedStep, ...]:
    """The reverse of `steps_to_dict`.

    Raises:
        DataError: a step is unknown to this version of noria.
    """
    return tuple(_reader(state["step"])(state) for state in states)


def _reader(name: str) -> Callable[[dict[str, Any]], FittedStep]:
    if name in _FITTED:
        module, _, made = _FITTED[name].partition(":")
        found: Callable[[dict[str, Any]], FittedStep] = getattr(import_module(module), made).from_dict
        return found
    others = {point.name: point for point in entry_points(group="noria.steps")}
    if name not in others:
        raise DataError(f"the saved step {name!r} is unknown", hint=allowed([*_FITTED, *others], name))
    theirs: Callable[[dict[str, Any]], FittedStep] = others[name].load().from_dict
    return theirs
