"""Kinds of distillation by name: built in, or from entry points ``autocompress.distillations``."""

from __future__ import annotations

from importlib.metadata import entry_points

from autocompress.compression.distillation.attention import AttentionTransfer
from autocompress.compression.distillation.base import Distillation
from autocompress.compression.distillation.decoupled import Decoupled
from autocompress.compression.distillation.feature import FeatureRegression
from autocompress.compression.distillation.itself import SelfDistillation
from autocompress.compression.distillation.mutual import Mutual
from autocompress.compression.distillation.relation import Relation
from autocompress.compression.distillation.response import Response
from autocompress.core.candidate import DISTILLATION_ENTRY_POINTS
from autocompress.errors import RequestError

_BUILT_IN: tuple[type[Distillation], ...] = (
    Response, Decoupled, FeatureRegression, AttentionTransfer, Relation, Mutual, SelfDistillation,
)  # fmt: skip


def available_distillations() -> dict[str, type[Distillation]]:
    """Every kind by name, the built-in ones first."""
    found = {kind.name: kind for kind in _BUILT_IN}
    for entry in entry_points(group=DISTILLATION_ENTRY_POINTS):
        found.setdefault(entry.name, entry.load())
    return found


def find_distillation(name: str) -> type[Distillation] | None:
    """The kind that a recipe names; None for "none".

    Raises:
        RequestError: there is no such kind, or the plug-in gives something else.
    """
    if name == "none":
        return None
    built_in = {kind.name: kind for kind in _BUILT_IN}
    if name in built_in:
        return built_in[name]
    kind = available_distillations().get(name)
    if kind is None:
        raise RequestError(
            f"distillation is {name!r}; use 'none' or one of {', '.join(available_distillations())}"
        )
    if not (isinstance(kind, type) and issubclass(kind, Distillation)):
        raise RequestError(
            f"the plug-in for distillation {name!r} is no Distillation; see "
            "autocompress.compression.distillation.base for what it must provide"
        )
    return kind
