from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import noria as nr
from noria.core import ConfigError, DataError, Settings

SCHEMA = {"id": "int64", "s": "str?", "at": nr.Timestamp("s")}


def source(path: str = "rows.csv", **options: Any) -> nr.Source:
    return nr.Source(**{"name": "rows", "path": path, "schema": SCHEMA, **options})


def made(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def found(root: Path, path: str) -> list[str]:
    return [str(Path(file.location).relative_to(root)) for file in source(path).find(Settings(root))]


def test_a_pattern_names_files_in_order_and_no_folders_nor_hidden_ones(tmp_path: Path) -> None:
    made(tmp_path, "d/b.csv", "d/a.csv", "d/._a.csv", "d/a.jsonl", "d/deep/c.csv", "d/folder.csv/x")
    assert found(tmp_path, "d/*.csv") == ["d/a.csv", "d/b.csv"]
    assert found(tmp_path, "d/?.csv") == ["d/a.csv", "d/b.csv"]
    assert found(tmp_path, "d/[b].csv") == ["d/b.csv"]
    assert found(tmp_path, "**/*.csv") == ["d/a.csv", "d/b.csv", "d/deep/c.csv"]
    assert found(tmp_path, str(tmp_path / "d/*.csv")) == ["d/a.csv", "d/b.csv"]


def test_brackets_in_a_name_are_no_pattern_if_there_is_such_a_file(tmp_path: Path) -> None:
    root = tmp_path / "shop [v2]"
    made(root, "a.csv", "rows[1].csv", "rows1.csv")
    assert found(root, "*.csv") == ["a.csv", "rows1.csv", "rows[1].csv"]
    assert found(root, "rows[1].csv") == ["rows[1].csv"]


def test_files_outside_of_the_project(tmp_path: Path) -> None:
    made(tmp_path, "data/a.csv", "project/x")
    settings = Settings(tmp_path / "project")
    assert [Path(file.location).name for file in source("../data/*.csv").find(settings)] == ["a.csv"]
    assert len(source("../data/*.csv").inputs(settings)) == 1


@pytest.mark.parametrize("path", ["none.csv", "none*.csv", "folder.csv"])
def test_a_missing_file_says_where_it_was_looked_for(tmp_path: Path, path: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match="there is no file") as caught:
        source(path).find(Settings(tmp_path))
    assert str(tmp_path / path) in caught.value.message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all files")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    made(tmp_path, "rows.csv")
    (tmp_path / "rows.csv").chmod(0)
    with pytest.raises(DataError, match="can't be read"):
        source().inputs(Settings(tmp_path))


def test_each_changed_byte_changes_the_digest_and_nothing_else_does(tmp_path: Path) -> None:
    made(tmp_path, "rows.csv")
    before = source().inputs(Settings(tmp_path))
    os.utime(tmp_path / "rows.csv", (1, 1))
    assert source().inputs(Settings(tmp_path)) == before
    (tmp_path / "rows.csv").write_text("rows.cs_")
    assert source().inputs(Settings(tmp_path)) != before


def test_a_filter_that_can_not_work_is_refused_with_the_definition() -> None:
    for where in (nr.col("none") > 1, nr.col("id"), nr.col("s") + 1):
        with pytest.raises(ConfigError, match=r"source 'rows': (where=|there is no column 'none')"):
            source(where=where)


CHANGES: list[Callable[[], nr.Source]] = [
    source,
    lambda: source("other.csv"),
    lambda: source(name="others"),
    lambda: source(schema={**SCHEMA, "s": "str"}),
    lambda: source(schema={**SCHEMA, "at": nr.Timestamp("ms")}),
    lambda: source(schema={**SCHEMA, "at": nr.Timestamp("s", nullable=True)}, where=nr.col("at").is_not_null()),
    lambda: source(key="id"),
    lambda: source(checks=[nr.unique("s")]),
    lambda: source(checks=[nr.one_of("s", [*"abcdef"])]),
    lambda: source(checks=[nr.one_of("s", [*"abcdeg"])]),
    lambda: source(checks=[nr.between("id", 1, 2)]),
    lambda: source(where=nr.col("id") > 1),
    lambda: source(where=nr.col("id") >= 1),
    lambda: source(where=nr.col("id").is_in(list(range(1000)))),
    lambda: source(where=nr.col("id").is_in([*range(500), 5000, *range(501, 1000)])),
    lambda: source(steps=[nr.DropMissing()]),
    lambda: source(steps=[nr.DropMissing(["s"])]),
    lambda: source(steps=[nr.Encode(max_categories=10)]),
    lambda: source(steps=[nr.Encode(max_categories=11)]),
    lambda: source(steps=[nr.Impute(["s"], strategy="constant", value="a")]),
    lambda: source(steps=[nr.Impute(["s"], strategy="constant", value="b")]),
    lambda: source(steps=[nr.Normalize(), nr.DropMissing()]),
    lambda: source(steps=[nr.DropMissing(), nr.Normalize()]),
]


def test_the_definition_changes_with_all_that_matters_and_is_plain_data() -> None:
    texts = [json.dumps(make().to_dict()) for make in CHANGES]
    assert len(set(texts)) == len(CHANGES)
    assert texts == [json.dumps(make().to_dict()) for make in CHANGES]


def test_two_times_or_a_named_one() -> None:
    two = {**SCHEMA, "until": nr.Timestamp("s")}
    assert source().time == "at"
    assert source(schema=two).time is None
    assert source(schema=two, time="until").time == "until"
    assert source(schema={"id": "int64"}).time is None


def test_sources_looked_at_by_several_threads_keep_their_digests(tmp_path: Path) -> None:
    for number in range(4):
        file = tmp_path / f"{number}.csv"
        file.write_bytes(b"x" * 2_000_000)
        os.utime(file, (1, 1))
    errors: list[Exception] = []

    def look(number: int) -> None:
        try:
            for _ in range(20):
                (tmp_path / ".noria" / "digests.json").unlink(missing_ok=True)
                assert len(source(f"{number}.csv").inputs(Settings(tmp_path))) == 1
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=look, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert not [file for file in (tmp_path / ".noria").iterdir() if file.name != "digests.json"]
