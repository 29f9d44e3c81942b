"""The journal of a search: Optuna's study, kept in a file, so that a search goes on where a kill has left it.

Optuna appends a line for each thing that happens. One process writes; what a kill has cut off in the middle of a line
is taken away before the next one is written. Each trial's sampler is seeded with the seed and the trial's number: what
a search does next depends on what has happened, not on whether it was killed in between.
"""

from __future__ import annotations

import json
import logging
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from noria.core import MissingExtraError, StorageError
from noria.training.search.report import COMPLETE, FAILED, PRUNED, Report
from noria.training.search.spaces import Choice, Integer, Space

if TYPE_CHECKING:
    import optuna

FILE = "search.journal"
FIRST_AT_RANDOM = 10
"""Trials before the sampler begins to learn from them."""


def open_storage(directory: Path | None) -> Any:
    """Where studies are kept: in a file of the folder; without one, in memory.

    Raises:
        MissingExtraError: Optuna isn't installed.
        StorageError: the file can't be written.
    """
    try:
        from optuna.storages import InMemoryStorage, JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise MissingExtraError("Optuna", "tune", "a search") from error
    logging.getLogger("optuna").setLevel(logging.WARNING)
    if directory is None:
        return InMemoryStorage()
    file = directory / FILE
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for lock in directory.glob(f"{FILE}.lock*"):  # of a process that was killed: whoever is here is alone
            lock.unlink()
        _mend(file)
        return JournalStorage(JournalFileBackend(str(file)))
    except OSError as error:
        raise StorageError(f"the search can't be kept in {file}: {error}", hint="is the disk full?") from error


def _mend(file: Path) -> None:
    """Take away what comes after the last whole line."""
    if not file.exists():
        return
    whole = 0
    with file.open("rb") as lines:
        for line in lines:
            try:
                json.loads(line)
            except ValueError:
                break
            if not line.endswith(b"\n"):
                break
            whole += len(line)
    with file.open("r+b") as journal:
        journal.truncate(whole)


class Study:
    """The trials of one space.

    Attributes:
        name: of the study; several may be in one file.
    """

    def __init__(self, storage: Any, name: str, *, seed: int, greater_is_better: bool) -> None:
        import optuna

        self.name, self._seed = name, seed
        self._study = optuna.create_study(
            storage=storage,
            study_name=name,
            direction="maximize" if greater_is_better else "minimize",
            load_if_exists=True,
        )

    @property
    def finished(self) -> list[optuna.trial.FrozenTrial]:
        """The trials of which a report is there, in the order of their numbers."""
        return [trial for trial in self._study.get_trials(deepcopy=False) if trial.state.is_finished()]

    @property
    def cut_off(self) -> list[int]:
        """The numbers of the trials that a kill has ended: they are done again, with the same parameters."""
        from optuna.trial import TrialState

        return [trial.number for trial in self._study.get_trials(deepcopy=False, states=[TrialState.RUNNING])]

    def queue(self, drawn: Mapping[str, Any]) -> None:
        """The next trial that begins gets these values; a choice's value is its place."""
        self._study.enqueue_trial(dict(drawn))

    def __len__(self) -> int:
        """How many trials are finished, queued or running."""
        return len(self._study.get_trials(deepcopy=False))

    def begin(self, number: int | None = None) -> Draws:
        """A new trial, or the one that was cut off."""
        import optuna

        trials = self._study.get_trials(deepcopy=False)
        waiting = [trial.number for trial in trials if trial.state == optuna.trial.TrialState.WAITING]
        place = number if number is not None else min(waiting, default=len(trials))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            seed = int(np.random.SeedSequence([self._seed, place, zlib.crc32(self.name.encode())]).generate_state(1)[0])
            self._study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=FIRST_AT_RANDOM)
        if number is None:
            return Draws(self._study.ask())
        found = next(trial for trial in trials if trial.number == number)
        return Draws(optuna.Trial(self._study, found._trial_id))

    def drawn(self, number: int) -> Draws:
        """A finished trial, to draw its values again."""
        import optuna

        return Draws(optuna.trial.FixedTrial(self._study.get_trials(deepcopy=False)[number].params, number))

    def tell(self, draws: Draws, report: Report, elapsed: float, parameters: Mapping[str, Any]) -> None:
        """Keep what came of a trial; `elapsed` are the seconds that the search has taken so far."""
        from optuna.trial import TrialState

        trial = draws.trial
        for step, value in report.steps.items():
            if np.isfinite(value) and step not in self._known_steps(trial.number):
                trial.report(value, step)
        said = {
            "end": report.end,
            "seconds": round(report.seconds, 4),
            "elapsed": round(elapsed, 3),
            "reason": report.reason,
            "rounds": list(report.rounds),
            "parameters": dict(parameters),
        }
        trial.set_user_attr("report", said)
        states = {COMPLETE: TrialState.COMPLETE, PRUNED: TrialState.PRUNED}
        score = report.score if report.end == COMPLETE else None
        self._study.tell(trial, score, state=states.get(report.end, TrialState.FAIL))

    def _known_steps(self, number: int) -> Mapping[int, float]:
        """Of a trial that was killed while its report was written."""
        return self._study.get_trials(deepcopy=False)[number].intermediate_values

    def remember(self, key: str, value: Any) -> None:
        """Keep JSON data with the study."""
        self._study.set_user_attr(key, value)

    def remembered(self, key: str) -> Any:
        """What was kept; None if nothing was."""
        return self._study.user_attrs.get(key)


class Draws:
    """A trial that draws its parameters; what a function that describes a space is given."""

    def __init__(self, trial: Any) -> None:
        self.trial = trial

    @property
    def number(self) -> int:
        """Of the trial, from 0."""
        return int(self.trial.number)

    def draw(self, name: str, space: Space) -> Any:
        """The value of this trial for the parameter."""
        if isinstance(space, Choice):
            # Values of any kind: what Optuna keeps is their place.
            place = self.trial.suggest_categorical(name, list(range(len(space.values))))
            return space.values[place]
        if isinstance(space, Integer):
            return self.trial.suggest_int(name, space.low, space.high, log=space.log)
        return self.trial.suggest_float(name, space.low, space.high, log=space.log)


def report_of(trial: optuna.trial.FrozenTrial) -> Report:
    """What was told of a finished trial."""
    said = trial.user_attrs.get("report", {})
    end = said.get("end", FAILED)
    score = float(trial.value) if end == COMPLETE and trial.value is not None else float("nan")
    reason, rounds = said.get("reason", ""), tuple(said.get("rounds", ()))
    return Report(end, score, dict(trial.intermediate_values), said.get("seconds", 0.0), reason, rounds)
