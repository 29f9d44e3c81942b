"""`noria keys`, and `noria serve` beyond loopback: keys and HTTPS through the real load balancer."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from noria.cli import main
from noria.cli.project import load_system
from noria.cli.serve import at_its_address, run_directory, supervisor
from noria.cli.tls import certificate
from noria.core import ConfigError, MissingExtraError, Settings
from noria.gateway import Supervisor
from noria.gateway.handover import take_over
from noria.gateway.ports import free_port
from noria.storage import Workspace

SYSTEM = """
import noria as nr

buys = nr.Source("buys", "buys.csv", schema={"user": "str", "price": "float64", "at": nr.Timestamp("us")})
habits = nr.FeatureGroup("habits", entity="user", source=buys, features={"spent": nr.sum("price")})
system = nr.System("shop", [buys, habits])
"""
CERTIFY = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -days 1 -subj /CN=localhost "
    "-addext subjectAltName=IP:127.0.0.1"
)
BODY = {"groups": ["habits"], "entities": {"user": ["ann"]}}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "buys.csv").write_text("user,price,at\nann,2.5,1000\nbob,1,2000\n")
    (tmp_path / "system.py").write_text(SYSTEM)
    return tmp_path


def pem(folder: Path, *more: str) -> Path:
    """A certificate for 127.0.0.1 and its key, in one file."""
    words = [*CERTIFY.split(), *(more or ("-nodes",)), "-keyout", "key.pem", "-out", "certificate.pem"]
    subprocess.run(words, check=True, capture_output=True, cwd=folder)
    both = folder / "both.pem"
    both.write_text((folder / "certificate.pem").read_text() + (folder / "key.pem").read_text())
    return both


def made(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The key that a command has printed, alone, on standard output."""
    capsys.readouterr()
    assert main(["keys", *words]) == 0
    printed = capsys.readouterr()
    (key,) = printed.out.splitlines()
    assert key.startswith("noria_")
    assert "can't be shown again" in printed.err
    return key


def test_keys_are_made_listed_replaced_and_revoked(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys"]) == 0
    assert "no API keys yet" in capsys.readouterr().out
    words = "--scope", "events,predict", "--rate", "100/s", "--expires", "90d", "--why", "spring"
    first = made(capsys, "create", "shop", *words)
    second = made(capsys, "rotate", "shop", "--grace", "1h")
    assert main(["keys", "list", "--json"]) == 0
    (about,) = json.loads(capsys.readouterr().out)
    assert (about["scopes"], about["rate"], about["status"]) == (["predict", "events"], "100/s", "valid")
    assert [one["id"] for one in about["keys"]] == [key.split("_")[1] for key in (first, second)]
    assert about["keys"][0]["until"] < about["keys"][1]["until"]
    third = made(capsys, "rotate", "shop", "--grace", "0")
    assert main(["keys", "list"]) == 0
    listed = capsys.readouterr().out
    assert third.split("_")[1] in listed
    assert second.split("_")[1] not in listed
    assert main(["keys", "revoke", "shop", "--why", "leaked"]) == 0
    assert "within a second" in capsys.readouterr().out
    assert main(["keys", "history", "--json"]) == 0
    trail = json.loads(capsys.readouterr().out)
    assert [(change["action"], change["why"]) for change in trail] == [
        ("revoke", "leaked"), ("rotate", ""), ("rotate", ""), ("create", "spring"),
    ]  # fmt: skip
    assert main(["keys", "list"]) == 0
    assert "revoked" in capsys.readouterr().out
    assert main(["keys", "history", "shop"]) == 0
    printed = capsys.readouterr().out
    for key in (first, second, third):
        assert key.split("_")[1] in printed
        assert key.split("_")[2] not in printed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["create", "a", "--scope", "predikt"], "did you mean 'predict'?"),
        (["create", "a", "--rate", "many"], "write requests per unit of time"),
        (["create", "a", "--burst", "4"], "give both"),
        (["create", "a", "--expires", "soon"], "write a whole number and a unit"),
        (["create", "a", "--expires", "99999999w"], "up to 36500d"),
        (["create", "A"], "use 1 to 64 lower-case letters"),
        (["create", "known"], "noria keys rotate known"),
        (["rotate", "knwn"], "did you mean 'known'?"),
        (["rotate", "known", "--grace", "-1h"], "write a whole number and a unit"),
        (["revoke", "nobody"], "allowed: known"),
    ],
)
def test_mistakes_are_explained(project: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    made(capsys, "create", "known")
    words = [f"--grace={words.pop()}" if word == "--grace" else word for word in words]
    assert main(["keys", *words]) == 1
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.out == ""


def eventually(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# --- HTTPS


def test_beyond_loopback_a_certificate_is_needed(project: Path) -> None:
    settings = Settings.load(project)

    def found(**changed: str) -> Path | None:
        return certificate(replace(settings, serve=replace(settings.serve, **changed)))

    assert found() is None
    assert found(host="::1") is None
    assert found(host="0.0.0.0", tls="elsewhere") is None
    for host in ("0.0.0.0", "::", "", "10.0.0.1", "example.org"):
        with pytest.raises(ConfigError, match="no certificate for HTTPS"):
            found(host=host)
    both = pem(project)
    for host in ("127.0.0.1", "0.0.0.0"):
        assert found(host=host, certificate="both.pem") == both  # relative to the project
    assert found(certificate=str(both), tls="elsewhere") == both


def test_a_lone_server_speaks_plain_http_on_loopback_only(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [sys.executable, "-m", "noria.serving", "--port", "0", "--host", "0.0.0.0", "--features"]
    assert "no records store" in subprocess.run(words, capture_output=True, text=True, check=False).stderr
    assert not (project / ".noria" / "records.db").exists()
    Workspace.open(Settings.load(project)).close()
    assert "there are no API keys" in subprocess.run(words, capture_output=True, text=True, check=False).stderr
    made(capsys, "create", "shop")
    assert "no certificate" in subprocess.run(words, capture_output=True, text=True, check=False).stderr


def test_what_is_no_certificate_with_its_key_is_refused(project: Path) -> None:
    settings = Settings.load(project)
    encrypted = pem(project, "-passout", "pass:secret").rename(project / "encrypted.pem")
    pem(project)
    other = (project / "key.pem").read_text()
    pem(project)
    (project / "mixed.pem").write_text((project / "certificate.pem").read_text() + other)
    (project / "empty.pem").touch()
    (project / "binary.pem").write_bytes(b"0\x82\x01\xff")
    (project / "damaged.pem").write_text((project / "both.pem").read_text().replace("MI", "AA"))
    faults = {
        "nothing.pem": "can't be read: No such file",
        ".": "can't be read: Is a directory",
        "certificate.pem": "has no private key",
        "key.pem": "has no certificate",
        "mixed.pem": "its key is that of another certificate",
        "empty.pem": "is no PEM file",
        "binary.pem": "is no PEM file",
        "damaged.pem": "can't be used",
        encrypted.name: "its key is encrypted",
    }
    for name, fault in faults.items():
        with pytest.raises(ConfigError, match=r"serve\.certificate") as caught:
            certificate(replace(settings, serve=replace(settings.serve, certificate=name)))
        assert fault in caught.value.message, name


def test_a_key_that_has_ended_is_not_said_to_work(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(capsys, "create", "brief", "--expires", "1s")
    assert main(["keys", "rotate", "brief", "--grace", "1h"]) == 0  # no longer than it would have
    until = capsys.readouterr().err.split("works until ")[1].split("Z")[0]
    assert datetime.fromisoformat(f"{until}+00:00") <= datetime.now(UTC) + timedelta(seconds=2)
    time.sleep(1.1)
    assert main(["keys", "rotate", "brief", "--grace", "1h"]) == 0
    assert "the key before had ended already" in capsys.readouterr().err


def test_where_tls_ends_is_one_of_two_words(project: Path) -> None:
    with pytest.raises(ConfigError, match=r"serve\.tls"):
        Settings.load(project, environ={"NORIA_SERVE_TLS": "off"})
    assert Settings.load(project, environ={"NORIA_SERVE_TLS": "elsewhere"}).serve.tls == "elsewhere"


def test_without_keys_or_certificate_nothing_is_served(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    system = load_system(project)
    settings = replace(Settings.load(project), serve=replace(Settings.load(project).serve, host="0.0.0.0", port=0))
    with pytest.raises(ConfigError, match="there are no API keys"):
        supervisor(system, settings)
    made(capsys, "create", "shop")
    with pytest.raises(ConfigError, match="no certificate"):
        supervisor(system, settings)
    supervisor(system, replace(settings, serve=replace(settings.serve, tls="elsewhere")))
    assert main(["keys", "revoke", "shop"]) == 0
    with pytest.raises(ConfigError, match="there are no API keys"):
        supervisor(system, settings)


@pytest.fixture
def running(project: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[tuple[Supervisor, str]]:
    """Two servers on all addresses, with HTTPS, and a key."""
    assert main(["run"]) == 0
    key = made(capsys, "create", "reader")
    pem(project)
    environ = {"CERTIFICATE": "both.pem", "HOST": "0.0.0.0", "GRPC_PORT": str(free_port())}
    settings = Settings.load(project, {f"NORIA_SERVE_{name}": value for name, value in environ.items()})
    with supervisor(load_system(project), replace(settings, serve=replace(settings.serve, port=0))) as started:
        yield started, key


def test_what_is_taken_over_is_judged_by_its_own_address(
    running: tuple[Supervisor, str], project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve"]) == 1
    assert "noria serve --take-over" in capsys.readouterr().err
    words = ["serve", "--take-over", "--port", "0"]  # from a shell without the settings
    before = {status.pid for status in running[0].status()}
    assert main(words) == 1
    told = capsys.readouterr().err
    assert "the address stays 0.0.0.0, not 127.0.0.1" in told
    assert "0.0.0.0 can be reached from other machines, and there is no certificate" in told
    assert main(["keys", "revoke", "reader"]) == 0
    assert main(words) == 1
    assert "there are no API keys" in capsys.readouterr().err
    assert httpx.get(f"{running[0].url}/health/ready", verify=ssl_of(project)).status_code == 200
    assert {status.pid for status in running[0].status()} == before
    made(capsys, "create", "reader")
    settings = Settings.load(project, {"NORIA_SERVE_CERTIFICATE": "both.pem"})
    given = take_over(run_directory(settings), 0, 0)
    settings = at_its_address(settings, given.host)
    with supervisor(load_system(project), settings, given) as new:
        assert new.url == running[0].url
        assert new.grpc_address == running[0].grpc_address
        assert httpx.get(f"{new.url}/health/ready", verify=ssl_of(project)).status_code == 200
        assert httpx.post(f"{new.url}/features", json=BODY, verify=ssl_of(project)).status_code == 401


def ssl_of(project: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=project / "certificate.pem")


def test_keys_over_grpc_with_tls(running: tuple[Supervisor, str], project: Path) -> None:
    address = running[0].grpc_address
    with InferenceServerClient(address, ssl=True, root_certificates="certificate.pem") as client:
        assert client.is_server_ready()
        for headers, code in (({}, "UNAUTHENTICATED"), ({"x-api-key": running[1]}, "NOT_FOUND")):
            with pytest.raises(InferenceServerException) as caught:
                client.get_model_metadata("nobody", headers=headers, client_timeout=20)
            assert code in caught.value.status()
    with InferenceServerClient(address) as client, pytest.raises(InferenceServerException):
        client.is_server_live(client_timeout=2)


def test_grpc_without_its_extra_is_told_before_anything_starts(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    settings = Settings.load(project, {"NORIA_SERVE_GRPC_PORT": "8081"})
    with pytest.raises(MissingExtraError, match=r"(?s)serve\.grpc_port needs grpcio.*noria\[grpc\]"):
        supervisor(load_system(project), settings)


def test_keys_over_https_and_http2(
    running: tuple[Supervisor, str], project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, reader = running[0].url, running[1]
    assert url.startswith("https://")
    for version in ("--http2", "--http1.1"):
        words = ["curl", "-s", version, "--cacert", "certificate.pem", f"{url}/features", "-d", json.dumps(BODY)]
        words += ["-H", f"Authorization: Bearer {reader}", "-w", "\n%{http_version} %{http_code}"]
        answer, _, seen = subprocess.run(words, capture_output=True, text=True, check=True).stdout.rpartition("\n")
        assert seen == ("2 200" if version == "--http2" else "1.1 200")
        assert json.loads(answer)["features"] == {"habits.spent": [2.5]}
    context = ssl.create_default_context(cafile=project / "certificate.pem")
    with httpx.Client(base_url=url, http2=True, verify=context) as client:

        def ask(key: str) -> int:
            return client.post("/features", json=BODY, headers={"x-api-key": key}).status_code

        refused = client.post("/features", json=BODY)
        assert (refused.http_version, refused.status_code) == ("HTTP/2", 401)
        assert refused.headers["www-authenticate"] == "Bearer"
        assert client.get("/health/ready").status_code == 200
        assert ask(reader) == 200
        assert client.get("/metrics", headers={"x-api-key": reader}).status_code == 403

        limited, later = made(capsys, "create", "limited", "--rate", "20/h"), made(capsys, "create", "later")
        eventually(lambda: all(ask(later) == 200 for _ in range(6)))  # both servers have read on
        statuses = [ask(limited) for _ in range(30)]
        assert 10 <= statuses.count(200) <= 20  # ten of each server, which take turns
        assert set(statuses) == {200, 429}
        often = client.post("/features", json=BODY, headers={"x-api-key": limited})
        assert 0 < int(often.headers["retry-after"]) <= 360  # a server's next one: every 3600 s / 10

        assert main(["keys", "revoke", "reader"]) == 0
        eventually(lambda: all(ask(reader) == 401 for _ in range(6)))
        assert [main(["keys", "revoke", name]) for name in ("limited", "later")] == [0, 0]
        eventually(lambda: all(ask(later) == 401 for _ in range(6)))  # no key is left, and nothing has opened
        assert client.post("/features", json=BODY).status_code == 401
    with pytest.raises(httpx.HTTPError):
        httpx.get(url.replace("https", "http"))
