"""Settings: where a system's parts live. `noria.toml` in the project's folder, overridden by the environment.

Every setting has a default, so that an empty file (or none) runs everything embedded. A setting `port` in the
table `[serve]` is overridden by the variable `NORIA_SERVE_PORT`.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from noria.core.errors import ConfigError, allowed

FILE_NAME = "noria.toml"

_HTTP = re.compile(r"https?://[^/\s?#]+(/[^\s?#]*)?")


@dataclass(frozen=True)
class StorageSettings:
    """One URL per store; relative paths start at the project's folder."""

    tables: str = "file://.noria/tables"
    """Offline tables (Delta Lake)."""
    online: str = field(default="lmdb://.noria/online", repr=False)  # it may have a password
    """The newest feature values, read by the server."""
    records: str = "sqlite:///.noria/records.db"
    """Registry, runs and audit trail."""
    blobs: str = "file://.noria/blobs"
    """Model files, addressed by their checksums."""
    log: str = field(default="log://.noria/log", repr=False)  # it may have one too
    """Events (topics of streams)."""


@dataclass(frozen=True)
class ServeSettings:
    """The load balancer's address and the servers behind it."""

    host: str = "127.0.0.1"
    port: int = 8080
    grpc_port: int = 0
    """Where it speaks the Open Inference Protocol over gRPC; 0 for nowhere."""
    replicas: int = 2
    """Server processes."""
    replicas_max: int = 0
    """Above `replicas`: have up to so many while the load asks for them; 0 for no scaling by load."""
    servers: str = ""
    """Servers on other machines behind the same load balancer: `host:port`, separated by commas."""
    balance: str = "round_robin"
    """How the load balancer chooses: `round_robin`, `least_connections` or `consistent_hash` (by `X-Entity-Id`)."""
    max_body_bytes: int = 1_048_576
    """Larger request bodies are refused with status 413."""
    max_wait: float = 1.0
    """Seconds; a request that would wait longer for its turn is refused with status 503."""
    access_log: bool = False
    """Whether servers log every request."""
    api_keys: str = ""
    """SHA-256 digests (hex) of API keys with all scopes, separated by commas, beside those of `noria keys`."""
    certificate: str = ""
    """A PEM file with certificate and key, for HTTPS; needed off loopback."""
    tls: str = "here"
    """Where TLS ends: `here`, or `elsewhere`, at a proxy in front; then no certificate is needed."""
    admin_host: str = "127.0.0.1"
    """Where the console listens; beyond loopback it demands API keys with the scope `admin`, and HTTPS."""
    admin_port: int = 8081
    """The console's port; 0 for no console beside `noria serve`."""


@dataclass(frozen=True)
class PredictionSettings:
    """What servers record of the requests that they answer."""

    log_share: float = 0.01
    """The share of the requests, from 0 (none) to 1 (all); above 0, at least one a second of each server."""
    log_max_bytes: int = 100_000_000
    """Of all recorded requests; the oldest go first."""


@dataclass(frozen=True)
class TelemetrySettings:
    """Where traces of requests go."""

    otlp: str = field(default="", repr=False)  # it may have a password
    """The URL of an OpenTelemetry collector, such as `http://127.0.0.1:4318`; without one nothing is traced."""
    trace_share: float = 0.0
    """The share of the requests that are traced, from 0 to 1, of those whose caller says nothing of tracing."""


@dataclass(frozen=True)
class RunSettings:
    """How `noria run` works."""

    workers: int = 2
    """Components that may run at the same time."""
    seed: int = 0
    """The seed of everything random."""


@dataclass(frozen=True)
class Settings:
    """All settings of one project."""

    root: Path = field(default_factory=Path.cwd)
    """The project's folder."""
    compute: str = "local"
    """Who works on batches: this process (`local`), Ray on this machine (`ray`), or a cluster (`ray://HOST:PORT`)."""
    storage: StorageSettings = field(default_factory=StorageSettings)
    serve: ServeSettings = field(default_factory=ServeSettings)
    predictions: PredictionSettings = field(default_factory=PredictionSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    run: RunSettings = field(default_factory=RunSettings)

    @property
    def state_dir(self) -> Path:
        """Where locks, logs and run-time files of this project live."""
        return self.root / ".noria"

    @staticmethod
    def load(root: Path | str = ".", environ: Mapping[str, str] | None = None) -> Settings:
        """Read `noria.toml` in `root`, if there is one, and the `NORIA_*` variables of the environment.

        Raises:
            ConfigError: for a file that is not TOML, an unknown setting or a value of the wrong type.
        """
        root = Path(root).resolve()
        file = root / FILE_NAME
        document: dict[str, Any] = {}
        if file.exists():
            try:
                document = tomllib.loads(file.read_text("utf-8"))
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise ConfigError(f"{file} is not valid TOML: {error}") from error
        for name, (table, key) in _variables().items():
            text = (os.environ if environ is None else environ).get(name)
            if text is not None:
                target = document.setdefault(table, {}) if table else document
                target[key] = _Text(text, name)
        return _settings(root, document, str(file))


class _Text(str):
    """Text from a variable of the environment; unlike a value in TOML it may stand for a number."""

    origin: str

    def __new__(cls, text: str, origin: str) -> _Text:
        made = super().__new__(cls, text)
        made.origin = origin
        return made


_TABLES: dict[str, type] = {
    "storage": StorageSettings,
    "serve": ServeSettings,
    "predictions": PredictionSettings,
    "telemetry": TelemetrySettings,
    "run": RunSettings,
}


def _variables() -> dict[str, tuple[str, str]]:
    names = {"NORIA_COMPUTE": ("", "compute")}
    for table, kind in _TABLES.items():
        names |= {f"NORIA_{table}_{f.name}".upper(): (table, f.name) for f in fields(kind)}
    return names


def _settings(root: Path, document: dict[str, Any], where: str) -> Settings:
    parts: dict[str, Any] = {}
    for name, value in document.items():
        if name in _TABLES:
            parts[name] = _table(name, value, where)
        elif name == "compute":
            parts[name] = _value("compute", value, str, where)
        else:
            raise ConfigError(
                f"unknown setting {name!r} in {where}", hint=allowed([*_TABLES, "compute"], name), field=name
            )
    settings = Settings(root, **parts)
    _check_share("predictions.log_share", settings.predictions.log_share, where)
    _check_share("telemetry.trace_share", settings.telemetry.trace_share, where)
    if settings.telemetry.otlp and not _HTTP.fullmatch(settings.telemetry.otlp):
        raise ConfigError(
            f"telemetry.otlp in {where} is no URL of a collector",
            hint="it speaks OTLP over HTTP: http://HOST:4318 or https://HOST:PORT",
            field="telemetry.otlp",
        )
    if settings.serve.tls not in ("here", "elsewhere"):
        raise ConfigError(
            f"serve.tls in {where} is {settings.serve.tls!r}",
            hint=f"{allowed(['here', 'elsewhere'])}: elsewhere means that a proxy in front of noria speaks TLS",
            field="serve.tls",
        )
    if settings.compute not in ("local", "ray") and not settings.compute.startswith("ray://"):
        raise ConfigError(
            f"compute = {settings.compute!r} is not supported",
            hint=allowed(["local", "ray", "ray://HOST:PORT"]),
            field="compute",
        )
    return settings


def _check_share(name: str, share: float, where: str) -> None:
    if not 0 <= share <= 1:
        raise ConfigError(
            f"{name} in {where} is {share}",
            hint="it is a share: from 0 (off) to 1 (every request)",
            field=name,
        )


def _table(table: str, values: Any, where: str) -> Any:
    kind = _TABLES[table]
    if not isinstance(values, dict):
        raise ConfigError(f"{table!r} in {where} must be a table", hint=f"write [{table}] on a line of its own")
    types = {f.name: type(f.default) for f in fields(kind)}
    for key in values:
        if key not in types:
            raise ConfigError(
                f"unknown setting {key!r} in [{table}] of {where}",
                hint=allowed(types, key),
                field=f"{table}.{key}",
            )
    return kind(**{key: _value(f"{table}.{key}", value, types[key], where) for key, value in values.items()})


def _value(name: str, value: Any, kind: type, where: str) -> Any:
    if isinstance(value, _Text):
        where = f"the variable {value.origin}"
        value = _number(value, kind)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise ConfigError(
            f"{name} in {where} is {value!r}",
            hint=f"it must be {_KINDS[kind]}",
            field=name,
        )
    return value


_KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
_TRUTHS = {"true": True, "1": True, "false": False, "0": False}


def _number(text: str, kind: type) -> Any:
    """The number or truth that a variable's text stands for, or the text."""
    if kind is bool:
        return _TRUTHS.get(text.lower(), str(text))
    try:
        return kind(text) if kind in (int, float) else str(text)
    except ValueError:
        return str(text)
