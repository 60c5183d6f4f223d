"""``autocompress devices list``."""

from __future__ import annotations

from autocompress.cli import options


def list_devices(as_json: options.AsJson = False) -> None:
    """List the devices that --device knows; one whose profile is corrupt says so."""
    import json

    from autocompress.errors import AutocompressError
    from autocompress.hardware import list_profiles, load_profile
    from autocompress.report.tables import aligned

    rows = [("device", "what it is", "estimates")]
    for name in list_profiles():
        try:
            profile = load_profile(name)
            rows.append((name, profile.description, profile.summary))
        except AutocompressError as error:
            rows.append((name, "unusable", str(error)))
    if as_json:
        keys = ("device", "description", "summary")
        print(json.dumps([dict(zip(keys, row, strict=True)) for row in rows[1:]]))
    else:
        print(aligned(rows))
