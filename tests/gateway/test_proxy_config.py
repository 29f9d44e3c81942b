from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noria.core.errors import ConfigError
from noria.gateway import POLICIES, ProxyConfig, ProxyOptions, Upstream, render
from noria.gateway.haproxy import binary
from noria.gateway.proxy_config import waiting_room_lua


def config(directory: Path, *, grpc: bool = False, **options: Any) -> ProxyConfig:
    servers = (Upstream("a", "127.0.0.1", 8001, 1, ready=True, grpc_port=9001), Upstream("b", "::1", 8002, 2))
    more = {"grpc_bind": "127.0.0.1:18082"} if grpc else {}
    return ProxyConfig("127.0.0.1:18080", "127.0.0.1:18081", directory, servers, ProxyOptions(**options), **more)


def test_is_a_pure_function_of_its_description(tmp_path: Path) -> None:
    text = render(config(tmp_path, retried=("predict", "search")))
    assert text == render(config(tmp_path, retried=("predict", "search")))
    lines = {line.strip().partition(" check ")[0]: line for line in text.splitlines()}
    assert not lines["server a 127.0.0.1:8001 id 1 weight 100"].endswith("disabled")
    assert lines["server b [::1]:8002 id 2 weight 100"].endswith(" disabled")
    assert "disable-l7-retry unless METH_GET or METH_POST { path_end /predict :predict /search :search }" in text
    for line in ("option redispatch 1", "retry-on conn-failure empty-response", "option idle-close-on-response"):
        assert line in text
    assert "grpc" not in text


def test_servers_that_speak_grpc_are_in_a_backend_more(tmp_path: Path) -> None:
    text = render(config(tmp_path, grpc=True))
    public = render(config(tmp_path))
    assert text.startswith(public)
    servers = [line.strip() for line in text.removeprefix(public).splitlines() if "check-proto" in line]
    assert [line.partition(" check inter")[0] for line in servers] == [
        "server a 127.0.0.1:9001 id 1 weight 100 proto h2 check-proto h1 port 8001"
    ]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seconds=st.floats(1e-6, 1e5),
    buffer_bytes=st.integers(16_384, 4 << 20),
    policy=st.sampled_from(sorted(POLICIES)),
    slow_start=st.sampled_from([0.0, 0.5, 30.0]),
    grpc=st.booleans(),
    retried=st.lists(st.from_regex(r"[a-z0-9_.~-]{1,12}", fullmatch=True), max_size=3).map(tuple),
)
def test_haproxy_accepts_what_the_options_accept(
    tmp_path: Path,
    seconds: float,
    buffer_bytes: int,
    policy: str,
    slow_start: float,
    grpc: bool,
    retried: tuple[str, ...],
) -> None:
    described = config(
        tmp_path,
        grpc=grpc,
        queue_timeout=seconds,
        health_interval=seconds,
        buffer_bytes=buffer_bytes,
        policy=policy,
        slow_start=slow_start,
        retried=retried,
    )
    path = tmp_path / "haproxy.cfg"
    path.write_text(render(described))
    described.lua_file.write_text(waiting_room_lua(described.options))
    described.state_file.write_text("1\n")
    check = subprocess.run([binary(), "-c", "-f", path], capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stderr
    assert "WARNING" not in check.stderr


@pytest.mark.parametrize(
    "options",
    [
        {"threads": 0},
        {"queue_timeout": -1.0},
        {"buffer_bytes": 100},
        {"policy": "random"},
        {"hash_balance": 0.5},
        {"slow_start": -1.0},
        {"retried": ("a b",)},
        {"retried": ("x } deny\n",)},
        {"certificate": Path("/nowhere.pem")},
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as error:
        ProxyOptions(**options)
    assert error.value.field in options


def test_paths_that_haproxy_would_misread_are_refused() -> None:
    with pytest.raises(ConfigError, match="can't use the path"):
        render(config(Path("/tmp/a b\n daemon")))
