from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.core.errors import ConfigError
from noria.gateway import LoadBalancer, NoHealthyServerError


def addresses(n: int) -> list[str]:
    return [f"10.0.0.{i}:8000" for i in range(n)]


@given(st.lists(st.integers(0, 7), min_size=1, max_size=6).filter(any))
def test_round_robin_keeps_to_the_weights_and_to_an_even_rhythm(weights: list[int]) -> None:
    servers = addresses(len(weights))
    balancer = LoadBalancer(servers, weights=dict(zip(servers, weights, strict=True)))
    chosen = [balancer.get_server().name for _ in range(2 * sum(weights))]
    assert Counter(chosen) == {s: 2 * w for s, w in zip(servers, weights, strict=True) if w}
    for i in range(len(chosen)):  # at no time is a server further than the number of servers from its share
        for server, weight in zip(servers, weights, strict=True):
            assert abs(chosen[: i + 1].count(server) - (i + 1) * weight / sum(weights)) <= len(servers)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.lists(st.booleans(), max_size=60), st.randoms())
def test_least_connections_is_what_a_naive_count_says(weights: list[int], moves: list[bool], dice: object) -> None:
    servers = addresses(len(weights))
    weight = dict(zip(servers, weights, strict=True))
    balancer = LoadBalancer(servers, "least_connections", weights=weight)
    open_: list[str] = []
    for arrives in moves:
        if arrives or not open_:
            counts = Counter(open_)
            chosen = balancer.get_server().name
            least = min((counts[s] + 1) / weight[s] for s in servers)
            assert (counts[chosen] + 1) / weight[chosen] == least
            open_.append(chosen)
        else:
            balancer.release(open_.pop(dice.randrange(len(open_))))  # type: ignore[attr-defined]


@pytest.mark.parametrize("n", [2, 5, 20])
def test_a_server_that_leaves_moves_only_its_own_keys(n: int) -> None:
    keys = [f"user {i}" for i in range(2000)]
    balancer = LoadBalancer(addresses(n), "consistent_hash")
    before = {key: balancer.get_server(key).name for key in keys}
    leaving = addresses(n)[n // 2]
    assert all(0.6 / n < count / len(keys) < 1.5 / n for count in Counter(before.values()).values())
    balancer.remove_server(leaving)
    after = {key: balancer.get_server(key).name for key in keys}
    moved = {key for key in keys if after[key] != before[key]}
    assert moved == {key for key in keys if before[key] == leaving}
    assert len(moved) < 1.5 * len(keys) / n
    balancer.add_server(leaving)
    assert {key: balancer.get_server(key).name for key in keys} == before
    balancer.mark_down(leaving)  # being down for a while is no different
    assert {key: balancer.get_server(key).name for key in keys} == after


@given(st.integers(2, 6), st.text(max_size=20), st.data())
def test_a_key_stays_while_its_server_is_there(n: int, key: str, data: st.DataObject) -> None:
    balancer = LoadBalancer(addresses(n), "consistent_hash")
    home = balancer.get_server(key)
    others = [s for s in balancer.servers if s != home]
    for server in data.draw(st.lists(st.sampled_from(others), unique=True)):
        balancer.mark_down(server)
    assert balancer.get_server(key) == home


def test_hashed_shares_follow_the_weights() -> None:
    one, two = addresses(2)
    balancer = LoadBalancer([one, two], "consistent_hash", weights={one: 3})
    counts = Counter(balancer.get_server(str(i)).name for i in range(8000))
    assert 0.72 < counts[one] / 8000 < 0.78


def test_without_a_key_a_hash_takes_turns() -> None:
    balancer = LoadBalancer(addresses(2), "consistent_hash")
    assert [balancer.get_server().name for _ in range(4)] == addresses(2) * 2


def test_using_releases_and_marks_down_what_could_not_be_reached() -> None:
    balancer = LoadBalancer(addresses(2), "least_connections")
    with pytest.raises(ValueError, match="mine"), balancer.using() as first:
        raise ValueError("mine")
    with pytest.raises(FileNotFoundError), balancer.using():
        raise FileNotFoundError
    assert len(balancer.healthy()) == 2
    with pytest.raises(ConnectionRefusedError), balancer.using() as first:
        raise ConnectionRefusedError
    assert first not in balancer.healthy()
    with balancer.using() as only, balancer.using() as again:
        assert only == again != first
        balancer.remove_server(first)


def test_servers_and_weights_change() -> None:
    balancer = LoadBalancer(addresses(2))
    balancer.set_weight(addresses(2)[0], 0)
    assert {balancer.get_server().name for _ in range(4)} == {addresses(2)[1]}
    balancer.set_weight(addresses(2)[1], 0)
    with pytest.raises(NoHealthyServerError):
        balancer.get_server()
    balancer.add_server("10.0.0.9:8000", weight=2)
    assert balancer.get_server().name == "10.0.0.9:8000"
    for wrong in (lambda: balancer.add_server("10.0.0.9:8000"), lambda: balancer.remove_server("10.9.9.9:1")):
        with pytest.raises(ConfigError):
            wrong()
    for weight in (-1, 0.5, "1"):
        with pytest.raises(ConfigError, match="weight"):
            balancer.set_weight("10.0.0.9:8000", weight)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="last server"):
        LoadBalancer(addresses(1)).remove_server(addresses(1)[0])
