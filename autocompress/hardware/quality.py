"""What to know about a profile before its figures are believed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from autocompress.hardware.lowerings.registry import list_lowerings
from autocompress.hardware.profile import HardwareProfile

#: Nine in ten estimates of a profile that is trusted are this close.
MAX_P90 = 0.10
_ORIGINS = {
    "analytic": "its figures are computed from data sheets: the band is wide, and no constraint "
    "can be proved with it",
    "transferred": "its figures are derived from other devices and a few measurements: no "
    "constraint can be proved with it",
    "simulated": "its figures come from a simulator: no constraint can be proved with it",
}


def concerns(profile: HardwareProfile) -> tuple[str, ...]:
    """A sentence for each reason to be careful with a valid profile."""
    return (*_of_estimates(profile), *_of_origin(profile))


def _of_estimates(profile: HardwareProfile) -> Iterator[str]:
    checked = profile.validation
    if not checked.networks:
        yield "validated on 0 networks: the error band is assumed, not seen"
    elif checked.p90 > MAX_P90:
        yield (
            f"one estimate in ten is wrong by more than {checked.p90:.1%} (over {MAX_P90:.0%}): "
            "do not rely on close decisions"
        )
    if profile.kind == "measured" and not len(profile.table):
        yield "the latency table is empty: every kernel is a guess"
    if profile.runtime.lowering not in list_lowerings():
        yield (
            f"this version does not know the lowering {profile.runtime.lowering!r}, only "
            f"{', '.join(list_lowerings())}: it cannot price with this profile"
        )


def _of_origin(profile: HardwareProfile) -> Iterator[str]:
    found = profile.provenance
    if profile.kind in _ORIGINS:
        yield f"{profile.kind}: {_ORIGINS[profile.kind]}"
    if profile.kind == "analytic" and not found.sources:
        yield "it cites no sources (provenance.sources)"
    if profile.kind == "transferred" and not found.base:
        yield "it does not say from which profiles it was transferred (provenance.base)"
    if not found.date or not found.source:
        yield "it does not say when or by what its figures were made (provenance)"
    described = set(_protocol_names(found.protocol))
    unknown = sorted({row.protocol for row in profile.table} - described)
    if unknown:
        yield f"rows name the protocol {', '.join(unknown)}, which provenance.protocol leaves out"


def _protocol_names(value: Mapping[str, Any]) -> Iterator[str]:
    """Names of the protocols, given as one of them, or as a table of several by purpose."""
    if isinstance(value.get("name"), str):
        yield value["name"]
    for item in value.values():
        if isinstance(item, Mapping):
            yield from _protocol_names(item)
