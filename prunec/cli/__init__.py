"""The command line: one file per command, heavy imports inside the functions.

app.py     the table of commands
run.py     one call from start to exit code: errors, Ctrl-C, and a stdout that is pure JSON with --json
answer.py  what a command returns: a JSON document and how to show it to a person
options.py the options that several commands share
"""

from __future__ import annotations

import sys


def main() -> None:
    """The console script `prunec`."""
    try:
        from prunec.cli.run import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # while importing
        code = 130
    sys.exit(code)
