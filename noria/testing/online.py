"""What every online store has to do."""

from __future__ import annotations

import threading

from noria.storage import OnlineStore


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

    def test_within_a_write_too_the_newer_one_wins_and_at_equal_times_the_later(self) -> None:
        store = self.store()
        store.write("g", [b"a", b"a", b"b", b"b"], [2, 1, 1, 1], [b"2", b"1", b"first", b"second"])
        assert store.read("g", [b"a", b"b"]) == [(2, b"2"), (1, b"second")]

    def test_times_before_1970_are_times(self) -> None:
        store = self.store()
        store.write("g", [b"a"], [-5], [b"old"])
        assert store.write("g", [b"a"], [-6], [b"older"]) == 0
        assert store.read("g", [b"a"]) == [(-5, b"old")]

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
