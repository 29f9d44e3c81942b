"""System: the components of one application, wired by name; what is stale, and how to bring it up to date."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from noria.core import (
    Component,
    ConfigError,
    NoProgress,
    NoriaError,
    Progress,
    Settings,
    allowed,
    check_name,
    exclusive,
    fingerprint,
    task,
)
from noria.core.lazy import load_before_threads
from noria.features import FeatureGroup, check_entities
from noria.storage import Runnable, Workspace
from noria.system.graph import index, levels
from noria.system.runs import FAILED, FRESH, SKIPPED, SUCCEEDED, ComponentRun, RunLog
from noria.system.services import services
from noria.telemetry import MLLogger
from noria.training.live import hold_live


@dataclass(frozen=True)
class Step:
    """What one `noria run` did with one component: `fresh`, `succeeded`, `failed` or `skipped`, and why."""

    component: str
    status: str
    why: str
    run: ComponentRun | None = None
    error: BaseException | None = None


@dataclass(frozen=True)
class RunReport:
    """What one `noria run` did."""

    steps: dict[str, Step]
    seconds: float

    @property
    def failed(self) -> list[Step]:
        """The components that could not be brought up to date because of an error of their own."""
        return [step for step in self.steps.values() if step.status == FAILED]


@dataclass(frozen=True)
class System:
    """A named set of components, the load-balanced servers included.

    Raises:
        GraphError: for two components of one name, an unknown dependency, or a cycle.
        ConfigError: two feature groups mean different things by one entity's name.
    """

    name: str
    components: Sequence[Component]
    description: str = ""
    order: list[list[str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_name(self.name, "system")
        everything = (*self.components, *services(self.components))
        by_name = index(everything)
        check_entities(part for part in self.components if isinstance(part, FeatureGroup))
        object.__setattr__(self, "components", everything)
        object.__setattr__(self, "order", levels({n: c.dependencies for n, c in by_name.items()}))

    def __getitem__(self, name: str) -> Component:
        by_name = {component.name: component for component in self.components}
        if name not in by_name:
            raise ConfigError(f"there is no component {name!r}", hint=allowed(by_name, name))
        return by_name[name]

    def to_dict(self) -> dict[str, Any]:
        """The graph as plain JSON data."""
        return {
            "system": self.name,
            "components": [
                {
                    "name": component.name,
                    "kind": component.kind,
                    "description": component.description,
                    "dependencies": list(component.dependencies),
                }
                for component in self.components
            ],
        }

    def runnables(self) -> dict[str, Runnable]:
        """The components that do work in `noria run`, in an order in which they can run."""
        parts = (self[name] for level in self.order for name in level)
        return {part.name: part for part in parts if isinstance(part, Runnable)}

    def status(self, workspace: Workspace) -> list[Step]:
        """For each component whether it is fresh or stale, and why; reads, and changes nothing."""
        log = RunLog(workspace.records, workspace.clock)
        stale: set[str] = set()
        steps = []
        for name, part in self.runnables().items():
            waiting = [d for d in part.dependencies if d in stale]
            if waiting:
                why = f"{waiting[0]} is stale"
            else:
                last = log.last(name)
                _, why = _compare(part, _inputs(part, workspace.settings, log), last)
                why = why or (part.lost(workspace, last.version) if last else "")
            if why:
                stale.add(name)
            steps.append(Step(name, "stale" if why else FRESH, why, log.last(name)))
        return steps

    def run(
        self, workspace: Workspace, *, full: bool = False, only: str | None = None, progress: Progress | None = None
    ) -> RunReport:
        """Bring every stale component up to date: in the order of dependencies, in parallel where they allow it.

        Args:
            workspace: the stores.
            full: run fresh components too.
            only: bring just this component, and what it depends on, up to date.
            progress: who shows what is going on.

        Raises:
            BusyError: another process runs this system.
        """
        wanted = set(self.runnables()) if only is None else self._upstream(only)
        with exclusive(workspace.settings.state_dir / "run.lock", f"`noria run` of {self.name!r}"):
            hold_live(workspace)
            return _Execution(self, workspace, full, progress or NoProgress(), wanted).execute()

    def _upstream(self, name: str) -> set[str]:
        found, left = set(), [name]
        while left:
            part = self[left.pop()]
            found.add(part.name)
            left.extend(part.dependencies)
        return found


class _Execution:
    """One `noria run`: starts what is ready, waits for whatever ends first, goes on until nothing is left."""

    def __init__(self, system: System, workspace: Workspace, full: bool, progress: Progress, wanted: set[str]) -> None:
        self._workspace = workspace
        self._full = full
        self._progress = progress
        self._log = RunLog(workspace.records, workspace.clock)
        self._left = {name: part for name, part in system.runnables().items() if name in wanted}
        self._order = list(self._left)
        self._steps: dict[str, Step] = {}

    def execute(self) -> RunReport:
        began = time.perf_counter()
        self._interrupted = set(self._log.close_interrupted())
        self._group = self._log.new_group()
        self._logger = MLLogger(self._workspace.settings.state_dir / "logs" / "run.jsonl", self._workspace.clock)
        running: dict[Future[Step], str] = {}
        load_before_threads()
        with ThreadPoolExecutor(self._workspace.settings.run.workers, "noria-run") as pool:
            while self._left or running:
                for name in self._ready():
                    running[pool.submit(self._bring_up_to_date, self._left.pop(name))] = name
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    self._steps[running.pop(future)] = future.result()
        self._logger.close()
        return RunReport({name: self._steps[name] for name in self._order}, time.perf_counter() - began)

    def _ready(self) -> list[str]:
        return [name for name, part in self._left.items() if all(d in self._steps for d in part.dependencies)]

    def _bring_up_to_date(self, part: Runnable) -> Step:
        for name in part.dependencies:
            if self._steps[name].status in (FAILED, SKIPPED):
                return Step(part.name, SKIPPED, f"{name} {self._steps[name].status}")
        try:
            inputs = _inputs(part, self._workspace.settings, self._log)
        except NoriaError as error:
            return Step(part.name, FAILED, error.message, None, error)
        last = self._log.last(part.name)
        key, why = _compare(part, inputs, last)
        if not why and last is not None:
            why = part.lost(self._workspace, last.version)
        if not why and not self._full:
            return Step(part.name, FRESH, "", last)
        why = why or "--full"
        if part.name in self._interrupted:
            why = "the last run was interrupted"
        return self._run(part, key, inputs, why)

    def _run(self, part: Runnable, key: str, inputs: dict[str, str], why: str) -> Step:
        began = time.perf_counter()
        run = self._log.start(self._group, part.name, key, inputs)
        try:
            with task(self._progress, part.name):
                outcome = part.run(self._workspace, run.run_id, self._progress, full=self._full)
        except Exception as error:
            failed = self._log.fail(run, error, time.perf_counter() - began)
            self._logger.log_error(error, component=part.name, run_id=run.run_id)
            return Step(part.name, FAILED, failed.error, failed, error)
        done = self._log.succeed(run, outcome, time.perf_counter() - began)
        self._logger.log("run", component=part.name, run_id=run.run_id, seconds=done.seconds, rows=outcome.rows)
        for model, metrics in outcome.notes.get("models", {}).items():
            self._logger.log_training(model, outcome.notes.get("version"), metrics)
        return Step(part.name, SUCCEEDED, why, done)


def _inputs(part: Runnable, settings: Settings, log: RunLog) -> dict[str, str]:
    upstream = {name: last.version for name in part.dependencies if (last := log.last(name)) is not None}
    return {**part.inputs(settings), **upstream}


def _compare(part: Runnable, inputs: dict[str, str], last: ComponentRun | None) -> tuple[str, str]:
    """The key of the work that is to be done, and why it isn't done already (empty when it is)."""
    definition = fingerprint(part.to_dict())
    key = fingerprint([definition, inputs])
    if last is None:
        return key, "never run"
    if last.key == key:
        return key, ""
    changed = sorted(name for name in {*inputs, *last.inputs} if inputs.get(name) != last.inputs.get(name))
    return key, f"{', '.join(changed)} changed" if changed else "its definition changed"
