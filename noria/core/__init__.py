"""core: what every other room speaks.

Time (`Clock`, `duration`), the shape of data (`Schema`, `Timestamp`), the error tree (`NoriaError`), settings
(`noria.toml` and `NORIA_*`), what a part of a system tells about itself (`Component`) and how long work shows that
it is alive (`Progress`). Nothing here does any work on data, and nothing here imports a heavy library.
"""

from noria.core.component import Component, Outcome, check_name, fingerprint
from noria.core.errors import (
    BusyError,
    ConfigError,
    ConflictError,
    DataError,
    GateError,
    GraphError,
    IntegrityError,
    MissingExtraError,
    NoriaError,
    NotFoundError,
    RequestError,
    SchemaError,
    StorageError,
    allowed,
)
from noria.core.lock import exclusive
from noria.core.progress import NoProgress, Progress, task
from noria.core.schema import Field, Schema, Timestamp
from noria.core.settings import (
    PredictionSettings,
    RunSettings,
    ServeSettings,
    Settings,
    StorageSettings,
    TelemetrySettings,
)
from noria.core.time import Clock, SystemClock, duration, to_iso
from noria.core.uuids import uuid_bytes, uuid_text

__all__ = [
    "BusyError",
    "Clock",
    "Component",
    "ConfigError",
    "ConflictError",
    "DataError",
    "Field",
    "GateError",
    "GraphError",
    "IntegrityError",
    "MissingExtraError",
    "NoProgress",
    "NoriaError",
    "NotFoundError",
    "Outcome",
    "PredictionSettings",
    "Progress",
    "RequestError",
    "RunSettings",
    "Schema",
    "SchemaError",
    "ServeSettings",
    "Settings",
    "StorageError",
    "StorageSettings",
    "SystemClock",
    "TelemetrySettings",
    "Timestamp",
    "allowed",
    "check_name",
    "duration",
    "exclusive",
    "fingerprint",
    "task",
    "to_iso",
    "uuid_bytes",
    "uuid_text",
]
