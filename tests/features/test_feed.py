"""A stream gives the numbers that a batch over the same events gives, whatever the order in which they come."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

import noria as nr
from noria.core import Settings
from noria.features import OnlineReader
from noria.features.feed import Feed
from noria.pipelines.stream_sinks import StreamRows
from noria.storage import Workspace
from noria.storage.online import Mark
from tests.features.test_parity import EVENTS, FEATURES, HOUR, SCHEMA, START, TYPES, Event, frame, oracle, same

IDS = [1, 2, 3, 4]


def a_group(lateness: str) -> nr.FeatureGroup:
    stream = nr.Stream("events", schema=SCHEMA, key="who", lateness=lateness)
    return nr.FeatureGroup("g", entity="who", source=stream, features=FEATURES)


def apply(feed: Feed, workspace: Workspace, stream: nr.Stream, batches: list[list[Event]], offset: int = 0) -> int:
    for events in batches:
        after = offset + len(events)
        rows = StreamRows(0, frame(events), np.arange(offset, after), after)
        before = workspace.online.marks("m").get("m", -1)
        feed.write(workspace.online, stream, rows, Mark("m", before, after))
        offset = after
    return offset


@settings(max_examples=100, deadline=None)
@given(st.lists(EVENTS, max_size=4), st.sampled_from(["1h", "3h", "24h"]), st.integers(0, 4 * 3600))
def test_streams_agree_with_the_oracle_and_with_training_sets(
    batches: list[list[Event]], lateness: str, seconds: int
) -> None:
    group = a_group(lateness)
    stream = group.source
    assert isinstance(stream, nr.Stream)
    events = [event for batch in batches for event in batch]
    with tempfile.TemporaryDirectory() as folder, Workspace.open(Settings(Path(folder))) as workspace:
        feed = Feed(group, stream, workspace)
        feed.prepare(stream)
        apply(feed, workspace, stream, batches)
        mine = [event.hour for event in events if event.who is not None]
        later = START + timedelta(hours=max(mine, default=0), seconds=seconds, microseconds=1)
        at = int(later.timestamp()) * 1_000_000 + 1
        online = OnlineReader(workspace.online, [group.online_spec()]).read("g", IDS, as_of=at)
        labels = pl.DataFrame({"who": IDS, "when": [later] * 4}).cast({"when": TYPES["at"]})
        offline = nr.FeatureStore(workspace).training_set(
            labels, [group], time="when", events={"events": frame(events)}
        )
        hour = (at - int(START.timestamp()) * 1_000_000) / HOUR
        for name in FEATURES:
            got = online.columns[f"g.{name}"]
            for who, value, batch in zip(IDS, got, offline[f"g.{name}"].to_list(), strict=True):
                assert same(value, oracle(events, name, who, hour)), (name, who)
                # Rows within the lateness are counted in the very order of a batch, so they give its bits.
                is_exact = lateness == "24h" and not name.startswith("std")
                assert value == batch if is_exact else same(value, batch), (name, who)
