from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import noria
from noria.core import (
    ConfigError,
    NoriaError,
    RequestError,
    Schema,
    SchemaError,
    Settings,
    Timestamp,
    allowed,
    check_name,
    duration,
    fingerprint,
    to_iso,
)


def test_an_error_is_a_problem_document() -> None:
    problem = RequestError("k is 0", status=422, hint="write 1 to 1000", field="k").to_problem()
    assert problem["type"] == "urn:noria:request-error"
    assert (problem["status"], problem["field"], problem["detail"]) == (422, "k", "k is 0")
    assert SchemaError("x").code == "schema-error"
    assert str(NoriaError("no water", hint="dig")) == "no water\n  hint: dig"


def test_hints_name_the_nearest_value() -> None:
    assert allowed(["mean", "median"], "meen").startswith("did you mean 'mean'?")
    assert allowed([]) == "allowed: (none)"


@given(st.integers(1, 10**6), st.sampled_from(["ms", "s", "m", "h", "d", "w"]))
def test_durations_scale(number: int, unit: str) -> None:
    assert duration(f"{number}{unit}") == number * duration(f"1{unit}")


@pytest.mark.parametrize("text", ["", "7", "7 days", "-1d", "0d", "1.5h", "d", "1M"])
def test_wrong_durations_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not a duration"):
        duration(text)


def test_time_as_text() -> None:
    assert to_iso(1_260_759_144_000_000) == "2009-12-14T02:52:24Z"
    assert to_iso(-1) == "1969-12-31T23:59:59.999999Z"


def test_schemas_read_and_write_themselves() -> None:
    schema = Schema.of({"id": "int64", "text": "str?", "at": Timestamp("s"), "seen": Timestamp("iso", nullable=True)})
    assert schema["text"].nullable
    assert schema["at"].unit == "s"
    assert schema.time_column is None
    assert Schema.of(schema.to_dict()) == schema
    with pytest.raises(ConfigError, match="did you mean 'text'"):
        schema["txt"]


@pytest.mark.parametrize("spec", ["int", "integer64", 7, "timestamp[y]", None])
def test_unknown_types_are_refused(spec: object) -> None:
    with pytest.raises(ConfigError):
        Schema.of({"id": spec})
    with pytest.raises(ConfigError, match="at least one column"):
        Schema.of({})


def test_names_are_fit_for_urls_and_folders() -> None:
    assert check_name("movies-2", "model") == "movies-2"
    for name in ("", "Movies", "../x", "a b", "1st", "x" * 65):
        with pytest.raises(ConfigError, match="can't be the name"):
            check_name(name, "model")


def test_fingerprints_ignore_the_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint([1, 2]) != fingerprint([2, 1])


def test_settings_come_from_the_file_and_the_environment_wins(tmp_path: Path) -> None:
    (tmp_path / "noria.toml").write_text('[serve]\nport = 9000\nhost = "localhost"\n')
    assert Settings.load(tmp_path, {}).serve.port == 9000
    settings = Settings.load(tmp_path, {"NORIA_SERVE_PORT": "9001", "NORIA_STORAGE_ONLINE": "lmdb://x"})
    assert (settings.serve.port, settings.serve.host, settings.storage.online) == (9001, "localhost", "lmdb://x")
    (tmp_path / "noria.toml").write_text("[predictions]\nlog_share = 0\n")
    assert Settings.load(tmp_path, {}).predictions.log_share == 0.0
    assert Settings.load(tmp_path, {"NORIA_PREDICTIONS_LOG_SHARE": "0.25"}).predictions.log_share == 0.25


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[serve]\nprot = 1\n", "did you mean 'port'"),
        ("[server]\nport = 1\n", "did you mean 'serve'"),
        ('[serve]\nport = "8080"\n', "it must be a whole number"),
        ("[serve]\nreplicas = true\n", "it must be a whole number"),
        ("serve = 3\n", "must be a table"),
        ("port = = 3\n", "not valid TOML"),
        ('compute = "spark"\n', "is not supported"),
        ("[serve]\nreplicas = 300\n", "serve.replicas in "),
        ("[serve]\nreplicas = 4\nreplicas_max = 2\n", "from serve.replicas, 4, to 256"),
        ('[serve]\nbalance = "round-robin"\n', "did you mean 'round_robin'"),
        ("[serve]\nport = 70000\n", "0 to 65535"),
        ("[predictions]\nlog_share = 2\n", "from 0 (off) to 1"),
        ('[predictions]\nlog_share = "1"\n', "it must be a number"),
        ("[telemetry]\ntrace_share = -0.5\n", "from 0 (off) to 1"),
        ('[telemetry]\notlp = "localhost:4317"\n', "http://HOST:4318"),
        ('[telemetry]\notlp = "grpc://localhost:4317"\n', "http://HOST:4318"),
    ],
)
def test_wrong_settings_are_explained(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "noria.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        Settings.load(tmp_path, {})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("NORIA_SERVE_PORT", "many", "serve.port in the variable NORIA_SERVE_PORT is 'many'"),
        ("NORIA_PREDICTIONS_LOG_SHARE", "2", "predictions.log_share in the variable NORIA_PREDICTIONS_LOG_SHARE is 2"),
        ("NORIA_SERVE_TLS", "nowhere", "serve.tls in the variable NORIA_SERVE_TLS is 'nowhere'"),
        ("NORIA_SERVE_REPLICAS", "0", "serve.replicas in the variable NORIA_SERVE_REPLICAS is 0"),
        ("NORIA_SERVE_BALANCE", "robin", "serve.balance in the variable NORIA_SERVE_BALANCE is 'robin'"),
        ("NORIA_COMPUTE", "spark", "compute in the variable NORIA_COMPUTE is 'spark', which is not supported"),
        ("NORIA_SERVE_PROT", "1", "did you mean 'NORIA_SERVE_PORT'"),
    ],
)
def test_wrong_variables_are_explained(tmp_path: Path, name: str, value: str, message: str) -> None:
    (tmp_path / "noria.toml").write_text("[serve]\nport = 1\n")
    with pytest.raises(ConfigError) as caught:
        Settings.load(tmp_path, {name: value})
    assert message in str(caught.value)
    assert "noria.toml" not in str(caught.value)


def test_variables_of_others_are_no_settings(tmp_path: Path) -> None:
    others = {
        "NORIA_SERVICE_HOST": "10.0.0.1",
        "NORIA_PORT": "tcp://10.0.0.1:80",
        "NORIA_BENCHMARK": "1",
        "SERVE_X": "",
    }
    assert Settings.load(tmp_path, others) == Settings(tmp_path)


def test_every_public_name_exists() -> None:
    for name in noria.__all__:
        assert getattr(noria, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Sauce'"):
        _ = noria.Sauce  # type: ignore[attr-defined]


@pytest.mark.parametrize("statement", ["import noria", "from noria.cli.main import _parser; _parser().format_help()"])
def test_importing_noria_loads_no_heavy_library(statement: str) -> None:
    heavy = {"polars", "numpy", "numba", "sklearn", "scipy", "deltalake", "pandas", "rich", "uvloop", "httptools"}
    code = f"import sys; {statement}; print(*sorted({heavy!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_no_public_name_is_hidden_by_a_module_of_that_name() -> None:
    """An imported module becomes an attribute of its package, and is then found instead of what is exported lazily."""
    for room in Path(noria.__file__).parent.iterdir():
        if (room / "__init__.py").exists() and room.name != "templates":
            package = importlib.import_module(f"noria.{room.name}")
            modules = {file.stem for file in room.iterdir()}
            assert not modules & set(getattr(package, "_ORIGIN", {})), room.name
