"""The raw limits of the features' benchmark: `ROOT WAY REPEATS`.

Ways: polars, polars-files, duckdb, duckdb-files, numpy-windows, duckdb-windows. With `-files` each call reads the
events from the files of noria's table, else they are in memory.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from features_shared import check, check_windows, timed

root, what, repeats = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
EVENTS, LABELS = root / "events.parquet", root / "labels.parquet"
TABLE = root / "tables" / "events" / "*.parquet"
DAY = 86_400_000_000


def join_polars() -> Any:
    kept, labels = None if what.endswith("files") else pl.read_parquet(EVENTS), pl.read_parquet(LABELS)

    def work() -> pl.DataFrame:
        events = pl.read_parquet(TABLE) if kept is None else kept
        return (
            labels.with_row_index("row")
            .sort("when")
            .join_asof(
                events.sort("at"),
                left_on="when",
                right_on="at",
                by="user",
                allow_exact_matches=False,
                check_sortedness=False,
            )
            .sort("row")
        )

    return work


def duckdb_tables() -> Any:
    import duckdb

    connection = duckdb.connect()
    connection.sql("SET TimeZone = 'UTC'")
    columns = '"user", "at", f0, f1' if what.endswith("windows") else "*"
    kind, files = ("VIEW", TABLE) if what.endswith("files") else ("TABLE", EVENTS)
    connection.sql(f"CREATE {kind} events AS SELECT {columns} FROM read_parquet('{files}')")
    connection.sql(
        f"CREATE TABLE labels AS SELECT *, file_row_number AS row FROM read_parquet('{LABELS}', file_row_number = true)"
    )
    return connection


def join_duckdb() -> Any:
    connection = duckdb_tables()
    return lambda: connection.sql(
        'SELECT l.*, e.* EXCLUDE ("user", "at") FROM labels l ASOF LEFT JOIN events e '
        'ON l."user" = e."user" AND l."when" > e."at" ORDER BY l.row'
    ).to_arrow_table()


def windows_duckdb() -> Any:
    """A join and a group-by for each window."""
    connection = duckdb_tables()
    aggregates = {
        "count7": ("count(e.at)", 7),
        "sum30": ("sum(e.f0)", 30),
        "mean90": ("avg(e.f0)", 90),
        "sum": ("sum(e.f1)", None),
        "last": ("arg_max(e.f0, e.at, 10)", None),
    }

    def work() -> pl.DataFrame:
        made = connection.sql('SELECT "when" FROM labels ORDER BY row').pl()
        for name, (aggregate, days) in aggregates.items():
            since = "" if days is None else f'AND e."at" >= l."when" - INTERVAL {days} DAY'
            found = connection.sql(
                f'SELECT {aggregate} AS "{name}" FROM labels l LEFT JOIN events e ON l."user" = e."user" '
                f'AND e."at" < l."when" {since} GROUP BY l.row ORDER BY l.row'
            )
            made = made.with_columns(found.pl()[name])
        return made

    return work


def windows_numpy() -> Any:
    """Prefix sums by hand: events by entity and time in one whole number, each window two binary searches."""
    events, labels = pl.read_parquet(EVENTS, columns=["user", "at", "f0", "f1"]), pl.read_parquet(LABELS)
    columns = {name: events[name].to_physical().to_numpy() for name in events.columns}
    users, when = labels["user"].to_numpy(), labels["when"].to_physical().to_numpy()

    def work() -> dict[str, Any]:
        # Windows that begin before everything begin with it, or the keys of a million users don't fit into 64 bits.
        low = min(columns["at"].min(), when.min())
        span = max(columns["at"].max(), when.max()) - low + 1
        keys = columns["user"] * span + (columns["at"] - low)
        order = np.argsort(keys, kind="stable")
        keys, f0, f1 = keys[order], columns["f0"][order], columns["f1"][order]
        sums0, sums1 = np.concatenate([[0.0], np.cumsum(f0)]), np.concatenate([[0.0], np.cumsum(f1)])
        by = np.argsort(users * span + (when - low))

        def search(asked: Any) -> Any:
            found = np.empty(len(asked), np.int64)
            found[by] = np.searchsorted(keys, asked[by])  # in order, what one search visits the next finds in the cache
            return found

        end, first = search(users * span + (when - low)), search(users * span)
        start = {days: search(users * span + np.maximum(when - low - days * DAY, 0)) for days in (7, 30, 90)}
        with np.errstate(invalid="ignore"):
            mean = (sums0[end] - sums0[start[90]]) / (end - start[90])
        lengths = np.minimum(end - first, 10)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        back = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return {
            "when": labels["when"],
            "count7": end - start[7],
            "sum30": sums0[end] - sums0[start[30]],
            "mean90": mean,
            "sum": sums1[end] - sums1[first],
            # The lists stay an array of values beside their offsets: NumPy has no lists.
            "values": f0[np.repeat(end, lengths) - 1 - back],
            "lengths": lengths,
        }

    return work


def lists(made: Any) -> pl.DataFrame:
    """What NumPy made, as the others have it; not timed."""
    values, lengths = made.pop("values"), made.pop("lengths")
    row = np.repeat(np.arange(len(lengths)), lengths)
    last = pl.DataFrame({"row": row, "last": values}).group_by("row", maintain_order=True).agg("last")
    frame = pl.DataFrame(made).with_columns(row=np.arange(len(lengths)))
    return frame.join(last, on="row", how="left", maintain_order="left")


ways = {
    "polars": join_polars,
    "polars-files": join_polars,
    "duckdb": join_duckdb,
    "duckdb-files": join_duckdb,
    "numpy-windows": windows_numpy,
    "duckdb-windows": windows_duckdb,
}
seconds, made = timed(ways[what](), repeats)
frame = (
    lists(made)
    if what == "numpy-windows"
    else pl.DataFrame(pl.from_arrow(made) if what in ("duckdb", "duckdb-files") else made)
)
checked = (check_windows if what.endswith("windows") else check)(frame)
print(json.dumps({"seconds": seconds, "rows": len(frame), "check": checked}))
