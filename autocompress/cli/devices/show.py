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
    """The profile's sections in the order of its file; those without content are left out."""
    from autocompress.hardware.profile_sections import SECTIONS

    values: dict[str, Any] = {
        "device": profile.id,
        "description": profile.description,
        "kind": profile.kind,
        "estimates": profile.summary,
    }
    for section in SECTIONS:
        written = section.write(getattr(profile, section.attribute))
        if written is not None:  # [device] says what the machine is; "device" is its name here
            values["machine" if section.name == "device" else section.name] = written
    values["supports"]["precisions"] = [
        f"{p.name}{'' if p.fast else ' (smaller, not faster)'}"
        for p in profile.capabilities.precisions
    ]
    if not profile.validation.networks:
        note = "the error band is assumed until networks were measured"
        values["validation"] = {"networks": 0, "note": note}
    return values | {"table": {"kernels": len(profile.table)}}


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(f"({_words(i)})" if isinstance(i, dict) else str(i) for i in value)
    return str(value)
