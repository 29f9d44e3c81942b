"""The error tree: every mistake that a user can make is a `NoriaError`.

An error says what was wrong, where, what is allowed and what to do next. The command line prints it without a
stack trace; over HTTP it becomes a problem document (RFC 9457). A stack trace is for our bugs.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class NoriaError(Exception):
    """Something that the user can put right.

    Attributes:
        message: what was wrong and where, in one sentence.
        hint: what to do next; may be empty.
        field: the field, column or setting at fault, where there is one.
        status: the HTTP status under which it is reported.
    """

    status = 500

    def __init__(self, message: str, *, hint: str = "", field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.field = field

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message

    @property
    def code(self) -> str:
        """A stable, machine-readable name: `SchemaError` is `schema-error`."""
        name = type(self).__name__
        return "".join(f"-{c.lower()}" if c.isupper() else c for c in name).lstrip("-")

    def to_problem(self) -> dict[str, Any]:
        """The RFC 9457 problem document of this error."""
        problem: dict[str, Any] = {
            "type": f"urn:noria:{self.code}",
            "title": (type(self).__doc__ or "").partition("\n")[0].rstrip("."),
            "status": self.status,
            "detail": self.message,
        }
        if self.field is not None:
            problem["field"] = self.field
        if self.hint:
            problem["hint"] = self.hint
        return problem


class ConfigError(NoriaError):
    """A setting or a definition is wrong."""


class GraphError(ConfigError):
    """The component graph has a cycle or an unknown dependency."""


class SchemaError(NoriaError):
    """Data doesn't have the columns or types that its schema promises."""

    status = 422


class DataError(NoriaError):
    """Data can't be read or breaks its contract."""

    status = 422


class StorageError(NoriaError):
    """A store can't be opened, read or written."""

    status = 503


class NotFoundError(NoriaError):
    """A thing that was named doesn't exist."""

    status = 404


class ConflictError(NoriaError):
    """Another writer came first, or a name is taken."""

    status = 409


class GateError(NoriaError):
    """A model version didn't pass its gates."""

    status = 409


class BusyError(NoriaError):
    """Another process is doing this work."""

    status = 409


class IntegrityError(StorageError):
    """Stored bytes are not those that were written."""


class MissingExtraError(NoriaError):
    """An optional library is not installed."""

    def __init__(self, library: str, extra: str, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs {library}, which is not installed",
            hint=f"pip install 'noria[{extra}]'",
        )


class RequestError(NoriaError):
    """A request is wrong."""

    status = 400

    def __init__(self, message: str, *, status: int = 400, hint: str = "", field: str | None = None) -> None:
        super().__init__(message, hint=hint, field=field)
        self.status = status


def allowed(values: Iterable[str], got: str | None = None) -> str:
    """The hint that lists the valid values, the most similar one first: `allowed: mean, median`.

    >>> allowed(["mean", "median"], got="meen")
    "did you mean 'mean'? allowed: mean, median"
    """
    names = sorted(values)
    near = difflib.get_close_matches(got, names, n=1) if got else []
    start = f"did you mean '{near[0]}'? " if near else ""
    return f"{start}allowed: {', '.join(names) or '(none)'}"
