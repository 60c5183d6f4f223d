"""Text made safe for the three places a report puts it: HTML, inlined JSON and chart labels."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import Any

from autocompress.core.json_values import finite


class Html(str):
    """Markup that is already safe; every other string is escaped before it is shown."""

    __slots__ = ()


def text(value: object) -> Html:
    """``value`` for HTML text and quoted attributes: escaped unless it is :class:`Html`."""
    return value if isinstance(value, Html) else Html(html.escape(str(value), quote=True))


def element(name: str, *children: object, **attributes: object) -> Html:
    """An HTML element; attribute names may end in ``_`` and use ``_`` for ``-``."""
    pairs = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    inside = "".join(f' {key}="{text(value)}"' for key, value in pairs if value is not None)
    return Html(f"<{name}{inside}>{joined(children)}</{name}>")


def joined(parts: Iterable[object]) -> Html:
    """The parts after each other."""
    return Html("".join(text(part) for part in parts))


def label(value: object, limit: int = 48) -> str:
    """``value`` for a chart: plotly reads a subset of HTML in labels, so tags are escaped too."""
    plain = " ".join(str(value).split())
    short = plain if len(plain) <= limit else f"{plain[: limit - 1]}…"
    return html.escape(short, quote=False)


def script_json(value: Any) -> Html:
    """JSON that may stand inside a script element: it can hold no ``<``, ``>`` or ``&``."""
    raw = json.dumps(finite(value), allow_nan=False, separators=(",", ":"))
    for character, escape in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):
        raw = raw.replace(character, escape)
    return Html(raw)
