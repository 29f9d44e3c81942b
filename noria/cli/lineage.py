"""`noria models lineage`: from a version to the files that it came from, and from a source or a file to the models."""

from __future__ import annotations

from argparse import Namespace

from noria.cli.show import json_out, out, table
from noria.core import ConfigError, NotFoundError, Settings, allowed
from noria.registry import ModelRegistry
from noria.registry.lineage import Origin, fed_by, origin, sources
from noria.storage import Workspace

_FILES = 20


def lineage(options: Namespace) -> int:
    """Show where a version comes from, or what came of a source or a file."""
    both = options.source is not None or options.file is not None
    if (options.label is None) != both:
        raise ConfigError(
            "lineage goes one way at a time",
            hint="noria models lineage MODEL@VERSION, or --source NAME, or --file NAME",
        )
    with Workspace.open(Settings.load(options.project)) as workspace:
        if options.label is not None:
            found = origin(workspace, ModelRegistry.of(workspace).get(options.label))
            if options.json:
                json_out(found.to_dict())
            else:
                _tell(found, options.all)
            return 0
        fed = fed_by(workspace, options.source, file=options.file)
        known = sources(workspace)
    if options.source is not None and options.source not in known:
        raise NotFoundError(f"no model was made of {options.source!r}", hint=allowed(known, options.source))
    if options.json:
        json_out(fed)
    elif not fed:
        out(f"no model was made of the file {options.file!r}")
    else:
        rows = [
            (
                one.label,
                one.state,
                ", ".join(one.aliases) or None,
                one.table_version,
                ", ".join(f.name for f in one.files),
            )
            for one in fed
        ]
        files = ("file",) if options.file is not None else ()
        out(table(("model", "state", "aliases", "table version", *files), [row[: 4 + len(files)] for row in rows]))
    return 0


def _tell(found: Origin, everything: bool) -> None:
    out(found.label)
    for read in found.reads:
        out(f"\n  table {read.source}, version {read.version}" + (f": {read.note}" if read.note else ""))
        shown = read.files if everything else read.files[-_FILES:]
        if len(shown) < len(read.files):
            out(f"    {len(read.files) - len(shown):,} earlier files (all: --all)")
        if shown:
            rows = [(file.name, file.rows, file.identity[:16]) for file in shown]
            out("\n".join("  " + line for line in table(("file", "rows", "digest"), rows, ("rows",)).splitlines()))
    if found.features:
        out("\n  features: " + ", ".join(f"{name} {digest}" for name, digest in found.features.items()))
    if found.dataset:
        out(f"\n  training set: SHA-256 {found.dataset}")
    code = ", ".join(f"{name} {value}" for name, value in found.code.items() if name in ("git", "system", "noria"))
    out(f"  code: {code or 'not kept'}")
