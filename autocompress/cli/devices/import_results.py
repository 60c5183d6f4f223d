"""``autocompress devices import-results``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autocompress.cli import options

if TYPE_CHECKING:
    from autocompress.measurement.pack import BenchPack
    from autocompress.measurement.remote.importing import Imported


def import_results(
    results: Annotated[Path, typer.Argument(metavar="RESULTS.jsonl", help="From runner.py.")],
    pack: Annotated[Path, typer.Option("--pack", help="The bench pack that was measured.")],
    identifier: Annotated[str, typer.Option("--id", help="The profile's name.")],
    out: Annotated[Path, typer.Option("--out", help="The folder for it.")] = Path(),
    description: Annotated[
        str | None, typer.Option("--description", help="One line for a person.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Make a profile of what a bench pack measured; one for each number of threads."""
    from autocompress.measurement.pack import read_pack

    asked = read_pack(pack)
    saved = save_results(asked, results, identifier=identifier, out=out, description=description)
    show(
        saved,
        as_json=as_json,
        again="more is left: run runner.py again in its folder, then this command again",
    )


def save_results(
    pack: BenchPack, results: Path, *, identifier: str, out: Path, description: str | None = None
) -> list[tuple[Path, Imported]]:
    """Write the profiles: ``out/identifier``, and ``out/identifier_t2`` … for more threads.

    A profile that was made from the same pack is written anew; any other is left alone.

    Raises:
        RequestError: the results are not of this pack, or the name is taken.
        DeviceError: nothing was measured.
        StorageError: a folder cannot be written.
    """
    from autocompress.cli.devices.measuring import profile_folder
    from autocompress.errors import RequestError
    from autocompress.measurement.remote.importing import (
        import_results,
        is_of_pack,
        measured_threads,
    )
    from autocompress.measurement.remote.results import read_results

    found = read_results(results, pack)
    counts = measured_threads(found)
    if not counts:
        raise RequestError(f"{results} holds no finished job; run the pack's runner.py for longer")
    saved = []
    for position, count in enumerate(counts):
        name = identifier if position == 0 else f"{identifier}_t{count}"
        target = out / name
        if not is_of_pack(target, pack):
            target = profile_folder(name, out)
        imported = import_results(
            pack, found, identifier=name, threads=count, description=description
        )
        saved.append((target, imported))
    for target, imported in saved:
        imported.profile.save(target)
    return saved


def show(saved: list[tuple[Path, Imported]], *, as_json: bool, again: str | None = None) -> None:
    """Print what was written, how much of it was measured, and ``again`` where some is left."""
    import json
    from dataclasses import asdict

    from autocompress.core.json_values import finite
    from autocompress.report.units import printable

    for target, imported in saved:
        coverage = imported.coverage
        if as_json:
            values = {"kind": "result", "profile": str(target), "status": coverage.status}
            print(json.dumps(finite(values | asdict(coverage)), allow_nan=False))
            continue
        print(printable(f"{imported.profile.summary}\n{coverage.text}"))
        for what, reason in coverage.failed:
            print(printable(f"failed   {what}: {reason}"))
        print(f"profile  {target}; use it with --device {target}")
        if again is not None and coverage.status == "partial":
            print(again)
