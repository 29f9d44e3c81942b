"""Rows as JSON and CSV in the forms of MLflow's scoring server and of KServe's and TensorFlow Serving's version 1.

A body has exactly one of `dataframe_split`, `dataframe_records`, `instances` and `inputs`. Rows without names have
their values in the order of the model's inputs. NaN, which MLflow's client writes for what is missing, is a missing
value. Models of noria take no parameters: `params` is left aside, as MLflow does with a model without any.
Source: mlflow.org/docs/latest/ml/deployment/deploy-model-locally, "Accepted Input Formats".
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from noria.core import Field, RequestError, Schema
from noria.core.bodies import decode
from noria.serving.tabular import Column, matrix_columns, record_columns

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")


class _Split(msgspec.Struct):
    data: list[list[Any]]
    columns: list[str] | None = None
    index: list[Any] | None = None


class _Body(msgspec.Struct):
    dataframe_split: _Split | None = None
    dataframe_records: list[dict[str, Any]] | None = None
    instances: Any = None
    inputs: Any = None
    params: dict[str, Any] | None = None
    signature_name: str = ""


_decoder = msgspec.json.Decoder(_Body)


def read_json(body: bytes, inputs: Schema, forms: Sequence[str] = FORMS) -> dict[str, Column]:
    """The columns of a JSON body in one of these forms.

    Raises:
        RequestError: it is wrong; `field` names what.
    """
    request = decode(_decoder, body) if b"NaN" not in body else _convert(_lenient(body))
    given = [form for form in forms if getattr(request, form) is not None]
    if len(given) != 1:
        raise RequestError(
            f"the body has {' and '.join(given) or 'no rows'}", hint=f"give exactly one of {', '.join(forms)}"
        )
    if request.dataframe_split is not None:
        return _split_columns(request.dataframe_split, inputs)
    if request.dataframe_records is not None:
        return record_columns(request.dataframe_records)
    return _any_columns(given[0], getattr(request, given[0]), inputs)


def read_csv(body: bytes, fields: Mapping[str, Field]) -> dict[str, Column]:
    """The columns of CSV with a header; an empty field is a missing value.

    Raises:
        RequestError: it can't be read, or a field isn't what the model's input has to be.
    """
    try:
        rows = list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise RequestError(f"the body is not CSV: {error}") from None
    rows = [row for row in rows if row]
    if not rows:
        raise RequestError("the body has no header", hint=f"the first line names the columns: {','.join(fields)}")
    header = rows[0]
    for number, row in enumerate(rows[1:]):
        if len(row) != len(header):
            raise RequestError(f"row {number} has {len(row)} fields, the header has {len(header)}", status=422)
    _check_distinct(header)
    columns: dict[str, Column] = {}
    for place, name in enumerate(header):
        texts = [row[place] for row in rows[1:]]
        columns[name] = [_value(texts[n], fields, name, n) for n in range(len(texts))]
    return columns


def _split_columns(split: _Split, inputs: Schema) -> dict[str, Column]:
    if split.columns is None:
        return matrix_columns(split.data, inputs.names)
    _check_distinct(split.columns)
    for number, row in enumerate(split.data):
        if len(row) != len(split.columns):
            raise RequestError(
                f"row {number} has {len(row)} values, and there are {len(split.columns)} columns",
                status=422,
                field=f"dataframe_split.data[{number}]",
            )
    return {name: [row[place] for row in split.data] for place, name in enumerate(split.columns)}


def _any_columns(form: str, rows: Any, inputs: Schema) -> dict[str, Column]:
    """Columns by name, rows with names, rows without, or single values for a model of one input."""
    if isinstance(rows, dict):
        return {name: column if isinstance(column, list) else [column] for name, column in rows.items()}
    if isinstance(rows, list) and rows:
        if all(isinstance(row, dict) for row in rows):
            return record_columns(rows)
        if all(isinstance(row, list) for row in rows):
            return matrix_columns(rows, inputs.names)
        if len(inputs) == 1 and not any(isinstance(row, (dict, list)) for row in rows):
            return {inputs.names[0]: rows}
    raise RequestError(
        f"{form} holds no rows",
        status=422,
        field=form,
        hint='write [{"column": value, …}, …], or [[value, …], …] in the order of the inputs',
    )


def _value(text: str, fields: Mapping[str, Field], name: str, row: int) -> Any:
    """A CSV field as the value that JSON would have brought."""
    dtype = fields[name].dtype if name in fields else "str"
    if text == "":
        return None
    try:
        if dtype == "bool":
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        if dtype.startswith(("float", "int")):
            plain = text.replace("_", "?")  # Python reads 1_000 as a number
            return int(plain) if dtype.startswith("int") and plain.lstrip("+-").isdigit() else float(plain)
    except (ValueError, KeyError):
        where = f"{name}[{row}]"
        raise RequestError(f"{where} is {text[:50]!r}, which is no {dtype}", status=422, field=where) from None
    return text


def _lenient(body: bytes) -> Any:
    """JSON in which NaN may stand."""
    try:
        return json.loads(body, parse_constant=_missing)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the body is not valid JSON: {error}") from None


def _missing(constant: str) -> None:
    if constant != "NaN":
        raise ValueError(f"{constant} is no value that a model reads")


def _convert(data: Any) -> _Body:
    try:
        return msgspec.convert(data, _Body)
    except msgspec.ValidationError as error:
        raise RequestError(str(error), status=422) from None


def _check_distinct(names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        twice = [name for name, count in Counter(names).items() if count > 1]
        raise RequestError(f"columns are given twice: {', '.join(twice[:10])}", status=422)
