"""What a Kafka log asks its brokers with: clients by the URL's settings, and what is to be said when they fail."""

from __future__ import annotations

import re
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from noria.core import ConfigError, MissingExtraError, NoriaError, StorageError

ANSWER_SECONDS = 10.0
"""How long a broker may take to answer, and a batch to be written."""
_FIRST_TRY = 2.0
"""How long to wait before looking whether we have been refused: then waiting on is of no use."""
_TOLD_AGAIN = 45.0
"""librdkafka tells an error that stays the same once in 30 s, and tries within 15: one older than both is over."""
_PROBE_SECONDS = 2.0
"""How long a port may take to say whether it speaks TLS."""

_SECRET = re.compile(r"password|secret|token|jaas|\.pem$|oauthbearer\.config", re.IGNORECASE)
"""Settings whose values no message may have."""

T = TypeVar("T")


class KafkaClients:
    """The clients of one `kafka://` URL, made when they are first asked for.

    Calls go through `run`, and failures through `error`: what the library raises may say too little (that a call took
    too long, where the brokers refuse us), or too much (a password).

    Attributes:
        kafka: the library, which is there only with noria's extra for it.
    """

    def __init__(self, url: str) -> None:
        servers, _, query = url.removeprefix("kafka://").partition("?")
        if "@" in servers:  # nothing of it is shown: it has a password
            raise ConfigError(
                "storage.log has a user before its broker, where Kafka knows none",
                hint="kafka://HOST:9092?security.protocol=SASL_SSL&sasl.mechanism=PLAIN"
                "&sasl.username=…&sasl.password=…",
                field="storage.log",
            )
        self._servers = servers
        self._shown = f"kafka://{servers}"
        if not re.fullmatch(r"[^,/\s]+(:\d+)?(,[^,/\s]+(:\d+)?)*", servers):
            raise ConfigError(f"storage.log = {self._shown!r} names no broker", hint="kafka://HOST:9092,OTHER:9092")
        try:
            import confluent_kafka
            import confluent_kafka.admin
        except ImportError as error:
            raise MissingExtraError("confluent-kafka", "kafka", f"the event log {self._shown}") from error
        self.kafka: Any = confluent_kafka
        # A + is a +, as in many a password, and not a blank as in forms.
        settings = dict(parse_qsl(query.replace("+", "%2B"), keep_blank_values=True))
        self._secrets = [value for name, value in settings.items() if value and _SECRET.search(name)]
        self._tls = settings.get("security.protocol", "").upper().endswith("SSL")
        self._common: dict[str, Any] = {
            "bootstrap.servers": servers,
            "socket.connection.setup.timeout.ms": 5_000,
            "log_level": 0,
            **settings,
            "error_cb": self._hear,
        }
        self._heard: tuple[float, str] | None = None
        self._refusal: _Refusal | None = None
        self._lock = threading.Lock()
        self._made: dict[str, Any] = {}

    def admin(self) -> Any:
        """The client that makes topics, and lists them."""
        return self._once("admin", lambda: self._client(self.kafka.admin.AdminClient, {}))

    def asker(self) -> Any:
        """The consumer that is asked where partitions end; one thread at a time may use it."""
        settings = {"enable.partition.eof": True, "fetch.wait.max.ms": 1}
        return self._once("asker", lambda: self.consumer(f"noria-ask-{secrets.token_hex(4)}", "earliest", settings))

    def producer(self) -> Any:
        """The one that all threads send with."""
        settings = {
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 2,
            "queue.buffering.max.messages": 1_000_000,
            "message.timeout.ms": int(ANSWER_SECONDS * 1000),
        }
        return self._once("producer", lambda: self._client(self.kafka.Producer, settings))

    def consumer(self, group: str, start: str, more: Mapping[str, Any] | None = None) -> Any:
        """A new consumer, to be closed by who asked for it."""
        settings = {
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": start,
            "max.poll.interval.ms": 3_600_000,  # a slow sink is no dead member
            "session.timeout.ms": 10_000,
            "fetch.wait.max.ms": 100,
            **(more or {}),
        }
        return self._client(self.kafka.Consumer, settings)

    def metadata(self) -> Any:
        """What the brokers tell of themselves; it is the first that a log asks for."""
        began = time.monotonic()
        for patience in (_FIRST_TRY, max(_FIRST_TRY, ANSWER_SECONDS - _FIRST_TRY)):
            try:
                return self.admin().list_topics(timeout=patience)
            except self.kafka.KafkaException as error:
                failure = error
            self.admin().poll(0)  # it is here that the library calls `_hear`
            if self._refusal is not None and self._refusal.last >= began:
                break
        raise self.error(failure) from failure

    def run(self, work: Callable[[], T]) -> T:
        """What a call of the library returns; what it raises becomes an error of ours."""
        try:
            return work()
        except self.kafka.KafkaException as error:
            raise self.error(error) from error

    def error(self, error: Any) -> NoriaError:
        """What is to be raised for an exception of the library, an error of it, or words."""
        if isinstance(error, self.kafka.KafkaException):
            error = error.args[0]
        kinds = self.kafka.KafkaError
        name = error.name() if isinstance(error, kinds) else ""
        text = error.str() if isinstance(error, kinds) else str(error)
        what = "can't be used"
        hint = "is the broker up, and does storage.log name its host, port and security settings?"
        refusal = self._refused()
        if name in ("", "_TRANSPORT", "_TIMED_OUT", "_MSG_TIMED_OUT", "_ALL_BROKERS_DOWN", "_AUTHENTICATION", "_SSL"):
            if refusal is not None and refusal.tls:
                what, text = "can't be reached by TLS", refusal.text
                hint = (
                    "ssl.ca.location in storage.log must name the certificate that the broker's is signed with, "
                    "and the broker's must be for this host and still be valid"
                )
            elif refusal is not None:
                what, text = "doesn't let us in", refusal.text
                hint = (
                    "are sasl.mechanism, sasl.username and sasl.password in storage.log the broker's? In a URL, "
                    "characters such as & and % of a password are written %26 and %25"
                )
            else:
                if self._heard is not None and time.monotonic() - self._heard[0] < _TOLD_AGAIN:
                    text = self._heard[1]
                hint = _diagnosis(self._servers, self._tls) or hint
        return StorageError(f"the event log {self._shown} {what}: {self._without_secrets(text)}", hint=hint)

    def raise_refused(self, consumer: Any) -> None:
        """Raise if the brokers have been refusing us for so long that it isn't one of them that starts anew.

        A refusal that lasts may have been told once: so they are asked.
        """
        refusal = self._refused()
        if refusal is not None and time.monotonic() - refusal.since > ANSWER_SECONDS:
            self.run(lambda: consumer.list_topics(timeout=_FIRST_TRY))
            self._refusal = None  # they let us in by now, or others do

    def close(self) -> None:
        """Send what waits to be sent, and let go of the clients; consumers are closed by those who have them."""
        with self._lock:
            for name, made in self._made.items():
                if name == "asker":
                    made.close()
                elif name == "producer":
                    made.flush(ANSWER_SECONDS)
            self._made = {}

    def _client(self, kind: Callable[[dict[str, Any]], Any], settings: Mapping[str, Any]) -> Any:
        try:
            return kind({**self._common, **settings})
        except self.kafka.KafkaException as error:  # not the cause of ours: it may repeat a value
            raise ConfigError(
                f"storage.log = {self._shown!r} has settings that can't be used: {self._without_secrets(error)}",
                hint="what is behind its question mark are librdkafka's settings, with the files that they name",
                field="storage.log",
            ) from None

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        with self._lock:
            if name not in self._made:
                self._made[name] = make()
            return self._made[name]

    def _hear(self, error: Any) -> None:
        """Of a client's connections, whose calls only time out."""
        if error.code() in (error._AUTHENTICATION, error._SSL):
            now, before = time.monotonic(), self._refusal
            since = before.since if before is not None and now - before.last < _TOLD_AGAIN else now
            self._refusal = _Refusal(since, now, error.str(), tls=error.code() == error._SSL)
        elif error.code() != error._ALL_BROKERS_DOWN:  # that isn't why
            self._heard = (time.monotonic(), error.str())

    def _refused(self) -> _Refusal | None:
        """The refusal that still holds, if there is one."""
        now = time.monotonic()
        return self._refusal if self._refusal is not None and now - self._refusal.last < _TOLD_AGAIN else None

    def _without_secrets(self, text: object) -> str:
        shown = str(text)
        for secret in sorted(self._secrets, key=len, reverse=True):
            shown = shown.replace(secret, "***")
        return shown


@dataclass(frozen=True)
class _Refusal:
    """Brokers that refuse us, from one time to another, and what the last one said."""

    since: float
    last: float
    text: str
    tls: bool


def _diagnosis(servers: str, tls: bool) -> str:
    """What to do about brokers that don't answer, from what the first one's port does.

    A client without TLS at a port with TLS, or the other way round, hears nothing that would tell it so.
    """
    host, _, port = servers.partition(",")[0].rpartition(":")
    where = (host.strip("[]"), int(port)) if host else (port, 9092)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent: only whether it is TLS
    try:
        with socket.create_connection(where, _PROBE_SECONDS) as plain:
            try:
                context.wrap_socket(plain).close()
                answers = True
            except OSError:  # ssl.SSLError is one
                answers = False
    except OSError:
        return ""  # nothing listens: the library has said so
    if answers and not tls:
        return "its port wants TLS: add security.protocol=SSL to storage.log (SASL_SSL if it asks for a user)"
    if not answers and tls:
        return "its port doesn't answer by TLS: name the port that does, or take the SSL out of security.protocol"
    return ""
