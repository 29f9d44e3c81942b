"""An online store for those who can't wait: when its server doesn't answer, one read finds out, the others needn't.

A circuit breaker (Nygard, *Release It!*, 2007). The read that meets the dead server opens the circuit; from then on
reads fail at once, and a thread asks the server in their place. Its first answer closes the circuit. So a server that
hangs costs one timeout for each outage, and no reader pays for finding out whether it is back.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from noria.core import StorageError
from noria.storage.online import Mark, Merge, OnlineStore, OnlineValue, UnreachableError

PAUSE_SECONDS = 0.2
"""Between two questions whether the server is back."""


class ImpatientOnline:
    """`OnlineStore` over another one that raises `UnreachableError`; only reads are cut short.

    Args:
        store: the store, with a short timeout.
        pause: seconds between two questions whether it is back.
    """

    def __init__(self, store: OnlineStore, pause: float = PAUSE_SECONDS) -> None:
        self._store = store
        self._pause = pause
        self._lock = threading.Lock()
        self._cause: str | None = None
        self._closed = threading.Event()
        self.write, self.count = store.write, store.count
        self.expire, self.drop = store.expire, store.drop

    def read(self, group: str, keys: Sequence[bytes]) -> list[OnlineValue | None]:
        cause = self._cause
        if cause is not None:
            raise UnreachableError(cause, hint="try again in a second; it is used as soon as it answers")
        try:
            return self._store.read(group, keys)
        except UnreachableError as error:
            self._open(error.message)
            raise

    def update(self, group: str, keys: Sequence[bytes], merge: Merge, *, mark: Mark | None = None) -> None:
        self._store.update(group, keys, merge, mark=mark)

    def marks(self, prefix: str = "") -> dict[str, int]:
        return self._store.marks(prefix)

    def close(self) -> None:
        self._closed.set()
        self._store.close()

    def _open(self, cause: str) -> None:
        with self._lock:
            if self._cause is None:
                self._cause = cause
                threading.Thread(target=self._watch, name="noria-online", daemon=True).start()

    def _watch(self) -> None:
        """Ask until there is an answer, even if it is an error of the server's own."""
        while not self._closed.wait(self._pause):
            try:
                self._store.read("", [b""])
            except UnreachableError:
                continue
            except StorageError:
                pass  # it is there: what is wrong then, each read finds out for itself
            self._cause = None
            return
