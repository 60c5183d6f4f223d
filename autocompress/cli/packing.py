"""``autocompress pack`` and ``autocompress unpack``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autocompress.cli import options

_Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Where to write; beside it by default.")
]


def pack(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An .onnx file.")],
    output: _Output = None,
    as_json: options.AsJson = False,
) -> None:
    """Entropy-code an ONNX file, to keep or to send; unpack restores it bit by bit."""
    from autocompress.export.packing.container import pack as write

    packed = write(options.existing(model, "an .onnx file"), output)
    _report(model, packed, as_json=as_json)


def unpack(
    packed: Annotated[Path, typer.Argument(metavar="PACKED", help="An .acz file.")],
    output: _Output = None,
    as_json: options.AsJson = False,
) -> None:
    """Restore the ONNX file that was packed, bit by bit."""
    from autocompress.export.packing.container import unpack as restore

    restored = restore(options.existing(packed, "an .acz file"), output)
    _report(packed, restored, as_json=as_json)


def _report(source: Path, target: Path, *, as_json: bool) -> None:
    import json

    before, after = source.stat().st_size, target.stat().st_size
    if as_json:
        print(json.dumps({"path": str(target), "bytes_before": before, "bytes": after}))
        return
    from autocompress.report.units import printable

    print(printable(f"{target}: {after:,} bytes ({source} has {before:,})"))
