"""``autocompress devices pack``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autocompress.cli import options


def pack(
    out: Annotated[Path, typer.Option("--out", "-o", help="The zip file.")],
    space: Annotated[
        str | None, typer.Argument(metavar="SPACE", help="Pack this space's kernels.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="FILE.py:FUNCTION", help="Instead: those of your model."),
    ] = None,
    shape: Annotated[
        str,
        typer.Option("--input", metavar="CxHxW", help="Shape of one input; L@IDS for token ids."),
    ] = "3x32x32",
    classes: Annotated[int, typer.Option("--classes", min=2, help="Outputs.")] = 10,
    kernels: Annotated[
        int | None,
        typer.Option("--kernels", min=1, help="The most frequent so many; otherwise all."),
    ] = None,
    networks: Annotated[
        int | None,
        typer.Option("--networks", min=0, help="Whole networks to calibrate on; default: 12."),
    ] = None,
    threads: Annotated[
        str, typer.Option("--threads", metavar="A,B", help="Numbers of threads to measure.")
    ] = "1",
    rounds: Annotated[
        int | None,
        typer.Option("--rounds", min=1, help="Everything is timed so often; default: 3."),
    ] = None,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Write a bench pack: measure a device that has only Python, numpy and onnxruntime."""
    import json

    from autocompress.cli.devices.packing import pack_space
    from autocompress.cli.devices.request import NETWORKS, SpaceRequest, chosen
    from autocompress.cli.devices.texts import input_shape, thread_counts, vocabulary
    from autocompress.measurement.pack import ROUNDS
    from autocompress.report.units import seconds as duration

    counts = thread_counts(threads)
    request = SpaceRequest(
        chosen(space, model),
        input_shape(shape),
        classes,
        kernels,
        NETWORKS if networks is None else networks,
        counts,
        ROUNDS if rounds is None else rounds,
        seed,
        vocabulary(shape),
    )
    made = pack_space(request, out)
    size = out.stat().st_size
    if as_json:
        values = {"kind": "result", "pack": str(out), "id": made.id, "size_bytes": size}
        parts = {"kernels": len(made.kernels), "networks": len(made.networks)}
        print(json.dumps(values | parts | {"skipped": dict(made.skipped)}))
        return
    print(
        f"{out}  {size / 1e6:.1f} MB: {len(made.kernels)} kernels and {len(made.networks)} "
        f"networks; the device takes {duration(made.least_seconds)} or more"
    )
    for key, reason in made.skipped.items():
        print(f"left out {key}: {reason}")
    print(
        "\nOn the device:  unzip it, and run: python3 runner.py\n"
        f"Then here:      autocompress devices import-results results.jsonl --pack {out} "
        "--id my_board --out DIR"
    )
