"""pipelines: getting data in and clean.

A `Source` names files and promises a schema and checks; `BatchProcessor` reads the files, keeps every row that holds
the promise, puts every other row into quarantine with its position and all reasons, and writes the table that the other
rooms read: `rows_in = rows_out + quarantined + filtered`, by rule. A `Stream` promises the same of the events of a
topic, and `StreamProcessor` brings them in as they come. Steps (impute, encode, normalise, …) are fitted once and
applied everywhere, to tables, events and single rows; their state is plain, readable data that travels with what was
fitted.
"""

from typing import TYPE_CHECKING

from noria.core.lazy import exports

if TYPE_CHECKING:
    from noria.pipelines.batch import BatchProcessor, BatchResult
    from noria.pipelines.checks import Check, between, matches, one_of, unique
    from noria.pipelines.event_formats import Arrow, Avro, Json
    from noria.pipelines.online_sinks import LatestRow, Totals
    from noria.pipelines.source import Source
    from noria.pipelines.steps import (
        Bucket,
        Cast,
        Clip,
        Deduplicate,
        Derive,
        Drop,
        DropMissing,
        Encode,
        Filter,
        FittedStep,
        ForwardFill,
        Impute,
        Normalize,
        Rename,
        Step,
        apply_steps,
        fit_blocks,
        fit_steps,
        row_function,
        steps_from_dict,
        steps_to_dict,
    )
    from noria.pipelines.stream import Stream
    from noria.pipelines.stream_processor import StreamProcessor, StreamResult

_STEPS = (
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
)
_ORIGIN = {
    "Arrow": "event_formats",
    "Avro": "event_formats",
    "Json": "event_formats",
    "LatestRow": "online_sinks",
    "Stream": "stream",
    "StreamProcessor": "stream_processor",
    "StreamResult": "stream_processor",
    "Totals": "online_sinks",
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
    "Arrow",
    "Avro",
    "BatchProcessor",
    "BatchResult",
    "Bucket",
    "Cast",
    "Check",
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
    "Json",
    "LatestRow",
    "Normalize",
    "Rename",
    "Source",
    "Step",
    "Stream",
    "StreamProcessor",
    "StreamResult",
    "Totals",
    "apply_steps",
    "between",
    "fit_blocks",
    "fit_steps",
    "matches",
    "one_of",
    "row_function",
    "steps_from_dict",
    "steps_to_dict",
    "unique",
]

__getattr__ = exports(__name__, _ORIGIN)
