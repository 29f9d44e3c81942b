"""What is behind the question mark of a `kafka://` URL: TLS, and who we are; and that nobody gets to see it."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from kafka_gate import certificate, gate
from real_servers import free_port, tansu_broker

import noria as nr
from noria.core import ConfigError, Settings, StorageError
from noria.core.settings import StorageSettings
from noria.storage import kafka_clients
from noria.storage.urls import open_log

pytest.importorskip("confluent_kafka")
PASSWORD = "to+p&s%cret/1"
BOUND = 15.0
"""Seconds within which a refusal has to be told."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def trusted(folder: Path) -> tuple[Path, Path]:
    return certificate(folder, "broker")


@pytest.fixture(scope="module")
def inner() -> int:
    return free_port()


@pytest.fixture(scope="module")
def port(inner: int) -> Iterator[int]:
    """Of the gate, which the broker names to its clients."""
    outer = free_port()
    with tansu_broker(inner, outer):
        yield outer


def url(port: int, protocol: str, **settings: str) -> str:
    """With `sasl_username` for `sasl.username`."""
    words = {"security_protocol": protocol, **settings}
    return f"kafka://127.0.0.1:{port}?" + "&".join(f"{n.replace('_', '.')}={quote(v)}" for n, v in words.items())


def said(failed: pytest.ExceptionInfo[Exception]) -> str:
    """Everything that a log would have of it."""
    return "".join(traceback.format_exception(failed.value))


def refused(address: str, caplog: pytest.LogCaptureFixture) -> str:
    """The message; it must come in time, and have no password."""
    caplog.set_level(logging.DEBUG)
    log = open_log(address)
    began = time.monotonic()
    with pytest.raises(StorageError) as failed:
        log.append("events", [b"x"])
    assert time.monotonic() - began < BOUND
    log.close()
    for text in (said(failed), repr(log), caplog.text, str(vars(failed.value))):
        assert PASSWORD not in text
        assert quote(PASSWORD) not in text
    return str(failed.value)


@pytest.mark.parametrize(
    ("protocol", "mechanism"),
    [("SSL", ""), ("SASL_SSL", "PLAIN"), ("SASL_SSL", "SCRAM-SHA-256"), ("SASL_PLAINTEXT", "SCRAM-SHA-256")],
)
def test_events_go_through(protocol: str, mechanism: str, port: int, inner: int, trusted: tuple[Path, Path]) -> None:
    settings: dict[str, str] = {}
    if protocol.endswith("SSL"):
        settings["ssl_ca_location"] = str(trusted[0])
    if mechanism:
        settings |= {"sasl_mechanism": mechanism, "sasl_username": "me", "sasl_password": PASSWORD}
    users = {"me": PASSWORD} if mechanism else {}
    topic = f"through-{protocol}-{mechanism}"
    with gate(port, inner, users, trusted if protocol.endswith("SSL") else None) as made:
        log = open_log(url(port, protocol, **settings))
        log.create(topic)
        assert log.append(topic, [b"a", b"b", b"c"]) == 3
        assert log.bounds(topic) == {0: (0, 3)}
        assert log.read(topic, 0, 1, 10).values == [b"b", b"c"]
        log.close()
    assert set(made.let_in) == set(users)


def test_a_plus_is_a_plus_written_as_it_is(port: int, inner: int) -> None:
    with gate(port, inner, {"me": "a+b"}):
        address = f"kafka://127.0.0.1:{port}?security.protocol=SASL_PLAINTEXT&sasl.mechanism=PLAIN"
        log = open_log(f"{address}&sasl.username=me&sasl.password=a+b")
        log.topics()
        log.close()


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
def test_a_wrong_password_is_told(
    mechanism: str, port: int, inner: int, trusted: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    login = {"sasl_mechanism": mechanism, "sasl_username": "me", "sasl_password": PASSWORD}
    with gate(port, inner, {"me": "another"}, trusted):
        text = refused(url(port, "SASL_SSL", ssl_ca_location=str(trusted[0]), **login), caplog)
    assert "doesn't let us in" in text
    assert "the name or the password is wrong" in text
    assert "sasl.username and sasl.password" in text


def test_a_mechanism_that_the_broker_has_not_is_told(port: int, inner: int, caplog: pytest.LogCaptureFixture) -> None:
    login = {"sasl_mechanism": "SCRAM-SHA-512", "sasl_username": "me", "sasl_password": PASSWORD}
    with gate(port, inner, {"me": PASSWORD}):
        text = refused(url(port, "SASL_PLAINTEXT", **login), caplog)
    assert "sasl.mechanism" in text
    assert "PLAIN,SCRAM-SHA-256" in text


def test_a_broker_that_knows_no_such_user_is_told(caplog: pytest.LogCaptureFixture) -> None:
    login = {"sasl_mechanism": "SCRAM-SHA-256", "sasl_username": "me", "sasl_password": PASSWORD}
    with tansu_broker(None, None, "--authentication") as broker:
        text = refused(url(int(broker.rpartition(":")[2]), "SASL_PLAINTEXT", **login), caplog)
    assert "doesn't let us in" in text
    assert "unknown-user" in text


def test_a_certificate_that_nobody_trusts_is_told(
    port: int, inner: int, trusted: tuple[Path, Path], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other, _ = certificate(folder, "other")
    with gate(port, inner, {}, trusted):
        text = refused(url(port, "SSL", ssl_ca_location=str(other)), caplog)
    assert "certificate verify failed" in text
    assert "ssl.ca.location" in text


def test_a_certificate_for_another_host_is_told(
    port: int, inner: int, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = certificate(folder, "elsewhere", "192.0.2.1")
    with gate(port, inner, {}, elsewhere):
        text = refused(url(port, "SSL", ssl_ca_location=str(elsewhere[0])), caplog)
    assert "must be for this host" in text


def test_a_port_with_tls_and_a_client_without_is_told(
    port: int, inner: int, trusted: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    with gate(port, inner, {}, trusted):
        text = refused(f"kafka://127.0.0.1:{port}", caplog)
    assert "add security.protocol=SSL" in text


def test_a_port_without_tls_and_a_client_with_it_is_told(
    port: int, inner: int, trusted: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    with gate(port, inner, {}):
        text = refused(url(port, "SSL", ssl_ca_location=str(trusted[0])), caplog)
    assert "doesn't answer by TLS" in text


def test_a_reader_that_is_refused_later_says_so(port: int, inner: int, monkeypatch: pytest.MonkeyPatch) -> None:
    login = {"sasl_mechanism": "PLAIN", "sasl_username": "me", "sasl_password": PASSWORD}
    with gate(port, inner, {"me": PASSWORD}) as made:
        log = open_log(url(port, "SASL_PLAINTEXT", **login))
        log.create("later")
        reader = log.reader("later", "g")
        reader.poll(1, 0.5)
        monkeypatch.setattr(kafka_clients, "ANSWER_SECONDS", 2.0)
        made.users["me"] = "another"
        made.drop()
        with pytest.raises(StorageError, match="doesn't let us in") as failed:
            reader.poll(1, BOUND)
        assert PASSWORD not in said(failed)
        reader.close()
        log.close()


def test_a_refusal_that_the_library_tells_once_is_told(port: int, inner: int, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    hear = kafka_clients.KafkaClients._hear

    def hear_once(clients: kafka_clients.KafkaClients, error: Any) -> None:  # librdkafka keeps quiet for 30 s
        refusal = error.code() == error._AUTHENTICATION
        if not (refusal and told):
            hear(clients, error)
        if refusal:
            told.append(error)

    monkeypatch.setattr(kafka_clients.KafkaClients, "_hear", hear_once)
    login = {"sasl_mechanism": "PLAIN", "sasl_username": "me", "sasl_password": PASSWORD}
    with gate(port, inner, {"me": PASSWORD}) as made:
        log = open_log(url(port, "SASL_PLAINTEXT", **login))
        log.create("once")
        reader = log.reader("once", "g")
        reader.poll(1, 0.5)
        told.clear()
        monkeypatch.setattr(kafka_clients, "ANSWER_SECONDS", 2.0)
        made.users["me"] = "another"
        made.drop()
        with pytest.raises(StorageError, match="doesn't let us in"):
            reader.poll(1, BOUND)
        reader.close()
        log.close()


@pytest.mark.parametrize(
    "settings",
    [
        "sasl.pasword=topsecret",
        "security.protocol=topsecret&sasl.password=topsecret",
        "ssl.ca.location=/no/such.pem&security.protocol=SSL",
    ],
)
def test_settings_that_the_library_refuses_are_told(settings: str) -> None:
    log = open_log(f"kafka://127.0.0.1:{free_port()}?{settings}")
    with pytest.raises(ConfigError, match="librdkafka's settings") as failed:
        log.topics()
    assert "topsecret" not in said(failed)
    assert settings.partition("=")[0] in str(failed.value)


@pytest.mark.parametrize(
    "address",
    ["kafka://me:topsecret@host:9092", "kafkas://host:9092?sasl.password=topsecret", "reddis://me:topsecret@host"],
)
def test_an_address_that_is_wrong_is_told_without_its_password(address: str) -> None:
    with pytest.raises(ConfigError, match=r"storage\.log") as failed:
        open_log(address)
    assert "topsecret" not in said(failed)


def test_the_password_is_neither_shown_nor_saved(
    port: int, inner: int, trusted: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    login = {"sasl_mechanism": "SCRAM-SHA-256", "sasl_username": "me", "sasl_password": PASSWORD}
    address = url(port, "SASL_SSL", ssl_ca_location=str(trusted[0]), **login)
    settings = Settings(root=tmp_path, storage=StorageSettings(log=address))
    clicks = nr.Stream("clicks", schema={"user": "int64"})
    with gate(port, inner, {"me": PASSWORD}, trusted), nr.Workspace.open(settings) as workspace:
        workspace.log.create("clicks")
        workspace.log.append("clicks", [b'{"user": 1}', b'{"user": 2}'])
        with nr.StreamProcessor(clicks, workspace) as processor:
            assert processor.run_to_end().rows_out == 2
        shown = [
            repr(settings),
            repr(workspace),
            repr(workspace.log),
            repr(clicks),
            repr(clicks.to_dict()),
            caplog.text,
        ]
    shown += [file.read_bytes().decode("latin-1") for file in tmp_path.rglob("*") if file.is_file()]
    assert len(shown) > 6
    for text in shown:
        assert PASSWORD not in text
        assert quote(PASSWORD) not in text
