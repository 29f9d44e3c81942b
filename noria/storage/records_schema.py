"""The schema of a records store: a number in the database, and the steps that lead to each number.

The step at place n makes version n + 1 of version n. A store that is older than its reader is brought up to date when
it is opened, in one transaction; of several processes that open it at once, one does the work and the others wait. A
newer one is refused: its reader doesn't know what its documents mean.
"""

from __future__ import annotations

from collections.abc import Sequence

from noria.core import StorageError


def missing(found: int, steps: Sequence[str], where: str) -> Sequence[str]:
    """The steps from the version that was found to the newest.

    Raises:
        StorageError: the version that was found is newer.
    """
    if found > len(steps):
        raise StorageError(
            f"{where} was written by a newer noria: its schema is version {found}, this one knows {len(steps)}",
            hint="upgrade noria here: pip install --upgrade noria",
        )
    return steps[found:]
