"""``autocompress devices show``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from autocompress.cli import options

if TYPE_CHECKING:
    from autocompress.hardware import HardwareProfile


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
