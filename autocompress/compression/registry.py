"""Techniques by name: built in, or from the entry points ``autocompress.techniques``."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points

from autocompress.compression.base import Technique
from autocompress.errors import RequestError

ENTRY_POINTS = "autocompress.techniques"


def available_techniques() -> dict[str, type[Technique]]:
    """Every technique by name, the built-in ones first."""
    from autocompress.compression.clustering import Clustering
    from autocompress.compression.distillation.technique import RecipeDistillation
    from autocompress.compression.low_rank import LowRank
    from autocompress.compression.pruning import Pruning
    from autocompress.compression.quantization import Quantization
    from autocompress.compression.sparsity import Sparsity

    found: dict[str, type[Technique]] = {
        t.name: t
        for t in (Pruning, LowRank, Sparsity, Quantization, Clustering, RecipeDistillation)
    }
    for entry in entry_points(group=ENTRY_POINTS):
        found.setdefault(entry.name, entry.load())
    return found


def make_techniques(names: Sequence[str] | None) -> list[Technique]:
    """The named techniques in order of application.

    None stands for all of them but those that are used only on request.

    Args:
        names: such as "pruning"; behind a colon a variant may follow, as in "sparsity:2:4", which
            is then all that the technique offers. Variants of one technique add up.

    Raises:
        RequestError: an unknown name or variant.
    """
    available = available_techniques()
    variants: dict[str, list[str]] = {}
    usual = [name for name, technique in available.items() if not technique.on_request]
    for name in usual if names is None else names:
        technique, _, variant = name.partition(":")
        if technique not in available:
            raise RequestError(
                f"unknown technique {name!r}; use some of {', '.join(sorted(available))}"
            )
        variants.setdefault(technique, []).extend([variant] if variant else [])
    made = (available[name].of(chosen) for name, chosen in variants.items())
    return sorted(made, key=lambda t: t.order)


def default_techniques() -> list[Technique]:
    """All techniques but those on request, in order of application."""
    return make_techniques(None)
