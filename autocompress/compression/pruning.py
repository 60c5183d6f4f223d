"""Structured pruning: whole channels removed, a channel group at a time.

Channels are ranked once (see :mod:`autocompress.compression.importance`), and a candidate keeps the
first ``width`` of them; the model graph's selection does the slicing for simulation and for
realisation alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import lcm

from autocompress.compression.base import Technique
from autocompress.compression.parts import Part, Transform
from autocompress.compression.refusals import Refusal
from autocompress.core.candidate import LayerPolicy, Scalar
from autocompress.core.capabilities import Capabilities
from autocompress.core.space import Choice
from autocompress.graph.model_graph import Layer, ModelGraph

WIDTH = "width:"
#: Shares of a group's channels that are offered, before rounding to the device's step.
SHARES = (1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25)


class Pruning(Technique):
    """Width per channel group."""

    name = "pruning"
    order = 10
    reference = "Li et al. 2017, Pruning Filters for Efficient ConvNets, arXiv:1608.08710"

    def choices(self, graph: ModelGraph, capabilities: Capabilities) -> Sequence[Choice]:
        """One gene per channel group that can be narrowed."""
        found: list[Choice] = []
        for group in graph.groups.values():
            widths = width_options(group.channels, capabilities.channel_step, group.unit)
            if group.rigid is None and len(widths) > 1:
                found.append(Choice(WIDTH + group.name, widths))
        return found

    def refusals(self, graph: ModelGraph, capabilities: Capabilities) -> list[Refusal]:
        """Channel groups that keep their width, and layers whose channels are not known."""
        found = []
        for group in graph.groups.values():
            reason = group.rigid
            widths = width_options(group.channels, capabilities.channel_step, group.unit)
            if reason is None and len(widths) < 2:
                reason = f"its {group.channels} channels are too few to take some away"
                if group.unit > 1:
                    reason = "it has a single attention head"
            if reason is not None:
                found.append(Refusal(group.name, self.name, reason))
        told = {s.name: s.reason for s in graph.skipped if s.reason.startswith("its channels")}
        otherwise = "how its channels depend on others could not be found out"
        return found + [
            Refusal(name, self.name, told.get(name, otherwise))
            for name in graph.layers
            if name not in graph.group_of
        ]

    def settings(self, choice: Choice, value: Scalar | None) -> dict[str, Scalar | None]:
        """``width``, or None for the full width."""
        return {"width": None if value == choice.options[0] else value}

    def simulate(
        self, layer: Layer, policy: LayerPolicy, parts: Sequence[Part]
    ) -> Transform | None:
        """None: channels have been sliced away before the parts exist."""
        return None


def width_options(channels: int, step: int, unit: int = 1) -> tuple[int, ...]:
    """Widths offered for a group, largest first: the full width, then multiples of the step.

    Groups too narrow for the step use a quarter of their channels, at least 2, instead; those
    whose channels go in units, such as attention heads, use the unit.
    """
    step = lcm(step, unit)
    if channels < 2 * step:
        step = unit if unit > 1 else max(2, channels // 4)
    rounded = {max(step, round(share * channels / step) * step) for share in SHARES}
    return tuple(sorted({channels, *(w for w in rounded if w < channels)}, reverse=True))
