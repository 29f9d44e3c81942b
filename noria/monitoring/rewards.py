"""Rewards: what followed the answers of each variant, as far as it can be known by now.

What is compared is the mean reward of an answer (by `id`) or of an entity (by a column), and it has to come from
independent observations, or a difference is found where there is none. One person's answers are not independent. So:

- An observation is an entity; by `id`, where a request named nobody, the request.
- By a column, an entity's reward is what its events bring from the first answer that it got until `within` later.
- By `id`, its answers are those that it got within `within` of its first one, and each has the events that name its id
  and come within `within` of it. The mean is all rewards over all answers, and its variance that of a ratio of two sums
  over entities (the delta method), so that one person with many answers counts as one. An id that several answers
  have, as those to one request about several entities, is left out: its events could be anybody's.
- An observation counts when it is complete: when all of its windows are over, and the table of events has reached their
  end, that is, has a newer event. Young ones would count with less than they bring. They would do so in all variants,
  but not for the same time, since a share may have been changed; and a table that is loaded once a day has nothing of
  today.
- Only answers since the present shares are in force are looked at (`since`): within them chance alone decides who meets
  which variant. Of a share that has grown, those who come often would be the first newcomers.

An event that comes into the table after a newer one has closed its window counts from then on: verdicts are as good as
the events are in order.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import msgspec
import polars as pl

from noria.core import ConfigError, DataError, allowed, to_iso
from noria.monitoring.confidence import Moments
from noria.registry import Deployment, Reward
from noria.serving.exposures import FOLDER, Exposure
from noria.serving.prediction_files import segments
from noria.storage import Workspace

_LINE = {
    "id": pl.String,
    "at": pl.Int64,
    "model": pl.String,
    "number": pl.Int64,
    "variant": pl.String,
    "entity": pl.String,
}
ID = "request_id"
"""The column with which events name the answer that they follow."""


def rewards(workspace: Workspace, deployment: Deployment, reward: Reward, since: int, now: int) -> dict[str, Moments]:
    """The mean reward by variant, of complete observations; variants without any are left out.

    Args:
        workspace: with the table of events and the files of exposures.
        deployment: whose exposures.
        reward: what counts.
        since: when the present shares came into force, microseconds.
        now: what is later hasn't happened yet.

    Raises:
        ConfigError: the table has no such columns.
        DataError: the table or the files can't be read.
    """
    table = workspace.table(reward.source)
    if table.version() is None:  # a stream to which nothing has happened yet
        return {}
    try:
        events = events_of(table.scan(), reward, since, now)
        exposures = read_exposures(workspace.settings.state_dir / FOLDER, deployment, since)
        seen: int | None = events.select(pl.col("at").max()).collect().item()
        if seen is None or exposures.is_empty():
            return {}
        return moments(exposures, events, reward, min(now, seen))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"the rewards in {reward.source!r} can't be read: {error}") from error


def awaited(workspace: Workspace, deployment: Deployment, reward: Reward, since: int) -> str:
    """Why there are no rewards yet, in words.

    Raises:
        ConfigError: the table has no such columns.
        DataError: the table or the files can't be read.
    """
    table = workspace.table(reward.source)
    if table.version() is None:
        return f"nothing has happened in {reward.source} yet"
    try:
        _, time = check_reward(reward, table.scan().collect_schema())
        newest = table.scan().select(pl.col(time).dt.epoch("us").max()).collect().item()
        answers = read_exposures(workspace.settings.state_dir / FOLDER, deployment, since)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"the rewards in {reward.source!r} can't be read: {error}") from error
    if reward.by != "id" and not answers.is_empty():
        answers = answers.filter(pl.col("entity") != "")
        if answers.is_empty():
            return f"no request has said whom it is for, and {reward.source} is joined by {reward.by}"
    if answers.is_empty():
        return "nobody has been answered yet, as far as servers have written"
    first = int(answers.select(pl.col("at").min()).item())
    over = to_iso(first + (2 if reward.by == "id" else 1) * reward.within)[:19]
    event = "there is none" if newest is None else f"the newest is of {to_iso(newest)[:19]} UTC"
    return f"no window is over yet: the first one is by an event of {reward.source} after {over} UTC, and {event}"


def read_exposures(folder: Path, deployment: Deployment, since: int) -> pl.DataFrame:
    """A deployment's exposures from an instant on: id, at, variant, entity (empty where nobody was named).

    Who is nobody in particular goes by the request's id.
    """
    mine = (pl.col("model") == deployment.model) & (pl.col("number") == deployment.number) & (pl.col("at") >= since)
    nobody = pl.col("entity").is_null() | (pl.col("entity") == pl.col("id"))
    frames = [
        _lines(file)
        .filter(mine)
        .select("id", "at", "variant", entity=pl.when(nobody).then(pl.lit("")).otherwise("entity"))
        for file in segments(folder)
    ]
    empty = pl.DataFrame(schema={name: _LINE[name] for name in ("id", "at", "variant", "entity")})
    return pl.concat([empty, *frames])


def _lines(file: Path) -> pl.DataFrame:
    """A file's exposures without the lines that are torn."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:  # the oldest make room for new ones
        data = b""
    data = data[: data.rfind(b"\n") + 1]  # a last line that isn't whole, or not yet
    try:
        return pl.read_ndjson(BytesIO(data), schema=_LINE) if data else pl.DataFrame(schema=_LINE)
    except pl.exceptions.ComputeError:
        return pl.read_ndjson(BytesIO(_whole(data)), schema=_LINE)


def _whole(data: bytes) -> bytes:
    decode = msgspec.json.Decoder(Exposure).decode
    kept = []
    for line in data.splitlines(keepends=True):
        try:
            decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        kept.append(line)
    return b"".join(kept)


def events_of(table: pl.LazyFrame, reward: Reward, since: int, now: int) -> pl.LazyFrame:
    """What counts of a table's rows between two instants: key (text), at (microseconds), value.

    Raises:
        ConfigError: a column isn't there, or is none that can be summed.
    """
    schema = table.collect_schema()
    key, time = check_reward(reward, schema)
    value = pl.col(reward.value).cast(pl.Float64) if reward.value else pl.lit(1.0)
    first, last = (pl.lit(at).cast(pl.Datetime("us")).cast(schema[time]) for at in (since, now))
    return (
        table.filter(pl.col(time).is_between(first, last))
        .select(key=pl.col(key).cast(pl.String), at=pl.col(time).dt.epoch("us"), value=value)
        .with_columns(value=pl.when(pl.col("value").is_finite()).then("value").otherwise(0.0))
    )


def check_reward(reward: Reward, schema: pl.Schema) -> tuple[str, str]:
    """The columns with the key and the time of a reward's events.

    Raises:
        ConfigError: one isn't there, or the value is no number.
    """
    key = ID if reward.by == "id" else reward.by
    for name in (key, reward.value, reward.time):
        if name and name not in schema:
            hint = allowed(schema.names(), name)
            if reward.by == "id" and name == key:
                hint = f"the events have to name the answer's id in {ID}; or join them by an entity: --reward-by COLUMN"
            raise ConfigError(f"the events in {reward.source!r} have no column {name!r}", hint=hint, field=name)
    if reward.value and not (schema[reward.value].is_numeric() or schema[reward.value] == pl.Boolean):
        raise ConfigError(
            f"{reward.source}.{reward.value} is {schema[reward.value]}, which can't be summed",
            hint="name a column of numbers, or none to count the events",
            field=reward.value,
        )
    times = [name for name, dtype in schema.items() if isinstance(dtype, pl.Datetime)]
    if not reward.time and len(times) != 1:
        raise ConfigError(
            f"{reward.source!r} has {len(times)} columns with times, and one of them has to be the event's",
            hint="name it with `time` of the source in system.py",
        )
    return key, reward.time or times[0]


def moments(exposures: pl.DataFrame, events: pl.LazyFrame, reward: Reward, until: int) -> dict[str, Moments]:
    """The mean reward by variant, of the observations whose windows are over at an instant."""
    by_id = reward.by == "id"
    answers = exposures.lazy().with_columns(unit=pl.col("entity"))
    if by_id:
        unit = pl.when(pl.col("entity") == "").then("id").otherwise("entity")
        answers = answers.filter(pl.len().over("id") == 1).with_columns(unit=unit)
    else:
        answers = answers.filter(pl.col("entity") != "")
    first = answers.group_by("unit").agg(first=pl.col("at").min(), variant=pl.col("variant").sort_by("at").first())
    whole = first.filter(pl.col("first") + (2 if by_id else 1) * reward.within <= until)
    if by_id:
        counted = answers.join(whole, on=["unit", "variant"]).filter(pl.col("at") < pl.col("first") + reward.within)
        counted = counted.select("variant", "unit", "at", key="id")
    else:
        counted = whole.select("variant", "unit", at="first", key="unit")
    brought = (
        events.join(counted, on="key", suffix="_answer")
        .filter(pl.col("at").is_between(pl.col("at_answer"), pl.col("at_answer") + reward.within, closed="left"))
        .group_by("unit")
        .agg(reward=pl.col("value").sum())
    )
    units = counted.group_by("variant", "unit").agg(answers=pl.len()).join(brought, on="unit", how="left")
    frame = units.with_columns(pl.col("reward").fill_null(0.0)).collect()
    return {str(name): _ratio(group) for (name,), group in frame.group_by("variant")}


def _ratio(units: pl.DataFrame) -> Moments:
    """Rewards over answers, with the variance of an entity's part in it."""
    rewards, answers = (units[name].cast(pl.Float64).to_numpy() for name in ("reward", "answers"))
    mean = float(rewards.sum() / answers.sum())
    apart = (rewards - mean * answers) / answers.mean()
    n = len(units)
    return Moments(n, mean, float((apart * apart).sum()) / (n - 1) if n > 1 else 0.0)
