"""The application: all commands together, and how a call to it ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from autocompress.cli import (
    doctor,
    packing,
    plan,
    report,
    resume,
    retarget,
    search,
    sensitivity,
    spaces,
    verify,
)
from autocompress.cli.devices import app as devices
from autocompress.cli.faults import DEBUG_VARIABLE, Commands, show_bug

app = typer.Typer(
    name="autocompress",
    cls=Commands,
    help="Search architecture and compression together; get back verified ONNX models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(search.search)
app.command()(plan.plan)
app.command()(resume.resume)
app.command()(retarget.retarget)
app.command()(report.report)
app.command()(sensitivity.sensitivity)
app.command()(spaces.spaces)
app.add_typer(devices.app, name="devices")
app.command()(verify.verify)
app.command()(packing.pack)
app.command()(packing.unpack)
app.command()(doctor.doctor)


def _version(asked: bool) -> None:
    if asked:
        from autocompress import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks; allowed after the command too.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Search architecture and compression together; get back verified ONNX models."""
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"


def run(arguments: Sequence[str] | None = None) -> None:
    """Run a command line; ends in :class:`SystemExit`.

    Args:
        arguments: without the program's name; those of the process when None.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--debug" in given:
        os.environ[DEBUG_VARIABLE] = "1"
        given = [argument for argument in given if argument != "--debug"]
    try:
        typer.main.get_command(app)(args=given, prog_name="autocompress")
    except BrokenPipeError:  # the reader, such as `head`, went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:  # whatever is not ours or typer's is a bug
        sys.exit(show_bug(error))
