"""What every online store has to do."""

from __future__ import annotations

import threading

import pytest

from noria.core import ConflictError
from noria.storage import OnlineStore, OnlineValue
from noria.storage.online import Mark


class OnlineStoreConformance:
    """Subclass it and return a new, empty store from `store`."""

    def store(self) -> OnlineStore:
        """A new, empty store."""
        raise NotImplementedError

    def test_values_are_read_in_the_order_of_the_keys(self) -> None:
        store = self.store()
        assert store.write("g", [b"a", b"b"], [1, 2], [b"A", b""]) == 2
        assert store.read("g", [b"b", b"missing", b"a", b"b"]) == [(2, b""), None, (1, b"A"), (2, b"")]
        assert store.read("g", []) == []
        assert store.read("other", [b"a"]) == [None]

    def test_the_newer_event_time_wins_whatever_the_order_of_arrival(self) -> None:
        store = self.store()
        store.write("g", [b"a"], [10], [b"new"])
        assert store.write("g", [b"a"], [9], [b"late"]) == 0
        assert store.read("g", [b"a"]) == [(10, b"new")]
        assert store.write("g", [b"a"], [11], [b"newer"]) == 1
        assert store.read("g", [b"a"]) == [(11, b"newer")]

    def test_what_may_be_forgotten_later_is_there_until_then(self) -> None:
        store = self.store()
        store.write("g", [b"a", b"b"], [1, 1], [b"A", b"B"])
        store.expire("g", [b"a", b"missing"], 3600)
        store.expire("g", [], 1)
        assert store.read("g", [b"a", b"b"]) == [(1, b"A"), (1, b"B")]

    def test_within_a_write_too_the_newer_one_wins_and_at_equal_times_the_later(self) -> None:
        store = self.store()
        store.write("g", [b"a", b"a", b"b", b"b"], [2, 1, 1, 1], [b"2", b"1", b"first", b"second"])
        assert store.read("g", [b"a", b"b"]) == [(2, b"2"), (1, b"second")]

    def test_times_before_1970_are_times(self) -> None:
        store = self.store()
        store.write("g", [b"a"], [-5], [b"old"])
        assert store.write("g", [b"a"], [-6], [b"older"]) == 0
        assert store.read("g", [b"a"]) == [(-5, b"old")]

    def test_times_are_exact_over_all_of_64_bits(self) -> None:
        store = self.store()
        times = [-(2**63), -(2**63) + 1, -(2**32), -1, 0, 2**31, 2**32 - 1, 2**32, 2**53, 2**53 + 1, 2**63 - 1]
        for number, at in enumerate(times):
            assert store.write("g", [b"a"], [at], [b"%d" % number]) == 1
            for late in times[:number]:
                assert store.write("g", [b"a"], [late], [b"late"]) == 0
            assert store.read("g", [b"a"]) == [(at, b"%d" % number)]
        store.write("g", [b"b"], [2**53], [b"B"])
        store.drop("g", older_than=2**53 + 1)
        assert store.read("g", [b"a", b"b"]) == [(2**63 - 1, b"10"), None]

    def test_a_large_write_is_one_step_with_its_mark(self) -> None:
        store = self.store()
        keys = [b"%d" % (number % 45_000) for number in range(50_000)]
        times = list(range(50_000))
        assert store.write("g", keys, times, keys, mark=Mark("m", -1, 1)) == 50_000
        assert store.write("g", keys[:45_000], times[:45_000], [b"late"] * 45_000, mark=Mark("m", 1, 2)) == 40_000
        assert store.count("g") == 45_000
        with pytest.raises(ConflictError, match="is 2, expected 1"):
            store.write("g", keys, [10**6] * 50_000, keys, mark=Mark("m", 1, 3))
        assert store.read("g", keys[4_999:5_001]) == [(49_999, b"4999"), (5_000, b"late")]
        store.drop("g")
        assert (store.count("g"), store.marks()) == (0, {"m": 2})

    def test_a_merge_that_fails_changes_nothing(self) -> None:
        store = self.store()
        store.write("g", [b"a"], [1], [b"A"])
        for times, values in (([2], []), ([2, 2], [b"B", b"B"])):
            with pytest.raises(ValueError, match="zip"):
                store.update("g", [b"a"], lambda old: (times, values), mark=Mark("m", -1, 1))  # noqa: B023 - called here
        assert store.read("g", [b"a"]) == [(1, b"A")]
        assert store.marks() == {}

    def test_groups_do_not_touch_each_other(self) -> None:
        store = self.store()
        for group in ("g", "g@1", "g@12", "h"):
            store.write(group, [b"a", b"1a"], [1, 1], [group.encode(), b"x"])
        store.drop("g@1")
        assert [store.count(group) for group in ("g", "g@1", "g@12", "h")] == [2, 0, 2, 2]
        assert store.read("g@12", [b"a"]) == [(1, b"g@12")]

    def test_only_what_is_older_can_be_dropped(self) -> None:
        store = self.store()
        store.write("g", [b"a", b"b", b"c"], [-1, 5, 6], [b"A", b"B", b"C"])
        store.write("other", [b"a"], [0], [b"A"])
        store.drop("g", older_than=5)
        assert store.read("g", [b"a", b"b", b"c"]) == [None, (5, b"B"), (6, b"C")]
        assert store.count("other") == 1
        store.drop("g")
        assert store.count("g") == 0

    def test_any_bytes_are_keys_and_values(self) -> None:
        store = self.store()
        keys = [b"\0", b"\0\0", b"\xff" * 8, b"k" * 5000, b"k" * 5001, bytes(range(256)), "schlüssel".encode()]
        values = [bytes([i]) * (i * 1000) for i in range(len(keys))]
        store.write("g", keys, [1] * len(keys), values)
        assert store.read("g", keys) == [(1, value) for value in values]
        assert store.count("g") == len(keys)

    def test_threads_share_a_store(self) -> None:
        store = self.store()

        def work(number: int) -> None:
            for i in range(50):
                store.write("g", [b"shared", b"%d-%d" % (number, i)], [number * 100 + i, 1], [b"%d" % number, b"x"])
                store.read("g", [b"shared"])

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.read("g", [b"shared"]) == [(349, b"3")]
        assert store.count("g") == 201

    def test_updates_see_what_is_there_and_move_a_mark_in_the_same_step(self) -> None:
        store = self.store()
        seen: list[list[OnlineValue | None]] = []

        def count(old: list[OnlineValue | None]) -> tuple[list[int], list[bytes]]:
            seen.append(old)
            return [1] * len(old), [b"%d" % (int(value.value) + 1 if value else 1) for value in old]

        store.update("g", [b"b", b"a"], count, mark=Mark("s/0", -1, 10))
        store.update("g", [b"a", b"c"], count, mark=Mark("s/0", 10, 20))
        store.update("g", [], count, mark=Mark("s/1", -1, 0))
        assert store.read("g", [b"a", b"b", b"c"]) == [(1, b"2"), (1, b"1"), (1, b"1")]
        assert seen[-2][:2] == [(1, b"1"), None]
        assert store.marks() == {"s/0": 20, "s/1": 0}
        assert store.marks("s/1") == {"s/1": 0}
        assert store.marks("t") == {}

    def test_a_mark_that_another_has_moved_changes_nothing(self) -> None:
        store = self.store()
        store.write("g", [b"a"], [1], [b"A"], mark=Mark("m", -1, 5))
        for before in (-1, 4):
            with pytest.raises(ConflictError, match="expected"):
                store.write("g", [b"a"], [2], [b"B"], mark=Mark("m", before, 6))
            with pytest.raises(ConflictError, match="expected"):
                store.update("g", [b"a"], lambda old: ([2], [b"B"]), mark=Mark("m", before, 6))
        assert store.read("g", [b"a"]) == [(1, b"A")]
        assert store.marks() == {"m": 5}
        assert store.count("g") == 1

    def test_concurrent_updates_lose_nothing(self) -> None:
        store = self.store()
        keys = [b"%d" % i for i in range(20)]

        def count(old: list[OnlineValue | None]) -> tuple[list[int], list[bytes]]:
            return [1] * len(old), [b"%d" % (int(value.value) + 1 if value else 1) for value in old]

        def work(number: int) -> None:
            for turn in range(25):
                store.update("g", keys, count, mark=Mark(f"w/{number}", turn - 1, turn))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [value and value.value for value in store.read("g", keys)] == [b"100"] * 20
        assert store.marks("w/") == {f"w/{number}": 24 for number in range(4)}
