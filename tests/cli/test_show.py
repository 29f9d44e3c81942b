"""What is printed for a person: columns that fit the terminal."""

from __future__ import annotations

import io

import pytest

from noria.cli.show import table

ROWS = [
    ("flights", 327_346, "fitted", "its source has new rows, and the label's definition has changed"),
    ("late", 1, "-", ""),
]
HEADER = ("component", "rows", "status", "why")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def in_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> list[str]:
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setenv("COLUMNS", str(columns))
    return table(HEADER, ROWS, ("rows",)).splitlines()


def through_pipe(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr("sys.stdout", io.StringIO())
    return table(HEADER, ROWS, ("rows",)).splitlines()


def test_a_row_through_a_pipe_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    assert len(through_pipe(monkeypatch)) == 3


@pytest.mark.parametrize("columns", [50, 60, 70, 80])
def test_words_go_on_below_in_a_narrow_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = in_terminal(monkeypatch, columns)
    assert max(map(len, lines)) <= columns
    at = lines[0].index("why")
    assert " ".join(line[at:].strip() for line in lines[1:-1]) == ROWS[0][3]
    assert lines[-1].split() == ["late", "1", "-"]


def test_a_wide_terminal_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert in_terminal(monkeypatch, 200) == through_pipe(monkeypatch)


def test_columns_are_never_torn_to_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "component" in in_terminal(monkeypatch, 5)[0]
