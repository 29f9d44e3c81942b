from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.core import uuid_bytes, uuid_text


@given(st.uuids())
def test_every_way_to_write_a_uuid_is_the_same(made: UUID) -> None:
    text = str(made)
    for written in (made, text, text.upper(), made.hex, f"{{{text}}}", f" {text}"):
        assert uuid_text(written) == text
        assert uuid_bytes(written) == made.bytes


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        7,
        b"0" * 16,
        "",
        "x",
        "0" * 31,
        "0" * 33,
        "0" * 32 + "\n0",
        "{" + "0" * 32,
        "g" + "0" * 31,
        "00000000-0000-0000-0000-00000000000 ",
        "00000000 0000-0000-0000-000000000000",
        "０" * 32,
        "0" * 35 + "-",
    ],
)
def test_what_is_no_uuid_is_none(wrong: object) -> None:
    assert uuid_text(wrong) is None
    assert uuid_bytes(wrong) is None
