"""Facts of an estimator as JSON, exactly: parameters, classes, scores; what the library's own file leaves out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from noria.core import DataError
from noria.training.formats.format import UnkeepableError

FILE = "model.json"

_PLAIN = (str, int, float, bool, type(None))
_KINDS = "biufU"


def dump_facts(facts: Mapping[str, Any], data: bytes) -> bytes:
    """As JSON, with the digest of the library's own file; numbers come back as they were.

    Raises:
        UnkeepableError: a value is no number, text, or list or mapping of such.
    """
    # Some libraries crash on some damaged files, so that they aren't shown any, wherever the files have been.
    whole = {**facts, "sha256": sha256(data).hexdigest()}
    return json.dumps({name: tagged(value, name) for name, value in whole.items()}, indent=1).encode()


def load_facts(file: Path, data: Path, *needed: str) -> dict[str, Any]:
    """The reverse of `dump_facts`; `data` is the library's own file.

    Raises:
        DataError: it isn't such a file, lacks a needed fact, or belongs to another file of the library's.
    """
    try:
        facts = {name: untagged(value) for name, value in json.loads(file.read_bytes()).items()}
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise damaged(f"its {FILE} can't be read: {error}") from error
    if missing := [name for name in needed if name not in facts]:
        raise damaged(f"its {FILE} has no {missing[0]!r}")
    if sha256(data.read_bytes()).hexdigest() != facts.get("sha256"):
        raise damaged(f"{data.name} is not the file that was written")
    return facts


def damaged(why: str) -> DataError:
    """A model's file is not what it should be."""
    return DataError(f"the model's files are damaged: {why}", hint="roll back to another version, or train it again")


def tagged(value: Any, where: str) -> Any:
    """Plain JSON data; what JSON doesn't know is an object with one key that begins with `$`.

    >>> tagged({1: (2.5, None)}, "class_weight")
    {'$items': [[1, {'$tuple': [2.5, None]}]]}
    """
    if isinstance(value, np.generic) and value.dtype.kind in _KINDS:
        return {"$scalar": [value.dtype.str, value.item()]}
    if type(value) in _PLAIN:
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in _KINDS:
        return {"$array": [value.dtype.str, value.tolist()]}
    if isinstance(value, np.ndarray) and value.dtype.kind == "O":
        return {"$objects": [tagged(one, where) for one in value.tolist()]}
    if type(value) in (list, tuple):
        parts = [tagged(one, where) for one in value]
        return parts if isinstance(value, list) else {"$tuple": parts}
    if isinstance(value, dict):
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: tagged(one, key) for key, one in value.items()}
        return {"$items": [[tagged(key, where), tagged(one, where)] for key, one in value.items()]}
    raise UnkeepableError(f"its {where} is a {type(value).__name__}")


def untagged(value: Any) -> Any:
    """The reverse of `tagged`."""
    if isinstance(value, list):
        return [untagged(one) for one in value]
    if not isinstance(value, dict):
        return value
    tag: str = next(iter(value), "")
    content: Any = value.get(tag)
    if not tag.startswith("$"):
        return {key: untagged(one) for key, one in value.items()}
    if tag == "$scalar":
        return np.dtype(content[0]).type(content[1])
    if tag == "$array":
        return np.array(content[1], dtype=content[0])
    if tag == "$objects":
        made = np.empty(len(content), dtype=object)
        made[:] = [untagged(one) for one in content]
        return made
    if tag == "$tuple":
        return tuple(untagged(one) for one in content)
    if tag == "$items":
        return {untagged(key): untagged(one) for key, one in content}
    raise ValueError(f"{tag} means nothing")
