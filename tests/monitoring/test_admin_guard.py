"""Who is let in to the console: API keys, other pages, other names."""

from __future__ import annotations

import base64
from collections.abc import Callable

import httpx
import pytest

from noria.core import ConfigError, Settings
from noria.monitoring.console.operations import API
from noria.monitoring.console.pages import PAGES
from noria.monitoring.console.running import Running
from noria.serving.key_records import ApiKeys
from noria.storage import open_records

JSON = {"content-type": "application/json"}


def path_of(path: str) -> str:
    for name, value in (("model", "late"), ("version", "1"), ("name", "x"), ("id", "x")):
        path = path.replace(f"{{{name}}}", value)
    return path


def key(settings: Settings, name: str, scopes: str) -> str:
    return ApiKeys(open_records(settings.storage.records, settings.root)).create(name, scopes)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8081", "127.0.0.1.evil.example", "[::2]:80", "10.0.0.1", ""]
)
def test_on_loopback_other_names_are_refused(lasting: httpx.Client, host: str) -> None:
    for path in ("/", "/api/models", "/health"):
        assert lasting.get(path, headers={"host": host}).status_code in (400, 421)


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1:80", "127.9.9.9", "[::1]:8081", "[::1]"])
def test_on_loopback_its_names_are_let_in(lasting: httpx.Client, host: str) -> None:
    assert lasting.get("/api/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("one", [one for one in API if one.method == "POST"], ids=lambda one: one.name)
def test_no_other_page_can_change_anything(lasting: httpx.Client, one: object) -> None:
    path = path_of(one.path)  # type: ignore[attr-defined]
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "http://evil.example@127.0.0.1"):
        response = lasting.post(path, content=b"{}", headers={**JSON, "origin": origin})
        assert (response.status_code, "another page" in response.text) == (403, True), origin
    for site in ("cross-site", "same-site"):
        assert lasting.post(path, content=b"{}", headers={**JSON, "sec-fetch-site": site}).status_code == 403
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "",
        "application/jsonp",
    ):
        assert lasting.post(path, content=b"{}", headers={"content-type": kind}).status_code == 415, kind
    assert lasting.get(path).status_code in (200, 404, 405, 503)


def test_its_own_page_can(client: httpx.Client) -> None:
    own = {**JSON, "origin": str(client.base_url).rstrip("/"), "sec-fetch-site": "same-origin"}
    assert client.post("/api/models/late/promote", content=b'{"version": 1}', headers=own).status_code == 200


def test_other_methods_are_refused(lasting: httpx.Client) -> None:
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        response = lasting.request(method, "/api/models/late")
        assert (response.status_code, response.headers["allow"]) == (405, "GET")
    assert lasting.head("/api/models").status_code == 200
    assert "access-control-allow-origin" not in lasting.get("/api/models", headers={"origin": "http://evil"}).headers


def test_everything_but_health_needs_a_key_with_the_scope(start: Callable[..., Running], settings: Settings) -> None:
    admin, reader = key(settings, "ops", "admin"), key(settings, "shop", "predict,events")
    with httpx.Client(base_url=start().url) as client:
        for one in (*API, *PAGES):
            for given, status in (({}, 401), ({"x-api-key": reader}, 403), ({"x-api-key": "noria_x"}, 401)):
                response = client.request(one.method, path_of(one.path), headers={**JSON, **given}, content=b"{}")
                assert response.status_code == (503 if one.public and not one else 200 if one.public else status), (
                    one.path
                )
        assert client.get("/api/models").headers["www-authenticate"].startswith("Basic realm=")
        secret = base64.b64encode(f"anybody:{admin}".encode()).decode()
        alone = base64.b64encode(f"{admin}:".encode()).decode()
        for header in (f"Basic {secret}", f"basic {alone}", f"Bearer {admin}"):
            assert client.get("/", headers={"authorization": header}).status_code == 200
        for header in ("Basic !!", "Basic", "Bearer", "Digest x", f"Basic {base64.b64encode(b'a:b').decode()}"):
            assert client.get("/", headers={"authorization": header}).status_code == 401


def test_a_revoked_key_is_refused_soon(
    start: Callable[..., Running], settings: Settings, wait_for: Callable[..., None]
) -> None:
    admin = key(settings, "ops", "admin")
    with httpx.Client(base_url=start().url, headers={"x-api-key": admin}) as client:
        assert client.post("/api/keys/ops/revoke", json={}).status_code == 200
        wait_for(lambda: client.get("/api/models").status_code == 401)


def test_beyond_loopback_a_key_is_demanded_to_start(start: Callable[..., Running], settings: Settings) -> None:
    with pytest.raises(ConfigError, match="no API key has the scope admin"):
        start(admin_host="0.0.0.0", tls="elsewhere")
    key(settings, "shop", "predict")
    with pytest.raises(ConfigError, match="no API key has the scope admin"):
        start(admin_host="0.0.0.0", tls="elsewhere")
    admin = key(settings, "ops", "admin")
    with pytest.raises(ConfigError, match="no certificate for HTTPS"):
        start(admin_host="0.0.0.0")
    made = start(admin_host="0.0.0.0", tls="elsewhere")
    with httpx.Client(base_url=made.url, headers={"host": "ml.example"}) as client:
        assert client.get("/api/models").status_code == 401
        client.headers["x-api-key"] = admin
        assert client.get("/api/models").status_code == 200
        response = client.post("/api/models/late/rollback", json={}, headers={"origin": "https://evil.example"})
        assert response.status_code == 403
        response = client.post(
            "/api/models/late/promote", json={"version": 1}, headers={"origin": "https://ml.example"}
        )
        assert response.status_code == 200


def test_pages_let_nothing_in_and_are_kept_nowhere(lasting: httpx.Client) -> None:
    first, second = lasting.get("/"), lasting.get("/")
    policy = first.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'nonce-")
    assert "unsafe" not in policy
    assert policy != second.headers["content-security-policy"]
    nonce = policy.partition("'nonce-")[2].partition("'")[0]
    assert first.text.count(f'nonce="{nonce}"') == 2
    for name, value in (
        ("cache-control", "no-store"),
        ("x-frame-options", "DENY"),
        ("x-content-type-options", "nosniff"),
    ):
        assert first.headers[name] == value
        assert lasting.get("/api/models").headers[name] == value
    assert 'style="' not in first.text
    assert " onclick=" not in first.text
