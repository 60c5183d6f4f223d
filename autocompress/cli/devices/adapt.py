"""``autocompress devices adapt``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autocompress.cli import options

if TYPE_CHECKING:
    from autocompress.hardware import HardwareProfile
    from autocompress.hardware.transfer import MeasuredNetwork, Transfer

COLUMNS = ("model", "latency_ms")
#: A device this many times slower than a known one was probably timed in other units.
_SUSPICIOUS = 100.0


def adapt(
    measurements: Annotated[
        Path,
        typer.Argument(
            metavar="FEW.csv",
            help="Columns model (an ONNX file) and latency_ms, measured on the new device.",
        ),
    ],
    known: Annotated[
        str, typer.Option("--from", metavar="A,B", help="Profiles of known devices, by commas.")
    ],
    identifier: Annotated[str, typer.Option("--id", help="The new profile's name.")],
    out: Annotated[Path, typer.Option("--out", help="The folder for it.")] = Path(),
    suggest: Annotated[
        Path | None,
        typer.Option("--suggest", help="A folder of ONNX files: which to measure next."),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Make a profile of a new device from a few measured networks and known devices."""
    import json

    from autocompress.errors import RequestError
    from autocompress.hardware import load_profile
    from autocompress.hardware.transfer import adapt as transfer

    networks = read_measurements(measurements)
    bases = [load_profile(name.strip()) for name in known.split(",") if name.strip()]
    target = _target(identifier, out)
    if suggest is not None and not suggest.is_dir():
        raise RequestError(f"--suggest is {suggest}; give a folder of *.onnx files")
    found = transfer(identifier, networks, bases)
    next_ones: list[str] | None = None
    if suggest is not None:
        base = next(profile for profile in bases if profile.id == found.base)
        next_ones = _next_ones(suggest, networks, base)
    found.profile.save(target)
    if as_json:
        checked = found.profile.validation
        values = {
            "kind": "result", "profile": str(target), "base": found.base,
            "factors": found.factors, "errors": found.errors, "p50": checked.p50,
            "p90": checked.p90, "networks": checked.networks, "measure_next": next_ones or [],
        }  # fmt: skip
        print(json.dumps(values))
        return
    print("\n".join(_lines(found, target, next_ones)))


def _target(identifier: str, out: Path) -> Path:
    """Where the profile goes; one that was adapted under the same name is written anew."""
    from autocompress.cli.devices.measuring import profile_folder
    from autocompress.errors import ProfileError
    from autocompress.hardware import HardwareProfile

    target = out / identifier
    try:
        if HardwareProfile.load(target).kind == "transferred":
            return target
    except ProfileError:
        pass  # none is there yet, or it is somebody else's
    return profile_folder(identifier, out)


def read_measurements(path: Path) -> list[MeasuredNetwork]:
    """Networks and what they took, from a CSV file; models are beside it, or have full paths.

    Raises:
        RequestError: the file or a line of it cannot be used; the message names the line.
    """
    import csv
    import math

    from autocompress.errors import AutocompressError, RequestError
    from autocompress.hardware.onnx_operations import read_operations
    from autocompress.hardware.transfer import MeasuredNetwork

    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets write a mark in front
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"cannot read the measurements {path}: {error}") from error
    networks = []
    reader = csv.DictReader(text.splitlines())
    given = reader.fieldnames or ()
    if not set(COLUMNS) <= set(given):
        raise RequestError(
            f"{path}, line 1 names {', '.join(given) or 'nothing'}; columns "
            f"{' and '.join(COLUMNS)} are needed, separated by commas, times in milliseconds"
        )
    lines: dict[Path, int] = {}
    for line in reader:
        where = f"{path}, line {reader.line_num}"
        model, figure = (line.get(column) for column in COLUMNS)
        if not model or not figure:
            raise RequestError(f"{where}: a model and a latency_ms are needed")
        try:
            latency = float(figure)
        except ValueError:
            latency = math.nan
        if not 0 < latency < math.inf:
            raise RequestError(f"{where}: latency_ms is {figure!r}; it must be a positive number")
        place = path.parent / model
        if place in lines:
            raise RequestError(
                f"{where}: {model} stands in line {lines[place]}, too; keep one figure for it, "
                "such as the median"
            )
        lines[place] = reader.line_num
        try:
            operations = tuple(read_operations(place))
        except AutocompressError as error:
            raise RequestError(f"{where}: {error} (paths start beside the CSV file)") from error
        networks.append(MeasuredNetwork(place.name, operations, latency))
    return networks


def _next_ones(folder: Path, networks: list[MeasuredNetwork], base: HardwareProfile) -> list[str]:
    """Files of the folder that were not measured, the five most telling ones first."""
    from autocompress.hardware.onnx_operations import read_operations
    from autocompress.hardware.transfer import most_telling

    measured = {network.name for network in networks}
    pool = [path for path in sorted(folder.glob("*.onnx")) if path.name not in measured]
    if not pool:
        return []
    operations = [read_operations(path) for path in pool]
    order = most_telling([network.ops for network in networks], operations, base)
    return [pool[i].name for i in order[:5]]


def _lines(found: Transfer, target: Path, next_ones: list[str] | None) -> list[str]:
    checked = found.profile.validation
    tried = ", ".join(f"{name} {error:.1%}" for name, error in sorted(found.errors.items()))
    factors = ", ".join(
        f"{kind} {value:.2f}{' us' if kind.startswith('each') else 'x'}"
        for kind, value in found.factors.items()
    )
    lines = [
        f"started from {found.base}; median error on networks left out: {tried}",
        f"against it: {factors}",
        f"{checked.networks} networks left out in turn: median error {checked.p50:.1%}, nine in "
        f"ten within {checked.p90:.1%}",
        f"profile  {target}; use it with --device {target}",
    ]
    if any(value > _SUSPICIOUS for kind, value in found.factors.items() if "each" not in kind):
        lines.append("the new device is over 100 times slower: are the timings in milliseconds?")
    if next_ones is not None:
        told = ", ".join(next_ones) or "no *.onnx file is left that was not measured"
        lines.append(f"measure next, the most telling first: {told}")
    return lines
