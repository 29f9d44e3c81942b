from __future__ import annotations

from typing import Any

import pytest

from noria.core import ConfigError
from noria.features import OnlineSpec


def spec(*kinds: str) -> OnlineSpec:
    names = tuple(f"k{n}" for n in range(len(kinds)))
    return OnlineSpec("g", names, kinds, ("f",), (None,), None, "hash")


@pytest.mark.parametrize(
    ("kinds", "ids"),
    [
        (("int64",), [3, -1, 2**63 - 1, -(2**63), 3]),
        (("str",), ["", "é", "a" * 600]),
        (("int64", "str"), [(1, "a"), [2, "b"]]),
        (("int64",), []),
    ],
)
def test_many_keys_are_those_of_each(kinds: tuple[str, ...], ids: list[Any]) -> None:
    assert spec(*kinds).encode(ids) == [spec(*kinds).key(each) for each in ids]


@pytest.mark.parametrize(
    ("kind", "wrong"), [("int64", True), ("int64", 2**63), ("int64", "7"), ("str", 7), ("str", b"7")]
)
def test_one_id_of_another_type_among_many_is_named(kind: str, wrong: Any) -> None:
    good: Any = 7 if kind == "int64" else "7"
    for ids in ([good, wrong, good], [wrong]):
        with pytest.raises(ConfigError, match="can't be a k0"):
            spec(kind).encode(ids)
