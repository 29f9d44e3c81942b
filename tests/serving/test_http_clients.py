"""Foreign clients against a server alone and through the balancer, with HTTPS and HTTP/2 there."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import httpx
import pytest

from noria.gateway import ProxyOptions, Supervisor

REPLICA = str(Path(__file__).with_name("recording_replica.py"))
CERTIFY = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost "
    "-addext subjectAltName=IP:127.0.0.1,DNS:localhost"
)
BODY = '{"x": 4}'
JSON = {"content-type": "application/json"}
WAYS = ("direct", "proxy", "tls")


def program(name: str) -> str:
    found = shutil.which(name)
    return found or pytest.skip(f"there is no {name}; make servers installs it on Debian")


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A server's own URL, that of a balancer before it, and that of one with HTTPS, where there is openssl."""
    folder = tmp_path_factory.mktemp("clients")

    def command(index: int, port: int) -> list[str]:
        return [sys.executable, REPLICA, str(port), str(folder / f"seen-{port}")]

    both = folder / "both.pem"
    if shutil.which("openssl"):
        key, certificate = folder / "key.pem", folder / "ca.pem"
        subprocess.run([*CERTIFY.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
        both.write_text(certificate.read_text() + key.read_text())
    with Supervisor(command, 2, port=0, run_dir=folder / "plain") as plain:
        found = {"direct": f"http://{plain.status()[0].address}", "proxy": plain.url, "ca": str(folder / "ca.pem")}
        if not both.exists():
            yield found
            return
        with Supervisor(command, 2, port=0, run_dir=folder / "tls", options=ProxyOptions(certificate=both)) as tls:
            yield {**found, "tls": tls.url}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, urls: dict[str, str]) -> str:
    if request.param not in urls:
        pytest.skip("there is no openssl to make a certificate")
    return str(request.param)


def curl(urls: dict[str, str], *words: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    given = [program("curl"), "-sS", "--max-time", "20", "--cacert", urls["ca"], *words]
    return subprocess.run(given, capture_output=True, check=False, input=stdin)


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--http1.0"],
        ["--http2"],
        ["-H", "Transfer-Encoding: chunked"],
        ["-H", "Expect: 100-continue"],
        ["-H", "Connection: close"],
        ["--data-binary", "@-", "-H", "Content-Type: application/json", "-T", "-"],
    ],
)
def test_curl_predicts(urls: dict[str, str], way: str, options: list[str]) -> None:
    if options == ["--http2"] and way == "direct":
        pytest.skip("an upgrade with a body is refused; see the test below")
    words = options if "-T" not in options else [*options[2:], "-X", "POST"]
    words = words if "-T" in options else [*words, "-d", BODY]
    done = curl(urls, *words, f"{urls[way]}/predict", stdin=BODY.encode() if "-T" in options else None)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["value"] == 8


def test_curl_offers_http_2_and_is_answered(urls: dict[str, str], way: str) -> None:
    done = curl(urls, "--http2", "-w", "%{http_version} %{http_code}", f"{urls[way]}/health/live")
    assert done.stdout == b'{"status":"alive"}' + (b"2 200" if way == "tls" else b"1.1 200")


def test_curl_keeps_its_connection(urls: dict[str, str], way: str) -> None:
    url = f"{urls[way]}/health/live"
    done = curl(urls, "-w", "%{num_connects}\n", "-o", "/dev/null", url, "-o", "/dev/null", url, "-o", "/dev/null", url)
    assert done.stdout.split() == [b"1", b"0", b"0"]


def test_curl_asks_for_the_head(urls: dict[str, str], way: str) -> None:
    done = curl(urls, "-I", f"{urls[way]}/openapi.json", f"{urls[way]}/nothing")
    assert [int(status) for status in re.findall(rb"HTTP/[\d.]+ (\d{3})", done.stdout)] == [200, 404]
    assert b"content-length: " in done.stdout.lower()


@pytest.mark.parametrize(
    "options", [["-H", "Expect: 100-continue"], ["-H", "Expect:"], ["-H", "Transfer-Encoding: chunked"]]
)
def test_curl_is_told_that_a_large_body_is_too_large(
    urls: dict[str, str], way: str, options: list[str], tmp_path: Path
) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(50_000_000)
    done = curl(
        urls,
        *options,
        "-o",
        str(tmp_path / "answer"),
        "-w",
        "%{http_code} %{size_upload}",
        f"{urls[way]}/predict",
        "--data-binary",
        f"@{large}",
    )
    status, sent = done.stdout.split()
    assert int(status) == 413, done.stderr
    assert json.loads((tmp_path / "answer").read_bytes())["status"] == 413
    assert int(sent) < 20_000_000
    if way == "direct" and "100-continue" in options[1]:
        assert int(sent) == 0


@pytest.mark.parametrize("version", ["1", "2"])
def test_httpx_predicts_over_kept_connections(urls: dict[str, str], way: str, version: str) -> None:
    if version == "2" and way != "tls":
        pytest.skip("httpx speaks HTTP/2 over TLS only")
    verify = ssl.create_default_context(cafile=urls["ca"]) if way == "tls" else True
    with httpx.Client(base_url=urls[way], verify=verify, http2=version == "2") as client:
        for x in range(20):
            answer = client.post("/predict", json={"x": x})
            assert (answer.json()["value"], answer.http_version[5]) == (2 * x, version)
        assert client.post("/predict", content=iter([b'{"x"', b": 3}"])).json()["value"] == 6
        assert client.head("/health/ready").status_code == 200
        assert client.request("DELETE", "/predict").status_code == 405


def test_aiohttp_asks_many_at_a_time(urls: dict[str, str], way: str) -> None:
    async def main() -> list[float]:
        context = ssl.create_default_context(cafile=urls["ca"]) if way == "tls" else True
        connector = aiohttp.TCPConnector(limit=16, ssl=context)
        async with aiohttp.ClientSession(urls[way], connector=connector) as session:

            async def one(x: int) -> float:
                async def parts() -> object:
                    for part in (b'{"x":', b"%d" % x, b"}"):
                        yield part

                given = {"json": {"x": x}} if x % 3 else {"data": parts(), "headers": JSON}
                async with session.post("/predict", expect100=x % 5 == 0, **given) as response:
                    return float((await response.json())["value"])

            return await asyncio.gather(*map(one, range(200)))

    assert asyncio.run(main()) == [2 * x for x in range(200)]


def test_the_standard_library_asks_again_after_errors(urls: dict[str, str]) -> None:
    for way in ("direct", "proxy"):
        connection = http.client.HTTPConnection(urls[way].removeprefix("http://"), timeout=10)
        for body, status in ((BODY, 200), ("{", 400), ('{"x": "a"}', 422), (BODY, 200)):
            connection.request("POST", "/predict", body)
            answer = connection.getresponse()
            assert (answer.status, bool(answer.read())) == (status, True)
        sock = connection.sock
        connection.request("GET", "/nothing")
        assert connection.getresponse().status == 404
        assert connection.sock is sock  # it was kept
        connection.close()


def test_wrk_sees_no_error(urls: dict[str, str], way: str, tmp_path: Path) -> None:
    script = tmp_path / "post.lua"
    script.write_text(f"wrk.method, wrk.body = 'POST', '{BODY}'")
    words = [program("wrk"), "-t1", "-c32", "-d1s", "-s", str(script), f"{urls[way]}/predict"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "Socket errors" not in done.stdout
    assert "Non-2xx" not in done.stdout
    found = re.search(r"(\d+) requests in", done.stdout)
    assert found
    assert int(found[1]) > 100


@pytest.mark.parametrize("protocol", ["http/1.1", "h2c", "h2"])
def test_h2load_sees_no_error(urls: dict[str, str], protocol: str, tmp_path: Path) -> None:
    url = urls.get("tls" if protocol == "h2" else "proxy") or pytest.skip("there is no openssl")
    body = tmp_path / "body"
    body.write_text(BODY)
    chosen = ["--h1"] if protocol == "http/1.1" else ["-m", "10"]
    words = [program("h2load"), "-n", "2000", "-c", "16", *chosen, "-d", str(body), f"{url}/predict"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "2000 succeeded, 0 failed, 0 errored, 0 timeout" in done.stdout
    assert "status codes: 2000 2xx" in done.stdout
