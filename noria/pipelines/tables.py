"""Delta tables of others as inputs."""

from __future__ import annotations

import os
from collections.abc import Generator
from functools import partial
from pathlib import Path

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from noria.core import DataError, Settings
from noria.pipelines.extract import PIECE_ROWS, Input


def find_table(location: str, settings: Settings) -> list[Input]:
    """The table's newest version as an input; empty if there is no table."""
    options: dict[str, str] | None = None
    if location.startswith("s3://"):
        from noria.storage.s3 import options as found

        options = found(os.environ)
    else:
        location = str(Path(settings.root) / location)
    try:
        table = DeltaTable(location, storage_options=options)
    except TableNotFoundError:
        return []
    except (DeltaError, OSError) as error:
        raise DataError(f"the Delta table {location} can't be read: {error}") from error
    version = table.version()
    frames = partial(_frames, location, version, options)
    return [Input(f"delta://{location}", "frames", location, 0, f"{table.metadata().id}@{version}", frames=frames)]


def _frames(location: str, version: int, options: dict[str, str] | None) -> Generator[pl.DataFrame]:
    scan = pl.scan_delta(location, version=version, storage_options=options)
    empty = True
    for frame in scan.collect_batches(chunk_size=PIECE_ROWS, maintain_order=True):
        empty = False
        yield frame
    if empty:
        yield pl.DataFrame(schema=scan.collect_schema())
