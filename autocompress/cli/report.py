"""``autocompress report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autocompress.cli import options


def report(
    run: options.RunFolder,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to write; report.html in the run folder.")
    ] = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Write the HTML report of a run, however far it got, and print its front."""
    from autocompress.cli.outcome import show_run
    from autocompress.report.html import write_report
    from autocompress.report.run_folder import read_run

    path = write_report(run, out)
    show_run(read_run(run), as_json=as_json, quiet=quiet)
    if out is not None and not as_json:
        print(f"report    {path}")
