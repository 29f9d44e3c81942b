"""A trained recommender as files: one `.npy` for every array, loaded without running any code, mapped not copied."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.recommender.interactions import Interactions

_KNOWN, _FITTED, _POPULAR = "interactions.", "retriever.", "popular.npy"


def dump(
    interactions: Interactions, arrays: Mapping[str, NDArray[Any]], popular: NDArray[np.int32]
) -> dict[str, bytes]:
    """The files: interactions, the retriever's arrays, and the items by popularity."""
    files = {f"{_KNOWN}{f.name}.npy": getattr(interactions, f.name) for f in fields(interactions)}
    files |= {f"{_FITTED}{name}.npy": array for name, array in arrays.items()}
    files[_POPULAR] = popular
    return {name: _npy(array) for name, array in files.items()}


def load(files: Mapping[str, Path]) -> tuple[Interactions, dict[str, NDArray[Any]], NDArray[np.int32]]:
    """The reverse of `dump`; the arrays are read-only views of the files."""
    loaded = {name: np.load(path, mmap_mode="r", allow_pickle=False) for name, path in files.items()}
    known = {f.name: loaded[f"{_KNOWN}{f.name}.npy"] for f in fields(Interactions)}
    fitted = {
        name.removeprefix(_FITTED).removesuffix(".npy"): array
        for name, array in loaded.items()
        if name.startswith(_FITTED)
    }
    return Interactions(**known), fitted, loaded[_POPULAR]


def _npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(array), allow_pickle=False)
    return stream.getvalue()
