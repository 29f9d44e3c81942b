"""What a batch costs: seconds as a fixed part and a part for each row, learnt from the batches that were answered."""

from __future__ import annotations

_MEMORY = 0.98
"""The weight of a batch against the next one: what was seen 50 batches ago counts a third."""
_REACH = 4.0
_SURE, _FAR, _HICCUP = 3.0, 4.0, 0.0002


class Cost:
    """A running least-squares line through (rows, seconds), in which the past fades.

    >>> cost = Cost()
    >>> cost.seconds(100)
    0.0
    >>> for rows in (1, 10, 50):
    ...     cost.learn(rows, 0.001 + 0.0002 * rows)
    >>> round(cost.seconds(100), 6)
    0.021
    """

    __slots__ = ("_most", "_n", "_x", "_xx", "_xy", "_y", "fixed", "per_row")

    def __init__(self) -> None:
        self.fixed = 0.0
        self.per_row = 0.0
        self._n = self._x = self._y = self._xx = self._xy = self._most = 0.0

    def learn(self, rows: int, seconds: float) -> None:
        """Take a batch into account.

        What takes far longer than expected counts only in part: it may be the machine's fault. If it goes on like this,
        the expectation follows within a few batches.
        """
        if self._n > _SURE:
            seconds = min(seconds, _FAR * self.seconds(rows) + _HICCUP)
        self._most = max(float(rows), self._most * _MEMORY)
        self._n = self._n * _MEMORY + 1.0
        self._x = self._x * _MEMORY + rows
        self._y = self._y * _MEMORY + seconds
        self._xx = self._xx * _MEMORY + rows * rows
        self._xy = self._xy * _MEMORY + rows * seconds
        spread = self._n * self._xx - self._x * self._x
        if spread > 1e-6 * self._n * self._xx:
            slope = (self._n * self._xy - self._x * self._y) / spread
        else:  # batches of one size don't tell the parts apart: all of it may be the rows'
            slope = self._y / self._x
        self.per_row = min(max(slope, 0.0), self._y / self._x)
        self.fixed = max(0.0, (self._y - self.per_row * self._x) / self._n)

    def seconds(self, rows: int) -> float:
        """What a batch of so many rows will take."""
        return self.fixed + self.per_row * rows

    def at_most(self, rows: int) -> float:
        """What it may take: of a batch that is far larger than those before, nobody knows how the line goes on.

        >>> cost = Cost()
        >>> for rows in (1, 1, 2):
        ...     cost.learn(rows, 0.001)
        >>> cost.seconds(9_000) < 0.003, cost.at_most(9_000) > 1
        (True, True)
        """
        if self.knows(rows) or not self._x:
            return self.seconds(rows)
        return max(self.seconds(rows), rows * self._y / self._x)

    def knows(self, rows: int) -> bool:
        """Whether batches of about that size have been seen."""
        return rows <= _REACH * self._most

    def rows(self, seconds: float) -> int:
        """How many rows fit into so many seconds; at least one."""
        return 1 if self.per_row <= 0.0 else max(1, int((seconds - self.fixed) / self.per_row))
