"""system: the wheel as a whole. The component graph: what depends on what, what is stale, what to run.

Components come in as plain objects; their names and dependencies are the wiring. `System.run` brings what is stale
up to date, in the order of dependencies, and leaves a record of every run; `System.status` only looks. The servers
and the load balancer are part of the same graph: they are what `noria serve` starts.
"""

from noria.system.drawing import mermaid, svg
from noria.system.graph import levels
from noria.system.runs import ComponentRun, RunLog
from noria.system.system import RunReport, Step, System

__all__ = ["ComponentRun", "RunLog", "RunReport", "Step", "System", "levels", "mermaid", "svg"]
