"""MovieLens, the small edition: 100,004 ratings of 9,066 movies by 671 people."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from noria.templates.sample import load, write_csv


def write(folder: Path) -> None:
    """Write `ratings.csv` and `movies.csv`."""
    table = load("dslabs", "movielens").rename({"userId": "user_id", "movieId": "item_id"})
    write_csv(table.select("user_id", "item_id", "rating", "timestamp"), folder / "ratings.csv")
    movies = table.select("item_id", "title", pl.col("year").cast(pl.Int32), "genres")
    write_csv(movies.unique("item_id").sort("item_id"), folder / "movies.csv")
