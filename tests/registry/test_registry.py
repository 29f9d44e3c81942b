from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from noria.core import ConfigError, IntegrityError, NotFoundError
from noria.registry import ModelRegistry
from noria.storage import Put


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    return ModelRegistry(f"sqlite:///{tmp_path}/registry.db")


def register(registry: ModelRegistry, run_id: str, data: bytes = b"model") -> int:
    return registry.register("late", {"model.bin": data}, servable="tabular", run_id=run_id).version


def test_versions_are_numbered_and_registration_is_idempotent(registry: ModelRegistry) -> None:
    assert [register(registry, "a"), register(registry, "b"), register(registry, "a")] == [1, 2, 1]
    assert [v.version for v in registry.versions("late")] == [2, 1]
    assert [v.version for v in registry.versions("late", limit=1)] == [2]


def test_what_was_registered_is_read_back(registry: ModelRegistry) -> None:
    made = registry.register(
        "late", {"w": b"\x00\x01"}, servable="tabular", run_id="a", metrics={"f1": [0.5, 0.4, 0.6]}, spec={"x": [1]}
    )
    assert registry.get("late@1") == made
    assert registry.files(made)["w"].read_bytes() == b"\x00\x01"


def test_promote_and_roll_back_with_audit(registry: ModelRegistry) -> None:
    register(registry, "a"), register(registry, "b")
    registry.promote("late", 1, why="first", who="ada")
    registry.promote("late", 2, why="better", who="ada")
    assert registry.get("late").version == 2
    assert registry.rollback("late", why="worse after all").version == 1
    assert registry.get("late@champion").version == 1
    assert [e.action for e in registry.audit("late")] == [
        "rollback champion",
        "promote champion",
        "promote champion",
        "register",
        "register",
    ]
    with pytest.raises(NotFoundError, match="no earlier version"):
        registry.rollback("late")


def test_errors_list_what_exists(registry: ModelRegistry) -> None:
    with pytest.raises(NotFoundError, match="noria run"):
        registry.get("late")
    register(registry, "a")
    with pytest.raises(NotFoundError, match="did you mean 'late'"):
        registry.get("latte")
    with pytest.raises(NotFoundError, match="versions are 1 to 1"):
        registry.promote("late", 7)
    with pytest.raises(NotFoundError, match="has no champion"):
        registry.get("late")
    with pytest.raises(NotFoundError, match="has no ²"):
        registry.get("late@²")


def test_a_corrupt_file_is_never_loaded(registry: ModelRegistry) -> None:
    register(registry, "a")
    version = registry.get("late@1")
    file = registry.files(version)["model.bin"]
    file.chmod(0o644)
    file.write_bytes(b"evil!")
    with pytest.raises(IntegrityError, match="corrupt"):
        registry.files(version)
    register(registry, "b")  # the same bytes again: mended
    assert registry.files(version)["model.bin"].read_bytes() == b"model"


@pytest.mark.parametrize("told", [np.float64(0.5), object(), "\ud800"])
def test_what_no_record_can_keep_is_refused_before_files_are_written(registry: ModelRegistry, told: object) -> None:
    with pytest.raises(ConfigError, match="no plain JSON data"):
        registry.register("late", {"m": b"x"}, servable="tabular", run_id="a", metrics={"roc_auc": told})
    assert registry.models() == {}
    assert list(registry.blobs.stored()) == []


def test_a_damaged_record_is_told(registry: ModelRegistry, tmp_path: Path) -> None:
    registry.register("late", {"m": b"x"}, servable="tabular", run_id="a")
    with sqlite3.connect(tmp_path / "registry.db") as file:
        file.execute("UPDATE records SET data = '{}' WHERE collection = 'versions'")
    file.close()
    with pytest.raises(IntegrityError, match="is damaged: Object missing required field"):
        registry.get("late@1")
    assert "is damaged" in registry.damage("late", 1)


def test_a_registry_in_a_database_names_where_its_files_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs a place for the model files") as caught:
        ModelRegistry("postgresql://me:secret@nowhere/x")
    assert "secret" not in str(caught.value)
    registry = ModelRegistry(f"sqlite:///{tmp_path}/r.db", f"file://{tmp_path}/elsewhere")
    register(registry, "a")
    assert (tmp_path / "elsewhere").is_dir()


def edit(folder: Path, collection: str, data: str, key: str = "late@00000001") -> None:
    """Change a record as nobody should: past the registry."""
    with sqlite3.connect(folder / "registry.db") as file:
        file.execute("UPDATE records SET data = ? WHERE collection = ? AND key = ?", (data, collection, key))
    file.close()


def kept(registry: ModelRegistry, key: str = "late@00000001") -> dict[str, Any]:
    record = registry._records.get("versions", key)
    assert record is not None
    return record.data


@pytest.mark.parametrize(
    "change",
    [
        {"metrics": {"f1": 0.9}},
        {"spec": {"steps": []}},
        {"spec": None},
        {"files": {"model.bin": {"digest": "0" * 64, "size": 5}}},
        {"lineage": {"data": {"flights": "x"}, "features": {}, "code": {}, "dataset": {}}},
        {"created": 10**18},
        {"version": 2},
        {"seal": "0" * 64},
    ],
    ids=lambda change: ",".join(change),
)
def test_a_record_that_was_changed_is_never_believed(
    registry: ModelRegistry, tmp_path: Path, change: dict[str, Any]
) -> None:
    registry.register(
        "late", {"model.bin": b"model"}, servable="x", run_id="a", metrics={"f1": 0.5}, spec={"steps": [1.0, (2, 3)]}
    )
    edit(tmp_path, "versions", json.dumps({**kept(registry), **change}))
    for read in (lambda: registry.get("late@1"), lambda: registry.versions("late"), registry.references):
        with pytest.raises(IntegrityError, match="the record of version late@00000001 is damaged") as caught:
            read()
        assert "backup" in caught.value.hint


def test_a_record_that_is_another_versions_is_not_taken_for_it(registry: ModelRegistry, tmp_path: Path) -> None:
    register(registry, "a"), register(registry, "b", b"other")
    edit(tmp_path, "versions", json.dumps(kept(registry, "late@00000002")))
    with pytest.raises(IntegrityError, match="late@00000001 is damaged: it is late@2's"):
        registry.get("late@1")


def test_a_record_from_before_seals_is_read(registry: ModelRegistry, tmp_path: Path) -> None:
    register(registry, "a")
    version = registry.get("late@1")
    edit(tmp_path, "versions", json.dumps(version.to_dict()))
    assert registry.get("late@1") == version


def test_what_is_told_is_sealed_as_it_is_read_back(registry: ModelRegistry) -> None:
    odd = {
        "none": float("nan"),
        "numbers": {10: "a", 9: "b"},
        "pair": (1, 2.0),
        "big": 2**63,
        "small": 1e-300,
        "é": "ü",
    }
    registry.register("late", {"m": b"x"}, servable="x", run_id="a", spec=odd, parameters=odd)
    assert registry.get("late@1").spec["numbers"] == {"10": "a", "9": "b"}


def test_a_version_that_is_gone_is_told(registry: ModelRegistry, tmp_path: Path) -> None:
    for run in "abc":
        register(registry, run)
    with sqlite3.connect(tmp_path / "registry.db") as file:
        file.execute("DELETE FROM records WHERE collection = 'versions' AND key = 'late@00000002'")
    file.close()
    for read in (lambda: registry.get("late@2"), lambda: registry.versions("late"), registry.references):
        with pytest.raises(IntegrityError, match="the record of version late@2 is gone"):
            read()
    assert [one.version for one in registry.versions("late", limit=1)] == [3]


@pytest.mark.parametrize(
    "data",
    [
        "{}",
        '{"latest": 1, "aliases": null, "history": {}}',
        '{"latest": "1", "aliases": {}, "history": {}}',
        '{"latest": 1, "aliases": {"champion": "1"}, "history": {}}',
        '{"latest": 1, "aliases": {"champion": [1, 2]}, "history": {}}',
        '{"latest": 1, "aliases": {"champion": 1}, "history": {"champion": null}}',
    ],
)
def test_a_models_record_that_is_none_is_told(registry: ModelRegistry, tmp_path: Path, data: str) -> None:
    register(registry, "a")
    edit(tmp_path, "models", data, "late")
    acts = (
        registry.models,
        registry.references,
        lambda: registry.get("late"),
        lambda: registry.states("late"),
        lambda: registry.promote("late", 1),
        lambda: registry.rollback("late"),
        lambda: register(registry, "b"),
    )
    for act in acts:
        with pytest.raises(IntegrityError, match="the record of model 'late' is damaged"):
            act()


@pytest.mark.parametrize("data", ["{}", '{"state": "golden"}', '{"state": 5}'])
def test_a_state_that_is_none_is_told(registry: ModelRegistry, tmp_path: Path, data: str) -> None:
    register(registry, "a")
    registry.retire("late", 1)
    edit(tmp_path, "states", data)
    for act in (lambda: registry.states("late"), lambda: registry.promote("late", 1)):
        with pytest.raises(IntegrityError, match="the state of late@00000001 is damaged"):
            act()


def test_a_state_of_no_version_is_told(registry: ModelRegistry) -> None:
    register(registry, "a")
    registry._records.commit(Put("states", "late@x", {"state": "retired"}))
    with pytest.raises(IntegrityError, match="the record late@x is damaged"):
        registry.states("late")


@pytest.mark.parametrize("verdicts", ["{}", '{"verdicts": [{"gate": "better"}]}'])
def test_verdicts_that_are_none_are_told(registry: ModelRegistry, tmp_path: Path, verdicts: str) -> None:
    register(registry, "a")
    registry.refuse("late", 1, [{"gate": "better", "passed": False, "why": "worse"}])
    assert registry.verdicts("late", 1) == [{"gate": "better", "passed": False, "why": "worse"}]
    edit(tmp_path, "verdicts", verdicts)
    with pytest.raises(IntegrityError, match="the verdicts on late@1 is damaged"):
        registry.verdicts("late", 1)


def test_a_revision_that_is_none_is_told(registry: ModelRegistry, tmp_path: Path) -> None:
    register(registry, "a")
    with sqlite3.connect(tmp_path / "registry.db") as file:
        file.execute("UPDATE records SET revision = 'x' WHERE collection = 'models'")
    file.close()
    with pytest.raises(IntegrityError, match="the record 'late' is damaged: its revision is 'x'"):
        registry.promote("late", 1)


def test_a_number_that_is_none_is_no_version(registry: ModelRegistry) -> None:
    register(registry, "a")
    assert registry.damage("late", "1") == ""
    assert "has no x" in registry.damage("late", "x")
