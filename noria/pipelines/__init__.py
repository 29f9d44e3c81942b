"""pipelines: getting data in and clean.

A `Source` names files and promises a schema and checks; `BatchProcessor` reads the files, keeps every row that holds
the promise, puts every other row into quarantine with its position and all reasons, and writes the table that the other
rooms read: `rows_in = rows_out + quarantined + filtered`, by rule. Steps (impute, encode, normalise) are fitted
once and applied everywhere; their state is plain, readable data that travels with what was fitted.
"""

from typing import TYPE_CHECKING

from noria.core.lazy import exports

if TYPE_CHECKING:
    from noria.pipelines.batch import BatchProcessor, BatchResult
    from noria.pipelines.checks import Check, between, matches, one_of, unique
    from noria.pipelines.source import Source
    from noria.pipelines.steps import (
        DropMissing,
        Encode,
        FittedStep,
        Impute,
        Normalize,
        Step,
        apply_steps,
        fit_steps,
        steps_from_dict,
        steps_to_dict,
    )

_STEPS = (
    "DropMissing",
    "Encode",
    "FittedStep",
    "Impute",
    "Normalize",
    "Step",
    "apply_steps",
    "fit_steps",
    "steps_from_dict",
    "steps_to_dict",
)
_ORIGIN = {
    "BatchProcessor": "batch",
    "BatchResult": "batch",
    "Check": "checks",
    "Source": "source",
    "between": "checks",
    "matches": "checks",
    "one_of": "checks",
    "unique": "checks",
    **dict.fromkeys(_STEPS, "steps"),
}

__all__ = [
    "BatchProcessor",
    "BatchResult",
    "Check",
    "DropMissing",
    "Encode",
    "FittedStep",
    "Impute",
    "Normalize",
    "Source",
    "Step",
    "apply_steps",
    "between",
    "fit_steps",
    "matches",
    "one_of",
    "steps_from_dict",
    "steps_to_dict",
    "unique",
]

__getattr__ = exports(__name__, _ORIGIN)
