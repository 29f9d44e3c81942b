from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import httpx
import msgspec
import pytest
from doubler import Ask, Doubler

from noria.core import StorageError
from noria.core.bodies import decode
from noria.registry import Deployment, Judging, Reward, Variant
from noria.serving import ModelServer
from noria.serving.exposures import Exposure
from noria.serving.trial import agrees


class Personal(Doubler):
    """A doubler for somebody: the number is who asks."""

    def entities(self, operation: str, request: Ask) -> Sequence[str]:
        return (str(request.x),)


class Tripler(Personal):
    """A version whose answers are other ones; `crash` crashes only here."""

    def answer(self, operation: str, requests: Sequence[Ask]) -> Sequence[Any]:
        if any(request.do == "only-here" for request in requests):
            raise ZeroDivisionError("by the canary")
        if any(request.do == "store" for request in requests):
            raise StorageError("the store is gone")
        return [{"value": request.x * 3, "model": self.model, "version": self.version} for request in requests]


def canary(share: float = 0.5, **more: Any) -> Deployment:
    variants = (Variant("canary", 2, share), Variant("champion", 1, 1 - share))
    return Deployment("doubler", 1, "canary", variants, 0, **more)


def served(deployment: Deployment, **options: Any) -> tuple[ModelServer, Personal, Tripler]:
    first, second = Personal(), Tripler(version=2)
    server = ModelServer([first], **options)
    server.deploy("doubler", {1: first, 2: second}, 1, deployment)
    return server, first, second


def test_each_entity_is_answered_by_its_variant() -> None:
    deployment = canary()
    server, _, _ = served(deployment)
    with server.running() as url, httpx.Client(base_url=url) as client:
        for user in range(200):
            answer = client.post("/predict", json={"x": user}).json()
            assert answer["version"] == deployment.variant_of(str(float(user))).version
        again = client.post("/predict", json={"x": 7}, headers={"x-entity-id": "somebody"}).json()
        assert again["version"] == deployment.variant_of("somebody").version
        metrics = client.get("/metrics").text
        front = client.get("/").json()["models"][0]
    assert front["variants"] == {"canary": 2, "champion": 1}
    assert 'variant="canary",version="2"' in metrics
    trial = server.models["doubler"].trial
    assert trial is not None
    counted = {name: tally.requests for name, tally in trial.tallies.items()}
    assert counted["champion"] + counted["canary"] == 201
    assert counted["canary~twin"] <= counted["champion"]
    groups = trial.tallies["canary"].groups
    assert sum(group.requests for group in groups) == counted["canary"]
    assert sum(group.requests > 0 for group in groups) > 10
    assert 60 < counted["canary"] < 140
    assert all(tally.log_seconds < 0 for tally in trial.tallies.values())


def test_a_twin_of_the_canary_is_answered_apart_from_the_champion_s_other_requests() -> None:
    deployment = canary(0.2)
    server, _, _ = served(deployment)
    with server.running() as url, httpx.Client(base_url=url) as client:
        for user in range(300):
            client.post("/predict", json={"x": user})
    trial = server.models["doubler"].trial
    assert trial is not None
    twins = sum(deployment.twin_of(str(float(user))) == "canary" for user in range(300))
    assert trial.tallies["canary~twin"].requests == twins
    assert 30 < twins < 90
    assert 30 < trial.tallies["canary"].requests < 90


def test_versions_can_be_asked_by_their_numbers() -> None:
    server, _, _ = served(canary(0.0))
    with server.running() as url, httpx.Client(base_url=url) as client:
        for version in (1, 2):
            answer = client.post(f"/models/doubler/versions/{version}/predict", json={"x": 1}).json()
            assert answer["version"] == version
        missing = client.post("/models/doubler/versions/3/predict", json={"x": 1})
        assert (missing.status_code, missing.json()["detail"]) == (
            404, "version 3 of doubler isn't loaded here; loaded: 1, 2"
        )  # fmt: skip
        for path in (
            "/models/doubler/versions/3",
            "/models/doubler/versions/2/predic",
            "/models/do/versions/3/predict",
        ):
            assert "there is nothing at" in client.post(path, json={}).json()["detail"]


@pytest.mark.parametrize("do", ["only-here", "store"])
def test_what_a_canary_cannot_answer_the_champion_answers(do: str) -> None:
    server, _, _ = served(canary(1.0))
    with server.running() as url, httpx.Client(base_url=url) as client:
        answer = client.post("/predict", json={"x": 2, "do": do})
        assert (answer.status_code, answer.json()["version"]) == (200, 1)
        assert client.post("/predict", json={"x": 2}).json()["version"] == 2
        assert client.post("/predict", json={"x": 2, "do": 7}).status_code == 422
    trial = server.models["doubler"].trial
    assert trial is not None
    assert trial.tallies["canary"].requests == 2
    assert trial.tallies["canary"].errors == 1
    assert "champion" not in trial.tallies  # what it took over says nothing of it


def test_a_deployment_that_grows_keeps_its_totals_and_an_aborted_one_is_over() -> None:
    server, first, second = served(canary(1.0))
    with server.running() as url, httpx.Client(base_url=url) as client:
        client.post("/predict", json={"x": 2})
        server.deploy("doubler", {1: first, 2: second}, 1, canary(0.0))
        assert client.post("/predict", json={"x": 2}).json()["version"] == 1
        trial = server.models["doubler"].trial
        assert trial is not None
        assert {name: trial.tallies[name].requests for name in ("canary", "champion")} == {"canary": 1, "champion": 1}
        server.deploy("doubler", {1: first}, 1, None)
        assert client.post("/predict", json={"x": 2}).json()["version"] == 1
    assert second.closed
    assert not first.closed


def test_a_version_that_could_not_be_loaded_is_the_champion_s_work() -> None:
    first = Personal()
    server = ModelServer([first])
    server.deploy("doubler", {1: first}, 1, canary(1.0))
    with server.running() as url:
        assert httpx.post(f"{url}/predict", json={"x": 2}).json()["version"] == 1
    trial = server.models["doubler"].trial
    assert trial is not None
    assert trial.tallies == {}


def test_a_shadow_is_compared_and_never_returned() -> None:
    deployment = Deployment("doubler", 1, "shadow", (Variant("champion", 1, 1.0),), 0, shadow=2)
    server, _, _ = served(deployment)
    with server.running() as url, httpx.Client(base_url=url) as client:
        for x in (0, 0, 1, 2):
            assert client.post("/predict", json={"x": x}).json()["version"] == 1
        client.post("/predict", json={"x": 1, "do": "only-here"})
        trial = server.models["doubler"].trial
        assert trial is not None
        until = time.monotonic() + 5
        while time.monotonic() < until and trial.tallies["shadow"].requests < 5:
            time.sleep(0.01)
        metrics = client.get("/metrics").text
    shadow = trial.tallies["shadow"]
    assert (shadow.requests, shadow.errors, shadow.compared, shadow.agreed) == (5, 1, 4, 2)
    assert trial.tallies["champion"].requests == 5
    assert 'path="/predict"} 5' in metrics


@pytest.mark.parametrize(("by", "count"), [("id", 4), ("user_id", 2)])
def test_exposures_are_written_for_a_reward(by: str, count: int) -> None:
    exposed: list[Exposure] = []
    judging = Judging(reward=Reward("clicks", by=by))
    server, _, _ = served(canary(1.0, judging=judging), expose=exposed.append)
    with server.running() as url, httpx.Client(base_url=url) as client:
        for x in (1, 1, 2, 2):
            client.post("/predict", json={"x": x}, headers={"x-request-id": f"r{x}"})
    assert len(exposed) == count
    assert {(one.id, one.entity, one.variant) for one in exposed} == {("r1", "1.0", "canary"), ("r2", "2.0", "canary")}
    assert all(one.at > 1_700_000_000_000_000 for one in exposed)


def test_answers_agree_but_for_versions_and_last_digits() -> None:
    assert agrees({"p": [1, "a"], "s": 0.5, "version": 1}, {"p": [1, "a"], "s": 0.5001, "version": 2})
    assert not agrees({"p": [1, "a"]}, {"p": [1, "b"]})
    assert not agrees({"p": 0.5}, {"p": 0.6})
    assert not agrees({"p": [1]}, {"p": [1, 2]})
    assert agrees({"s": float("nan")}, {"s": float("nan")})
    assert not agrees({"scores": [0.6]}, {"scores": [0.9]})


def test_where_there_are_classes_they_decide_and_not_how_sure_a_model_is_of_them() -> None:
    given = {"predictions": ["late", "on time"], "scores": [0.6, 0.2], "model": "late", "version": 1}
    assert agrees(given, {**given, "scores": [0.9, 0.1], "version": 2})
    assert not agrees(given, {**given, "predictions": ["late", "late"], "version": 2})
    assert not agrees(given, {key: value for key, value in given.items() if key != "scores"})
    amounts = {"predictions": [10.0], "scores": None}
    assert agrees(amounts, {**amounts, "predictions": [10.05]})
    assert not agrees(amounts, {**amounts, "predictions": [11.0]})


class AskMany(msgspec.Struct):
    xs: list[float]
    do: str = ""


class Many(Doubler):
    """Requests of several rows, each for somebody."""

    def decode(self, operation: str, body: bytes) -> Any:
        return decode(msgspec.json.Decoder(AskMany), body)

    def answer(self, operation: str, requests: Sequence[Any]) -> Sequence[Any]:
        self.batches.append(sum(len(request.xs) for request in requests))
        if self.version == 2 and any(request.do == "only-here" for request in requests):
            raise ZeroDivisionError("by the canary")
        return [
            {"values": [x * (1 + self.version) for x in request.xs], "version": self.version} for request in requests
        ]

    def warm_up(self) -> None:
        pass

    def entities(self, operation: str, request: Any) -> Sequence[str]:
        return list(map(str, request.xs))

    def part(self, operation: str, request: Any, places: Sequence[int]) -> Any:
        return AskMany([request.xs[place] for place in places], request.do)

    def joined(self, operation: str, answers: Sequence[tuple[Sequence[int], Any]]) -> Any:
        values = {
            place: value for places, answer in answers for place, value in zip(places, answer["values"], strict=True)
        }
        return {"values": [values[place] for place in sorted(values)], "version": self.version}


def test_a_request_for_several_entities_is_answered_by_the_variant_of_each() -> None:
    deployment = canary()
    first, second = Many(), Many(version=2)
    server = ModelServer([first])
    server.deploy("doubler", {1: first, 2: second}, 1, deployment)
    xs = [float(x) for x in range(1, 51)]
    wanted = [x * (1 + deployment.variant_of(str(x)).version) for x in xs]
    with server.running() as url, httpx.Client(base_url=url) as client:
        answer = client.post("/predict", json={"xs": xs})
        assert answer.json() == {"values": wanted, "version": 1}
        taken_over = client.post("/predict", json={"xs": xs, "do": "only-here"})
        assert taken_over.json() == {"values": [x * 2 for x in xs], "version": 1}
        metrics = client.get("/metrics").text
    assert 'noria_http_requests_total{code="200",method="POST",path="/predict"} 2' in metrics
    trial = server.models["doubler"].trial
    assert trial is not None
    assert (trial.tallies["canary"].requests, trial.tallies["canary"].errors) == (2, 1)
