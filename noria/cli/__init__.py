"""cli: a thin skin: parse words, call `System`, print.

`noria --help` loads nothing but the parser; each command imports what it needs when it is called. Results go to
standard output, progress and messages to standard error, and every `NoriaError` becomes two readable lines.
"""

from noria.cli.main import main

__all__ = ["main"]
