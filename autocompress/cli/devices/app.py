"""``autocompress devices``: its commands together."""

from __future__ import annotations

import typer

from autocompress.cli.devices import estimate, measure, show
from autocompress.cli.devices import list as list_command
from autocompress.cli.faults import Commands

app = typer.Typer(
    cls=Commands, no_args_is_help=True, help="Device profiles: list, show, measure, estimate."
)
app.command("list")(list_command.list_devices)
app.command()(show.show)
app.command()(measure.measure)
app.command()(estimate.estimate)
