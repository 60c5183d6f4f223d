"""``autocompress devices validate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from autocompress.cli import options

if TYPE_CHECKING:
    from autocompress.hardware.profile_reading import ParsedProfile


def validate(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A profile's folder, an .acprofile, or a name.")
    ],
    as_json: options.AsJson = False,
) -> None:
    """Check a profile's files: what holds, and what to know; exit code 4 when they are wrong."""
    import json

    from autocompress.hardware.archive import check_archive
    from autocompress.hardware.profile_reading import check_folder
    from autocompress.hardware.profiles import find_profile
    from autocompress.hardware.quality import concerns
    from autocompress.report.units import printable

    found = find_profile(path)
    parsed = check_folder(found) if found.is_dir() else check_archive(found)
    holds, careful = _holds(parsed), concerns(parsed.profile)
    if as_json:
        values = {"device": parsed.profile.id, "valid": True, "sealed": parsed.sealed}
        print(json.dumps(values | {"holds": holds, "warnings": careful}))
        return
    print(printable(f"{found} holds the {parsed.profile.kind} profile {parsed.profile.id}"))
    for line in holds:
        print(printable(f"  ok       {line}"))
    for line in careful:
        print(printable(f"  warning  {line}"))


def _holds(parsed: ParsedProfile) -> list[str]:
    """A line for each thing that was checked and found right."""
    from autocompress.hardware.quality import MAX_P90

    profile = parsed.profile
    checked = profile.validation
    lines = [
        "schema version 1: all keys known, all values of their type and in their bounds",
        f"{len(profile.table)} kernels, sorted, none twice, low_us <= hot_us <= high_us",
        f"the table is the one the profile was written with (SHA-256 {parsed.record.sha256[:12]})",
    ]
    if parsed.sealed:
        lines.append("no key and no value was changed since it was written (seal)")
    if checked.networks and checked.p90 <= MAX_P90:
        lines.append(
            f"estimates of {checked.networks} networks: median error {checked.p50:.1%}, 90 % "
            f"within {checked.p90:.1%}"
        )
    return lines
