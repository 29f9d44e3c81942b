"""The same with noria: contract, quarantine, fitted state, a versioned table; `checks` or `plain`."""

import sys
from pathlib import Path

import noria as nr

texts, numbers = [f"c{n}" for n in range(4)], [f"x{n}" for n in range(8)]
checks = [nr.between("x0", -1000, 1000), nr.matches("c0", "^v"), nr.between("x7", -1000, 1000)]
source = nr.Source(
    "rows",
    str(Path(sys.argv[1]).resolve()),
    schema={**dict.fromkeys(texts, "str"), **dict.fromkeys(numbers, "float64?")},
    checks=checks if sys.argv[3] == "checks" else [],
    steps=[nr.DropMissing(), nr.Encode(), nr.Normalize(numbers)] if sys.argv[3] != "load" else [],
)
with nr.Workspace.open(nr.Settings(Path(sys.argv[2]))) as workspace:
    print(nr.BatchProcessor(source, workspace).run().rows)
