"""A model version: what was trained, from what, how good it is, and the bytes that answer requests."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from noria.core import ConfigError, IntegrityError
from noria.core.decoding import RESTORE, decodable, read_back
from noria.storage import Blob, Record

SEAL = "seal"
"""The part of a version's record that is the SHA-256 of all others."""


@dataclass(frozen=True)
class Signature:
    """What a model takes and gives: column to type as in a `Schema`, and one example request."""

    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    example: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Lineage:
    """Where a version comes from, in enough detail to train it again.

    Attributes:
        data: each source's table version.
        features: each feature group's definition hash.
        code: the state of the code: `git` commit (with `+changes` when the tree is dirty), `system` (digest of
            `system.py`), versions of Python and of the libraries.
        dataset: what the training set can be made again from, and its digest; empty where that isn't kept.
    """

    data: dict[str, str] = field(default_factory=dict)
    features: dict[str, str] = field(default_factory=dict)
    code: dict[str, str] = field(default_factory=dict)
    dataset: dict[str, Any] = field(default_factory=dict)


@decodable
@dataclass(frozen=True)
class ModelVersion:
    """One immutable version of a model.

    Attributes:
        servable: the loader that can answer with it: a name among the entry points `noria.servables`.
        files: the artifact: file name to checksum and size; the bytes are in the blob store.
        spec: what the loader needs beside the files, as plain JSON data.
        metrics: as judged before registration: name to value, or to [value, low, high].
        created: microseconds since 1970.
    """

    name: str
    version: int
    servable: str
    files: dict[str, Blob]
    spec: dict[str, Any]
    metrics: dict[str, Any]
    parameters: dict[str, Any]
    signature: Signature
    lineage: Lineage
    run_id: str
    created: int

    @property
    def label(self) -> str:
        """`movies@3`."""
        return f"{self.name}@{self.version}"

    def to_dict(self) -> dict[str, Any]:
        """The version as plain JSON data."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    def to_record(self) -> dict[str, Any]:
        """What is kept of the version: its data as they will be read back, and their seal."""
        plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return {**plain, SEAL: seal_of(plain)}

    @staticmethod
    def of_record(record: Record) -> ModelVersion:
        """The version that is kept in a record.

        Raises:
            IntegrityError: it isn't what was registered.
        """
        made = read_back(record.data, ModelVersion, f"version {record.key}")
        if record.data.get(SEAL, "") not in ("", seal_of(record.data)):  # older records have none
            raise IntegrityError(
                f"the record of version {record.key} is damaged: it isn't what was registered", hint=RESTORE
            )
        if record.key != record_key(made.name, made.version):
            raise IntegrityError(f"the record of version {record.key} is damaged: it is {made.label}'s", hint=RESTORE)
        return made


def parse_label(label: str) -> tuple[str, str | None]:
    """Split `movies@3` or `movies@champion` into the model's name and the version or alias.

    >>> parse_label("movies@3"), parse_label("movies")
    (('movies', '3'), ('movies', None))
    """
    name, separator, rest = label.partition("@")
    if not name or (separator and not rest):
        raise ConfigError(f"{label!r} doesn't name a model", hint="write MODEL, MODEL@VERSION or MODEL@ALIAS")
    return name, rest or None


def seal_of(data: Mapping[str, Any]) -> str:
    """The SHA-256 of a version's record, without its seal."""
    told = {name: value for name, value in data.items() if name != SEAL}
    return hashlib.sha256(msgspec.json.encode(told, order="deterministic")).hexdigest()


def record_key(name: str, number: int) -> str:
    """Under which a version is kept: the order of keys is the order of versions."""
    return f"{name}@{number:08d}"


def number_of(key: str) -> int:
    """The reverse of `record_key`.

    Raises:
        IntegrityError: it is no such key.
    """
    number = key.rpartition("@")[2]
    if not (number.isascii() and number.isdecimal()):
        raise IntegrityError(f"the record {key} is damaged: its key names no version", hint=RESTORE)
    return int(number)
