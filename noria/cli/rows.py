"""Rows of a file through a model: what `noria predict FILE` reads and writes."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import msgspec
import polars as pl

from noria.core import ConfigError, DataError
from noria.serving import Servable

_CHUNK = 1000


def read_rows(file: str) -> pl.DataFrame:
    """The rows of a CSV, Parquet or JSON-lines file, by its extension; `-` is CSV on standard input.

    Raises:
        DataError: the file doesn't exist, or can't be read as what its name says.
    """
    try:
        if file == "-":
            return pl.read_csv(io.BytesIO(sys.stdin.buffer.read()), infer_schema=False)
        name = Path(file).name.removesuffix(".gz")
        if name.endswith(".parquet"):
            return pl.read_parquet(file)
        if name.endswith((".jsonl", ".ndjson")):
            return pl.read_ndjson(file)
        return pl.read_csv(file, infer_schema=False)
    except FileNotFoundError as error:
        raise DataError(f"there is no file {file}") from error
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{file} can't be read: {error}", hint="CSV, Parquet and JSON lines are known") from error


def write_rows(frame: pl.DataFrame, servable: Servable, *, as_json: bool, out: IO[str]) -> None:
    """Write each row with its prediction, as CSV or as JSON lines, a part at a time."""
    form, kinds = _form(frame.columns, servable.describe("predict")["components"])
    for start in range(0, len(frame), _CHUNK):
        part = frame.slice(start, _CHUNK)
        rows = [_row(row, kinds, start + number) for number, row in enumerate(part.iter_rows(named=True), 1)]
        request = servable.decode("predict", msgspec.json.encode({form: rows}))
        (answer,) = servable.answer("predict", [request])
        if isinstance(answer, Exception):
            raise answer
        columns = {"prediction": answer.predictions, "score": answer.scores}
        part = part.with_columns(pl.Series(name, values) for name, values in columns.items() if values is not None)
        out.write(part.write_ndjson() if as_json else part.write_csv(include_header=start == 0))


def _form(columns: list[str], types: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """Whether the rows are instances or entities, and the JSON type of each column that the model reads."""
    missing = {}
    for form, title in (("instances", "Instance"), ("entities", "Entity")):
        if title in types:
            missing[form] = [name for name in types[title].get("required", []) if name not in columns]
            if not missing[form]:
                known = types[title]["properties"]
                return form, {name: _kind(known[name]) for name in columns if name in known}
    ways = "; ".join(f"as {form}: {', '.join(names)}" for form, names in missing.items())
    raise ConfigError("the file lacks columns that the model needs", hint=f"missing {ways}")


def _kind(schema: Mapping[str, Any]) -> str:
    kinds = [schema.get("type"), *(option.get("type") for option in schema.get("anyOf", ()))]
    return next((kind for kind in kinds if kind not in (None, "null")), "string")


def _row(row: Mapping[str, Any], kinds: Mapping[str, str], number: int) -> dict[str, Any]:
    return {name: _value(row[name], kind, name, number) for name, kind in kinds.items() if row[name] is not None}


def _value(value: Any, kind: str, name: str, number: int) -> Any:
    if not isinstance(value, str) or kind == "string":
        return value
    try:
        if kind == "boolean":
            return {"true": True, "false": False, "1": True, "0": False}[value.lower()]
        return int(value) if kind == "integer" else float(value)
    except (ValueError, KeyError):
        raise DataError(f"row {number}: {name} is {value!r}, not a {kind}", field=name) from None
