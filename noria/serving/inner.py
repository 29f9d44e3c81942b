"""Questions that a server puts to itself on behalf of a request: to a shadow, or to several versions for its parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from noria.serving.exchange import Exchange, Reply
from noria.serving.replies import Replies
from noria.serving.servable import Divisible


class Inner(Exchange):
    """A question whose answer comes back as it was made: `tell(inner, status, reply)` is called with it.

    Attributes:
        made: the servable's answer, where there is one.
        asker: the request.
    """

    counts = False

    def __init__(self, asker: Exchange, tell: Callable[[Any, int, Reply], None]) -> None:
        super().__init__(asker._protocol, asker.method, asker.path, asker.headers)
        self.body, self.make, self.request_id = asker.body, asker.make, asker.request_id
        self.deadline, self.explain, self.route = asker.deadline, asker.explain, asker.route
        self.entity = asker.entity
        self.asker, self.tell, self.made = asker, tell, None
        self.write = self._keep

    @property
    def awaited(self) -> bool:
        """Whether it has no answer yet: it is asked for the server's own sake, whoever has gone."""
        return self.answer is None

    def _keep(self, servable: Any, answer: Any) -> Reply:
        self.made = answer
        return b"", b"", b""

    def respond(self, status: int, body: bytes, kind: bytes = b"", extra: bytes = b"") -> None:
        """Take the answer, or the error."""
        if self.answer is None:
            self.answer = b"-"
            self.tell(self, status, (body, kind, extra))


class Part(Inner):
    """Some rows of a request, which one version answers."""

    def __init__(
        self, asker: Exchange, operation: str, places: Sequence[int], tell: Callable[[Any, int, Reply], None]
    ) -> None:
        super().__init__(asker, tell)
        self.places = places
        make = asker.make

        def part(servable: Divisible) -> Any:
            whole = servable.decode(operation, asker.body) if make is None else make(servable)
            return servable.part(operation, whole, places)

        self.make = part

    @property
    def awaited(self) -> bool:
        """Whether the request waits for it."""
        return self.answer is None and self.asker.awaited


class Whole:
    """Puts the answers of a request's parts together, and sends what comes of it.

    Args:
        exchange: the request.
        control: who knows how to join answers.
        operation: what was asked for.
        count: of the parts.
        replies: sends the reply to the request.
        encode: makes a reply out of a servable and an answer.
    """

    def __init__(
        self,
        exchange: Exchange,
        control: Divisible,
        operation: str,
        count: int,
        replies: Replies,
        encode: Callable[[Any, Any], Reply],
    ) -> None:
        self._exchange = exchange
        self._control = control
        self._operation = operation
        self._left = count
        self._replies = replies
        self._encode = encode
        self._answers: list[tuple[Sequence[int], Any]] = []

    def tell(self, part: Part, status: int, reply: Reply) -> None:
        """Take a part's answer; the first error is the whole request's."""
        self._left -= 1
        if status >= 400:
            self._replies.send(self._exchange, status, reply)
            return
        self._answers.append((part.places, part.made))
        if self._left > 0 or self._exchange.answer is not None:
            return
        try:
            answer = self._control.joined(self._operation, self._answers)
            reply = (self._exchange.write or self._encode)(self._control, answer)
        except Exception as error:
            self._replies.fail(self._exchange, error)
        else:
            self._replies.send(self._exchange, 200, reply)
