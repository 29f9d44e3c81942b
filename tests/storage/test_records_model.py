"""Whatever is committed, every records store says what a plain dictionary would."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import count
from typing import Any

import pytest
from databases import postgresql
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.core import ConflictError
from noria.storage import Put, Records, open_records

_numbers = count()
KEYS = st.text("ab%_ /é~Zz\U0001f600", max_size=3)
PUTS = st.builds(
    Put,
    st.just("c"),
    KEYS,
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), st.integers() | st.text("ä\0\"'\\")),
    st.none() | st.integers(0, 3),
)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def records(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Records]:
    if request.param == "sqlite":
        with closing(open_records(f"sqlite:///{tmp_path_factory.mktemp('model') / 'r.db'}")) as records:
            yield records
        return
    pytest.importorskip("psycopg")
    with postgresql() as server, closing(open_records(server.url)) as records:
        yield records


def commit(model: dict[str, tuple[int, Any]], puts: list[Put]) -> dict[str, tuple[int, Any]] | None:
    """The documents after it, or None where a revision isn't the expected one."""
    after = dict(model)
    for put in puts:
        revision = after.get(put.key, (0, None))[0]
        if put.expect not in (None, revision):
            return None
        after[put.key] = (revision + 1, put.data)
    return after


@settings(max_examples=40, deadline=None)
@given(commits=st.lists(st.lists(PUTS, max_size=4), max_size=6), prefix=KEYS, limit=st.none() | st.integers(0, 4))
def test_a_store_is_a_dictionary(records: Records, commits: list[list[Put]], prefix: str, limit: int | None) -> None:
    place = f"c{next(_numbers)}"
    model: dict[str, tuple[int, Any]] = {}
    for puts in commits:
        here = [Put(place, put.key, put.data, put.expect) for put in puts]
        after = commit(model, here)
        if after is None:
            with pytest.raises(ConflictError):
                records.commit(*here)
        else:
            records.commit(*here)
            model = after
    wanted = [(key, *model[key]) for key in sorted(model) if key.startswith(prefix)]
    for newest_first in (False, True):
        found = records.list(place, prefix, newest_first=newest_first, limit=limit)
        expected = (wanted[::-1] if newest_first else wanted)[:limit]
        assert [(one.key, one.revision, one.data) for one in found] == expected
    for key in [*model, "none"]:
        one = records.get(place, key)
        assert (None if one is None else (one.revision, one.data)) == model.get(key)
