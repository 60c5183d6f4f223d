"""The command line: ``autocompress search | plan | resume | report | spaces | devices | …``.

Importing it imports no torch; every command imports what it needs when it runs.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """The console entry point; always ends in :class:`SystemExit` with one of our exit codes."""
    from autocompress.cli.entry import run

    run(arguments)
