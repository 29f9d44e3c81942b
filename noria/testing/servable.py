"""What everything that answers requests has to do."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from noria.core import RequestError
from noria.serving import Servable
from noria.serving.tabular import check_tabular, is_tabular, record_columns


class ServableConformance:
    """Subclass it and return a loaded servable from `servable`."""

    def servable(self) -> Servable:
        """The servable to check."""
        raise NotImplementedError

    def test_it_says_what_it_is(self) -> None:
        servable = self.servable()
        assert servable.model
        assert servable.version >= 1
        assert servable.operations

    def test_its_example_is_answered_alone_and_in_a_batch(self) -> None:
        servable = self.servable()
        servable.warm_up()
        for operation in servable.operations:
            body = msgspec.json.encode(servable.describe(operation)["example"])
            (alone,) = servable.answer(operation, [servable.decode(operation, body)])
            together = servable.answer(operation, [servable.decode(operation, body) for _ in range(5)])
            assert len(together) == 5
            answer = msgspec.json.decode(msgspec.json.encode(alone))
            assert answer["model"] == servable.model
            assert answer["version"] == servable.version
            assert {msgspec.json.decode(msgspec.json.encode(other)).keys() == answer.keys() for other in together} == {
                True
            }

    @pytest.mark.parametrize(
        "body",
        [b"", b"{", b"[]", b"null", b"7", b'"text"', b'{"unheard_of": 1}', b'{"k": NaN}', b"\xff\xfe", b"[" * 5000],
    )
    def test_a_wrong_body_is_refused_as_the_client_s_mistake(self, body: bytes) -> None:
        servable = self.servable()
        for operation in servable.operations:
            with pytest.raises(RequestError) as caught:
                servable.decode(operation, body)
            assert 400 <= caught.value.status < 500

    def test_its_schemas_are_described(self) -> None:
        servable = self.servable()
        for operation in servable.operations:
            described = servable.describe(operation)
            assert set(described) >= {"request", "response", "example"}
            msgspec.json.encode(described)

    def test_columns_mean_what_their_rows_mean(self) -> None:
        servable = self.servable()
        if not is_tabular(servable):
            return
        tabular = check_tabular(servable)
        example = servable.describe("predict")["example"]
        (rows,) = example.values()
        columns = record_columns(rows)
        given = servable.decode("predict", msgspec.json.encode(example))
        by_rows, by_columns = servable.answer("predict", [given, tabular.table(columns)])
        found = tabular.columns(by_columns)
        assert found == tabular.columns(by_rows)
        assert set(tabular.outputs) <= set(found)
        assert {len(column) for column in found.values()} == {len(rows)}
        with pytest.raises(RequestError) as caught:
            tabular.table({"unheard of": [1]})
        assert caught.value.field == "unheard of"

    def test_its_requests_have_sizes_and_entities(self) -> None:
        servable: Any = self.servable()
        for operation in servable.operations:
            request = servable.decode(operation, msgspec.json.encode(servable.describe(operation)["example"]))
            rows = servable.size(operation, request) if hasattr(servable, "size") else 1
            assert rows >= 1
            if hasattr(servable, "entities"):
                entities = servable.entities(operation, request)
                assert all(isinstance(entity, str) for entity in entities)
                assert len(entities) in (0, rows)

    def test_parts_of_a_request_join_to_its_answer(self) -> None:
        servable: Any = self.servable()
        if not hasattr(servable, "part"):
            return
        for operation in servable.operations:
            request = servable.decode(operation, msgspec.json.encode(servable.describe(operation)["example"]))
            (whole,) = servable.answer(operation, [request])
            places = range(servable.size(operation, request))
            answers = [
                ([place], servable.answer(operation, [servable.part(operation, request, [place])])[0])
                for place in places
            ]
            joined = msgspec.to_builtins(servable.joined(operation, answers[::-1]))
            assert {name: joined[name] for name in msgspec.to_builtins(whole)} == msgspec.to_builtins(whole)
