from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from noria.core import ConfigError
from noria.features import OnlineSpec

U = UUID("6f1c0a50-0000-4000-8000-00000000000a")


def spec(*kinds: str) -> OnlineSpec:
    names = tuple(f"k{n}" for n in range(len(kinds)))
    return OnlineSpec("g", names, kinds, ("f",), (None,), None, "hash")


@pytest.mark.parametrize(
    ("kinds", "ids"),
    [
        (("int64",), [3, -1, 2**63 - 1, -(2**63), 3]),
        (("str",), ["", "é", "a" * 600]),
        (("int64", "str"), [(1, "a"), [2, "b"]]),
        (("uuid",), [U, str(U), U.hex.upper(), f"{{{U}}}"]),
        (("uuid", "int64"), [(U, 1), [str(U), 2]]),
        (("int64",), []),
    ],
)
def test_many_keys_are_those_of_each(kinds: tuple[str, ...], ids: list[Any]) -> None:
    assert spec(*kinds).encode(ids) == [spec(*kinds).key(each) for each in ids]


def test_a_uuid_is_sixteen_bytes_however_it_is_written() -> None:
    assert set(spec("uuid").encode([U, str(U), U.hex.upper(), f"{{{U}}}"])) == {U.bytes}


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [("int64", True), ("int64", 2**63), ("int64", "7"), ("str", 7), ("str", b"7"), ("uuid", "7"), ("uuid", 7)],
)
def test_one_id_of_another_type_among_many_is_named(kind: str, wrong: Any) -> None:
    good: Any = {"int64": 7, "str": "7", "uuid": U}[kind]
    for ids in ([good, wrong, good], [wrong]):
        with pytest.raises(ConfigError, match="can't be a k0"):
            spec(kind).encode(ids)
