"""``autocompress spaces``."""

from __future__ import annotations

from autocompress.cli import options


def spaces(as_json: options.AsJson = False) -> None:
    """List the search spaces that --space knows."""
    import json

    from autocompress.elastic.registry import list_spaces
    from autocompress.report.tables import aligned

    known = list_spaces()
    if as_json:
        print(json.dumps(known))
    else:
        print(aligned([("space", "what it holds"), *known.items()]))
