from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from doubler import Doubler, exchange
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noria.core import ConfigError, NotFoundError
from noria.serving import Access, KeyRing, Limits, ModelServer
from noria.serving.keys import check_bind, parse_keys
from noria.telemetry import MLLogger
from noria.testing import ServableConformance

LIMITS = Limits(max_body_bytes=1000, read_seconds=1.0, idle_seconds=2.0)
BODY = b'{"x": 2.5}'
GOOD = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


class TestDoubler(ServableConformance):
    def servable(self) -> Doubler:
        return Doubler()


@pytest.fixture(scope="module")
def servable() -> Doubler:
    return Doubler()


@pytest.fixture(scope="module")
def server(servable: Doubler) -> ModelServer:
    return ModelServer([servable], limits=LIMITS)


@pytest.fixture(scope="module")
def url(server: ModelServer) -> Iterator[str]:
    with server.running() as address:
        yield address


@pytest.fixture(scope="module")
def address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").partition(":")
    return host, int(port)


def answers(received: bytes) -> list[tuple[int, bytes]]:
    """Statuses and bodies of a stream of responses."""
    found = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        if status == 100:
            received = rest
            continue
        length = int(re.search(rb"content-length: (\d+)", head)[1])
        found.append((status, rest[:length]))
        received = rest[length:]
    return found


def test_httpx_gets_an_answer_on_a_kept_connection(url: str) -> None:
    with httpx.Client(base_url=url) as client:
        for x in (1, 2.5, -3):
            response = client.post("/predict", json={"x": x})
            assert response.status_code == 200
            assert response.json() == {"value": 2 * x, "model": "doubler", "version": 1}
            assert client.post("/models/doubler/predict", json={"x": x}).json() == response.json()
        assert client.get("/health/live").json() == {"status": "alive"}
        assert client.get("/health/ready").status_code == 200
        assert client.get("/").json()["models"][0]["model"] == "doubler"


@pytest.mark.parametrize(
    "options", [[], ["--http1.0"], ["-H", "Transfer-Encoding: chunked"], ["-H", "Expect: 100-continue"]]
)
def test_curl_gets_an_answer(url: str, options: list[str]) -> None:
    done = subprocess.run(["curl", "-s", *options, f"{url}/predict", "-d", '{"x": 4}'], capture_output=True, check=True)
    assert json.loads(done.stdout)["value"] == 8


def test_head_is_get_without_a_body(url: str) -> None:
    head, get = httpx.head(f"{url}/openapi.json"), httpx.get(f"{url}/openapi.json")
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == get.headers["content-length"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("POST", "/models/nobody/predict", 404),
        ("GET", "/predict", 405),
        ("DELETE", "/metrics", 405),
        ("POST", "/health/ready", 405),
    ],
)
def test_wrong_paths_and_methods_are_problems(url: str, method: str, path: str, status: int) -> None:
    response = httpx.request(method, url + path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["instance"] == path
    assert ("allow" in response.headers) == (status == 405)


@pytest.mark.parametrize(
    ("content", "status", "field"),
    [
        (b"", 400, None),
        (b"{", 400, None),
        (b'{"x": NaN}', 400, None),
        (b'{"x": "1"}', 422, "x"),
        (b'{"y": 1, "x": 1}', 422, "y"),
        (b"{}", 422, "x"),
        (b'{"x": 1}' + b" " * 1000, 413, None),
    ],
)
def test_wrong_bodies_are_problems_that_name_the_field(
    url: str, content: bytes, status: int, field: str | None
) -> None:
    response = httpx.post(f"{url}/predict", content=content)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json().get("field") == field


def test_a_type_that_is_not_json_is_refused(url: str) -> None:
    response = httpx.post(f"{url}/predict", content="x,y", headers={"content-type": "text/csv"})
    assert (response.status_code, "application/json" in response.json()["hint"]) == (415, True)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 4\r\n\r\nabcd",
        b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\nabc",
        b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        GOOD.replace(b"Host: a", b"Host: a\r\nUpgrade: h2c\r\nConnection: upgrade"),
        b"GET / HTTP/1.1\r\nBad Header: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: a\r\n folded\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_is_no_proper_request_gets_one_400_and_the_connection_is_closed(
    address: tuple[str, int], request_bytes: bytes
) -> None:
    found = answers(exchange(address, request_bytes + GOOD))
    assert len(found) == 1
    assert found[0][0] in (400, 501)
    assert json.loads(found[0][1])["status"] == found[0][0]


def test_headers_too_long_are_refused(address: tuple[str, int]) -> None:
    for request in (
        b"GET / HTTP/1.1\r\nX: " + b"a" * 40_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 10_000 + b"\r\n",
    ):
        assert answers(exchange(address, request))[0][0] == 431


def test_a_large_body_is_refused_before_it_is_sent_or_while_it_comes(address: tuple[str, int]) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: a\r\n"
    declared = exchange(address, head + b"Expect: 100-continue\r\nContent-Length: 1001\r\n\r\n")
    assert b"100 Continue" not in declared
    assert answers(declared)[0][0] == 413
    chunks = b"Transfer-Encoding: chunked\r\n\r\n" + (b"64\r\n" + b"a" * 100 + b"\r\n") * 11
    assert answers(exchange(address, head + chunks))[0][0] == 413


def test_expect_100_continue_is_answered(address: tuple[str, int]) -> None:
    received = exchange(address, GOOD.replace(b"Host: a\r\n", b"Host: a\r\nExpect: 100-continue\r\n"))
    assert received.startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert answers(received)[0][0] == 200


def test_pipelined_requests_are_answered_in_order(address: tuple[str, int], servable: Doubler) -> None:
    def predict(x: int) -> bytes:
        body = b'{"x": %d}' % x
        return b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    live = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"
    found = answers(exchange(address, b"".join(predict(i) + live for i in range(150))))
    assert len(found) == 300
    assert [json.loads(body)["value"] for _, body in found[::2]] == [2.0 * i for i in range(150)]
    assert {body for _, body in found[1::2]} == {b'{"status":"alive"}'}
    assert max(servable.batches) > 1


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1\r\nConnection: close"])
def test_a_connection_that_is_to_be_closed_is_closed_after_the_answer(address: tuple[str, int], version: bytes) -> None:
    received = exchange(address, GOOD.replace(b"HTTP/1.1", version) + GOOD)
    assert [status for status, _ in answers(received)] == [200]
    assert b"connection: close" in received


def test_a_client_that_sends_no_more_still_gets_its_answer(address: tuple[str, int]) -> None:
    assert [status for status, _ in answers(exchange(address, GOOD, half_close=True))] == [200]


def test_a_slow_request_is_timed_out_and_an_idle_connection_closed(address: tuple[str, int]) -> None:
    began = time.monotonic()
    received = exchange(address, GOOD[:-3])
    assert answers(received)[0][0] == 408
    assert time.monotonic() - began < 6
    with socket.create_connection(address, timeout=10) as idle:
        assert idle.recv(10) == b""


def test_many_connections_in_one_turn_become_one_batch(url: str, servable: Doubler) -> None:
    servable.batches.clear()

    def work() -> None:
        with httpx.Client(base_url=url) as client:
            for i in range(30):
                assert client.post("/predict", json={"x": i}).json()["value"] == 2 * i

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(servable.batches) == 240


def test_one_bad_request_does_not_hurt_its_neighbours(address: tuple[str, int]) -> None:
    bodies = [
        b'{"x": 1}',
        b'{"x": 1, "do": "crash"}',
        b'{"x": 1, "do": "refuse"}',
        b'{"x": 1, "do": "unencodable"}',
        b'{"x": 2}',
    ]
    data = b"".join(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(b), b) for b in bodies)
    found = answers(exchange(address, data))
    assert [status for status, _ in found] == [200, 500, 409, 500, 200]
    assert b"by request" not in found[1][1]


def test_errors_are_logged_with_their_traceback(tmp_path: Path) -> None:
    logger = MLLogger(tmp_path / "server.jsonl")
    with ModelServer([Doubler()], logger=logger).running() as url:
        response = httpx.post(f"{url}/predict", json={"x": 1, "do": "crash"}, headers={"x-request-id": "abc-1"})
    logger.close()
    assert response.status_code == 500
    assert response.headers["x-request-id"] == "abc-1"
    record = next(
        r for r in map(json.loads, (tmp_path / "server.jsonl").read_text().splitlines()) if r["event"] == "error"
    )
    assert record["request_id"] == "abc-1"
    assert "ZeroDivisionError" in record["traceback"]


def test_a_request_id_can_not_inject_headers(address: tuple[str, int]) -> None:
    odd = GOOD.replace(b"Host: a\r\n", b"Host: a\r\nX-Request-ID: a b\tc\r\n")
    received = exchange(address, odd)
    assert answers(received)[0][0] == 200
    assert b"a b" not in received


def test_answers_that_are_not_finite_are_null(url: str) -> None:
    assert httpx.post(f"{url}/predict", json={"x": 1, "do": "nan"}).json()["value"] is None


def test_large_answers_reach_a_slow_reader_whole(address: tuple[str, int]) -> None:
    body = b'{"x": 1, "do": "large"}'
    with socket.create_connection(address, timeout=20) as slow:
        slow.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        time.sleep(0.5)
        received = b""
        while len(received) < 5_000_000:
            received += slow.recv(1 << 16)
        assert received.rstrip().endswith(b'x"}')


def test_with_several_models_the_short_route_names_the_long_ones() -> None:
    with ModelServer([Doubler("a"), Doubler("b", 7)]).running() as url:
        response = httpx.post(f"{url}/predict", json={"x": 1})
        assert response.status_code == 400
        assert "/models/a/predict, /models/b/predict" in response.json()["hint"]
        assert httpx.post(f"{url}/models/b/predict", json={"x": 1}).json()["version"] == 7
    with pytest.raises(ConfigError, match="each once"):
        ModelServer([Doubler("a"), Doubler("a")])


def test_a_swap_under_load_fails_no_request() -> None:
    first = Doubler()
    server = ModelServer([first])
    versions: list[int] = []
    with server.running() as url:

        def work() -> None:
            with httpx.Client(base_url=url) as client:
                for _ in range(150):
                    versions.append(client.post("/predict", json={"x": 1}).raise_for_status().json()["version"])

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for version in (2, 3):
            time.sleep(0.1)
            done = threading.Event()
            server._loop.call_soon_threadsafe(lambda v=version, d=done: (server.swap(Doubler(version=v)), d.set()))
            done.wait()
        for thread in threads:
            thread.join()
        assert httpx.get(f"{url}/").json()["models"][0]["version"] == 3
        assert 'noria_model_info{model="doubler",version="1"} 0' in httpx.get(f"{url}/metrics").text
    assert first.closed
    assert set(versions) <= {1, 2, 3}
    with pytest.raises(NotFoundError):
        server.swap(Doubler("other"))


def test_api_keys_are_demanded_but_not_for_health() -> None:
    key = hashlib.sha256(b"secret").hexdigest()
    with ModelServer([Doubler()], keys=Access(KeyRing.of(digests=frozenset({key})))).running() as url:
        assert httpx.get(f"{url}/health/ready").status_code == 200
        for headers in ({}, {"x-api-key": "wrong"}, {"authorization": "Bearer x"}, {"authorization": f"Bearer {key}"}):
            response = httpx.post(f"{url}/predict", json={"x": 1}, headers=headers)
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == "Bearer"
        for headers in ({"x-api-key": "secret"}, {"authorization": "Bearer secret"}):
            assert httpx.post(f"{url}/predict", json={"x": 1}, headers=headers).status_code == 200


def test_beyond_loopback_keys_are_needed() -> None:
    with pytest.raises(ConfigError, match="there are no API keys"):
        check_bind("0.0.0.0", "")
    check_bind("127.0.0.1", "")
    check_bind("::1", "")
    check_bind("0.0.0.0", "a" * 64)
    with pytest.raises(ConfigError, match="digests"):
        parse_keys("secret")


def test_a_stopping_server_finishes_what_it_has_begun() -> None:
    server = ModelServer([Doubler()])
    with server.running() as url:
        host, _, port = url.removeprefix("http://").partition(":")
        connection = socket.create_connection((host, int(port)), timeout=10)
        connection.sendall(GOOD[:-3])
        time.sleep(0.2)
        threading.Timer(0.3, connection.sendall, (GOOD[-3:],)).start()
    assert connection.recv(10_000).startswith(b"HTTP/1.1 200")
    connection.close()


def test_metrics_count_what_was_asked() -> None:
    with ModelServer([Doubler()]).running() as url:
        for body in ({"x": 1}, {"x": 1}, {"y": 1}):
            httpx.post(f"{url}/predict", json=body)
        httpx.get(f"{url}/nothing/{'x' * 50}")
        text = httpx.get(f"{url}/metrics")
        openmetrics = httpx.get(f"{url}/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert text.headers["content-type"].startswith("text/plain")
    for line in (
        'noria_http_requests_total{code="200",method="POST",path="/predict"} 2',
        'noria_http_requests_total{code="422",method="POST",path="/predict"} 1',
        'noria_http_requests_total{code="404",method="GET",path="other"} 1',
        'noria_predictions_total{model="doubler",operation="predict",variant="champion",version="1"} 2',
    ):
        assert line in text.text
    assert openmetrics.text.endswith("# EOF\n")


def test_openapi_says_what_there_is(url: str) -> None:
    document = httpx.get(f"{url}/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    content = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert httpx.post(f"{url}/predict", json=content["example"]).status_code == 200


def test_a_taken_port_is_an_error_that_names_it(address: tuple[str, int]) -> None:
    from noria.core import StorageError

    with pytest.raises(StorageError, match=str(address[1])), ModelServer([Doubler()]).running(port=address[1]):
        pass


WORDS = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n",
        b"POST /predict HTTP/1.1\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"\r\n",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"Expect: 100-continue\r\n",
        b"Connection: close\r\n",
        b"\n",
        b":",
        BODY,
        GOOD,
    ]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(WORDS | st.binary(max_size=40), max_size=12).map(b"".join))
def test_whatever_the_bytes_the_neighbour_is_served(address: tuple[str, int], url: str, data: bytes) -> None:
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(data)
        assert httpx.post(f"{url}/predict", json={"x": 1}).json()["value"] == 2


def test_a_head_that_straddles_two_packets_is_not_too_long(address: tuple[str, int]) -> None:
    padding = b"X-Padding: " + b"p" * 20_000 + b"\r\n"
    request = GOOD.replace(b"Host: a\r\n", b"Host: a\r\n" + padding)
    for cut in (20_000, request.index(b"\r\n\r\n") + 2):
        with socket.create_connection(address, timeout=5) as connection:
            connection.sendall(request[:cut])
            time.sleep(0.05)
            connection.sendall(request[cut:])
            assert connection.recv(100).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_reads_nothing_cannot_make_the_server_hoard(
    address: tuple[str, int], server: ModelServer
) -> None:
    with socket.create_connection(address, timeout=1) as connection:
        sent = 0
        with contextlib.suppress(TimeoutError):  # the server stops reading when its answers aren't read
            while sent < 200_000_000:
                sent += connection.send(GOOD * 500)
        assert sent < 50_000_000
    with httpx.Client(base_url=f"http://{address[0]}:{address[1]}") as client:
        assert client.post("/predict", json={"x": 1}).status_code == 200


def test_a_compressed_body_and_what_isnt_json_are_told_apart() -> None:
    with ModelServer([Doubler()]).running() as url, httpx.Client(base_url=url) as client:
        packed = client.post("/predict", content=b"\x1f\x8b", headers={"content-encoding": "gzip"})
        assert (packed.status_code, packed.json()["detail"]) == (415, "the body is compressed (gzip)")
        assert client.post("/predict", content=b'{"x": 1}', headers={"content-encoding": "identity"}).status_code == 200
        assert "NaN" not in client.post("/predict", content=b'{"x": 1').json()["hint"]
        assert "write null" in client.post("/predict", content=b'{"x": NaN}').json()["hint"]
