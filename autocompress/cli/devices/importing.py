"""``autocompress devices import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autocompress.cli import options


def import_device(
    file: Annotated[Path, typer.Argument(metavar="FILE.acprofile", help="A shared profile.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where its folder goes; else among your own."),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Take over a shared profile; afterwards --device knows its name."""
    import json

    from autocompress.core.places import profiles_folder
    from autocompress.errors import RequestError
    from autocompress.hardware import HardwareProfile
    from autocompress.hardware.archive import import_profile, read_archive
    from autocompress.hardware.profiles import built_in_folder, names_in
    from autocompress.hardware.quality import concerns
    from autocompress.report.units import printable

    name = read_archive(file).id
    if out is None and name in names_in(built_in_folder()):
        raise RequestError(
            f"{file} holds the profile {name!r}, a name that a built-in one has; give --out DIR "
            "and use it by its path"
        )
    folder = import_profile(file, profiles_folder() if out is None else out)
    profile = HardwareProfile.load(folder)
    device = name if out is None else str(folder)
    careful = concerns(profile)
    if as_json:
        values = {"device": device, "folder": str(folder), "summary": profile.summary}
        print(json.dumps(values | {"warnings": careful}))
        return
    print(
        printable(
            f"{profile.id}  {profile.summary}\nfolder  {folder}; use it with --device {device}"
        )
    )
    for line in careful:
        print(printable(f"warning  {line}"))
