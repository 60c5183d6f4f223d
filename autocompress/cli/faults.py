"""Errors on the command line: one clear message, the right exit code, a traceback on request."""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any

import typer
from typer.core import TyperGroup

from autocompress.errors import AutocompressError, InterruptedRun

DEBUG_VARIABLE = "AUTOCOMPRESS_DEBUG"
#: Under which a command notes in its context that it was asked for JSON.
JSON_ASKED = "autocompress.json"


def debugging() -> bool:
    """Whether tracebacks were asked for."""
    return os.environ.get(DEBUG_VARIABLE, "") not in {"", "0"}


def show(error: AutocompressError, *, as_json: bool = False) -> int:
    """Print the error's message to standard error; its exit code.

    With ``as_json`` a last line on standard output says it, too, to programs.
    """
    if as_json:
        said = {
            "kind": "error", "error": type(error).__name__, "message": str(error),
            "exit_code": error.exit_code,
        }  # fmt: skip
        print(json.dumps(said), flush=True)
    if debugging():
        traceback.print_exception(error)
    else:
        prefix = "" if isinstance(error, InterruptedRun) else "error: "
        print(f"{prefix}{error}", file=sys.stderr)
    return error.exit_code


def show_bug(error: Exception) -> int:
    """Say that it is our fault and how to see where; the exit code of a bug."""
    if debugging():
        traceback.print_exception(error)
    else:
        summary = "".join(traceback.format_exception_only(error)).strip()
        print(
            f"error: {summary}\n"
            "This is a bug of ours, not of your request. Run the same command with --debug for "
            "the traceback and report it together with the output of: autocompress doctor",
            file=sys.stderr,
        )
    return 1


class Commands(TyperGroup):
    """A command group that turns our errors and Ctrl-C into messages and exit codes."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except AutocompressError as error:
            raise typer.Exit(show(error, as_json=ctx.meta.get(JSON_ASKED, False))) from error
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise typer.Exit(130) from None
