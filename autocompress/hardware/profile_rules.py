"""What the figures of a profile may be, beyond their types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from autocompress.compression.patterns.registry import make_pattern
from autocompress.core.candidate import UNSTRUCTURED
from autocompress.core.capabilities import Capabilities
from autocompress.errors import RequestError
from autocompress.hardware.latency_row import is_date
from autocompress.hardware.machine import Machine
from autocompress.hardware.profile import ID_PATTERN, Provenance, Validation
from autocompress.hardware.remedies import unit_remedy
from autocompress.hardware.schema import Bound
from autocompress.hardware.sparsity_credit import pattern_and_share
from autocompress.hardware.toml_document import Place
from autocompress.measurement.protocol import TimingProtocol

_ONE = Bound(1)
_ZERO = Bound(0)
_POSITIVE = Bound(0, open_low=True)
_SHARE = Bound(0, 1)
_BITS = Bound(1, 64)

#: By dotted name; positions in lists do not count.
BOUNDS = {
    "schema_version": _ONE,
    "device.cores": _ONE,
    "device.memory_bytes": _ZERO,
    "device.flash_bytes": _ONE,
    "device.clusters.cores": _ONE,
    "device.clusters.mhz": Bound(1, 20_000),
    "runtime.threads": Bound(1, 4096),
    "runtime.run_us": _ZERO,
    "runtime.view_us": _ZERO,
    "supports.precisions.weight_bits": _BITS,
    "supports.precisions.activation_bits": _BITS,
    "supports.channel_step": _ONE,
    "supports.rank_step": _ONE,
    "limits.ram_bytes": _ONE,
    "limits.flash_bytes": _ONE,
    "limits.max_latency_ms": _POSITIVE,
    "limits.max_energy_mj": _POSITIVE,
    "calibration.a": _POSITIVE,
    "calibration.weight_us_per_mb": _ZERO,
    "calibration.activation_us_per_mb": _ZERO,
    "calibration.kernel_us": _ZERO,
    "calibration.cache_mb": _POSITIVE,
    "calibration.cache_power": _POSITIVE,
    "calibration.networks": _ZERO,
    "calibration.near_weight_us_per_mb": _ZERO,
    "calibration.near_activation_us_per_mb": _ZERO,
    "calibration.near_mb": _POSITIVE,
    "calibration.near_power": _POSITIVE,
    "validation.networks": _ZERO,
    "validation.p50": _ZERO,
    "validation.p90": _ZERO,
    "validation.worst": _ZERO,
    "validation.within5": _SHARE,
    "validation.within10": _SHARE,
    "table.rows": _ZERO,
}

#: Keys that a measured profile states although they have a default: nobody's guess may pass for a
#: measurement. The list is that of schema version 1 and does not grow.
REQUIRED_KEYS: dict[str, tuple[str, ...]] = {
    "runtime": ("name", "version", "threads", "lowering", "run_us", "view_us"),
    "supports": ("precisions", "channel_step", "rank_step"),
    "calibration": (
        "a",
        "weight_us_per_mb",
        "activation_us_per_mb",
        "kernel_us",
        "t0_us",
        "cache_mb",
        "cache_power",
        "networks",
    ),
    "validation": ("networks", "p50", "p90", "worst", "within5", "within10"),
}


def check_section(section: object, at: Place) -> None:
    """Hold a section against the rules that concern several of its values.

    Raises:
        ProfileError: they contradict each other, or a text has the wrong form.
    """
    if isinstance(section, Validation):
        _check_validation(section, at)
    elif isinstance(section, Provenance):
        _check_provenance(section, at)
    elif isinstance(section, Machine):
        _check_machine(section, at)
    elif isinstance(section, Capabilities):
        _check_capabilities(section, at)


def _check_capabilities(found: Capabilities, at: Place) -> None:
    if not found.precisions:
        raise (at / "precisions").error("is empty; name at least one pair of bit-widths")
    for index, name in enumerate(found.sparsity_patterns):
        try:
            make_pattern(name)
        except RequestError as error:
            raise (at / "sparsity_patterns" / index).error(
                f"is no pattern of zeros: {error}"
            ) from None
    for name, factor in found.sparsity_speedup.items():
        _check_speedup(found, name, factor, at / "sparsity_speedup" / name)


def _check_speedup(found: Capabilities, name: str, factor: float, at: Place) -> None:
    try:
        pattern, share = pattern_and_share(name)
    except RequestError as error:
        raise at.error(f"is no pattern of zeros with its share: {error}") from None
    most = Bound(1.0, 1.0 / (1.0 - share))
    if not most.holds(factor):
        raise at.error(
            f"is {factor!r}; it must be {most.words}: {share:g} of the multiplications are left out"
        )
    offered = found.sparsity_pays if pattern == UNSTRUCTURED else False
    if not offered and pattern not in found.sparsity_patterns:
        where = "set sparsity_pays" if pattern == UNSTRUCTURED else "add it to sparsity_patterns"
        raise at.error(f"is of a pattern that no search is offered; {where}, or remove it")


def _check_validation(found: Validation, at: Place) -> None:
    for low, high in (("p50", "p90"), ("p90", "worst"), ("within5", "within10")):
        small, large = getattr(found, low), getattr(found, high)
        if small > large:
            raise (at / low).error(f"is {small}, above {high}, {large}; validate the profile again")


def _check_provenance(found: Provenance, at: Place) -> None:
    if found.date and not is_date(found.date):
        raise (at / "date").error(f"is {found.date!r}; write it as 2026-01-31")
    _check_protocol(found.protocol, at / "protocol")
    for index, name in enumerate(found.base):
        if not ID_PATTERN.fullmatch(name):
            raise (at / "base" / index).error(f"is {name!r}; write the id of a profile")


def _check_protocol(value: Mapping[str, Any], at: Place) -> None:
    """Refuse a timing protocol's figures in another unit; other keys are their author's affair."""
    known = [field.name for field in fields(TimingProtocol)]
    for key, item in value.items():
        advice = unit_remedy(key, known)
        if advice is not None:
            raise (at / key).error(f"is not a known key; {advice}")
        if isinstance(item, Mapping):
            _check_protocol(item, at / key)


def _check_machine(found: Machine, at: Place) -> None:
    if len(found.isa) != len(set(found.isa)):
        raise (at / "isa").error("names an instruction set twice; remove one")
    if 0 < found.memory_bytes < 1024:
        raise (at / "memory_bytes").error(
            f"is {found.memory_bytes}; write bytes, or 0 where it is not known"
        )
    cores = sum(cluster.cores for cluster in found.clusters)
    if found.clusters and cores != found.cores:
        raise (at / "clusters").error(f"have {cores} cores together, but cores is {found.cores}")
