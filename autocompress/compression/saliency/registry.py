"""Criteria for single weights, by name."""

from __future__ import annotations

from collections.abc import Mapping

from autocompress.compression.saliency.base import Saliency
from autocompress.compression.saliency.layer_adaptive import LayerAdaptive
from autocompress.compression.saliency.magnitude import Magnitude
from autocompress.compression.saliency.movement import Movement
from autocompress.errors import RequestError

SALIENCIES: Mapping[str, type[Saliency]] = {
    criterion.name: criterion for criterion in (Magnitude, LayerAdaptive, Movement)
}


def make_saliency(name: str) -> Saliency:
    """A new criterion object.

    Raises:
        RequestError: an unknown name.
    """
    if name not in SALIENCIES:
        raise RequestError(f"criterion is {name!r}; use one of {', '.join(SALIENCIES)}")
    return SALIENCIES[name]()
