"""``autocompress sensitivity``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autocompress.cli import options

if TYPE_CHECKING:
    from autocompress.evaluation.sensitivity.result import Sensitivity

#: Rows that are printed; ``--csv`` writes all of them.
_SHOWN = 20
#: Places of a layer's refusals that are printed for each reason.
_NAMED = 4


def sensitivity(
    model: Annotated[
        str,
        typer.Argument(
            metavar="FILE.py:FUNCTION",
            help="Your model: a function in a file that returns a torch.nn.Module.",
        ),
    ],
    data: options.Data,
    weights: Annotated[
        Path | None, typer.Option("--weights", help="Its weights: .safetensors, .pt or .pth.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            help="Whose settings are looked at and priced: a device's name, the path of its "
            "profile, or local[:RUNTIME][:THREADS].",
        ),
    ] = None,
    budget: Annotated[
        str, typer.Option("--budget", metavar="TIME", help="Time for all of it: 90s, 2m.")
    ] = "2m",
    settings: Annotated[
        int | None, typer.Option("--settings", min=1, help="Measure so many settings at the most.")
    ] = None,
    examples: Annotated[
        int, typer.Option("--examples", min=2, help="Examples that losses are measured on.")
    ] = 256,
    techniques: options.Techniques = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Decides which examples are taken.")
    ] = 0,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write the whole table.")
    ] = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure what each setting of each layer loses on its own, without training."""
    import json

    from autocompress.cli.models import load_model
    from autocompress.core.budget import Budget, parse_seconds
    from autocompress.core.files import write_atomically
    from autocompress.core.json_values import finite
    from autocompress.report.units import printable

    limit = Budget(seconds=parse_seconds(budget), trials=settings)
    start = load_model(model, weights)
    from autocompress.api import sensitivity as find

    found = find(
        start,
        data,
        device=device,
        techniques=options.listed(techniques) if techniques is not None else None,
        budget=limit,
        examples=examples,
        seed=seed,
        progress="none" if as_json or quiet else "auto",
    )
    if csv is not None:
        write_atomically(csv, found.table.to_csv(index=False))
    if as_json:
        print(json.dumps(finite(found.to_json()), allow_nan=False))
        return
    print(printable(_text(found)))
    if csv is not None:
        print(printable(f"\nwrote {csv}"))


def _text(found: Sensitivity) -> str:
    """The summary, the most harmful settings, and what cannot take one."""
    from autocompress.report.tables import aligned

    parts = [found.summary(), "", f"the {_SHOWN} most harmful settings (~ is estimated):", ""]
    worst = found.table.nlargest(_SHOWN, "loss_change").to_dict("records")
    heads = ("layer", "setting", "loss", "metric drop", "bytes saved", "ms saved")
    right = frozenset(heads[2:])
    kept = heads if "latency_ms_saved" in found.table else heads[:-1]
    parts.append(aligned([kept, *(_row(row)[: len(kept)] for row in worst)], right=right))
    if len(found.skipped):
        parts += ["", "cannot take a setting:", "", aligned([*_refused(found)])]
    return "\n".join(parts)


def _row(row: dict[Any, Any]) -> tuple[str, ...]:
    from autocompress.report.units import number, size

    mark = "" if row["measured"] else "~"
    return (
        str(row["layer"]),
        str(row["setting"]),
        f"{mark}{row['loss_change']:+.4f}",
        mark + number(row["metric_drop"]),
        size(row["size_bytes_saved"]),
        number(row.get("latency_ms_saved")),
    )


def _refused(found: Sensitivity) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("technique", "setting", "layers", "reason")]
    groups = found.skipped.groupby(["technique", "reason"], sort=False)
    for (technique, reason), part in groups:
        rows.append((str(technique), _some(part["setting"]), _some(part["layer"]), str(reason)))
    return rows


def _some(values: Any) -> str:
    """The first few different ones, and how many more there are."""
    names = list(dict.fromkeys(str(value) for value in values))
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
