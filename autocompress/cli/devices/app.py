"""``autocompress devices``: its commands together."""

from __future__ import annotations

import typer

from autocompress.cli.devices import (
    adapt,
    estimate,
    export,
    import_results,
    importing,
    measure,
    pack,
    show,
    validate,
)
from autocompress.cli.devices import list as list_command
from autocompress.cli.faults import Commands

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    help="Device profiles: list, show, measure, pack, share.",
)
app.command("list")(list_command.list_devices)
app.command()(show.show)
app.command()(measure.measure)
app.command()(validate.validate)
app.command("import")(importing.import_device)
app.command()(export.export)
app.command()(pack.pack)
app.command("import-results")(import_results.import_results)
app.command()(estimate.estimate)
app.command()(adapt.adapt)
