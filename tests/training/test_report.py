from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import roc_auc_score

import noria as nr
from noria.cli import main
from noria.core import Schema, Settings
from noria.registry import ModelRegistry
from noria.storage import Workspace
from noria.training.evaluation import Trial, evaluate
from noria.training.learner import Lesson, learn
from noria.training.report import JSON_FILE, PAGE_FILE, About, content, page
from noria.training.report.importance import learning_curve, permutation_importance

ROWS = 1_200
SCHEMA = Schema.of({"x": "float64", "shop": "int64", "noise": "float64"})
VOID = {"meta", "link"}


def reported(model: Any, target: str, metrics: tuple[str, ...], parameters: Any = None) -> dict[str, Any]:
    random = np.random.default_rng(0)
    x, shop = random.normal(size=ROWS), random.integers(0, 3, ROWS)
    frame = pl.DataFrame({"x": x, "shop": shop, "noise": random.normal(size=ROWS)})
    number = 2 * x + random.normal(size=ROWS)
    values = {
        "two": number > 0,
        "number": number,
        "words": np.array(["<b>", "b&c", "d"], object)[np.digitize(number, [-1, 1])],
        "many": np.array([f"c{i:02}" for i in range(20)], object)[np.clip(np.round(number + 10), 0, 19).astype(int)],
    }[target]
    train = np.arange(ROWS) < 800
    learned = learn(model, Lesson(frame, values, SCHEMA).part(train))
    trial = Trial(learned, frame, SCHEMA.names, values, train, ~train, metrics)
    about = About("m<1>", "Tells & says.", "r1", 0, parameters or {}, {"t": "0"}, {}, {"numpy": "2"})
    return content(about, trial, evaluate(trial))


CASES = [
    (HistGradientBoostingClassifier(max_iter=20, early_stopping=True), "two", ("roc_auc", "accuracy")),
    (LinearRegression(), "number", ("rmse", "r2")),
    (LogisticRegression(), "words", ("f1", "log_loss")),
    (LogisticRegression(max_iter=500), "many", ("accuracy",)),
]


class Balanced(HTMLParser):
    """Every element that begins ends, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.pictures = 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            assert name not in ("src", "srcset")
            assert name != "href" or value == "data:,"
        if tag == "svg":
            self.pictures += 1
            assert ("role", "img") in attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.mark.parametrize(("model", "target", "metrics"), CASES)
def test_the_page_stands_alone(model: Any, target: str, metrics: tuple[str, ...]) -> None:
    report = json.loads(json.dumps(reported(model, target, metrics), allow_nan=False))
    text = page(report, "m<1>@7")
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    assert parser.pictures > 5
    assert "m<1>@7" in parser.text
    for word in ("<script", "http:", "https:", "url(", "@import", "nan", "m<1>"):
        assert word not in text
    assert len(text) < 200_000
    # Whatever is drawn is within its picture.
    for x in re.findall(r'c?x[12]?="([-\d.]+)"', text):
        assert -260 <= float(x) <= 400


def test_the_figures_stand_beside_the_best_baseline() -> None:
    report = reported(*CASES[0])
    best = max(one["roc_auc"] for one in report["evaluation"]["baselines"].values())
    assert f"best baseline {best:.4f}" in page(report, "m@7")


def test_a_number_is_the_same_wherever_it_stands() -> None:
    report = reported(*CASES[0])
    report["evaluation"]["metrics"]["roc_auc"]["value"] = 0.81254
    report["importance"]["features"][0]["value"] = 0.012
    text = page(report, "m@7")
    assert "The area is 0.8125; " in text
    assert ">0.0120<" in text


def test_what_curves_show_is_what_scikit_learn_says() -> None:
    report = reported(*CASES[0])
    roc = np.array(report["curves"]["roc"])
    assert np.trapezoid(roc[:, 1], roc[:, 0]) == pytest.approx(
        report["evaluation"]["metrics"]["roc_auc"]["value"], abs=1e-3
    )
    counts = report["confusion"]["counts"]
    assert sum(map(sum, counts)) == report["rows"]["test"] == 400
    right = counts[0][0] + counts[1][1]
    assert right / 400 == pytest.approx(report["evaluation"]["metrics"]["accuracy"]["value"])
    bins = report["curves"]["calibration"]
    assert sum(one["rows"] for one in bins) == 400
    assert all(one["low"] <= one["happened"] <= one["high"] for one in bins)
    assert set(report["learning"]) == {"train", "validation"}


def test_many_classes_are_few_in_the_picture() -> None:
    found = reported(*CASES[3])["confusion"]
    assert len(found["classes"]) == 12
    assert found["classes"][-1] == "(other)"
    assert sum(map(sum, found["counts"])) == 400


def test_importance_finds_what_the_model_reads() -> None:
    features = {one["name"]: one for one in reported(*CASES[1])["importance"]["features"]}
    assert set(features) == {"x", "shop", "noise"}
    assert features["x"]["low"] > 0.5
    assert abs(features["noise"]["value"]) < 0.05
    assert features["x"]["low"] <= features["x"]["value"] <= features["x"]["high"]


def test_importance_ends_in_time_and_says_what_it_left_out() -> None:
    random = np.random.default_rng(0)
    frame = pl.DataFrame({f"x{i}": random.normal(size=500) for i in range(5)})
    truth = frame["x0"].to_numpy() + random.normal(size=500)
    schema = Schema.of(dict.fromkeys(frame.columns, "float64"))
    learned = learn(RandomForestRegressor(5, random_state=0), Lesson(frame, truth, schema))
    ticks = iter(range(1_000))  # a second passes whenever somebody looks
    found = permutation_importance(learned, frame, truth, "rmse", 0, 2.0, lambda: float(next(ticks)))
    assert found["rows"] == 250
    assert len(found["features"]) + len(found["not_measured"]) == 5
    assert len(found["not_measured"]) >= 1


def test_learning_curves_of_libraries() -> None:
    lightgbm = pytest.importorskip("lightgbm")
    xgboost = pytest.importorskip("xgboost")
    random = np.random.default_rng(0)
    x, y = random.normal(size=(300, 2)), random.normal(size=300)
    fitted = lightgbm.LGBMRegressor(n_estimators=5, verbose=-1).fit(x, y, eval_X=(x,), eval_y=(y,))
    assert len(learning_curve(fitted)["training l2"]) == 5
    fitted = xgboost.XGBRegressor(n_estimators=5).fit(x, y, eval_set=[(x, y)], verbose=False)
    assert len(learning_curve(fitted)["validation_0 rmse"]) == 5
    assert learning_curve(xgboost.XGBRegressor(n_estimators=5).fit(x, y)) == {}
    assert learning_curve(LinearRegression()) == {}


def test_leaks_are_warned_of() -> None:
    found = {"leakage": {"copies": 0.2, "warnings": ["x alone tells <all>", "rows are on both sides"]}}
    text = page(reported(*CASES[1], found))
    assert "x alone tells &lt;all&gt;" in text
    assert "rows are on both sides" in text


SYSTEM = """
import noria as nr
from sklearn.linear_model import LogisticRegression

visits = nr.Source("visits", "visits.csv", schema={"x": "float64", "shop": "str", "paid": "bool", "town": "str"})
paid = nr.ModelTrainingPipeline("paid", labels=visits, target="paid", features=["x", "shop"], steps=[nr.Encode()],
                                model=LogisticRegression(), split=nr.RandomSplit(), metrics=["roc_auc", "f1"],
                                slices=["town", "shop"])
system = nr.System("shop", [visits, paid])
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    random = np.random.default_rng(1)
    x = random.normal(size=1_000)
    columns = {"x": x, "shop": random.choice(["a", "b"], 1_000), "paid": x + random.normal(size=1_000) > 0}
    pl.DataFrame({**columns, "town": random.choice(["Ulm", "Rom"], 1_000)}).write_csv(tmp_path / "visits.csv")
    (tmp_path / "system.py").write_text(SYSTEM)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_tells_the_verdict_and_keeps_the_report(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run"]) == 0
    printed = capsys.readouterr().out
    assert re.search(
        r"paid@1: better than the most frequent class: roc_auc 0\.\d+ \[0\.\d+, 0\.\d+\] against 0\.5000", printed
    )
    assert "; f1 0." in printed
    with Workspace.open(Settings(project)) as workspace:
        registry = ModelRegistry.of(workspace)
        version = registry.get("paid")
        kept = registry.files(version)
        report = json.loads(kept[JSON_FILE].read_bytes())
        assert kept[PAGE_FILE].read_text().startswith("<!doctype html>")
    assert set(version.parameters["evaluation"]["slices"]) == {"town", "shop"}  # town isn't an input
    assert report["evaluation"] == version.parameters["evaluation"]
    assert version.metrics["roc_auc"] == report["evaluation"]["metrics"]["roc_auc"]["value"]


def test_the_report_is_printed_written_and_opened(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    assert main(["run"]) == 0
    capsys.readouterr()
    assert main(["models", "report", "paid"]) == 0
    assert "paid@1  better than" in capsys.readouterr().out
    assert main(["models", "report", "paid@1", "--out", "paid.html"]) == 0
    assert "<h1>paid@1" in (project / "paid.html").read_text()
    assert main(["models", "report", "paid", "--open"]) == 0
    assert opened[0].endswith("/.noria/reports/paid-1.html")
    capsys.readouterr()
    assert main(["models", "report", "paid", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "paid"
    assert main(["models", "report", "paid", "--out", "no/where.html"]) == 1
    assert "can't be written" in capsys.readouterr().err


def test_a_version_without_a_report_says_so(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Workspace.open(Settings(project)) as workspace:
        ModelRegistry.of(workspace).register("old", {"m": b"1"}, servable="tabular", run_id="a")
    assert main(["models", "report", "old@1"]) == 1
    assert "old@1 has no report" in capsys.readouterr().err


def test_the_area_is_the_library_s() -> None:
    """The deciding metric of a report, by scikit-learn alone."""
    random = np.random.default_rng(2)
    scores, truth = random.random(500), random.random(500) < 0.4
    from noria.training.metrics import judge

    assert judge(("roc_auc",), truth, scores > 0.5, scores)["roc_auc"] == pytest.approx(roc_auc_score(truth, scores))
    assert nr.by_month().every == "month"
