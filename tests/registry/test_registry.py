from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from noria.core import ConfigError, IntegrityError, NotFoundError
from noria.registry import ModelRegistry


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
