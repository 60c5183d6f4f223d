"""``autocompress sensitivity``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autocompress.cli import options
from autocompress.errors import RequestError

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
    pairs: Annotated[
        str | None,
        typer.Option(
            "--pairs",
            metavar="N|LAYER,...",
            help="Also measure settings two at a time: so many pairs, or all of these layers.",
        ),
    ] = None,
    pairs_csv: Annotated[
        Path | None, typer.Option("--pairs-csv", metavar="FILE", help="Write the pairs.")
    ] = None,
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

    if pairs_csv is not None and (pairs is None or pairs_csv == csv):
        raise RequestError("--pairs-csv belongs to --pairs, and to another file than --csv")
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
        pairs=_pairs(pairs),
        progress="none" if as_json or quiet else "auto",
    )
    written = {csv: found.table, pairs_csv: found.interactions}
    for path, table in written.items():
        if path is not None:
            write_atomically(path, table.to_csv(index=False))
    if as_json:
        print(json.dumps(finite(found.to_json()), allow_nan=False))
        return
    print(printable(_text(found)))
    for path in written:
        if path is not None:
            print(printable(f"\nwrote {path}"))


def _pairs(text: str | None) -> int | list[str] | None:
    from autocompress.cli.options import listed

    if text is None:
        return None
    return int(text) if text.strip().isdecimal() else list(listed(text))


def _text(found: Sensitivity) -> str:
    """The summary, the most harmful settings, and what cannot take one."""
    from autocompress.report.tables import aligned

    parts = [found.summary(), "", f"the {_SHOWN} most harmful settings (~ is estimated):", ""]
    worst = found.table.nlargest(_SHOWN, "loss_change").to_dict("records")
    heads = ("layer", "setting", "loss", "metric drop", "bytes saved", "ms saved")
    right = frozenset(heads[2:])
    kept = heads if "latency_ms_saved" in found.table else heads[:-1]
    parts.append(aligned([kept, *(_row(row)[: len(kept)] for row in worst)], right=right))
    if found.interactions["measured"].any():
        parts += ["", "pairs, the strongest interactions first:", "", _pairs_text(found)]
    if len(found.skipped):
        parts += ["", "cannot take a setting:", "", aligned([*_refused(found)])]
    return "\n".join(parts)


def _pairs_text(found: Sensitivity) -> str:
    from autocompress.report.tables import aligned

    known = found.interactions[found.interactions["measured"].astype(bool)]
    order = known["interaction"].abs().sort_values(ascending=False).index[:_SHOWN]
    heads = ("first", "setting", "second", "setting", "both alone", "together", "interaction")
    rows = [
        (
            str(row["first_layer"]),
            str(row["first_setting"]),
            str(row["second_layer"]),
            str(row["second_setting"]),
            f"{row['first_loss_change'] + row['second_loss_change']:+.4f}",
            f"{row['joint_loss_change']:+.4f}",
            f"{row['interaction']:+.4f}",
        )
        for row in known.loc[order].to_dict("records")
    ]
    return aligned([heads, *rows], right=frozenset(heads[4:]))


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
