"""What the gateway does with single requests."""

from __future__ import annotations

import doctest
import http.client
import json
import socket
import ssl
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from noria.gateway import ProxyOptions, Supervisor, autoscale, policies, proxy_options, restarts, statistics

Start = Callable[..., Supervisor]
CERTIFY = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost "
    "-addext subjectAltName=IP:127.0.0.1"
)


def raw(supervisor: Supervisor, *pieces: bytes) -> bytes:
    url = urlsplit(supervisor.url)
    with socket.create_connection((url.hostname, url.port), timeout=5) as connection:
        for piece in pieces:
            connection.sendall(piece)
        answer = b""
        while data := connection.recv(65_536):
            answer += data
        return answer


def test_docstrings() -> None:
    for module in (autoscale, policies, proxy_options, restarts, statistics):
        assert doctest.testmod(module).failed == 0


def test_requests_pass_through(supervise: Start) -> None:
    supervisor = supervise(1)
    url = urlsplit(supervisor.url)
    connection = http.client.HTTPConnection(url.hostname or "", url.port)
    connection.request("GET", "/headers", headers={"X-Forwarded-For": "6.6.6.6", "X-Request-Id": "abc"})
    headers = json.load(connection.getresponse())
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert (headers["x-forwarded-proto"], headers["x-forwarded-host"]) == ("http", f"127.0.0.1:{url.port}")
    assert headers["x-request-id"] == "abc"
    for size in (0, 15_000, 66_000, 1 << 20):
        connection.request("POST", "/length", b"x" * size)
        assert connection.getresponse().read() == str(size).encode()
    connection.request("HEAD", "/health/ready")
    assert connection.getresponse().read() == b""
    connection.close()


def test_slow_and_broken_clients_are_sent_away(supervise: Start) -> None:
    supervisor = supervise(1, options=ProxyOptions(request_timeout=0.2))
    slow_head = raw(supervisor, b"POST /predict HTTP/1.1\r\nhost: x\r\n")
    slow_body = raw(supervisor, b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{")
    nonsense = raw(supervisor, b"\x00\x01\x02\r\n\r\n")
    smuggled = raw(supervisor, b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}")
    for answer, status in ((slow_head, 408), (slow_body, 408), (nonsense, 400), (smuggled, 400)):
        assert answer.startswith(f"HTTP/1.1 {status}".encode())
    head, _, body = slow_body.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    assert json.loads(body)["status"] == 408


def test_http2_without_tls(supervise: Start) -> None:
    done = subprocess.run(
        ["curl", "-s", "--http2-prior-knowledge", "-w", " %{http_version}", supervise(1).url + "/health/ready"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith(" 2")


def test_tls(supervise: Start, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = subprocess.run(
        [*CERTIFY.split(), "-keyout", key, "-out", certificate],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("openssl can't make a certificate here")
    both = tmp_path / "both.pem"
    both.write_text(certificate.read_text() + key.read_text())
    supervisor = supervise(1, options=ProxyOptions(certificate=both))
    assert supervisor.url.startswith("https://")
    context = ssl.create_default_context(cafile=str(certificate))
    with urllib.request.urlopen(f"{supervisor.url}/headers", context=context) as answer:
        assert json.load(answer)["x-forwarded-proto"] == "https"


def test_metrics(supervise: Start) -> None:
    supervisor = supervise(2)
    with urllib.request.urlopen(supervisor.metrics_url) as answer:
        text = answer.read().decode()
    assert 'haproxy_server_status{proxy="replicas",server="replica-1",state="UP"} 1' in text
