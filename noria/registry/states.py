"""The states of a version: what has been decided about it, and what may be decided next.

| state | meaning | may become |
| --- | --- | --- |
| `registered` | trained; nothing is decided | `challenger`, `champion`, `rejected`, `retired` |
| `challenger` | named so, or tried beside the champion | `registered`, `champion`, `rejected`, `retired` |
| `champion` | it answers | `registered`, when another one is promoted |
| `rejected` | a person found it unfit | `registered`, `retired` |
| `retired` | it has had its time; its files are kept | `registered` |

Who is champion or challenger is what the aliases say, and what is tried; only the other decisions are records of their
own. So no state can contradict who answers.
"""

from __future__ import annotations

from typing import Literal

from noria.core import ConflictError

State = Literal["registered", "challenger", "champion", "rejected", "retired"]

CHALLENGER: Literal["challenger"] = "challenger"
ASIDE: tuple[State, ...] = ("rejected", "retired")
"""The states in which no alias may point at a version."""

MOVES: dict[State, tuple[State, ...]] = {
    "registered": ("challenger", "champion", "rejected", "retired"),
    "challenger": ("registered", "champion", "rejected", "retired"),
    "champion": ("registered",),
    "rejected": ("registered", "retired"),
    "retired": ("registered",),
}
"""From each state the states that may follow."""

_COMMANDS: dict[tuple[State, State], str] = {
    ("challenger", "registered"): "noria models unalias {name} challenger, or noria deployment abort {name}",
    ("champion", "registered"): "promote another version, or noria rollback {name}",
    ("rejected", "registered"): "noria models restore {name}@{number}",
    ("retired", "registered"): "noria models restore {name}@{number}",
}
_USUAL: dict[State, str] = {
    "challenger": "noria models alias {name}@{number} challenger",
    "champion": "noria models promote {name}@{number}",
    "rejected": "noria models reject {name}@{number}",
    "retired": "noria models retire {name}@{number}",
}


def check_move(name: str, number: int, now: State, then: State) -> None:
    """Refuse a move that isn't in the table.

    Raises:
        ConflictError: with the moves that are.
    """
    if then not in MOVES[now]:
        raise refused(name, number, now, "already" if now == then else f"and can't become {then}")


def check_answers(name: str, number: int, now: State) -> None:
    """Refuse an alias of a version that was set aside.

    Raises:
        ConflictError: it is rejected or retired.
    """
    if now in ASIDE:
        raise refused(name, number, now, "and no alias may point at it")


def refused(name: str, number: int, now: State, why: str) -> ConflictError:
    """The error that names the moves that a version may make."""
    ways = [f"{to} ({_way(now, to).format(name=name, number=number)})" for to in MOVES[now]]
    return ConflictError(f"{name}@{number} is {now} {why}", hint=f"it can become {' or '.join(ways)}")


def _way(now: State, to: State) -> str:
    return _COMMANDS.get((now, to)) or _USUAL[to]
