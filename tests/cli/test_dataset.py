"""`noria models dataset`: a version's training set, whatever has become of the project since."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from noria.cli import main

SYSTEM = """
from sklearn.linear_model import LinearRegression
import noria as nr

buys = nr.Source("buys", "*.csv", schema={{"user": "str", "price": "float64", "at": nr.Timestamp("us")}})
habits = nr.FeatureGroup("habits", entity="user", source=buys, features={{"spent": {spent}}})
price = nr.ModelTrainingPipeline(
    "price", labels=buys, target="price", features=[habits], steps=[nr.Impute()], model=LinearRegression(), metrics=["rmse"]
)
movies = nr.RecommenderSystem("likes", events=buys, user="user", item="price", positive=nr.col("price") > 2, retrieve=[nr.Popular()])
system = nr.System("shop", [buys, habits, price, movies])
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    lines = [f"u{n % 5},{n % 61},{n * 1000}" for n in range(200)]
    (tmp_path / "a.csv").write_text("\n".join(["user,price,at", *lines]) + "\n")
    (tmp_path / "system.py").write_text(
        SYSTEM.format(spent='nr.sum("price")').replace('"price": "float64"', '"price": "int64"')
    )
    return tmp_path


def test_it_is_made_again_and_written(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run"]) == 0
    assert main(["models", "dataset", "price@1", "--out", "then.parquet"]) == 0
    (project / "b.csv").write_text("user,price,at\nu1,5,900000\n")
    (project / "system.py").write_text(
        SYSTEM.format(spent='nr.mean("price")').replace('"price": "float64"', '"price": "int64"')
    )
    assert main(["run"]) == 0
    capsys.readouterr()
    (project / "system.py").unlink()

    assert main(["models", "dataset", "price@1", "--out", "now.parquet"]) == 0
    printed = capsys.readouterr().out
    assert "price@1  200 rows, 5 columns, made of buys version 0" in printed
    assert "the same, bit for bit: SHA-256 " in printed
    now = pl.read_parquet("now.parquet")
    assert now.equals(pl.read_parquet("then.parquet"))
    assert now.columns == ["user", "at", "habits.spent", "__target__", "__part__"]
    assert now["__part__"].value_counts().sort("count").rows() == [("test", 40), ("train", 160)]
    assert main(["models", "dataset", "price@2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["versions"] == {"buys": 1}
    assert main(["models", "dataset", "likes@1", "--out", "likes.parquet"]) == 0
    assert pl.read_parquet("likes.parquet").equals(
        now.select("user", price="__target__", at="at").filter(pl.col("price") > 2)
    )


def test_what_can_not_be_made_again_or_written_says_why(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run"]) == 0
    capsys.readouterr()
    assert main(["models", "dataset", "price@1", "--out", "no/where.parquet"]) == 1
    assert "no/where.parquet can't be written" in capsys.readouterr().err
    for file in project.glob(".noria/tables/buys/*.parquet"):
        file.unlink()
    assert main(["models", "dataset", "price@1", "--out", "now.parquet"]) == 1
    said = capsys.readouterr().err
    assert "a table's version is gone: table 'buys'" in said
    assert "bring them back from a backup" in said
    assert not (project / "now.parquet").exists()
