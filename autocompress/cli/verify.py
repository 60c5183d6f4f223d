"""``autocompress verify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autocompress.cli import options

if TYPE_CHECKING:
    from autocompress.export import Verification

_BATCH = 64


def verify(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="The .onnx file, its manifest beside it.")
    ],
    data: Annotated[
        str | None,
        typer.Option("--data", help="Recompute the accuracy over this data's test split, too."),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Open an exported model again and check that it is what its manifest says."""
    import json

    options.existing(model, "an .onnx file")
    from autocompress.core.json_values import finite
    from autocompress.export import verify as check

    batches = None
    if data is not None:
        from autocompress.evaluation.data import Data

        batches = Data.load(data).test.batches(_BATCH)
    found = check(model, batches=batches, strict=False)
    if as_json:
        print(json.dumps(finite(found.to_json()), allow_nan=False))
    else:
        _show(found)
    found.raise_if_failed()


def _show(found: Verification) -> None:
    from autocompress.report.tables import aligned
    from autocompress.report.units import printable

    rows = [("check", "", "found")]
    for check in found.checks:
        value = check.detail or ("" if check.value is None else str(check.value))
        rows.append((check.name, "ok" if check.ok else "FAILED", value))
    print(printable(aligned(rows)))
    if found.ok:
        print(f"\n{found.path} is what its manifest says")
