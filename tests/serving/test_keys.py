from __future__ import annotations

import hashlib
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from doubler import Doubler
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.core import ConfigError, ConflictError, IntegrityError, NotFoundError, RequestError, StorageError
from noria.core.time import SECOND
from noria.serving import Access, ApiKeys, KeyRing, ModelServer
from noria.serving import access as access_module
from noria.serving.access import following
from noria.serving.exchange import Exchange
from noria.serving.key_records import COLLECTION
from noria.serving.keys import check_bind
from noria.serving.rates import Rate, TokenBucket, parse_rate
from noria.serving.requests import TooManyRequestsError
from noria.serving.scopes import ADMIN, EVENTS, PREDICT, SCOPES, parse_scopes, scope_of
from noria.storage import Put, Record, Records, open_records
from noria.testing import ManualClock

HOUR = 3600 * SECOND


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    with closing(open_records(f"sqlite:///{tmp_path}/records.db")) as opened:
        yield opened


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_000_000 * SECOND)


@pytest.fixture
def keys(records: Records, clock: ManualClock) -> ApiKeys:
    return ApiKeys(records, clock)


def ring(records: Records) -> KeyRing:
    return KeyRing.of(records.list(COLLECTION))


def ask(**headers: str | bytes) -> Exchange:
    """A request with these headers that goes nowhere."""
    given = {name.replace("_", "-").encode(): v.encode() if isinstance(v, str) else v for name, v in headers.items()}
    return Exchange(None, b"POST", b"/predict", given)  # type: ignore[arg-type]


def status(access: Access, scope: str | None = PREDICT, **headers: str | bytes) -> int:
    try:
        access.check(ask(**headers), scope)
    except RequestError as error:
        return error.status
    return 200


def eventually(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def live(records: Records, **options: Any) -> Iterator[httpx.Client]:
    """A server whose keys follow the records."""
    with (
        following(Access(), records, **options) as access,
        ModelServer([Doubler()], keys=access).running() as url,
        httpx.Client(base_url=url) as client,
    ):
        yield client


def predict(client: httpx.Client, key: str) -> int:
    return client.post("/predict", json={"x": 1}, headers={"authorization": f"Bearer {key}"}).status_code


# --- scopes


@pytest.mark.parametrize(
    ("path", "scope"),
    [
        ("/predict", PREDICT), ("/models/late/predict", PREDICT), ("/features", PREDICT), ("/", PREDICT),
        ("/get-online-features", PREDICT), ("/openapi.json", PREDICT), ("/nothing", PREDICT), ("", PREDICT),
        ("/events", EVENTS), ("/push", EVENTS), ("/write-to-online-store", EVENTS),
        ("/metrics", ADMIN), ("/admin", ADMIN), ("/admin/x", ADMIN),
        ("/health", None), ("/health/live", None), ("/health/ready", None), ("/healthy", PREDICT), ("/HEALTH", PREDICT),
        ("/v2/health/ready", None), ("/ping", None),
    ],
)  # fmt: skip
def test_paths_have_scopes(path: str, scope: str | None) -> None:
    assert scope_of(path.encode()) == scope


def test_scopes_are_read_and_checked() -> None:
    assert parse_scopes(" events,predict,events ") == (PREDICT, EVENTS)
    for text in ("", ",", "predict,evnts"):
        with pytest.raises(ConfigError):
            parse_scopes(text)


# --- the records


def test_a_key_is_stored_as_its_digest_alone(keys: ApiKeys, records: Records, tmp_path: Path) -> None:
    key = keys.create("shop", "predict", rate="10/s")
    kind, number, secret = key.split("_")
    assert kind == "noria"
    assert len(bytes.fromhex(secret)) == 32
    assert records.list(COLLECTION)[0].data["issued"][0] == {
        "id": number, "digest": hashlib.sha256(key.encode()).hexdigest(), "created": 1_000_000 * SECOND, "until": None,
    }  # fmt: skip
    records.close()
    assert all(secret.encode() not in file.read_bytes() for file in tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        {"name": "No Name"}, {"scopes": "all"}, {"scopes": ""}, {"rate": "fast"}, {"rate": "0/s"}, {"burst": 3},
        {"rate": "1/s", "burst": 0}, {"lifetime": 10**20}, {"lifetime": -1},
    ],
)  # fmt: skip
def test_what_is_no_key_is_refused(keys: ApiKeys, words: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        keys.create(**{"name": "shop", "scopes": "predict", **words})
    assert keys.all() == []
    assert keys.history() == []


def test_names_are_taken_until_their_keys_end(keys: ApiKeys, clock: ManualClock) -> None:
    keys.create("shop", "predict", lifetime=HOUR)
    with pytest.raises(ConflictError, match="there is an API key 'shop'"):
        keys.create("shop", "predict")
    clock.advance(HOUR)
    keys.create("shop", "events")
    clock.advance(1)
    keys.revoke("shop")
    clock.advance(1)
    keys.create("shop", "admin")
    assert [(key.name, key.scopes) for key in keys.all()] == [("shop", ("admin",))]
    assert [change.action for change in keys.history()] == ["create", "revoke", "create", "create"]


def test_every_change_is_on_the_trail(keys: ApiKeys, clock: ManualClock) -> None:
    keys.create("shop", "predict", who="ann", why="the shop's servers")
    keys.create("till", "events")
    clock.advance(1)
    keys.rotate("shop", grace=HOUR, who="bob", why="spring")
    clock.advance(1)
    keys.revoke("shop", who="eve", why="leaked")
    found = [(change.who, change.action, change.why) for change in keys.history("shop")]
    assert found == [("eve", "revoke", "leaked"), ("bob", "rotate", "spring"), ("ann", "create", "the shop's servers")]
    with pytest.raises(NotFoundError, match="revoked"):
        keys.revoke("shop")
    with pytest.raises(NotFoundError, match="no API key 'shp'") as raised:
        keys.rotate("shp")
    assert raised.value.hint == "allowed: till"
    assert len(keys.history("shop")) == 3


def test_processes_that_change_a_name_at_once_lose_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/records.db"
    made: list[str] = []
    refused: list[Exception] = []

    def work() -> None:
        with closing(open_records(url)) as own:
            keys = ApiKeys(own)
            try:
                made.append(keys.create("shop", "predict"))
            except ConflictError as error:
                refused.append(error)
            made.append(keys.rotate("shop", grace=HOUR))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), len(refused)) == (7, 5)
    with closing(open_records(url)) as own:
        access = Access(ring(own))
        assert [status(access, x_api_key=key) for key in made] == [200] * 7
        assert len(ApiKeys(own).history()) == 7


# --- judging a request


def test_rotation_lets_the_old_key_work_until_the_grace_is_over(
    keys: ApiKeys, records: Records, clock: ManualClock
) -> None:
    first = keys.create("shop", "predict", lifetime=10 * HOUR)
    clock.advance(HOUR)
    second = keys.rotate("shop", grace=2 * HOUR)
    access = Access(ring(records), clock=clock)
    assert [status(access, x_api_key=key) for key in (first, second)] == [200, 200]
    clock.advance(2 * HOUR - 1)
    assert [status(access, x_api_key=key) for key in (first, second)] == [200, 200]
    clock.advance(1)  # the ring has not changed: the end is kept locally
    assert [status(access, x_api_key=key) for key in (first, second)] == [401, 200]
    clock.advance(8 * HOUR)
    assert status(access, x_api_key=second) == 401
    third = keys.rotate("shop", grace=HOUR)
    assert [len(key.issued) for key in keys.all()] == [1]  # those that had ended are gone
    fourth = keys.rotate("shop")
    access.replace(ring(records))
    assert [status(access, x_api_key=key) for key in (first, second, third, fourth)] == [401, 401, 401, 200]


def test_a_grace_never_lengthens_a_key(keys: ApiKeys, records: Records, clock: ManualClock) -> None:
    first = keys.create("shop", "predict", lifetime=HOUR)
    keys.rotate("shop", grace=5 * HOUR)
    keys.rotate("shop", grace=5 * HOUR)
    access = Access(ring(records), clock=clock)
    clock.advance(HOUR)
    assert status(access, x_api_key=first) == 401


@pytest.mark.parametrize("scope", SCOPES)
def test_a_key_opens_its_scopes_alone(keys: ApiKeys, records: Records, scope: str) -> None:
    key = keys.create("shop", scope)
    access = Access(ring(records))
    for wanted in SCOPES:
        for _ in range(2):  # the second time from what is known
            assert status(access, wanted, x_api_key=key) == (200 if wanted == scope else 403)
    assert status(access, None) == 200


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_nothing_but_the_key_itself_is_the_key(data: st.DataObject) -> None:
    key = "noria_0123456789abcdef_" + "5a" * 32
    known = KeyRing.of([_record("shop", key)], frozenset({hashlib.sha256(b"old").hexdigest()}))
    assert known.find(key.encode()).name == "shop"  # type: ignore[union-attr]
    assert known.find(b"old").name == "serve.api_keys"  # type: ignore[union-attr]
    place = data.draw(st.integers(0, len(key) - 1))
    other = data.draw(
        st.one_of(
            st.binary(max_size=200),
            st.just(key[:place].encode()),
            st.binary(min_size=1, max_size=5).map(lambda more: key.encode() + more),
            st.binary(min_size=1, max_size=1).map(lambda b: key[:place].encode() + b + key[place + 1 :].encode()),
        )
    )
    if other not in (key.encode(), b"old"):
        assert known.find(other) is None


def _record(name: str, key: str, **more: Any) -> Record:
    issued = [
        {"id": key.split("_")[1], "digest": hashlib.sha256(key.encode()).hexdigest(), "created": 0, "until": None}
    ]
    return Record(name, 1, {"name": name, "scopes": ["predict"], "created": 0, "issued": issued, **more})


def test_a_digest_in_the_settings_has_all_scopes(records: Records) -> None:
    access = Access(KeyRing.of(digests=frozenset({hashlib.sha256("schlüssel".encode()).hexdigest()})))
    for scope in SCOPES:
        assert status(access, scope, authorization="Bearer schlüssel") == 200
        assert status(access, scope, authorization="Bearer schlussel") == 401


def test_what_was_closed_does_not_open_by_itself(keys: ApiKeys, records: Records) -> None:
    assert status(Access(ring(records))) == 200  # nobody ever made a key
    keys.create("shop", "predict")
    assert status(Access(ring(records))) == 401
    keys.revoke("shop")
    assert status(Access(ring(records))) == 401
    assert status(Access(KeyRing.of(demanded=True))) == 401


def test_a_damaged_document_opens_nothing(keys: ApiKeys, records: Records) -> None:
    good, bad = keys.create("good", "predict"), keys.create("bad", "predict", rate="1/s")
    document = records.list(COLLECTION, "bad")[0].data
    for damage in ({"scopes": 7}, {"issued": None}, {"rate": "1/fortnight"}):
        records.commit(Put(COLLECTION, "bad", {**document, **damage}))
        access = Access(ring(records))
        assert [status(access, x_api_key=key) for key in (good, bad)] == [200, 401]
    records.commit(Put(COLLECTION, "bad", {}))
    with pytest.raises(IntegrityError, match="'bad'"):
        keys.all()


def test_what_is_known_is_bounded_and_goes_with_the_ring(
    keys: ApiKeys, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_module, "_MAX_KNOWN", 3)
    key = keys.create("shop", "predict")
    access = Access(ring(records))
    for spaces in range(1, 9):
        assert status(access, authorization=f"Bearer{' ' * spaces}{key}") == 200
        assert len(access._snapshot.bearer) <= 3
    for n in range(9):
        assert status(access, x_api_key=f"wrong-{n}") == 401
    assert not access._snapshot.plain
    access.replace(KeyRing.of(demanded=True))
    assert status(access, authorization=f"Bearer {key}") == 401


# --- rates


@pytest.mark.parametrize(
    ("text", "rate"), [("100/s", Rate(100, 100)), ("6/m", Rate(0.1, 6)), ("1/d", Rate(1 / 86_400, 1))]
)
def test_rates_are_read(text: str, rate: Rate) -> None:
    assert parse_rate(text) == rate
    assert parse_rate(text, 7) == replace(rate, burst=7)


@pytest.mark.parametrize("text", ["", "5", "5/", "/s", "0/s", "-1/s", "1.5/s", "5/w", "5 / s", "٣/s", "9" * 10 + "/s"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a rate"):
        parse_rate(text)


class _Oracle:
    """The definition, in exact numbers, from the whole history: tokens at a time, and what was taken before."""

    def __init__(self, rate: Fraction, burst: Fraction) -> None:
        self.rate, self.burst, self.taken = rate, burst, list[Fraction]()

    def level(self, now: Fraction) -> Fraction:
        level, at = self.burst, Fraction(0)
        for taken in self.taken:
            level = min(self.burst, level + (taken - at) * self.rate) - 1
            at = taken
        return min(self.burst, level + (now - at) * self.rate)

    def take(self, now: Fraction) -> Fraction:
        level = self.level(now)
        if level >= 1:
            self.taken.append(now)
            return Fraction(0)
        return (1 - level) / self.rate


@given(
    eighths=st.integers(1, 800),
    burst=st.integers(1, 20),
    steps=st.lists(st.integers(0, 640), max_size=60),
)
@settings(deadline=None)
def test_the_bucket_does_what_its_definition_says(eighths: int, burst: int, steps: list[int]) -> None:
    bucket, oracle = TokenBucket(Rate(eighths / 8, burst), 0.0), _Oracle(Fraction(eighths, 8), Fraction(burst))
    now = Fraction(0)
    for step in steps:
        now += Fraction(step, 64)
        wait, expected = bucket.take(float(now)), oracle.take(now)
        assert wait == pytest.approx(float(expected), abs=1e-6)
        assert (wait == 0) == (expected == 0)


@given(
    rate=st.floats(0.001, 1e6),
    burst=st.floats(1, 1e4),
    steps=st.lists(st.floats(0, 100), min_size=1, max_size=80),
)
@settings(deadline=None)
def test_no_window_has_more_than_the_bucket_allows(rate: float, burst: float, steps: list[float]) -> None:
    bucket, now, passed = TokenBucket(Rate(rate, burst), 0.0), 0.0, list[float]()
    for step in steps:
        now += step
        wait = bucket.take(now)
        if wait:
            now += wait * (1 + 1e-9) + 1e-9
            assert bucket.take(now) == 0.0  # who waits as long as was told passes
        passed.append(now)
    for first, start in enumerate(passed):
        for last in range(first, len(passed)):
            assert last - first + 1 <= burst + rate * (passed[last] - start) + 1e-3


def test_no_replicas_share_no_rate() -> None:
    with pytest.raises(ConfigError, match="0 replicas"):
        Access(replicas=0)


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(Rate(1, 1), 10.0)
    assert bucket.take(10.0) == 0
    assert bucket.take(5.0) == 1.0
    assert bucket.take(10.5) == 0.5
    assert bucket.take(11.0) == 0


def test_replicas_share_a_rate_and_a_name_shares_it_over_its_keys(
    keys: ApiKeys, records: Records, clock: ManualClock
) -> None:
    now = 0.0
    first = keys.create("shop", "predict,events", rate="60/m", burst=8)
    second = keys.rotate("shop", grace=HOUR)
    free = keys.create("free", "predict")
    access = Access(ring(records), replicas=2, clock=clock, monotonic=lambda: now)
    assert [status(access, x_api_key=key) for key in (first, second) * 3] == [200] * 4 + [429] * 2
    assert status(access, ADMIN, x_api_key=first) == 403  # costs nothing
    assert [status(access, x_api_key=free) for _ in range(50)] == [200] * 50
    keys.create("other", "predict")
    access.replace(ring(records))
    with pytest.raises(TooManyRequestsError) as raised:  # another ring doesn't fill the bucket
        access.check(ask(x_api_key=first), PREDICT)
    assert raised.value.retry_after == 2  # a token each two seconds
    now = 1.5
    assert status(access, x_api_key=first) == 429
    now = 2.0
    assert [status(access, x_api_key=first) for _ in range(2)] == [200, 429]


# --- a live server


def test_changes_reach_a_live_server(keys: ApiKeys, records: Records) -> None:
    with live(records) as client:
        assert predict(client, "none") == 200
        key = keys.create("shop", "predict")
        eventually(lambda: predict(client, "none") == 401)
        assert predict(client, key) == 200
        other = keys.create("other", "predict")
        eventually(lambda: predict(client, other) == 200)
        keys.revoke("shop")
        eventually(lambda: predict(client, key) == 401)
        assert predict(client, other) == 200
        assert client.get("/health/ready").status_code == 200


def test_refusals_are_problems_that_say_what_is_missing(keys: ApiKeys, records: Records) -> None:
    reader, slow = keys.create("reader", "predict"), keys.create("slow", "admin", rate="1/h")
    with live(records) as client:
        none = client.post("/predict", json={"x": 1})
        assert (none.status_code, none.headers["www-authenticate"]) == (401, "Bearer")
        lacking = client.get("/metrics", headers={"x-api-key": reader})
        assert (lacking.status_code, "'admin'" in lacking.json()["detail"]) == (403, True)
        assert client.get("/metrics", headers={"x-api-key": slow}).status_code == 200
        often = client.get("/metrics", headers={"x-api-key": slow})
        assert (often.status_code, often.reason_phrase) == (429, "Too Many Requests")
        assert 3500 < int(often.headers["retry-after"]) <= 3600
        for answer in (none, lacking, often):
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == answer.status_code
        assert predict(client, reader) == 200


@pytest.mark.parametrize(
    "header",
    [
        b"", b"Authorization:", b"Authorization: ", b"Authorization: Bearer", b"Authorization: Bearer ",
        b"Authorization: Bearer \xff\xfe\xc3\x28", b"X-API-Key: \xe2\x82\xac", b"X-API-Key:", b"X-API-Key: noria_",
        b"X-API-Key: noria_0123456789abcdef_", b"X-API-Key: " + b"k" * 30_000, b"Authorization: Bearer " + b"\xe9" * 30_000,
        b"Authorization: Basic KEY", b"Authorization: KEY", b"Authorization: BearerKEY", b"X-API-Key: Bearer KEY",
        b"X-API-Key: KEY, KEY", b"X-API-Key: KEY\r\nX-API-Key: wrong", b"X-API-Key: wrong\r\nAuthorization: Bearer KEY",
    ],
)  # fmt: skip
def test_strange_headers_are_refused(keys: ApiKeys, records: Records, header: bytes) -> None:
    key = keys.create("shop", "predict").encode()
    good = b"X-API-Key:\r\nAuthorization:  bearer \t" + key
    with live(records) as client:
        url = urlsplit(str(client.base_url))
        for line, expected in ((header.replace(b"KEY", key), b"401"), (good, b"200")):
            with socket.create_connection((url.hostname, url.port), timeout=5) as connection:  # type: ignore[arg-type]
                line = line + b"\r\n" if line else b""
                connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + line + b"\r\n")
                assert connection.makefile("rb").readline().split()[1] == expected


class Failing:
    """Records that can be made to fail."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self.broken = False
        self.reads = 0

    def list(self, *arguments: Any, **options: Any) -> Any:
        self.reads += 1
        if self.broken:
            raise StorageError("no records today")
        return self._records.list(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._records, name)


def test_records_that_can_not_be_read_leave_the_ring_as_it_was(keys: ApiKeys, records: Records) -> None:
    store, told = Failing(records), list[Exception]()
    key = keys.create("shop", "predict")
    with live(store, seconds=0.01, on_error=told.append) as client:
        store.broken = True
        keys.revoke("shop")
        eventually(lambda: bool(told))
        seen = store.reads
        eventually(lambda: store.reads > seen + 3)
        assert predict(client, key) == 200
        assert predict(client, "wrong") == 401
        assert [str(error) for error in told] == ["no records today"]  # once, not twice a second
        store.broken = False
        eventually(lambda: predict(client, key) == 401)
    store.broken = True
    with pytest.raises(StorageError), live(store):
        pass


def test_records_that_are_locked_or_removed_leave_the_ring_as_it_was(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/records.db"
    with closing(open_records(url)) as own, closing(open_records(url)) as other:
        key = ApiKeys(other).create("shop", "predict")
        with live(own, seconds=0.02) as client:
            with closing(sqlite3.connect(tmp_path / "records.db", isolation_level=None)) as locker:
                locker.execute("BEGIN EXCLUSIVE")
                time.sleep(0.1)
                assert predict(client, key) == 200
                assert predict(client, "wrong") == 401
                locker.execute("ROLLBACK")
            for file in tmp_path.glob("records.db*"):
                file.unlink()
            time.sleep(0.1)
            assert predict(client, key) == 200
            assert predict(client, "wrong") == 401


def test_a_store_that_lost_its_keys_opens_nothing(keys: ApiKeys, records: Records, tmp_path: Path) -> None:
    keys.create("shop", "predict")
    access = Access()
    with following(access, records):
        pass
    with closing(open_records(f"sqlite:///{tmp_path}/new.db")) as empty, following(access, empty):
        assert status(access) == 401


# --- the address


def test_a_stored_key_is_enough_beyond_loopback(keys: ApiKeys, clock: ManualClock) -> None:
    with pytest.raises(ConfigError, match="there are no API keys") as raised:
        check_bind("0.0.0.0", "", keys)
    assert "noria keys create" in raised.value.hint
    keys.create("shop", "predict", lifetime=HOUR)
    check_bind("0.0.0.0", "", keys)
    clock.advance(HOUR)
    with pytest.raises(ConfigError):
        check_bind("::", "", keys)
    check_bind("127.0.0.1", "", keys)
