"""``autocompress devices list | show | measure``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autocompress.cli import options
from autocompress.cli.faults import Commands

if TYPE_CHECKING:
    from autocompress.hardware import HardwareProfile

app = typer.Typer(cls=Commands, no_args_is_help=True, help="Device profiles: list, show, measure.")


@app.command("list")
def list_devices(as_json: options.AsJson = False) -> None:
    """List the devices that --device knows; one whose profile is corrupt says so."""
    import json

    from autocompress.errors import AutocompressError
    from autocompress.hardware import list_profiles, load_profile
    from autocompress.report.tables import aligned

    rows = [("device", "what it is", "estimates")]
    for name in list_profiles():
        try:
            profile = load_profile(name)
            rows.append((name, profile.description, profile.summary))
        except AutocompressError as error:
            rows.append((name, "unusable", str(error)))
    if as_json:
        keys = ("device", "description", "summary")
        print(json.dumps([dict(zip(keys, row, strict=True)) for row in rows[1:]]))
    else:
        print(aligned(rows))


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="DEVICE", help="A name, or a profile's folder.")],
    as_json: options.AsJson = False,
) -> None:
    """Show a profile: what the device is, what it runs well, where its figures come from."""
    import json

    from autocompress.core.json_values import finite
    from autocompress.hardware import load_profile
    from autocompress.report.tables import aligned
    from autocompress.report.units import printable

    values = _described(load_profile(name))
    if as_json:
        print(json.dumps(finite(values), allow_nan=False))
        return
    for title, value in values.items():
        if not isinstance(value, dict):
            print(printable(f"{title:<12}  {value}"))
            continue
        print(f"\n{title}")
        lines = aligned([(f"  {key}", _words(item)) for key, item in value.items()])
        print(printable(lines))


def _described(profile: HardwareProfile) -> dict[str, Any]:
    from dataclasses import asdict

    supports = asdict(profile.capabilities)
    supports["precisions"] = [
        f"{p.name}{'' if p.fast else ' (smaller, not faster)'}"
        for p in profile.capabilities.precisions
    ]
    return {
        "device": profile.id,
        "description": profile.description,
        "estimates": profile.summary,
        "machine": asdict(profile.machine),
        "runtime": asdict(profile.runtime),
        "supports": supports,
        "validation": asdict(profile.validation)
        if profile.validation.networks
        else {"networks": 0, "note": "the error band is assumed until networks were measured"},
        "provenance": asdict(profile.provenance),
        "table": {"kernels": len(profile.table)},
    }


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    return str(value)


@app.command()
def measure(
    space: Annotated[
        str, typer.Option("--space", help="Measure the kernels that this space reaches.")
    ] = "tiny_cnn",
    shape: Annotated[
        str, typer.Option("--input", metavar="CxHxW", help="Shape of one input.")
    ] = "3x32x32",
    classes: Annotated[int, typer.Option("--classes", min=2, help="Outputs.")] = 10,
    threads: Annotated[int, typer.Option("--threads", min=1, help="The runtime's threads.")] = 1,
    budget: Annotated[
        str, typer.Option("--budget", metavar="TIME", help="Begin no kernel after so long.")
    ] = "5m",
    identifier: Annotated[
        str | None, typer.Option("--id", help="Save the table as a profile of this name, too.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="The folder for it.")] = Path(),
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure this machine kernel by kernel; what its table has already is not timed again."""
    import json

    from autocompress.cli.measuring import measure_space, profile_folder, save_profile
    from autocompress.core.budget import parse_seconds
    from autocompress.core.events import Event
    from autocompress.report.display import make_display
    from autocompress.report.units import seconds as duration

    target = profile_folder(identifier, out) if identifier is not None else None
    with make_display(options.progress_mode(as_json, quiet)) as display:

        def tell(done: int, total: int) -> None:
            display(Event("measure", "progress", "kernels", {"done": done, "total": total}))

        display(Event("measure", "stage_started", f"sampling {space}"))
        found = measure_space(
            space,
            input_shape=_shape(shape),
            classes=classes,
            threads=threads,
            seconds=parse_seconds(budget),
            seed=seed,
            progress=tell,
        )
    saved = save_profile(found.profile, target) if target is not None else None
    if as_json:
        values = {"kind": "result", "reached": found.reached, "measured": found.done}
        more = {"left": found.left, "seconds": found.seconds, "profile": saved and str(saved)}
        print(json.dumps(values | more))
        return
    print(
        f"{found.reached} kernels are within reach of {space}; {found.done} were measured in "
        f"{duration(found.seconds)}, {found.left} are left\n{found.profile.summary}"
    )
    if saved is not None:
        print(f"profile  {saved}; use it with --device {saved}")


def _shape(text: str) -> tuple[int, ...]:
    from autocompress.errors import RequestError

    parts = text.lower().split("x")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise RequestError(f"--input is {text!r}; write the shape of one input, such as 3x32x32")
    return tuple(int(part) for part in parts)
