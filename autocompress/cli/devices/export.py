"""``autocompress devices export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autocompress.cli import options


def export(
    name: Annotated[str, typer.Argument(metavar="DEVICE", help="A name, or a profile's folder.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.acprofile", help="The file to write.")
    ],
    as_json: options.AsJson = False,
) -> None:
    """Write a profile as one file, to share it; the other side runs devices import."""
    import json

    from autocompress.core.files import sha256_of
    from autocompress.hardware import load_profile
    from autocompress.hardware.archive import export_profile
    from autocompress.report import units

    path = export_profile(load_profile(name), output)
    digest, size = sha256_of(path), path.stat().st_size
    if as_json:
        print(json.dumps({"path": str(path), "size_bytes": size, "sha256": digest}))
        return
    print(f"{path}  {units.size(size)}, SHA-256 {digest}")
