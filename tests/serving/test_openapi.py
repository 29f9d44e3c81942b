"""The OpenAPI document says what the server does; under `make soak` schemathesis looks for where it doesn't."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from everything import everything

ENVIRONMENT = Path(__file__).parents[2] / ".bench" / "schemathesis"
"""A virtual environment of its own: as a plug-in of pytest it would come along with every test."""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with everything(tmp_path_factory.mktemp("everything")) as url:
        yield url


@pytest.fixture(scope="module")
def document(url: str) -> Any:
    return httpx.get(f"{url}/openapi.json").json()


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, one in value.items():
            yield from [one] if key == "$ref" else references(one)
    elif isinstance(value, list):
        for one in value:
            yield from references(one)


def test_every_path_is_told_and_every_example_accepted(url: str, document: Any) -> None:
    assert {"/predict", "/recommend", "/events", "/features", "/push", "/models/late/predict"} <= set(document["paths"])
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            content = told.get("requestBody", {}).get("content", {}).get("application/json", {})
            if method == "post" and "example" not in content:
                continue
            answer = httpx.request(method, url + path, json=content.get("example"))
            assert answer.status_code == 200, (path, answer.text)
            kinds = told["responses"]["200"]["content"]
            assert answer.headers["content-type"].partition(";")[0] in kinds
            wrong = httpx.request("DELETE", url + path)
            assert wrong.headers["content-type"] in told["responses"]["4XX"]["content"]


def test_components_of_two_models_are_kept_apart(document: Any) -> None:
    schemas = document["components"]["schemas"]
    assert {reference.rpartition("/")[2] for reference in references(document)} <= set(schemas)

    def answered(path: str) -> set[str]:
        schema = document["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
        return set(schemas[schema["$ref"].rpartition("/")[2]]["properties"])

    assert {"predictions", "scores"} <= answered("/predict") == answered("/models/late/predict")
    assert {"items", "cold"} <= answered("/recommend") == answered("/models/movies/recommend")


@pytest.mark.soak
def test_schemathesis_finds_nothing(url: str, tmp_path: Path) -> None:
    program = ENVIRONMENT / "bin" / "st"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
        pip = [ENVIRONMENT / "bin" / "python", "-m", "pip", "install", "--quiet", "schemathesis>=4.32,<5"]
        if subprocess.run(pip, check=False).returncode:
            pytest.skip("schemathesis can't be installed")
    settings = tmp_path / "schemathesis.toml"
    # That a name is none of ours, or that one of two fields has to be there, our schemas don't say.
    settings.write_text(
        "[checks.negative_data_rejection]\nexpected-statuses = [400, 404, 405, 413, 415, 422]\n"
        "[checks.positive_data_acceptance]\nenabled = false\n"
    )
    words = ["--config-file", settings, "run", f"{url}/openapi.json", "--max-examples", "200", "--no-color"]
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False, cwd=tmp_path)
    print(done.stdout[-1500:])
    assert done.returncode == 0, done.stdout[:5000]
