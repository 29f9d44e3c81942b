"""Will this flight be late? Asked when it is scheduled, before it leaves."""

from sklearn.ensemble import HistGradientBoostingClassifier

import noria as nr

FILE = "data/flights.csv"

flights = nr.Source("flights", FILE, time="scheduled", schema={
    "scheduled": nr.Timestamp("iso"), "month": "int8", "hour": "int8", "carrier": "str", "origin": "str",
    "dest": "str", "distance": "float32", "arr_delay": "float32?",
})
# The same file by the time at which a delay became known, so that no feature sees the future.
landings = nr.Source("landings", FILE, time="landed", where=nr.col("landed").is_not_null(), schema={
    "landed": nr.Timestamp("iso", nullable=True), "carrier": "str", "origin": "str", "arr_delay": "float32?",
})

airline = nr.FeatureGroup("airline", entity="carrier", source=landings, features={
    "delay_3h": nr.mean("arr_delay", window="3h"),
    "delay_30d": nr.mean("arr_delay", window="30d"),
})
airport = nr.FeatureGroup("airport", entity="origin", source=landings, features={
    "delay_1h": nr.mean("arr_delay", window="1h"),
    "delay_6h": nr.mean("arr_delay", window="6h"),
})

late = nr.ModelTrainingPipeline(
    "late",
    labels=flights,
    target=nr.col("arr_delay") > 15,
    features=["month", "hour", "carrier", "origin", "dest", "distance", airline, airport],
    steps=[nr.Impute(), nr.Encode(), nr.Normalize()],
    model=HistGradientBoostingClassifier(random_state=0),
    split=nr.TimeSplit(test=0.2),
    metrics=["roc_auc", "accuracy", "f1"],
)

system = nr.System("flights", [flights, landings, airline, airport, late])
