"""Arrow in the place of JSON: `POST /predict` takes rows as an Arrow stream, and gives them so if that is accepted."""

from __future__ import annotations

import io
from functools import partial
from typing import Any

import polars as pl

from noria.serving.arrow_stream import read_stream
from noria.serving.exchange import Exchange, Reply
from noria.serving.servable import Servable
from noria.serving.tabular import check_tabular, fields_of

STREAM = b"application/vnd.apache.arrow.stream"


def speak_arrow(exchange: Exchange) -> bool:
    """Have a request's answer written as Arrow if it accepts that, and its body read if it is; gives whether it is."""
    headers = exchange.headers
    if STREAM in headers.get(b"accept", b""):
        exchange.write = write_answer
    if not headers.get(b"content-type", b"").startswith(STREAM):
        return False
    exchange.make = partial(_make, exchange)
    return True


def write_answer(servable: Servable, answer: Any) -> Reply:
    """The answer's columns as a stream; the version that answered is in the header `X-Model-Version`."""
    frame, stream = pl.DataFrame(check_tabular(servable).columns(answer)), io.BytesIO()
    frame.write_ipc_stream(stream, compat_level=pl.CompatLevel.oldest())  # newer text is unknown to older readers
    return stream.getvalue(), STREAM, b"x-model-version: %d\r\n" % servable.version


def _make(exchange: Exchange, servable: Servable) -> Any:
    tabular = check_tabular(servable)
    return tabular.table(read_stream(exchange.body, fields_of(tabular)))
