"""What every records store has to do."""

from __future__ import annotations

import threading

import pytest

from noria.core import ConflictError
from noria.storage import ABSENT, Put, Records


class RecordsConformance:
    """Subclass it and return a new, empty store from `store`."""

    def store(self) -> Records:
        """A new, empty store."""
        raise NotImplementedError

    def test_documents_are_read_back_with_a_revision_that_grows(self) -> None:
        store = self.store()
        assert store.get("c", "k") is None
        data = {"text": "ä\n", "numbers": [1, 2.5, None], "deep": {"x": {"y": True}}}
        store.commit(Put("c", "k", data))
        first = store.get("c", "k")
        assert first is not None
        assert (first.key, first.revision, first.data) == ("k", 1, data)
        store.commit(Put("c", "k", {}))
        second = store.get("c", "k")
        assert second is not None
        assert (second.revision, second.data) == (2, {})

    def test_all_changes_of_a_commit_or_none(self) -> None:
        store = self.store()
        store.commit(Put("c", "old", {"n": 1}))
        with pytest.raises(ConflictError, match="changed by another"):
            store.commit(Put("c", "new", {}), Put("c", "old", {"n": 2}, expect=7))
        assert store.get("c", "new") is None
        assert [record.data for record in store.list("c")] == [{"n": 1}]

    def test_an_expected_revision_is_demanded(self) -> None:
        store = self.store()
        store.commit(Put("c", "k", {}, ABSENT))
        with pytest.raises(ConflictError):
            store.commit(Put("c", "k", {}, ABSENT))
        store.commit(Put("c", "k", {}, 1))
        with pytest.raises(ConflictError):
            store.commit(Put("c", "k", {}, 1))

    def test_lists_are_in_the_order_of_keys_by_prefix_and_limit(self) -> None:
        store = self.store()
        store.commit(*(Put("c", key, {}) for key in ("b2", "a", "b1", "b%", "b_", "c", "b")), Put("other", "b9", {}))
        assert [record.key for record in store.list("c", "b")] == ["b", "b%", "b1", "b2", "b_"]
        assert [record.key for record in store.list("c", "b", newest_first=True, limit=2)] == ["b_", "b2"]
        assert len(store.list("c")) == 7
        assert store.list("nothing") == []

    def test_of_two_writers_one_wins_and_the_other_is_told(self) -> None:
        store = self.store()
        store.commit(Put("c", "counter", {"n": 0}))
        lost = []

        def work() -> None:
            for _ in range(25):
                while True:
                    record = store.get("c", "counter")
                    assert record is not None
                    try:
                        store.commit(Put("c", "counter", {"n": record.data["n"] + 1}, record.revision))
                        break
                    except ConflictError:
                        lost.append(1)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        record = store.get("c", "counter")
        assert record is not None
        assert record.data["n"] == 100
