"""Choosing a format for an estimator, and getting the estimator back."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, cast

from noria.core import ConfigError, DataError, MissingExtraError, Settings, allowed
from noria.registry import ModelRegistry, ModelVersion
from noria.storage import Workspace
from noria.training.estimator import Estimator
from noria.training.formats.catboost_cbm import CatBoost
from noria.training.formats.facts import damaged
from noria.training.formats.format import Format, Kept, UnkeepableError, type_name
from noria.training.formats.lightgbm_text import LightGbm
from noria.training.formats.onnx_graph import Onnx
from noria.training.formats.pickles import FILE as PICKLE_FILE
from noria.training.formats.pickles import Pickle
from noria.training.formats.skops_zip import Skops
from noria.training.formats.torch_tensors import TorchTensors
from noria.training.formats.xgboost_ubj import XgBoost

_PICKLE: Format = Pickle()
FORMATS: tuple[Format, ...] = (LightGbm(), XgBoost(), CatBoost(), TorchTensors(), Onnx(), Skops())
"""In the order of preference; none of them runs code when it is read."""

_EXTRAS = {**{name: name for name in ("lightgbm", "xgboost", "catboost", "torch")}, "onnxruntime": "onnx"}
DISTRIBUTIONS = {"sklearn": "scikit-learn", "xgboost": "xgboost-cpu"}
_TRUST = "[registry] trust_pickles = true in noria.toml (or NORIA_REGISTRY_TRUST_PICKLES=true)"


def keep(estimator: Estimator, settings: Settings) -> Kept:
    """A fitted estimator as files, in the first format that holds all of it.

    Raises:
        ConfigError: only a pickle does, and the project doesn't trust its registry's pickles; or not even that.
    """
    form = _first(estimator)
    try:
        return Kept(form.dump(estimator), _spec(form, estimator))
    except UnkeepableError as error:
        why = str(error)
    if not settings.registry.trust_pickles:
        raise _only_a_pickle(estimator, why)
    return Kept(_PICKLE.dump(estimator), _spec(_PICKLE, estimator))


def check(estimator: Estimator, settings: Settings) -> None:
    """Whether `keep` would take it once it is fitted, as far as can be told before hours are spent on fitting.

    Raises:
        ConfigError: only a pickle could hold it, and the project doesn't trust its registry's pickles.
    """
    form = _first(estimator)
    if settings.registry.trust_pickles or form.name != "skops":
        return
    try:
        form.dump(estimator)
    except UnkeepableError as error:
        raise _only_a_pickle(estimator, str(error)) from None


def restore(spec: Mapping[str, Any] | None, files: Mapping[str, Path], settings: Settings, what: str) -> Estimator:
    """The reverse of `keep`. The files' checksums have been verified.

    Args:
        spec: what `keep` gave; None for a version from before there were formats, which is a pickle.
        files: at least those that `keep` gave.
        settings: of the project that reads.
        what: the model's name for errors.

    Raises:
        ConfigError: it is a pickle, and the project doesn't trust those.
        DataError: a library is missing or another one than it was trained with, or a file is damaged.
    """
    spec = spec or {"format": "pickle"}
    form = _format(str(spec.get("format")), what)
    trained = dict(spec.get("libraries", {}))
    if form is _PICKLE and not settings.registry.trust_pickles:
        raise ConfigError(
            f"{what} is kept as a pickle, and reading one runs whatever code its writer wanted",
            hint=f"if you trust everybody who can write to this registry: {_TRUST}",
            field="registry.trust_pickles",
        )
    missing = [name for name in form.files if name not in files]
    if missing:
        raise DataError(f"{what} has no file {missing[0]}", hint="it was registered by hand: register it again")
    _check_libraries(trained, what)
    try:
        return cast(Estimator, form.load(files))
    except ModuleNotFoundError as error:
        raise _missing((error.name or "").partition(".")[0], trained, what) from error
    except DataError as error:
        error.message = f"{what}: {error.message}"
        error.args = (error.message,)
        raise
    except (TypeError, ValueError, LookupError, AttributeError) as error:  # facts that the library can't make sense of
        raise damaged(f"{what}: {error}") from error


def estimator_of(version: ModelVersion, workspace: Workspace) -> Estimator:
    """The estimator of a registered version.

    Raises:
        NoriaError: as `restore`.
    """
    files = ModelRegistry.of(workspace).files(version)
    return restore(version.spec.get("model"), files, workspace.settings, f"model {version.label}")


def library_version(module: str) -> str | None:
    """The version of an installed library, which is not imported; None if there is none."""
    for name in dict.fromkeys((DISTRIBUTIONS.get(module, module), module)):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    try:
        return str(import_module(module).__version__)
    except (ImportError, AttributeError):
        return None


def _spec(form: Format, estimator: Any) -> dict[str, Any]:
    versions = {name: library_version(name) for name in sorted(form.libraries(estimator) | {"numpy"})}
    known = {name: version for name, version in versions.items() if version is not None}
    return {"format": form.name, "class": type_name(estimator), "libraries": known}


def _format(name: str, what: str) -> Format:
    for one in (*FORMATS, _PICKLE):
        if one.name == name:
            return one
    names = allowed([one.name for one in FORMATS], name)
    raise DataError(f"{what} is kept in the format {name!r}, which this version of noria doesn't know", hint=names)


def _check_libraries(trained: Mapping[str, str], what: str) -> None:
    """Whether each library is here in the same major version."""
    for library, version in trained.items():
        here = library_version(library)
        if here is None:
            raise _missing(library, trained, what)
        if here.partition(".")[0] != version.partition(".")[0]:
            name = DISTRIBUTIONS.get(library, library)
            raise DataError(
                f"{what} was trained with {name} {version}, and {here} is installed here",
                hint=f"pip install '{name}=={version}', or train it again with {here}",
            )


def _missing(library: str, trained: Mapping[str, str], what: str) -> MissingExtraError | DataError:
    name, version = DISTRIBUTIONS.get(library, library), trained.get(library, "")
    what = f"{what}, trained with {name} {version}," if version else what
    if library in _EXTRAS:
        return MissingExtraError(name, _EXTRAS[library], what)
    return DataError(
        f"{what} needs {library}, which is not installed",
        hint=f"pip install '{name}{'==' + version if version else ''}', or train it again without it",
    )


def _first(estimator: Any) -> Format:
    """The format that is meant for an estimator; skops is for all that no other is."""
    return next(one for one in FORMATS if one.takes(estimator))


def _only_a_pickle(estimator: Any, why: str) -> ConfigError:
    return ConfigError(
        f"the model {type_name(estimator)} can only be kept as a pickle ({why}), and reading one runs code",
        hint=f"if you trust everybody who can write to this project's registry: {_TRUST}",
        field="registry.trust_pickles",
    )


__all__ = ["FORMATS", "PICKLE_FILE", "check", "estimator_of", "keep", "library_version", "restore"]
