"""Whether rows can be learned from at all: what is wrong with them is said before anything is fitted."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import DataError
from noria.training.learner import Lesson


def check_target(model: str, target: NDArray[Any]) -> None:
    """Refuse targets that are no numbers where numbers are to be predicted.

    Raises:
        DataError: some are NaN or infinite.
    """
    if target.dtype.kind != "f":
        return
    wrong = ~np.isfinite(target)
    if wrong.any():
        what = "NaN" if np.isnan(target[wrong][0]) else "infinite"
        raise DataError(
            f"model {model!r}: the target is {what} in {int(wrong.sum()):,} of {len(target):,} rows",
            hint="mend the expression, or leave those rows out by making it null: "
            "nr.when(target.is_finite()).then(target)",
            field="target",
        )


def check_lesson(model: str, lesson: Lesson) -> None:
    """Refuse a training part that teaches nothing.

    Raises:
        DataError: it has no rows, only one value of the target, or no feature with a value.
    """
    if not len(lesson):
        raise DataError(f"model {model!r}: the training part has no rows", hint="check the source's rows and the split")
    if (lesson.target == lesson.target[0]).all():
        raise DataError(
            f"model {model!r}: all {len(lesson)} training rows have the target {lesson.target[:1].tolist()[0]!r}",
            hint="a model needs examples of at least two values; check the target and the split",
        )
    if empty_features(lesson.inputs) == lesson.inputs.columns:
        raise DataError(
            f"model {model!r}: no feature has a value in any of the {len(lesson):,} training rows",
            hint="mend what they are made of: a join, a window, a column's name",
        )


def empty_features(inputs: pl.DataFrame) -> list[str]:
    """The columns without any value: of a feature group that has just begun, or of a mistake."""
    return [column.name for column in inputs.iter_columns() if column.null_count() == len(column)]
