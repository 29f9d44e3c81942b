"""Settings: where a system's parts live. `noria.toml` in the project's folder, overridden by the environment.

Every setting has a default, so that an empty file (or none) runs everything embedded. A setting `port` in the
table `[serve]` is overridden by the variable `NORIA_SERVE_PORT`.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from noria.core.errors import ConfigError, allowed

FILE_NAME = "noria.toml"

MOST_REPLICAS = 256
BALANCES = ("round_robin", "least_connections", "consistent_hash")
_HTTP = re.compile(r"https?://[^/\s?#]+(/[^\s?#]*)?")


@dataclass(frozen=True)
class StorageSettings:
    """One URL per store; relative paths start at the project's folder."""

    tables: str = "file://.noria/tables"
    """Offline tables (Delta Lake)."""
    online: str = field(default="lmdb://.noria/online", repr=False)  # it may have a password
    """The newest feature values, read by the server."""
    records: str = field(default="sqlite:///.noria/records.db", repr=False)  # it may have one too
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
class RegistrySettings:
    """What is believed of the registry."""

    trust_pickles: bool = False
    """Whether everybody who can write to the registry is trusted: reading a model that is a pickle runs code."""


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
    registry: RegistrySettings = field(default_factory=RegistrySettings)
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
        environ = os.environ if environ is None else environ
        known, origins = _variables(), dict[str, str]()
        for name in sorted(environ):
            if name in known:
                table, key = known[name]
                target = document.setdefault(table, {}) if table else document
                if isinstance(target, dict):  # else it is refused anyway
                    target[key] = _Text(environ[name])
                origins[f"{table}.{key}" if table else key] = f"the variable {name}"
            elif table := next((one for one in _TABLES if name.startswith(f"NORIA_{one}_".upper())), ""):
                names = [one for one, (place, _) in known.items() if place == table]
                raise ConfigError(f"unknown setting: the variable {name}", hint=allowed(names, name), field=name)
        return _settings(root, document, _Places(str(file), origins))


class _Text(str):
    """Text from a variable of the environment; unlike a value in TOML it may stand for a number."""


@dataclass(frozen=True)
class _Places:
    """Where settings come from: the file, or a variable for those in `origins`."""

    file: str
    origins: Mapping[str, str]

    def of(self, name: str) -> str:
        return self.origins.get(name, self.file)


_TABLES: dict[str, type] = {
    "storage": StorageSettings,
    "serve": ServeSettings,
    "predictions": PredictionSettings,
    "telemetry": TelemetrySettings,
    "registry": RegistrySettings,
    "run": RunSettings,
}


def _variables() -> dict[str, tuple[str, str]]:
    names = {"NORIA_COMPUTE": ("", "compute")}
    for table, kind in _TABLES.items():
        names |= {f"NORIA_{table}_{f.name}".upper(): (table, f.name) for f in fields(kind)}
    return names


def _settings(root: Path, document: dict[str, Any], places: _Places) -> Settings:
    parts: dict[str, Any] = {}
    for name, value in document.items():
        if name in _TABLES:
            parts[name] = _table(name, value, places)
        elif name == "compute":
            parts[name] = _value("compute", value, str, places)
        else:
            raise ConfigError(
                f"unknown setting {name!r} in {places.file}", hint=allowed([*_TABLES, "compute"], name), field=name
            )
    settings = Settings(root, **parts)
    for name, fits, hint in _limits(settings):
        if not fits:
            table, _, key = name.rpartition(".")
            value = getattr(getattr(settings, table) if table else settings, key)
            # A URL may have a password.
            what = "is no URL of a collector" if key == "otlp" else f"is {value!r}, which is not supported"
            raise ConfigError(f"{name} in {places.of(name)} {what}", hint=hint, field=name)
    return settings


def _limits(settings: Settings) -> Iterator[tuple[str, bool, str]]:
    """Each setting with limits, whether it keeps them, and what they are."""
    serve, compute, otlp = settings.serve, settings.compute, settings.telemetry.otlp
    share = "it is a share: from 0 (off) to 1 (every request)"
    yield "predictions.log_share", 0 <= settings.predictions.log_share <= 1, share
    yield "telemetry.trace_share", 0 <= settings.telemetry.trace_share <= 1, share
    collector = "it speaks OTLP over HTTP: http://HOST:4318 or https://HOST:PORT"
    yield "telemetry.otlp", not otlp or bool(_HTTP.fullmatch(otlp)), collector
    ends = f"{allowed(['here', 'elsewhere'])}: elsewhere means that a proxy in front of noria speaks TLS"
    yield "serve.tls", serve.tls in ("here", "elsewhere"), ends
    yield "serve.balance", serve.balance in BALANCES, allowed(BALANCES, serve.balance)
    least = 0 if serve.servers.strip() else 1
    yield "serve.replicas", least <= serve.replicas <= MOST_REPLICAS, f"allowed: {least} to {MOST_REPLICAS}"
    most = f"allowed: 0 (no scaling by load), or from serve.replicas, {serve.replicas}, to {MOST_REPLICAS}"
    yield "serve.replicas_max", serve.replicas_max in (0, *range(serve.replicas, MOST_REPLICAS + 1)), most
    for name in ("port", "grpc_port", "admin_port"):
        yield f"serve.{name}", 0 <= getattr(serve, name) <= 65_535, "allowed: 0 to 65535"
    kinds = ["local", "ray", "ray://HOST:PORT"]
    yield "compute", compute in ("local", "ray") or compute.startswith("ray://"), allowed(kinds)


def _table(table: str, values: Any, places: _Places) -> Any:
    kind = _TABLES[table]
    if not isinstance(values, dict):
        raise ConfigError(f"{table!r} in {places.file} must be a table", hint=f"write [{table}] on a line of its own")
    types = {f.name: type(f.default) for f in fields(kind)}
    for key in values:
        if key not in types:
            raise ConfigError(
                f"unknown setting {key!r} in [{table}] of {places.file}",
                hint=allowed(types, key),
                field=f"{table}.{key}",
            )
    return kind(**{key: _value(f"{table}.{key}", value, types[key], places) for key, value in values.items()})


def _value(name: str, value: Any, kind: type, places: _Places) -> Any:
    if isinstance(value, _Text):
        value = _number(value, kind)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise ConfigError(
            f"{name} in {places.of(name)} is {value!r}",
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
